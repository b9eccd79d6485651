//! The codecs of `starling_crdt`: what is accepted comes back the same.

use super::feed::Feed;
use starling_crdt::changeset::{Header, Item, PartReader, PartWriter, Row, RowKind};
use starling_crdt::clock_block::ClockBlock;
use starling_crdt::log_chunk::{ChunkReader, ChunkWriter, Entry};
use starling_crdt::record::Record;
use starling_crdt::row_clock::RowClock;
use starling_crdt::value::Encoded;
use starling_crdt::{key, young, DecodeError, Value, Vector};

fn owned(values: &[Encoded<'_>]) -> Vec<Value> {
    values.iter().map(|v| v.value().to_owned()).collect()
}

/// Both forms of keys; the first byte is the number of columns of the internal one.
pub fn key(data: &[u8]) {
    let mut feed = Feed::new(data);
    let n = feed.below(8);
    let bytes = feed.rest();
    if let Ok(columns) = key::decode(bytes, n) {
        let columns = owned(&columns);
        let mut again = Vec::new();
        key::encode(columns.iter().map(Value::as_ref), &mut again);
        assert!(again.len() <= bytes.len() + 9 * n, "the encoder is longer than what it was read from");
        assert_eq!(owned(&key::decode(&again, n).expect("what was encoded can be read")), columns);
    }
    if let Ok(columns) = key::unpack(bytes) {
        let columns: Vec<Value> = columns.into_iter().map(|c| c.to_owned()).collect();
        let again = key::pack(columns.iter().map(Value::as_ref)).expect("as many columns as were read");
        let back: Vec<Value> =
            key::unpack(&again).expect("what was packed can be read").into_iter().map(|c| c.to_owned()).collect();
        assert_eq!(back, columns);
    }
}

/// The version vector; its encoding is canonical.
pub fn vector(data: &[u8]) {
    let Ok(vector) = Vector::decode(data) else { return };
    let bytes = vector.encode();
    let again = Vector::decode(&bytes).expect("what was encoded can be read");
    assert_eq!(again, vector);
    assert_eq!(again.encode(), bytes);
    assert!(vector.missing_from(&vector).is_empty());
    let missing = vector.missing_from(&Vector::default());
    assert!(missing.iter().all(|(origin, set)| vector.origins[origin].claimed == *set));
}

/// A row clock.
pub fn row_clock(data: &[u8]) {
    let Ok(clock) = RowClock::decode(data) else { return };
    let mut bytes = Vec::new();
    clock.encode(&mut bytes);
    assert_eq!(RowClock::decode(&bytes).expect("what was encoded can be read"), clock);
    for cell in &clock.cells {
        assert_eq!(clock.cell(cell.column), Some(cell));
        assert_eq!(clock.version_of(cell.column), cell.version);
    }
}

/// A block of row clocks, and each clock in it.
pub fn clock_block(data: &[u8]) {
    let Ok(block) = ClockBlock::decode(data) else { return };
    assert!(block.weight() <= data.len() + 512 * 1024, "{} bytes became {}", data.len(), block.weight());
    let mut keys: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let encoded = block.encode(|first, bytes| {
        let part = ClockBlock::decode(bytes)?;
        assert_eq!(part.iter().next().map(|e| e.0), Some(first), "a block is named by its first key");
        keys.extend(part.iter().map(|(k, c)| (k.to_vec(), c.to_vec())));
        Ok::<(), DecodeError>(())
    });
    encoded.expect("what was encoded can be read");
    assert!(keys.iter().map(|(k, c)| (k.as_slice(), c.as_slice())).eq(block.iter()));
    edit(block, &keys);
    keys.iter().for_each(|(_, clock)| row_clock(clock));
}

/// A record's young clocks, and each of them.
pub fn young(data: &[u8]) {
    let Ok(slots) = young::decode(data) else { return };
    let mut bytes = Vec::new();
    young::encode(slots.iter().copied(), &mut bytes);
    assert!(bytes.len() <= data.len(), "the encoder is longer than what it was read from");
    assert_eq!(young::decode(&bytes).expect("what was encoded can be read"), slots);
    slots.into_iter().flatten().for_each(row_clock);
}

/// A log record, and what stands in it.
pub fn record(data: &[u8]) {
    let Ok(record) = Record::decode(data) else { return };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    assert!(bytes.len() <= data.len(), "the encoder is longer than what it was read from");
    assert_eq!(Record::decode(&bytes).expect("what was encoded can be read"), record);
    record.young.into_iter().for_each(young);
    log_chunk(record.entries);
}

/// Removing every other entry and setting it again ends where it began.
fn edit(mut block: ClockBlock, keys: &[(Vec<u8>, Vec<u8>)]) {
    for (key, _) in keys.iter().step_by(2) {
        assert!(block.remove(key) && block.get(key).is_none());
    }
    for (key, clock) in keys.iter().step_by(2) {
        block.set(key, clock);
    }
    assert!(keys.iter().map(|(k, c)| (k.as_slice(), c.as_slice())).eq(block.iter()));
}

type Logged = (Entry, Vec<u8>, Vec<u32>);

fn read_chunk(bytes: &[u8]) -> Result<Vec<Logged>, DecodeError> {
    let mut reader = ChunkReader::new(bytes)?;
    let mut out: Vec<Logged> = Vec::new();
    let mut held = 0;
    while let Some(entry) = reader.next_entry()? {
        held += reader.key().len();
        assert!(reader.key().len() <= bytes.len() && reader.columns().len() <= bytes.len());
        // Only what the target keeps for itself is limited here: the reader holds one key.
        if held > 1 << 20 {
            return Ok(Vec::new());
        }
        out.push((entry, reader.key().to_vec(), reader.columns().to_vec()));
    }
    Ok(out)
}

/// A log chunk.
pub fn log_chunk(data: &[u8]) {
    let Ok(entries) = read_chunk(data) else { return };
    let mut writer = ChunkWriter::new();
    for (entry, key, columns) in &entries {
        writer.push(entry.kind, entry.table, key, entry.seq, columns);
    }
    let bytes = writer.take();
    assert_eq!(read_chunk(&bytes).expect("what was encoded can be read"), entries);
}

/// One part of a changeset.
pub fn changeset(data: &[u8]) {
    let Some((header, items)) = read_part(data) else { return };
    let bytes = write_part(&header, &items);
    let (header_again, items_again) = read_part(&bytes).expect("what was encoded can be read");
    assert_eq!(header_again, header);
    assert_eq!(items_again.len(), items.len());
    for (a, b) in items_again.iter().zip(&items) {
        assert_eq!(plain(a), plain(b));
    }
    assert_eq!(write_part(&header, &items_again), bytes);
}

fn read_part(bytes: &[u8]) -> Option<(Header, Vec<Item<'_>>)> {
    let mut reader = PartReader::new(bytes).ok()?;
    let mut items = Vec::new();
    while let Some(item) = reader.next_item().ok()? {
        items.push(item);
    }
    Some((*reader.header(), items))
}

/// An item without regard to how its values were written.
fn plain(item: &Item<'_>) -> String {
    let Item::Row(Row { table, key, cl, kind }) = item else { return format!("{item:?}") };
    let (head, cells) = match kind {
        RowKind::Base { sentinel, life, cells } => (format!("{sentinel:?} {life:?}"), cells.as_slice()),
        RowKind::Cells { born, life, cells } => (format!("{born} {life:?}"), cells.as_slice()),
        RowKind::Tombstone { life } => (format!("{life:?}"), [].as_slice()),
        RowKind::Uniform { seq, values } => (format!("{seq} {:?}", owned(values)), [].as_slice()),
    };
    let cells: Vec<_> = cells.iter().map(|c| (c.column, c.version, c.stamp, c.value.value().to_owned())).collect();
    format!("{table} {key:?} {cl} {head} {cells:?}")
}

fn write_part(header: &Header, items: &[Item<'_>]) -> Vec<u8> {
    let mut writer = PartWriter::new(header);
    for item in items {
        match item {
            Item::Dot(dot) => drop(writer.dot(dot)),
            Item::Author(site) => drop(writer.author(site)),
            Item::Table(t) => drop(writer.table(t.name, t.key_columns, t.columns.iter().copied())),
            Item::Row(row) => write_row(&mut writer, row),
        }
    }
    writer.finish(header.last)
}

fn write_row(writer: &mut PartWriter, row: &Row<'_>) {
    let cells = match &row.kind {
        RowKind::Uniform { seq, values } => {
            writer.uniform(row.table, row.key, *seq);
            values.iter().for_each(|v| writer.value(v.value()));
            return;
        }
        RowKind::Tombstone { life } => return writer.tombstone(row.table, row.key, row.cl, *life),
        RowKind::Base { sentinel, life, cells } => {
            writer.base(row.table, row.key, row.cl, *sentinel, *life, cells.len());
            cells
        }
        RowKind::Cells { born, life, cells } => {
            writer.cells(row.table, row.key, row.cl, *born, *life, cells.len());
            cells
        }
    };
    for cell in cells {
        writer.cell(cell.column, cell.version, cell.stamp, cell.value.value());
    }
}

//! What is kept aside of one row is also tried all at once: a constraint over two columns can refuse each of two cells that fit together.
//!
//! From all parts that tell of a row one is made that holds its best cells, each under its own dot, and merged like any other.
//! Whether it fits or not, the parts stay what they are: merged once more they find nothing to do, or go on waiting.

use crate::affinity::canonical_key;
use crate::catalog::Table;
use crate::schema::Affinity;
use crate::session::{corrupt, Session};
use crate::sqlite::Result;
use starling_crdt::changeset::{self, Cell, DotHeader, Header, Item, PartReader, PartWriter, Row, RowKind, TableDef};
use starling_crdt::value::Encoded;
use starling_crdt::SiteId;
use std::collections::BTreeSet;

/// So many of the newest parts that tell of a row are put together.
const MOST: usize = 64;

/// A write, wherever it is told of.
#[derive(Clone, Copy)]
struct Write {
    dot: DotHeader,
    author: Option<SiteId>,
    seq: u64,
    /// Which of all entries of the row told it, counted from the newest part on.
    entry: usize,
}

struct BestCell<'p> {
    position: usize,
    version: u64,
    value: Encoded<'p>,
    write: Write,
}

/// The best that the parts say of a row.
#[derive(Default)]
struct Joint<'p> {
    cl: u64,
    /// An entry, of those that say so, by which the row is born.
    born: Option<usize>,
    /// Its insert and, where the row has one, its `'-1'` row's write.
    base: Option<(Write, Option<Write>)>,
    life: Option<Write>,
    dead: bool,
    cells: Vec<BestCell<'p>>,
}

/// What a part has named so far.
struct Names<'p> {
    entry: usize,
    dots: Vec<DotHeader>,
    authors: Vec<SiteId>,
    tables: Vec<(TableDef<'p>, bool)>,
}

impl Names<'_> {
    fn write(&self, stamp: &changeset::Stamp) -> Option<Write> {
        let dot = *self.dots.get(stamp.dot)?;
        let author = stamp.author.map(|i| self.authors.get(i).copied());
        Some(Write { dot, author: author.flatten(), seq: stamp.seq, entry: self.entry })
    }
}

impl Session {
    /// Merges the best cells of a row that these parts hold, if they come from more than one entry: two statements of one
    /// transaction make two. Returns the changes applied.
    pub fn merge_jointly(&self, (table, key): (u32, &[u8]), parts: &BTreeSet<i64>) -> Result<u64> {
        // A trigger of the application's may end the transaction, and would do so over and over.
        let Some(table) = self.table(table)? else { return Ok(0) };
        if self.has_user_triggers(&table)? {
            return Ok(0);
        }
        let mut kept = Vec::new();
        for id in parts.iter().rev().take(MOST) {
            let part = self.aside_after(id.saturating_sub(1))?.filter(|(found, _)| found == id);
            kept.extend(part.map(|(_, part)| part));
        }
        let mut joint = Joint::default();
        let mut entries = 0;
        for part in &kept {
            entries = self.gather(&table, key, (entries, part), &mut joint)?;
        }
        match joint.encode(&table, key) {
            Some(part) => self.merge_joint(&part),
            None => Ok(0),
        }
    }

    /// As the merge decides it: more writes, then the larger value as it is stored here.
    fn is_better(&self, table: &Table, cell: &BestCell<'_>, than: &BestCell<'_>) -> Result<bool> {
        if cell.version != than.version {
            return Ok(cell.version > than.version);
        }
        let affinity = table.info.columns.get(cell.position).map_or(Affinity::None, |column| column.affinity);
        let (one, other) =
            (self.stored_as(cell.value.value(), affinity)?, self.stored_as(than.value.value(), affinity)?);
        Ok(one.as_ref().merge_order(other.as_ref()).is_gt())
    }

    /// Adds what a part says of the row; `entries` were there before. How many there are now.
    fn gather<'p>(
        &self,
        table: &Table,
        key: &[u8],
        (entries, bytes): (usize, &'p [u8]),
        joint: &mut Joint<'p>,
    ) -> Result<usize> {
        let damaged = |e| corrupt("crsql_aside", e);
        let mut reader = PartReader::new(bytes).map_err(damaged)?;
        let mut names =
            Names { entry: entries, dots: vec![reader.header().dot], authors: Vec::new(), tables: Vec::new() };
        while let Some(item) = reader.next_item().map_err(damaged)? {
            match item {
                Item::Dot(dot) => names.dots.push(dot),
                Item::Author(site) => names.authors.push(site),
                Item::Table(def) => {
                    let meant = self.table_told(&def)?;
                    names.tables.push((def, meant.is_some_and(|t| t.info.id == table.info.id)));
                }
                Item::Row(row) => {
                    let of_table = names.tables.get(row.table).is_some_and(|(_, it)| *it);
                    if of_table && canonical_key(self, table, row.key)?.is_ok_and(|found| *found == *key) {
                        self.add(table, &names, row, joint)?;
                        names.entry += 1;
                    }
                }
            }
        }
        Ok(names.entry)
    }

    fn add<'p>(&self, table: &Table, names: &Names<'p>, row: Row<'p>, joint: &mut Joint<'p>) -> Result<()> {
        if row.cl < joint.cl {
            return Ok(());
        }
        if row.cl > joint.cl {
            *joint = Joint { cl: row.cl, ..Joint::default() };
        }
        let cells: Vec<Cell<'p>> = match row.kind {
            RowKind::Tombstone { .. } => {
                joint.dead = true;
                Vec::new()
            }
            RowKind::Uniform { seq, values } => {
                let stamp = |i: usize| changeset::Stamp { dot: 0, author: None, seq: seq + i as u64 };
                joint.base = joint.base.or(names.write(&stamp(0)).map(|life| (life, None)));
                let cell = |(i, value)| Cell { column: i, version: 1, stamp: stamp(i), value };
                values.into_iter().enumerate().map(cell).collect()
            }
            RowKind::Base { sentinel, life, cells } => {
                let base = names.write(&life).map(|life| (life, sentinel.and_then(|s| names.write(&s))));
                joint.base = joint.base.or(base);
                cells
            }
            RowKind::Cells { born, life, cells } => {
                joint.born = joint.born.or(born.then_some(names.entry));
                joint.life = joint.life.or(life.and_then(|life| names.write(&life)));
                cells
            }
        };
        let Some((def, _)) = names.tables.get(row.table) else { return Ok(()) };
        for cell in cells {
            let (Some(name), Some(write)) = (def.columns.get(cell.column), names.write(&cell.stamp)) else { continue };
            let Some(position) = self.column_meant(table, name)? else { continue };
            let best = BestCell { position, version: cell.version, value: cell.value, write };
            match joint.cells.iter_mut().find(|known| known.position == position) {
                Some(known) => {
                    if self.is_better(table, &best, known)? {
                        *known = best;
                    }
                }
                None => joint.cells.push(best),
            }
        }
        Ok(())
    }
}

impl Joint<'_> {
    /// All of it as one part; `None` where one of the entries says as much.
    fn encode(&self, table: &Table, key: &[u8]) -> Option<Vec<u8>> {
        let lives = self.base.iter().flat_map(|(life, sentinel)| [Some(life), sentinel.as_ref()]).flatten();
        let writes: Vec<&Write> = lives.chain(&self.life).chain(self.cells.iter().map(|c| &c.write)).collect();
        let tellers: BTreeSet<usize> = writes.iter().map(|w| w.entry).chain(self.born).collect();
        // The newest part comes first.
        let own = writes.iter().min_by_key(|w| w.entry).filter(|_| tellers.len() > 1 && !self.dead)?.dot;
        let mut writer = PartWriter::new(&Header {
            dot: own,
            claimable: false,
            last: true,
            group: own.dot.origin.epoch == 0,
            part: 0,
        });
        let (mut dots, mut authors) = (vec![own.dot], Vec::new());
        let mut stamp = |writer: &mut PartWriter, write: &Write| {
            let dot = dots.iter().position(|dot| *dot == write.dot.dot).unwrap_or_else(|| {
                dots.push(write.dot.dot);
                writer.dot(&write.dot)
            });
            let author = write.author.map(|site| {
                authors.iter().position(|author| *author == site).unwrap_or_else(|| {
                    authors.push(site);
                    writer.author(&site)
                })
            });
            changeset::Stamp { dot, author, seq: write.seq }
        };
        let base =
            self.base.map(|(life, sentinel)| (stamp(&mut writer, &life), sentinel.map(|s| stamp(&mut writer, &s))));
        let life = self.life.map(|life| stamp(&mut writer, &life));
        let stamps: Vec<changeset::Stamp> = self.cells.iter().map(|cell| stamp(&mut writer, &cell.write)).collect();
        let columns: Vec<&str> =
            self.cells.iter().map(|c| table.info.columns.get(c.position).map_or("", |column| &column.name)).collect();
        let index = writer.table(&table.info.name, table.info.keys.len(), columns.into_iter());
        match base {
            Some((life, sentinel)) => writer.base(index, key, self.cl, sentinel, life, self.cells.len()),
            None => writer.cells(index, key, self.cl, self.born.is_some(), life, self.cells.len()),
        }
        for (column, (cell, stamp)) in self.cells.iter().zip(stamps).enumerate() {
            writer.cell(column, cell.version, stamp, cell.value.value());
        }
        Some(writer.finish(true))
    }
}

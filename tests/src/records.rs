//! The log's records as they stand in a file of the present format, read and written without the extension's help.

use rusqlite::{params, Connection, Row};
use starling_crdt::record::{Head, Record, Side};

/// A record.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its key.
    pub db_version: i64,
    /// The fixed part.
    pub head: Head,
    /// Young clocks.
    pub young: Option<Vec<u8>>,
    /// The chunk in the record itself.
    pub entries: Vec<u8>,
}

impl Kept {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (db_version, blob): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let Record { head, young, entries } = Record::decode(&blob).unwrap_or_else(|e| panic!("{db_version}: {e}"));
        Ok(Self { db_version, head, young: young.map(<[u8]>::to_vec), entries: entries.to_vec() })
    }

    /// How far back young clocks are in force, on a local record.
    pub fn reaches(&self) -> Option<u64> {
        match self.head.side {
            Side::Local { reaches } => reaches,
            Side::Foreign { .. } => None,
        }
    }
}

/// All records, oldest first.
pub fn all(db: &Connection) -> Vec<Kept> {
    let mut stmt = db.prepare("SELECT db_version, record FROM crsql_record ORDER BY 1").expect("it prepares");
    let rows = stmt.query_map([], Kept::read).expect("it runs");
    rows.collect::<Result<_, _>>().expect("records")
}

/// The newest record; `None` in an empty log, and where the file cannot be read just now.
pub fn newest(db: &Connection) -> Option<Kept> {
    let sql = "SELECT db_version, record FROM crsql_record ORDER BY 1 DESC LIMIT 1";
    db.query_row(sql, [], Kept::read).ok()
}

/// Changes every record for which `change` says so.
pub fn change(db: &Connection, mut change: impl FnMut(&mut Kept) -> bool) {
    for mut kept in all(db) {
        if !change(&mut kept) {
            continue;
        }
        let mut blob = Vec::new();
        Record { head: kept.head, young: kept.young.as_deref(), entries: &kept.entries }.encode(&mut blob);
        let sql = "UPDATE crsql_record SET record = ?2 WHERE db_version = ?1";
        db.execute(sql, params![kept.db_version, blob]).expect("it writes");
    }
}

/// Every chunk of the log, of a file of any format.
pub fn chunks(db: &Connection) -> Vec<Vec<u8>> {
    let blobs = |sql: &str| -> Vec<Vec<u8>> {
        let mut stmt = db.prepare(sql).expect("it prepares");
        let all = stmt.query_map([], |r| r.get(0)).expect("it runs");
        all.collect::<Result<_, _>>().expect("blobs")
    };
    let mut out = if db.table_exists(None, "crsql_log").expect("it runs") {
        blobs("SELECT entries FROM crsql_log")
    } else {
        check_index(db);
        all(db).into_iter().map(|kept| kept.entries).collect()
    };
    out.retain(|entries| !entries.is_empty());
    out.extend(blobs("SELECT entries FROM crsql_log_chunk"));
    out
}

/// The bytes of all chunks.
pub fn bytes(db: &Connection) -> usize {
    chunks(db).iter().map(Vec::len).sum()
}

/// The foreign dots in the index are those of the records.
fn check_index(db: &Connection) {
    let mut stmt = db.prepare("SELECT origin, version, db_version FROM crsql_foreign").expect("it prepares");
    let rows = stmt.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).expect("it runs");
    let mut index: Vec<(u32, i64, i64)> = rows.map(|row| row.expect("three numbers")).collect();
    let of = |kept: &Kept| match kept.head.side {
        Side::Foreign { version, .. } => Some((kept.head.origin, version as i64, kept.db_version)),
        Side::Local { .. } => None,
    };
    let mut records: Vec<_> = all(db).iter().filter_map(of).collect();
    index.sort_unstable();
    records.sort_unstable();
    assert_eq!(index, records, "crsql_foreign and the records tell different dots");
}

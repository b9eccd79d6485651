//! A database with the extension in it, as the tests use it.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Result};
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Once, PoisonError, RwLock};

type Entry = unsafe extern "C" fn(*mut c_void, *mut *mut c_char, *const c_void) -> c_int;

/// Registers the extension with the embedded SQLite: every connection opened from now on has it.
#[allow(unsafe_code)]
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the entry does not change the list of automatic extensions.
        assert_eq!(unsafe { rusqlite::ffi::sqlite3_auto_extension(Some(entry())) }, 0);
    });
}

#[allow(unsafe_code)]
fn entry() -> rusqlite::auto_extension::RawAutoExtension {
    // SAFETY: both types are `extern "C"` functions of three pointers and a c_int, and SQLite calls the entry with exactly
    // these.
    unsafe {
        std::mem::transmute::<Entry, rusqlite::auto_extension::RawAutoExtension>(
            starling_extension::auto_extension_entry(),
        )
    }
}

/// Held while a connection is opened: the list of automatic extensions is the process's.
pub(crate) static OPENING: RwLock<()> = RwLock::new(());

/// Opens a file with the extension, and nothing else done.
///
/// # Errors
/// SQLite's.
pub fn open(path: &Path) -> Result<Connection> {
    open_with(path, rusqlite::OpenFlags::default())
}

/// As [`open`], with these flags.
///
/// # Errors
/// SQLite's.
pub fn open_with(path: &Path, flags: rusqlite::OpenFlags) -> Result<Connection> {
    register();
    let _many = OPENING.read().unwrap_or_else(PoisonError::into_inner);
    Connection::open_with_flags(path, flags)
}

/// As [`open`], through the VFS of this name.
///
/// # Errors
/// SQLite's.
pub fn open_on(path: &Path, vfs: &std::ffi::CStr) -> Result<Connection> {
    register();
    let _many = OPENING.read().unwrap_or_else(PoisonError::into_inner);
    Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), vfs)
}

/// Opens a file as a program does that knows nothing of the extension.
#[allow(unsafe_code)]
pub fn plain(path: &Path) -> Connection {
    let _alone = OPENING.write().unwrap_or_else(PoisonError::into_inner);
    register();
    // SAFETY: nobody opens a connection meanwhile, so nobody misses the entry.
    unsafe { rusqlite::ffi::sqlite3_cancel_auto_extension(Some(entry())) };
    let db = Connection::open(path);
    // SAFETY: as in `register`.
    assert_eq!(unsafe { rusqlite::ffi::sqlite3_auto_extension(Some(entry())) }, 0);
    let db = db.expect("the file opens");
    db.busy_timeout(std::time::Duration::from_secs(20)).expect("a timeout can be set");
    assert!(db.prepare("SELECT crsql_site_id()").is_err(), "the extension is loaded");
    db
}

/// Tries to close a connection on which a statement is still running; whether SQLite refused, as it must.
#[allow(unsafe_code)]
pub fn close_is_refused(db: &Connection) -> bool {
    // SAFETY: a statement borrows the connection (the caller's test), so SQLite refuses and the handle stays what it was.
    unsafe { rusqlite::ffi::sqlite3_close(db.handle()) == rusqlite::ffi::SQLITE_BUSY }
}

/// A change as replicas must agree on it: (table, pk, cid, val, col_version, cl).
pub type Change = (String, Vec<u8>, String, String, i64, i64);

/// A replica.
pub struct Site {
    /// Its connection.
    pub db: Connection,
}

impl Site {
    /// In memory.
    pub fn memory() -> Self {
        register();
        let _many = OPENING.read().unwrap_or_else(PoisonError::into_inner);
        Self { db: Connection::open_in_memory().expect("an in-memory database opens") }
    }

    /// In a file, WAL.
    pub fn file(path: &Path) -> Self {
        let site = Self::open(path);
        site.db.pragma_update(None, "journal_mode", "wal").expect("WAL");
        site
    }

    /// In a file as it is, whatever its journal mode.
    pub fn open(path: &Path) -> Self {
        let db = open(path).expect("the file opens");
        db.busy_timeout(std::time::Duration::from_secs(20)).expect("a timeout can be set");
        Self { db }
    }

    /// With these tables, all CRRs.
    pub fn with(self, tables: &[(&str, &str)]) -> Self {
        for (name, sql) in tables {
            self.exec(sql);
            self.one::<String>(&format!("SELECT crsql_as_crr('{name}')"));
        }
        self
    }

    /// Runs statements that must succeed.
    pub fn exec(&self, sql: &str) {
        if let Err(e) = self.db.execute_batch(sql) {
            panic!("{sql}: {e}");
        }
    }

    /// Runs statements that must fail; returns the message.
    pub fn refused(&self, sql: &str) -> String {
        let run = || -> Result<()> {
            let mut stmt = self.db.prepare(sql)?;
            let mut rows = stmt.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        match run() {
            Ok(()) => panic!("{sql}: it was not refused"),
            Err(e) => e.to_string(),
        }
    }

    /// One value.
    pub fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.db.query_row(sql, [], |r| r.get(0)).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// All rows, each as text that tells types apart.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        let mut stmt = self.db.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let n = stmt.column_count();
        let mut rows = stmt.query([]).expect("it runs");
        let mut out = Vec::new();
        while let Some(row) = rows.next().unwrap_or_else(|e| panic!("{sql}: {e}")) {
            let cells: Vec<String> = (0..n).map(|i| show(row.get_ref(i).expect("a value"))).collect();
            out.push(cells.join("|"));
        }
        out
    }

    /// `crsql_changes` as replicas must agree on it.
    pub fn changes(&self) -> Vec<Change> {
        let mut stmt = self
            .db
            .prepare("SELECT [table], pk, cid, val, col_version, cl FROM crsql_changes")
            .expect("crsql_changes is there");
        let mut out: Vec<Change> = stmt
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, show(r.get_ref(3)?), r.get(4)?, r.get(5)?)))
            .expect("it runs")
            .collect::<Result<_>>()
            .unwrap_or_else(|e| panic!("crsql_changes: {e}"));
        out.sort();
        out
    }

    /// The version vector.
    pub fn vector(&self) -> Vec<u8> {
        self.one("SELECT starling_vector()")
    }

    /// The parts that a replica with this vector misses, with (version, last, claimable), and the vector they belong to.
    pub fn answer(&self, have: &[u8]) -> (Vec<(Vec<u8>, bool)>, Vec<u8>) {
        self.exec("BEGIN");
        let mut stmt =
            self.db.prepare("SELECT changeset, claimable FROM starling_changesets(?1, NULL)").expect("it is there");
        let parts = stmt
            .query_map([have], |r| Ok((r.get(0)?, r.get(1)?)))
            .expect("it runs")
            .collect::<Result<_>>()
            .unwrap_or_else(|e| panic!("starling_changesets: {e}"));
        let vector = self.one("SELECT starling_answer_vector()");
        drop(stmt);
        self.exec("COMMIT");
        (parts, vector)
    }

    /// Merges one part.
    pub fn merge(&self, part: &[u8]) -> Result<i64> {
        self.db.query_row("SELECT starling_merge(?1)", [part], |r| r.get(0))
    }

    /// Claims the vector of an answer that was merged wholly.
    pub fn claim(&self, vector: &[u8]) {
        self.db.query_row("SELECT starling_claim(?1)", [vector], |_| Ok(())).expect("a vector can be claimed");
    }

    /// Takes everything from another replica.
    pub fn pull(&self, from: &Self) {
        let (parts, vector) = from.answer(&self.vector());
        self.exec("BEGIN IMMEDIATE");
        for (part, _) in &parts {
            self.merge(part).unwrap_or_else(|e| panic!("starling_merge: {e}"));
        }
        self.claim(&vector);
        self.exec("COMMIT");
    }

    /// Takes everything from another replica, nine values at a time, in the given order.
    pub fn pull_nine(&self, from: &Self, arrange: impl FnOnce(&mut Vec<Vec<Value>>)) {
        let mut stmt = from
            .db
            .prepare("SELECT [table], pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes")
            .expect("crsql_changes is there");
        let mut rows: Vec<Vec<Value>> = stmt
            .query_map([], |r| (0..9).map(|i| r.get(i)).collect())
            .expect("it runs")
            .collect::<Result<_>>()
            .unwrap_or_else(|e| panic!("crsql_changes: {e}"));
        arrange(&mut rows);
        self.exec("BEGIN IMMEDIATE");
        let mut insert = self.db.prepare("INSERT INTO crsql_changes VALUES(?,?,?,?,?,?,?,?,?)").expect("it prepares");
        for row in rows {
            insert.execute(rusqlite::params_from_iter(row)).unwrap_or_else(|e| panic!("crsql_changes: {e}"));
        }
        drop(insert);
        self.exec("COMMIT");
    }
}

fn show(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_string(),
        ValueRef::Integer(i) => i.to_string(),
        ValueRef::Real(r) => format!("{r:?}r"),
        // SQLite stores whatever bytes a program calls text.
        ValueRef::Text(t) => std::str::from_utf8(t).map_or_else(|_| format!("text x{t:02x?}"), |t| format!("'{t}'")),
        ValueRef::Blob(b) => format!("x{b:02x?}"),
    }
}

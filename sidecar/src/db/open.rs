//! Opening connections, and the first look at a database.

use super::check::DbPath;
use crate::error::Error;
use rusqlite::{Connection, ErrorCode, OpenFlags, MAIN_DB};
use starling_crdt::{SiteId, Vector};
use std::time::{Duration, Instant};

/// Between tries for the write lock, when rows wait for their versions.
const DRAIN_BACKOFF: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(5));
/// While a connection is opened, a lock that another program holds is waited for this long.
const OPEN_BUSY: Duration = Duration::from_secs(5);
/// How long it is tried.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Merges. Waits for locks by itself, checkpoints by itself.
    Writer,
    /// Reads snapshots.
    Reader,
    /// Statements that come over HTTP.
    Api,
}

/// Opens connections to one database.
#[derive(Clone, Debug)]
pub struct Opener {
    db: DbPath,
}

/// What the store is at the start, from one snapshot.
#[derive(Clone, Debug)]
pub struct StoreStart {
    /// This replica.
    pub site: SiteId,
    /// The local counter.
    pub db_version: u64,
    /// What it claims.
    pub vector: Vector,
    /// Changes kept aside.
    pub aside: u64,
}

impl Opener {
    /// For this file.
    #[must_use]
    pub const fn new(db: DbPath) -> Self {
        Self { db }
    }

    /// The file.
    #[must_use]
    pub const fn db(&self) -> &DbPath {
        &self.db
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(&self, role: Role) -> rusqlite::Result<Connection> {
        self.open_with(role, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    fn open_with(&self, role: Role, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(self.db.path(), flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        conn.set_prepared_statement_cache_capacity(32);
        // The first statement reads the file, and meets the lock of whoever recovers the WAL or ends exclusive use just now.
        conn.busy_timeout(OPEN_BUSY)?;
        match role {
            Role::Writer => {
                conn.pragma_update(None, "synchronous", "NORMAL")?;
                conn.pragma_update(None, "wal_autocheckpoint", 0)?;
                conn.busy_timeout(Duration::ZERO)?;
            }
            Role::Reader => {
                conn.busy_timeout(Duration::from_secs(1))?;
                // It writes only what a drain makes of rows that are on disk already.
                conn.pragma_update(None, "synchronous", "NORMAL")?;
            }
            Role::Api => {
                conn.busy_timeout(crate::limits::API_BUSY)?;
                conn.pragma_update(None, "synchronous", "NORMAL")?;
            }
        }
        Ok(conn)
    }

    /// Opens the database for the first time in this run, makes the file if it is not there, switches it to WAL.
    ///
    /// # Errors
    /// Says what is wrong with the file and what to do.
    pub fn first_open(&self) -> Result<Connection, Error> {
        if self.db.identity().is_none() {
            tracing::info!(path = %self.db.path().display(), "the database is not there yet and is made now");
        }
        let failed = |e: &rusqlite::Error| Error::database(self.db.path(), explain(e));
        let conn = self
            .open_with(Role::Writer, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
            .map_err(|e| failed(&e))?;
        conn.busy_timeout(OPEN_BUSY).map_err(|e| failed(&e))?;
        let _: i64 = conn.query_row("PRAGMA schema_version", [], |r| r.get(0)).map_err(|e| failed(&e))?;
        if conn.is_readonly(MAIN_DB).map_err(|e| failed(&e))? {
            return Err(Error::database(self.db.path(), "can only be opened read-only by this user"));
        }
        self.ensure_wal(&conn)?;
        conn.busy_timeout(Duration::ZERO).map_err(|e| failed(&e))?;
        Ok(conn)
    }

    fn ensure_wal(&self, conn: &Connection) -> Result<(), Error> {
        let mode: rusqlite::Result<String> = conn.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0));
        match mode {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => {}
            Ok(mode) => {
                tracing::warn!(mode, "the database is not in WAL mode: writers and readers will wait for each other")
            }
            Err(e) if is_busy(&e) => {
                tracing::warn!("the database could not be switched to WAL mode, a program is using it: {e}");
            }
            Err(e) => return Err(Error::database(self.db.path(), explain(&e))),
        }
        Ok(())
    }
}

/// Reads what the store is, from one snapshot.
///
/// # Errors
/// SQLite's, or a site id or vector that cannot be read.
pub fn store_start(conn: &Connection) -> Result<StoreStart, String> {
    let text = |e: rusqlite::Error| e.to_string();
    // The site id is drawn at the first question, which writes: it is asked for outside the read transaction.
    let site: Vec<u8> = conn.query_row("SELECT crsql_site_id()", [], |r| r.get(0)).map_err(text)?;
    let site = SiteId::from_slice(&site).filter(|_| site.len() == 16).ok_or("the site id is not 16 bytes")?;
    let snapshot = ReadSnapshot::begin(conn).map_err(text)?;
    let db_version = read_version(conn, "SELECT crsql_db_version()").map_err(text)?;
    let aside = read_version(conn, "SELECT starling_aside()").map_err(text)?;
    let vector = read_vector(conn)?;
    snapshot.end().map_err(text)?;
    Ok(StoreStart { site, db_version, vector, aside })
}

/// A read transaction that ends with this value.
#[derive(Debug)]
pub struct ReadSnapshot<'c> {
    conn: &'c Connection,
}

impl<'c> ReadSnapshot<'c> {
    /// Begins. What programs without the extension have written is given its versions first, and the snapshot is that of
    /// this very commit: in any other there could be values without versions, which must not be served.
    ///
    /// # Errors
    /// SQLite's; busy where the write lock was not to be had for such a drain in good time.
    pub fn begin(conn: &'c Connection) -> rusqlite::Result<Self> {
        let (start, mut backoff) = (Instant::now(), DRAIN_BACKOFF.0);
        loop {
            match Self::drained(conn) {
                Err(e) if is_busy(&e) && start.elapsed() < DRAIN_PATIENCE => {
                    std::thread::sleep(backoff);
                    backoff = (2 * backoff).min(DRAIN_BACKOFF.1);
                }
                other => return other,
            }
        }
    }

    /// The statement is still at its row when the drain is committed, so SQLite leaves its read transaction open, at that
    /// commit; BEGIN keeps it so.
    fn drained(conn: &'c Connection) -> rusqlite::Result<Self> {
        let mut hold = conn.prepare_cached("SELECT starling_drain() FROM crsql_master LIMIT 1")?;
        let mut rows = hold.query([])?;
        rows.next()?;
        conn.execute_batch("BEGIN DEFERRED")?;
        Ok(Self { conn })
    }

    /// Ends it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn end(self) -> rusqlite::Result<()> {
        let conn = self.conn;
        std::mem::forget(self);
        conn.execute_batch("COMMIT").inspect_err(|_| roll_back(conn))
    }
}

impl Drop for ReadSnapshot<'_> {
    fn drop(&mut self) {
        roll_back(self.conn);
    }
}

/// Rolls back whatever is open. SQLite may have done so by itself.
pub fn roll_back(conn: &Connection) {
    if !conn.is_autocommit() {
        if let Err(e) = conn.execute_batch("ROLLBACK") {
            tracing::warn!("a transaction could not be rolled back: {e}");
        }
    }
}

/// `starling_vector()`, decoded.
///
/// # Errors
/// SQLite's or the codec's, as text.
pub fn read_vector(conn: &Connection) -> Result<Vector, String> {
    let bytes = read_vector_bytes(conn).map_err(|e| e.to_string())?;
    Vector::decode(&bytes).map_err(|e| e.to_string())
}

/// `starling_vector()`.
///
/// # Errors
/// SQLite's.
pub fn read_vector_bytes(conn: &Connection) -> rusqlite::Result<Vec<u8>> {
    conn.prepare_cached("SELECT starling_vector()")?.query_row([], |r| r.get(0))
}

/// `starling_answer_vector()`: what the receiver of a whole answer may claim.
///
/// # Errors
/// SQLite's.
pub fn read_answer_vector(conn: &Connection) -> rusqlite::Result<Vec<u8>> {
    conn.prepare_cached("SELECT starling_answer_vector()")?.query_row([], |r| r.get(0))
}

/// A number that cannot be negative.
///
/// # Errors
/// SQLite's.
pub fn read_version(conn: &Connection, sql: &str) -> rusqlite::Result<u64> {
    let n: i64 = conn.prepare_cached(sql)?.query_row([], |r| r.get(0))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

/// Whether another connection stands in the way.
#[must_use]
pub fn is_busy(e: &rusqlite::Error) -> bool {
    matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// What an error at opening means, and what to do.
#[must_use]
pub fn explain(e: &rusqlite::Error) -> String {
    match e.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "is not an SQLite database, or it is encrypted".into(),
        Some(ErrorCode::DatabaseCorrupt) => format!("is damaged ({e}); restore it or run sqlite3 FILE .recover"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("is locked by another program ({e}); end its transaction or its exclusive locking mode")
        }
        Some(ErrorCode::CannotOpen) => format!("cannot be opened: {e}"),
        Some(ErrorCode::ReadOnly) => {
            format!("cannot be written ({e}); check the rights of the file, its -wal and its -shm")
        }
        _ => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_open(bytes: &[u8]) -> Result<Connection, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        std::fs::write(&path, bytes).unwrap();
        Opener::new(DbPath::resolve(&path).unwrap()).first_open()
    }

    #[test]
    fn what_is_not_a_database_is_refused_in_words() {
        let error = first_open(&[0x5a; 8192]).unwrap_err();
        assert!(error.to_string().contains("not an SQLite database, or it is encrypted"), "{error}");
        assert_eq!(error.exit_code(), 1);
        assert!(first_open(b"").is_ok(), "an empty file is an empty database");
    }

    #[test]
    fn a_snapshot_has_no_value_without_its_version_however_fast_others_write() {
        crate::db::register::register().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let opener = Opener::new(DbPath::resolve(&dir.path().join("x.db")).unwrap());
        let conn = opener.first_open().unwrap();
        conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v)").unwrap();
        conn.query_row("SELECT crsql_as_crr('t', 'portable')", [], |_| Ok(())).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Without that trigger its commits wait in the inbox, as those of a program without the extension do.
                let app = opener.open(Role::Api).unwrap();
                app.execute_batch("DROP TRIGGER temp.crsql_inbox_1_join").unwrap();
                let (start, mut i) = (Instant::now(), 0i64);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && start.elapsed().as_secs() < 60 {
                    i += 1;
                    app.execute("INSERT INTO t VALUES(1, ?1) ON CONFLICT(id) DO UPDATE SET v = excluded.v", [i])
                        .unwrap();
                }
            });
            let reader = opener.open(Role::Reader).unwrap();
            let mut last = 0;
            for _ in 0..200 {
                let snapshot = ReadSnapshot::begin(&reader).unwrap();
                let count = |sql: &str| reader.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap();
                assert_eq!(count("SELECT count(*) FROM crsql_inbox_1"), 0);
                let version = count("SELECT coalesce(max(col_version), 0) FROM crsql_changes");
                assert_eq!(version, count("SELECT coalesce(max(v), 0) FROM t"), "each write has a version of its own");
                assert!(version >= last);
                last = version;
                snapshot.end().unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(last > 0);
        });
    }

    #[test]
    fn a_lock_held_for_a_moment_does_not_keep_the_node_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let opener = Opener::new(DbPath::resolve(&dir.path().join("x.db")).unwrap());
        drop(opener.first_open().unwrap());
        let app = Connection::open(opener.db().path()).unwrap();
        app.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE t(a)").unwrap();
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| opener.first_open().map(|_| ()).map_err(|e| e.to_string()));
            let start = Instant::now();
            while !opened.is_finished() && start.elapsed() < Duration::from_millis(200) {
                std::thread::yield_now();
            }
            app.execute_batch("COMMIT").unwrap();
            drop(app);
            assert_eq!(opened.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn a_new_database_is_switched_to_wal() {
        let conn = first_open(b"").unwrap();
        let mode: String = conn.query_row("PRAGMA journal_mode", [], |r| r.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}

//! Two SQLite files that take each other's changes, with rusqlite (features `load_extension`, and `bundled` for a SQLite of
//! its own).
//!
//!     cargo build -p starling-tests --example rusqlite
//!     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so /path/to/target/debug/examples/rusqlite

use rusqlite::types::Value;
use rusqlite::{params, params_from_iter, Connection, ErrorCode, LoadExtensionGuard, Result, TransactionBehavior};
use std::time::Duration;

/// As Cargo.toml says.
const RUSQLITE: &str = "0.43";

const TABLE: &str =
    "CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)";

/// What two replicas must agree on: the rows, and every cell's clock.
const CONTENT: &str = "
    SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
    UNION ALL
    SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
    ORDER BY 1";

const CHANGES: &str = "
    SELECT \"table\", pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes WHERE db_version > ?";

#[allow(unsafe_code)]
fn connect(path: &str, extension: &str) -> Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    // SAFETY: loading runs code out of a file; the file is ours, and nobody else's SQL runs while loading is allowed.
    unsafe {
        let _allowed = LoadExtensionGuard::new(&db)?;
        db.load_extension(extension, None::<&str>)?;
    }
    db.pragma_update(None, "journal_mode", "wal")?;
    Ok(db)
}

fn blob(db: &Connection, sql: &str) -> Result<Vec<u8>> {
    db.query_row(sql, [], |row| row.get(0))
}

fn version(db: &Connection) -> Result<i64> {
    db.query_row("SELECT crsql_db_version()", [], |row| row.get(0))
}

fn content(db: &Connection) -> Result<Vec<String>> {
    db.prepare(CONTENT)?.query_map([], |row| row.get(0))?.collect()
}

/// The portable way: nine columns out of one file, nine values into the other. Returns how many.
fn copy_changes(source: &Connection, target: &mut Connection, since: i64) -> Result<usize> {
    let mut select = source.prepare(CHANGES)?;
    let mut changes = select.query([since])?;
    let transaction = target.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut count = 0;
    {
        let mut insert = transaction.prepare("INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
        while let Some(change) = changes.next()? {
            let values: Vec<Value> = (0..9).map(|i| change.get(i)).collect::<Result<_>>()?;
            insert.execute(params_from_iter(values))?;
            count += 1;
        }
    }
    transaction.commit()?;
    Ok(count)
}

/// The fast way: whole transactions as blobs, and only those that the target does not have.
fn pull(target: &mut Connection, source: &Connection) -> Result<()> {
    let have = blob(target, "SELECT starling_vector()")?;
    // One snapshot for the changesets and for the vector that they lead to.
    let snapshot = source.unchecked_transaction()?;
    let changesets: Vec<Vec<u8>> = snapshot
        .prepare("SELECT changeset FROM starling_changesets(?, 0)")?
        .query_map([have], |row| row.get(0))?
        .collect::<Result<_>>()?;
    let leads_to = blob(&snapshot, "SELECT starling_answer_vector()")?;
    snapshot.commit()?;

    let transaction = target.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for changeset in changesets {
        transaction.query_row("SELECT starling_merge(?)", [changeset], |_| Ok(()))?;
    }
    transaction.query_row("SELECT starling_claim(?)", [leads_to], |_| Ok(()))?;
    transaction.commit()
}

/// What is rolled back was never there: a transaction rolls back when it is dropped.
fn fail_and_roll_back(db: &mut Connection) -> Result<()> {
    let before = (version(db)?, content(db)?);
    {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("UPDATE machines SET status = 'lost'", [])?;
        let refused = transaction.execute("INSERT INTO machines(id) VALUES('m-1')", []);
        assert_eq!(refused.expect_err("no key twice").sqlite_error_code(), Some(ErrorCode::ConstraintViolation));
    }
    assert_eq!(before, (version(db)?, content(db)?), "a rollback left something");
    Ok(())
}

fn main() -> Result<()> {
    let extension = std::env::var("STARLING_SO").expect("STARLING_SO must name starling.so");
    let mut one = connect("one.db", &extension)?;
    let mut two = connect("two.db", &extension)?;
    for db in [&one, &two] {
        db.execute_batch(TABLE)?;
        db.query_row("SELECT crsql_as_crr('machines')", [], |_| Ok(()))?;
    }

    // Both are written to; then each takes what the other has.
    let insert = "INSERT INTO machines VALUES(?, ?, ?, ?, ?)";
    one.execute(insert, params!["m-1", None::<String>, 9_007_199_254_740_993_i64, 2.0, [0x00_u8, 0xff]])?;
    one.execute(insert, params!["m-2", "läuft", -1, 0.1, [0_u8; 0]])?;
    two.execute("INSERT INTO machines VALUES('m-3', 'new', 3, NULL, NULL)", [])?;
    copy_changes(&one, &mut two, 0)?;
    copy_changes(&two, &mut one, 0)?;
    assert_eq!(content(&one)?, content(&two)?, "the files differ");

    // From then on only what is newer than the version seen last.
    let seen = version(&one)?;
    one.execute("UPDATE machines SET load = 3.0 WHERE id = 'm-1'", [])?;
    assert_eq!(copy_changes(&one, &mut two, seen)?, 1, "one changed cell is one change");
    assert_eq!(content(&one)?, content(&two)?, "the files differ");

    fail_and_roll_back(&mut one)?;

    // Another connection sees what is committed, at once.
    let other = connect("one.db", &extension)?;
    let last = version(&other)?;
    one.execute("UPDATE machines SET serial = 2 WHERE id = 'm-2'", [])?;
    assert_eq!((version(&one)?, version(&other)?), (last + 1, last + 1), "the commit is not seen");
    other.close().map_err(|(_, e)| e)?;

    // A conflict: both write one cell. Both files end with the same value, whoever merges first.
    one.execute("UPDATE machines SET status = 'sick' WHERE id = 'm-1'", [])?;
    two.execute("UPDATE machines SET status = 'healthy' WHERE id = 'm-1'", [])?;
    two.execute("DELETE FROM machines WHERE id = 'm-3'", [])?;
    pull(&mut one, &two)?;
    pull(&mut two, &one)?;
    assert_eq!(content(&one)?, content(&two)?, "the files differ");

    // Closing needs no call before it.
    one.close().map_err(|(_, e)| e)?;
    two.close().map_err(|(_, e)| e)?;
    println!("ok rust {RUSQLITE} sqlite {}", rusqlite::version());
    Ok(())
}

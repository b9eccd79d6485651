//! The writer against a stand-in for the extension: a part is "merged" by being stored, unless it says that it is bad.

use super::*;
use crate::db::check::DbPath;
use crate::db::writer::{Activity, Writer, WriterConfig};
use crate::limits::ASSEMBLY_MEMORY;
use bytes::Bytes;
use rusqlite::functions::FunctionFlags;
use starling_crdt::changeset::{DotHeader, Header};
use starling_crdt::{Origin, SiteId, Vector};
use starling_proto::PullKey;

const PUSH: Source = Source::Push { from: SiteId([1; 16]) };
const PULL: Source = Source::Sync { pull: PullKey(7) };
const SQL: MergeSql = MergeSql {
    merge: "INSERT INTO merged(part) VALUES (check_part(?1)) RETURNING 1",
    claim: "INSERT INTO claimed(vector) VALUES (?1) RETURNING 1",
};

struct Rig {
    _dir: tempfile::TempDir,
    opener: Opener,
    reader: Connection,
    writer: Writer,
    events: mpsc::Receiver<StoreEvent>,
    gate: Arc<WriteGate>,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let opener = Opener::new(DbPath::resolve(&dir.path().join("w.db")).unwrap());
    let conn = opener.first_open().unwrap();
    conn.execute_batch(
        "CREATE TABLE merged(part BLOB); CREATE TABLE claimed(vector BLOB);
         CREATE TRIGGER ender AFTER INSERT ON merged WHEN NEW.part = x'656e64' BEGIN SELECT RAISE(ROLLBACK, 'ended'); END;",
    )
    .unwrap();
    conn.create_scalar_function("check_part", 1, FunctionFlags::SQLITE_UTF8, |ctx| {
        let part: Vec<u8> = ctx.get(0)?;
        if part == b"bad" {
            return Err(rusqlite::Error::UserFunctionError("malformed part".into()));
        }
        Ok(part)
    })
    .unwrap();
    let (sender, events) = mpsc::channel(64);
    let gate = Arc::new(WriteGate::default());
    let config = WriterConfig {
        opener: opener.clone(),
        gate: Arc::clone(&gate),
        activity: Arc::new(Activity::default()),
        events: sender,
        sql: SQL,
    };
    let reader = opener.open(Role::Reader).unwrap();
    Rig { _dir: dir, reader, opener, writer: Writer::start(conn, config).unwrap(), events, gate }
}

impl Rig {
    fn send(&self, source: Source, version: u64, parts: &[&'static [u8]]) {
        for (i, part) in parts.iter().enumerate() {
            self.part(source, version, i, i + 1 == parts.len(), Bytes::from_static(part));
        }
    }

    fn part(&self, source: Source, version: u64, part: usize, last: bool, bytes: Bytes) {
        let dot = Dot { origin: Origin { site: SiteId([1; 16]), epoch: 1 }, version };
        let dot = DotHeader { dot, token: 1, prev: version - 1, prev_token: 0, commit_ms: 0 };
        let header = Header { dot, claimable: true, last, group: false, part: part as u64 };
        self.writer.merge(source, header, bytes, None);
    }

    /// `m5` = merged version 5, `f5` = failed, `+` = claimed, `-` = not claimed.
    fn outcomes(&mut self, n: usize) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.len() < n {
            seen.push(match self.events.blocking_recv().unwrap() {
                StoreEvent::Merged { dot, .. } => format!("m{}", dot.version),
                StoreEvent::MergeFailed { header, .. } => format!("f{}", header.dot.version),
                StoreEvent::Applied { result: Ok(()), .. } => "+".into(),
                StoreEvent::Applied { .. } => "-".into(),
                other => panic!("{other:?}"),
            });
        }
        seen
    }

    fn stored(&self, table: &str) -> i64 {
        self.reader.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap()
    }
}

#[test]
fn a_bad_part_takes_its_whole_changeset_with_it_and_no_other() {
    let mut rig = rig();
    let pass = rig.gate.enter();
    rig.send(PUSH, 1, &[b"a", b"b"]);
    rig.send(PUSH, 2, &[b"c", b"bad"]);
    rig.send(PUSH, 3, &[b"d"]);
    drop(pass);
    assert_eq!(rig.outcomes(3), ["m1", "f2", "m3"]);
    assert_eq!(rig.stored("merged"), 3, "a, b and d; nothing of the bad one");
}

#[test]
fn a_trigger_that_ends_the_transaction_leaves_nothing_half_done() {
    let mut rig = rig();
    let pass = rig.gate.enter();
    rig.send(PUSH, 1, &[b"a"]);
    rig.send(PUSH, 2, &[b"b", b"end", b"c"]);
    rig.send(PUSH, 3, &[b"d"]);
    drop(pass);
    assert_eq!(rig.outcomes(3), ["m1", "f2", "m3"]);
    assert_eq!(rig.stored("merged"), 2, "neither b nor c was written in autocommit");
}

#[test]
fn a_small_answer_and_its_claim_are_one_transaction() {
    let mut rig = rig();
    rig.send(PULL, 1, &[b"a"]);
    rig.send(PULL, 2, &[b"b"]);
    assert_eq!(rig.stored("merged"), 0, "nothing is visible before the claim is there");
    rig.writer.finish(PullKey(7), Vector::default());
    assert_eq!(rig.outcomes(3), ["m1", "m2", "+"]);
    assert_eq!((rig.stored("merged"), rig.stored("claimed")), (2, 1));
}

#[test]
fn an_answer_with_a_bad_changeset_is_merged_without_it_and_not_claimed() {
    let mut rig = rig();
    rig.send(PULL, 1, &[b"a"]);
    rig.send(PULL, 2, &[b"bad"]);
    rig.writer.finish(PullKey(7), Vector::default());
    assert_eq!(rig.outcomes(3), ["m1", "f2", "-"]);
    assert_eq!((rig.stored("merged"), rig.stored("claimed")), (1, 0));
    rig.send(PULL, 3, &[b"c"]);
    rig.writer.finish(PullKey(7), Vector::default());
    assert_eq!(rig.outcomes(2), ["m3", "+"], "the failure belonged to that answer only");
}

#[test]
fn a_changeset_larger_than_memory_is_merged_in_one_transaction() {
    let mut rig = rig();
    let part = Bytes::from(vec![1u8; ASSEMBLY_MEMORY / 2]);
    for i in 0..4 {
        rig.part(PUSH, 1, i, i == 3, part.clone());
        assert_eq!(rig.stored("merged"), 0);
    }
    assert_eq!(rig.outcomes(1), ["m1"]);
    assert_eq!(rig.stored("merged"), 4);
}

#[test]
fn a_lock_of_another_program_is_waited_for() {
    let mut rig = rig();
    let other = rig.opener.open(Role::Reader).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    rig.send(PUSH, 1, &[b"a"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.writer.report().trouble.is_none() {
        assert!(Instant::now() < deadline, "the wait is reported");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rig.stored("merged"), 0);
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(rig.outcomes(1), ["m1"]);
    assert_eq!(rig.writer.report().trouble, None);
}

#[test]
fn stopping_merges_what_is_queued() {
    let mut rig = rig();
    for version in 1..=20 {
        rig.send(PUSH, version, &[b"a"]);
    }
    rig.writer.stop();
    assert_eq!(rig.outcomes(20).len(), 20);
    rig.writer.join();
    assert_eq!(rig.reader.query_row("SELECT count(*) FROM merged", [], |r| r.get::<_, i64>(0)).unwrap(), 20);
}

#[test]
fn a_full_disk_loses_nothing() {
    let mut rig = rig();
    rig.writer.join();
    let conn = rig.opener.first_open().unwrap();
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |r| r.get(0)).unwrap();
    let _: i64 = conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |r| r.get(0)).unwrap();
    let (sender, events) = mpsc::channel(64);
    let sql = MergeSql { merge: "INSERT INTO merged(part) VALUES (?1) RETURNING 1", ..SQL };
    let (opener, gate) = (rig.opener.clone(), Arc::clone(&rig.gate));
    let config = WriterConfig { opener, gate, activity: Arc::new(Activity::default()), events: sender, sql };
    rig.events = events;
    rig.writer = Writer::start(conn, config).unwrap();
    rig.part(PUSH, 1, 0, true, Bytes::from(vec![7u8; 1 << 20]));
    // The retry is on a fresh connection, whose page limit is the file system's again: space was made.
    assert_eq!(rig.outcomes(1), ["m1"]);
    assert_eq!(rig.stored("merged"), 1);
}

#[test]
fn a_full_disk_delays_a_new_epoch_and_does_not_cancel_it() {
    let rig = rig();
    let conn = rig.opener.first_open().unwrap();
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |r| r.get(0)).unwrap();
    let _: i64 = conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |r| r.get(0)).unwrap();
    let (sender, _events) = mpsc::channel(64);
    let (opener, gate, gauges) = (rig.opener.clone(), Arc::clone(&rig.gate), Arc::new(Gauges::default()));
    let mut applier = Applier::new(conn, opener, gate, SQL, sender, Arc::clone(&gauges));
    // The retry is on a fresh connection, as above.
    let done = applier.call("INSERT INTO claimed(vector) VALUES (zeroblob(1048576)) RETURNING 7", []);
    assert_eq!(done, Ok(7));
    assert_eq!(rig.stored("claimed"), 1);
    assert_eq!(*gauges.trouble.lock().unwrap(), None, "the trouble is over");
    assert!(applier.call("SELECT no_such_function()", []).is_err(), "what can never work is not tried for ever");
}

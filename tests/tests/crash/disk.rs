//! A disk that fails, or loses its power, at any write, sync, truncation, removal or new file of a history: what was committed
//! is there, what failed is there wholly or not at all, and the file goes on.
//!
//! STARLING_CRASH_POINTS=n sets at how many points each kind of failure is tried.

use super::setting;
use starling_tests::disk::{Disk, Fault, Files};
use starling_tests::ledger;
use starling_tests::random::Random;
use starling_tests::site::{Change, Site};
use starling_tests::workload::{check, content, meet, merge_all, step, transaction, Answer, TABLES};
use std::collections::HashMap;

/// One transaction of the history.
enum Step {
    Write(Vec<String>),
    Merge(Answer),
}

/// How a connection writes.
#[derive(Clone, Copy, Debug)]
struct Mode {
    journal: &'static str,
    synchronous: &'static str,
    /// Whether a power cut may take back the last commits, but never one without those after it.
    forgets: bool,
}

const WAL_FULL: Mode = Mode { journal: "wal", synchronous: "full", forgets: false };
const WAL_NORMAL: Mode = Mode { journal: "wal", synchronous: "normal", forgets: true };
// EXTRA syncs the folder after the journal is gone: only then does a power cut not bring it back.
const DELETE_EXTRA: Mode = Mode { journal: "delete", synchronous: "extra", forgets: false };
const DELETE_FULL: Mode = Mode { journal: "delete", synchronous: "full", forgets: true };

/// A table that is made, altered and written to in the history.
const EXTRA: [&[&str]; 3] = [
    &[
        "CREATE TABLE extra(id INTEGER PRIMARY KEY, a)",
        "SELECT crsql_as_crr('extra')",
        "INSERT INTO extra VALUES(1, 1), (2, 2)",
    ],
    &[
        "SELECT starling_new_epoch()",
        "SELECT crsql_config_set('merge-equal-values', 0)",
        "UPDATE extra SET a = 3 WHERE id = 1",
    ],
    &[
        "SELECT crsql_begin_alter('extra')",
        "ALTER TABLE extra ADD COLUMN b DEFAULT 7",
        "UPDATE extra SET b = 8 WHERE id = 2",
        "SELECT crsql_commit_alter('extra')",
    ],
];

/// What it has become where the whole history happened.
fn complete(site: &Site) {
    if site.one::<i64>("SELECT count(*) FROM sqlite_master WHERE name = 'extra'") == 0 {
        site.exec("CREATE TABLE extra(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('extra')");
    }
    if site.one::<i64>("SELECT count(*) FROM pragma_table_info('extra')") == 2 {
        site.exec("SELECT crsql_begin_alter('extra'); ALTER TABLE extra ADD COLUMN b DEFAULT 7; SELECT crsql_commit_alter('extra')");
    }
}

/// Tables, schema and changes, without what is drawn at random.
type State = (Vec<String>, Vec<Change>);

fn state(site: &Site) -> State {
    let mut out = content(site);
    out.extend(site.rows("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'crsql_rows_%' ORDER BY 1, 2"));
    out.extend(site.rows("SELECT key, value FROM crsql_master WHERE key GLOB 'config.*'"));
    if out.contains(&"'table'|'extra'".to_string()) {
        out.extend(site.rows("SELECT * FROM extra"));
    }
    (out, site.changes())
}

struct Story {
    mode: Mode,
    seed: u64,
    start: Files,
    steps: Vec<Step>,
    /// The other replica, as it was when the history began.
    peer: Vec<u8>,
    /// What the history comes to if only these steps are taken.
    expected: HashMap<Vec<bool>, State>,
}

/// How a run went: of each step whether it succeeded, and in which one the disk failed.
#[derive(Default)]
struct Run {
    went: Vec<bool>,
    failed_in: Option<usize>,
}

impl Story {
    fn new(mode: Mode, seed: u64) -> Self {
        let mut r = Random::new(seed);
        let mut peer = Site::memory().with(TABLES);
        for n in 0..12 {
            let _ = transaction(&peer.db, &step(&mut r, 1_000 + n, "peer"));
        }
        let disk = Disk::new(&Files::new());
        let site = connect(&disk, mode).with(TABLES);
        for n in 0..4 {
            let _ = transaction(&site.db, &step(&mut r, n, "a"));
        }
        let mut steps: Vec<Step> = (4..10).map(|n| Step::Write(step(&mut r, n, "a"))).collect();
        steps.insert(2, Step::Merge(peer.answer(&site.vector())));
        // Later it has more to tell, also of somebody else.
        let third = Site::memory().with(TABLES);
        for n in 0..5 {
            let _ = transaction(&third.db, &step(&mut r, 2_000 + n, "third"));
            let _ = transaction(&peer.db, &step(&mut r, 1_100 + n, "peer"));
        }
        peer.pull(&third);
        steps.insert(6, Step::Merge(peer.answer(&site.vector())));
        for (at, sql) in [1, 5, 9].into_iter().zip(EXTRA) {
            steps.insert(at, Step::Write(sql.iter().map(|s| (*s).to_string()).collect()));
        }
        drop(site);
        let peer = peer.db.serialize("main").expect("it can be copied").to_vec();
        Self { mode, seed, start: disk.files(), steps, peer, expected: HashMap::new() }
    }

    fn peer(&self) -> Site {
        let mut peer = Site::memory();
        peer.db.deserialize_read_exact("main", &self.peer[..], self.peer.len(), false).expect("it can be read");
        peer
    }

    /// Takes these steps; one in which the disk fails is taken once more if `retry`.
    fn run(&self, site: &Site, disk: &Disk, retry: bool, taken: impl Fn(usize) -> bool) -> Run {
        let mut run = Run::default();
        for (i, step) in self.steps.iter().enumerate().filter(|(i, _)| taken(*i)) {
            let before = disk.has_failed();
            let mut outcome = take(site, step);
            if disk.has_failed() && !before {
                run.failed_in = Some(i);
                disk.mend();
                if retry && outcome.is_err() {
                    outcome = take(site, step);
                }
            }
            run.went.push(outcome.is_ok());
        }
        run
    }

    /// What these steps come to where nothing fails.
    fn expect(&mut self, taken: Vec<bool>) -> &State {
        if !self.expected.contains_key(&taken) {
            let disk = Disk::new(&self.start);
            let site = connect(&disk, self.mode);
            self.run(&site, &disk, false, |i| taken[i]);
            self.expected.insert(taken.clone(), state(&site));
        }
        &self.expected[&taken]
    }

    /// How many operations the history takes, from the first step to the end of the connection.
    fn operations(&self) -> u64 {
        let disk = Disk::new(&self.start);
        let site = connect(&disk, self.mode);
        let before = disk.operations();
        self.run(&site, &disk, false, |_| true);
        drop(site);
        disk.operations() - before
    }

    /// The disk fails at its n-th operation.
    fn fail(&mut self, n: u64, fault: Fault) {
        let disk = Disk::new(&self.start);
        let site = connect(&disk, self.mode);
        disk.fail(n, fault);
        let (all, mortal) = (self.steps.len(), matches!(fault, Fault::Death | Fault::PowerCut));
        let retry = !mortal && n.is_multiple_of(2);
        let run = self.run(&site, &disk, retry, |_| true);
        let ok = retry || run.failed_in.is_none_or(|k| run.went[k]);
        let k = run.failed_in.unwrap_or(all);
        // The steps that are there: all but the failed one, or those before the end; and with it, if its COMMIT failed.
        let end = if mortal { (k + 1).min(all) } else { all };
        let with: Vec<bool> = (0..all).map(|i| i < end).collect();
        let without: Vec<bool> = (0..all).map(|i| i < end && i != k).collect();
        let mut possible = vec![with];
        if !ok {
            possible.push(without);
        }
        if fault == Fault::PowerCut && self.mode.forgets {
            possible.extend((0..k).map(|j| (0..all).map(|i| i < j).collect()));
        }
        if !mortal {
            let present = state(&site);
            self.is_one_of(&possible, &present, "the connection that saw the failure");
            possible.retain(|taken| *self.expect(taken.clone()) == present);
        }
        drop(site);
        let mut files = if fault == Fault::PowerCut {
            disk.after_power_cut(&mut Random::new(self.seed * 1_000_003 + n))
        } else {
            disk.files()
        };
        if mortal {
            files = stumble(&files, n % 12);
        }
        self.recover(&files, &possible);
    }

    fn is_one_of(&mut self, possible: &[Vec<bool>], present: &State, who: &str) {
        if possible.iter().any(|taken| self.expect(taken.clone()) == present) {
            return;
        }
        for taken in possible {
            let expected = self.expect(taken.clone());
            println!(
                "steps {taken:?}: content is {}, changes are {}",
                expected.0 == present.0,
                expected.1 == present.1
            );
        }
        panic!("{who} shows a state that no steps lead to: {present:?}");
    }

    /// The file is opened as always, by the machine's own VFS.
    fn recover(&mut self, files: &Files, possible: &[Vec<bool>]) {
        let folder = tempfile::tempdir().expect("a directory");
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).expect("it writes");
        }
        let site = Site::open(&folder.path().join("a.db"));
        site.exec("PRAGMA synchronous = off");
        check(&site);
        self.is_one_of(possible, &state(&site), "the file");
        let peer = self.peer();
        complete(&site);
        complete(&peer);
        meet(&site, &peer);
        assert_eq!(site.rows("SELECT * FROM extra"), peer.rows("SELECT * FROM extra"), "extra differs");
        let mut r = Random::new(self.seed);
        for n in 0..3 {
            let _ = transaction(&site.db, &step(&mut r, 100 + n, "after"));
        }
        ledger::check(&site);
        meet(&site, &peer);
    }
}

/// The first who opens the file after a crash meets a failure too, if there are so many operations.
fn stumble(files: &Files, n: u64) -> Files {
    let disk = Disk::new(files);
    disk.fail(1 + n, Fault::Once);
    if let Ok(db) = disk.open() {
        let _ = db.query_row("SELECT count(*) FROM crsql_changes", [], |_| Ok(()));
    }
    disk.files()
}

fn connect(disk: &Disk, mode: Mode) -> Site {
    let site = Site { db: disk.open().expect("it opens") };
    for (name, value) in [("journal_mode", mode.journal), ("synchronous", mode.synchronous)] {
        site.db.pragma_update(None, name, value).expect("a pragma");
    }
    // So small that pages are written before the commit, and checkpoints come often.
    site.exec("PRAGMA cache_size = 12; PRAGMA wal_autocheckpoint = 30");
    site
}

fn take(site: &Site, step: &Step) -> rusqlite::Result<()> {
    match step {
        Step::Write(statements) => transaction(&site.db, statements),
        Step::Merge(answer) => merge_all(site, answer),
    }
}

/// Tries a kind of failure at points spread over the whole history.
fn everywhere(mode: Mode, fault: Fault) {
    let seed = setting("STARLING_CRASH_SEED", 1);
    let mut story = Story::new(mode, seed);
    let operations = story.operations();
    let points = setting("STARLING_CRASH_POINTS", 12).min(operations);
    println!("{mode:?} {fault:?}: {points} of {operations} operations");
    for i in 0..points {
        let n = 1 + i * operations / points;
        println!("STARLING_CRASH_SEED={seed}: operation {n}");
        story.fail(n, fault);
    }
}

#[test]
fn an_operation_that_fails_once_fails_one_transaction_at_most() {
    everywhere(WAL_FULL, Fault::Once);
    everywhere(DELETE_FULL, Fault::Once);
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_write_fails_one_transaction_at_most() {
    for fault in [Fault::Short, Fault::Full] {
        everywhere(WAL_NORMAL, fault);
        everywhere(DELETE_FULL, fault);
    }
}

#[test]
fn a_process_that_dies_in_the_middle_of_a_write_loses_nothing_committed() {
    everywhere(WAL_NORMAL, Fault::Death);
    everywhere(DELETE_FULL, Fault::Death);
}

#[test]
fn a_power_cut_loses_nothing_that_was_synced_and_never_a_commit_without_those_after_it() {
    for mode in [WAL_FULL, DELETE_EXTRA, WAL_NORMAL, DELETE_FULL] {
        everywhere(mode, Fault::PowerCut);
    }
}

/// Functions that ask for more of the file than its rows.
const CALLS: [&str; 10] = [
    "SELECT starling_resume()",
    "SELECT starling_mend()",
    "SELECT starling_drain()",
    "SELECT hex(crsql_site_id())",
    "SELECT crsql_db_version()",
    "SELECT hex(starling_vector())",
    "SELECT starling_prune(10)",
    "SELECT crsql_as_crr('t')",
    "SELECT crsql_as_table('t')",
    "SELECT count(*) FROM crsql_changes",
];

#[test]
fn a_function_in_which_a_full_disk_ends_the_transaction_does_not_say_that_all_went_well() {
    let mut ended = 0;
    for (call, capture) in CALLS.iter().flat_map(|call| [(call, "native"), (call, "portable")]) {
        for n in 1..8 {
            let disk = Disk::new(&Files::new());
            let site = connect(&disk, DELETE_FULL).with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)")]);
            site.exec(&format!(
                "SELECT crsql_as_crr('t', '{capture}'); INSERT INTO t VALUES(1, 1); CREATE TABLE plain(x)"
            ));
            drop(site);
            let site = connect(&disk, DELETE_FULL);
            site.exec("PRAGMA cache_size = 5; SELECT crsql_db_version(); BEGIN; INSERT INTO plain VALUES('first')");
            site.exec("INSERT INTO plain WITH RECURSIVE s(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM s WHERE v < 60) SELECT zeroblob(900) FROM s");
            disk.fail(n, if n % 2 == 0 { Fault::Once } else { Fault::Short });
            let outcome = site.db.query_row(call, [], |_| Ok(()));
            let gone = site.db.is_autocommit();
            ended += u32::from(gone);
            assert!(!gone || outcome.is_err(), "{call}, {capture}: the {n}th operation failed, and nobody was told");
        }
    }
    assert!(ended > 0, "no call met the full disk");
}

/// Write calls of this thread; none where the kernel does not count them.
fn write_calls() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("syscw: "))?.parse().ok()
}

#[test]
fn inserts_late_in_a_long_transaction_write_no_copies_of_pages_to_the_disk() {
    const ROWS: i64 = 150_000;
    if write_calls().is_none() {
        println!("skipped: /proc/thread-self/io counts no writes here");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let site = Site::file(&dir.path().join("a.db"));
    site.exec(
        "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c); SELECT crsql_as_crr('t'); BEGIN",
    );
    let mut insert = site.db.prepare("INSERT INTO t VALUES(?1, 'xxxxxxxxxx', ?1, ?1)").expect("it compiles");
    let mut before = None;
    for id in 0..ROWS {
        if id == ROWS - 1000 {
            before = write_calls();
        }
        insert.execute([id]).expect("it is inserted");
    }
    let calls = write_calls().zip(before).map_or(0, |(now, before)| now - before);
    assert!(calls < 500, "{calls} write calls for a thousand rows");
}

//! The watch on a real file, with the extension, while other connections commit.

use super::*;
use crate::db::check::DbPath;
use crate::db::register::register;
use starling_proto::Changeset;

struct Rig {
    dir: tempfile::TempDir,
    app: Connection,
    watch: Watch,
    events: mpsc::Receiver<StoreEvent>,
}

fn opener(dir: &tempfile::TempDir) -> Opener {
    register().unwrap();
    Opener::new(DbPath::resolve(&dir.path().join("app.db")).unwrap())
}

fn watch(opener: &Opener, events: mpsc::Sender<StoreEvent>) -> Watch {
    let conn = opener.open(Role::Reader).unwrap();
    let start = crate::db::open::store_start(&conn).unwrap();
    Watch::start(WatchConfig {
        opener: opener.clone(),
        site: start.site,
        db_version: start.db_version,
        file: opener.db().identity().unwrap(),
        incarnation: 1,
        activity: Arc::new(Activity::default()),
        events,
        shipped: None,
    })
    .unwrap()
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let opener = opener(&dir);
    let app = opener.first_open().unwrap();
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, v TEXT)").unwrap();
    app.query_row("SELECT crsql_as_crr('t')", [], |_| Ok(())).unwrap();
    let (sender, events) = mpsc::channel(64);
    let watch = watch(&opener, sender);
    Rig { dir, app, watch, events }
}

impl Rig {
    /// The next event that `wanted` takes; others are passed over.
    fn until<T>(&mut self, mut wanted: impl FnMut(StoreEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < deadline, "no such event in time");
            match self.events.try_recv() {
                Ok(event) => {
                    if let Some(found) = wanted(event) {
                        return found;
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn local(&mut self) -> Vec<Changeset> {
        self.until(|event| match event {
            StoreEvent::Local(changesets) => Some(changesets),
            _ => None,
        })
    }
}

#[test]
fn a_commit_of_another_connection_is_noticed_and_passed_on_once() {
    let mut rig = rig();
    rig.until(|e| matches!(e, StoreEvent::SchemaChanged).then_some(()));
    for i in 1..=20i64 {
        let start = Instant::now();
        rig.app.execute("INSERT INTO t VALUES (?1, 'x')", [i]).unwrap();
        let changesets = rig.local();
        assert_eq!(changesets.len(), 1);
        assert_eq!(changesets[0].header.dot.dot.version, u64::try_from(i).unwrap());
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_transaction_too_large_to_push_is_announced() {
    let mut rig = rig();
    rig.app
        .execute_batch(
            "BEGIN; WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 60)
             INSERT INTO t SELECT i, hex(randomblob(50000)) FROM n; COMMIT;",
        )
        .unwrap();
    let header = rig.until(|event| match event {
        StoreEvent::Announce(header) => Some(header),
        StoreEvent::Local(_) => panic!("it is too large"),
        _ => None,
    });
    assert_eq!((header.dot.dot.version, header.part), (1, 0));
}

#[test]
fn nothing_is_read_during_a_pause_and_nothing_is_lost_by_it() {
    let mut rig = rig();
    rig.until(|e| matches!(e, StoreEvent::SchemaChanged).then_some(()));
    rig.watch.pause();
    rig.app.execute("INSERT INTO t VALUES (1, 'x')", []).unwrap();
    let until = Instant::now() + Duration::from_millis(700);
    while Instant::now() < until {
        assert!(!matches!(rig.events.try_recv(), Ok(StoreEvent::Local(_))));
        std::thread::sleep(Duration::from_millis(1));
    }
    rig.watch.go_on();
    assert_eq!(rig.local().len(), 1);
}

#[test]
fn another_file_in_the_place_of_the_database_is_noticed() {
    let mut rig = rig();
    let other = rig.dir.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE x(y)").unwrap();
    std::fs::rename(&other, rig.dir.path().join("app.db")).unwrap();
    let why = rig.until(|event| match event {
        StoreEvent::FileChanged { why } => Some(why),
        _ => None,
    });
    assert!(why.contains("another file"), "{why}");
}

#[test]
fn what_was_shipped_is_remembered_beside_the_database() {
    let mut rig = rig();
    rig.app.execute("INSERT INTO t VALUES (1, 'x')", []).unwrap();
    let shipped = rig.local()[0].header.dot;
    rig.watch.join();
    let db = DbPath::resolve(&rig.dir.path().join("app.db")).unwrap();
    let super::super::state::Remembered::State(state) = StateFile::of(&db).load() else { panic!("it is there") };
    let expected = Shipped { epoch: shipped.dot.origin.epoch, version: 1, token: shipped.token };
    assert_eq!((state.db_version, state.shipped), (1, Some(expected)));
}

#[test]
fn commits_while_nobody_watched_are_not_shipped_twice_and_not_lost() {
    let mut rig = rig();
    rig.app.execute("INSERT INTO t VALUES (1, 'x')", []).unwrap();
    rig.local();
    rig.watch.stop();
    let opener = opener(&rig.dir);
    let conn = opener.open(Role::Reader).unwrap();
    rig.app.execute("INSERT INTO t VALUES (2, 'x')", []).unwrap();
    // A new run begins with a vector that holds the commit: it is found by comparing vectors, not by the watch.
    let start = crate::db::open::store_start(&conn).unwrap();
    assert_eq!(start.db_version, 2);
    let (sender, events) = mpsc::channel(64);
    rig.events = events;
    rig.watch = watch(&opener, sender);
    rig.app.execute("INSERT INTO t VALUES (3, 'x')", []).unwrap();
    let changesets = rig.local();
    assert_eq!(changesets[0].header.dot.dot.version, 3);
}

#[test]
fn a_busy_file_beside_the_database_hides_no_commit() {
    use std::io::Write;
    let mut rig = rig();
    rig.until(|e| matches!(e, StoreEvent::SchemaChanged).then_some(()));
    let busy = Arc::new(AtomicBool::new(true));
    let (path, writing) = (rig.dir.path().to_owned(), Arc::clone(&busy));
    let writer = std::thread::spawn(move || {
        let mut log = std::fs::File::create(path.join("app.log")).unwrap();
        while writing.load(Ordering::Relaxed) {
            log.write_all(b"line\n").unwrap();
            std::fs::write(path.join("scratch"), b"x").unwrap();
            std::fs::remove_file(path.join("scratch")).unwrap();
        }
    });
    for i in 1..=10 {
        rig.app.execute("INSERT INTO t VALUES (?1, 'x')", [i]).unwrap();
        assert_eq!(rig.local().len(), 1);
    }
    busy.store(false, Ordering::Relaxed);
    writer.join().unwrap();
}

#[test]
fn commits_are_noticed_after_the_wal_was_deleted_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let opener = opener(&dir);
    drop(opener.first_open().unwrap());
    let events = FileEvents::open(opener.db()).unwrap();
    for i in 0..3 {
        let app = opener.first_open().unwrap();
        app.execute_batch(&format!("CREATE TABLE t{i}(x)")).unwrap();
        assert!(events.take(), "the WAL was made");
        while events.take() {}
        app.execute_batch(&format!("INSERT INTO t{i} VALUES (1)")).unwrap();
        assert!(events.take(), "the new WAL is watched");
        drop(app);
        while events.take() {}
    }
}

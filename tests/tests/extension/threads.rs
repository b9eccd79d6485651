//! Many threads at once: all on one connection in serialized mode, or with a connection each on one file. What was acknowledged
//! is there, and the file syncs as if one thread had written it. STARLING_THREADS_SEED replays the choices of one history (not
//! how its threads take turns), STARLING_THREADS_RUNS sets how many are run.

use rusqlite::ffi;
use starling_tests::random::{each_seed, Random};
use starling_tests::shared::{Code, Shared, Statement};
use starling_tests::site::Site;
use starling_tests::workload::{check, meet, step, transaction, TABLES};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError, RwLock};
use std::thread::{scope, yield_now};
use std::time::Duration;

/// One connection and what its threads share besides.
struct World {
    db: Shared,
    /// An application that has transactions must see to it itself that nobody else's writes get into them: they hold it
    /// for writing. Reads, and writes that may be lost with another's transaction, do not ask.
    gate: RwLock<()>,
    /// Steps that were acknowledged.
    acknowledged: Mutex<BTreeSet<u64>>,
    /// Cursors that were left open, to be stepped on or finalized by whoever comes.
    cursors: Mutex<Vec<Statement>>,
    /// Threads that have not done all they had to.
    working: AtomicUsize,
    /// Statements that were run.
    ran: AtomicU64,
    interrupted: bool,
    /// Changesets of another replica, and its cells as SQL.
    parts: Vec<Vec<u8>>,
    cells: Vec<String>,
}

impl World {
    /// What may go wrong with a statement that others are in the way of.
    fn tolerable(&self, code: Code) -> bool {
        match code & 0xff {
            ffi::SQLITE_CONSTRAINT | ffi::SQLITE_ABORT | ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => true,
            // An interrupt ends the transaction, and its COMMIT finds none.
            ffi::SQLITE_INTERRUPT | ffi::SQLITE_ERROR => self.interrupted,
            _ => false,
        }
    }

    fn run(&self, sql: &str, blob: Option<&[u8]>) -> Result<u64, Code> {
        self.ran.fetch_add(1, Ordering::Relaxed);
        let outcome = self.db.run(sql, blob);
        if let Err(code) = outcome {
            assert!(self.tolerable(code), "{sql}: {code}");
        }
        outcome
    }

    fn acknowledge(&self, n: u64) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(n);
    }

    /// Each statement is a transaction of its own; the last one says that the step is done.
    fn one_by_one(&self, n: u64, statements: &[String]) {
        for (i, sql) in statements.iter().enumerate() {
            let _others_too = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            if self.run(sql, None).is_ok() && i + 1 == statements.len() {
                self.acknowledge(n);
            }
        }
    }

    fn in_a_transaction(&self, n: u64, statements: &[String], r: &mut Random) {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let (back, keep) = (r.chance(30), r.chance(70));
        let run = || -> Result<(), Code> {
            self.run("BEGIN IMMEDIATE", None)?;
            self.run("SAVEPOINT s", None)?;
            for sql in statements {
                self.run(sql, None)?;
            }
            if back {
                self.run("ROLLBACK TO s", None)?;
            }
            self.run("RELEASE s", None)?;
            self.run(if keep { "COMMIT" } else { "ROLLBACK" }, None).map(drop)
        };
        if run().is_ok() && keep && !back {
            self.acknowledge(n);
        }
        while !self.db.is_autocommit() {
            let _ = self.run("ROLLBACK", None);
        }
    }

    /// A write half read is a transaction too: whatever else is written meanwhile is committed with it.
    fn half_read(&self, n: u64) {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let sql = format!("INSERT INTO done VALUES({n}, 'half'), (-{n}, 'half') RETURNING n");
        let read = || -> Result<(), Code> {
            let mut stmt = self.db.prepare(&sql)?;
            while stmt.step()? {
                self.run("SELECT count(*) FROM crsql_changes", None)?;
            }
            Ok(())
        };
        match read() {
            Ok(()) => self.acknowledge(n),
            Err(code) => assert!(self.tolerable(code), "{sql}: {code}"),
        }
    }

    fn writer(&self, mut r: Random, from: u64, steps: u64) {
        for n in from..from + steps {
            let statements = step(&mut r, n, "shared");
            match r.below(10) {
                0..=5 => self.one_by_one(n, &statements),
                6 | 7 if !self.interrupted => self.half_read(n),
                _ => self.in_a_transaction(n, &statements, &mut r),
            }
        }
        self.working.fetch_sub(1, Ordering::Relaxed);
    }

    /// Writes into whatever transaction is open, or none. (None of it is half read: that would make one of all that is
    /// written meanwhile.)
    fn careless(&self, mut r: Random) {
        while self.working.load(Ordering::Relaxed) > 0 {
            let (x, few) = (r.below(50), r.below(8));
            let sql = match r.below(5) {
                0 => format!("REPLACE INTO k VALUES({x}, zeroblob({few}))"),
                1 => format!("INSERT OR IGNORE INTO k VALUES({x}, x'0{few}'), ({few}, x'00')"),
                2 => format!("UPDATE OR REPLACE k SET x = x + {few} WHERE x = {x}"),
                3 => format!("UPDATE t SET b = {x} WHERE id = '{few}'"),
                _ => format!("DELETE FROM k WHERE x % 8 = {few}"),
            };
            let _ = self.run(&sql, None);
        }
    }

    fn merger(&self, mut r: Random) {
        while self.working.load(Ordering::Relaxed) > 0 {
            let _others_too = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            let _ = self.run("SELECT starling_merge(?1)", Some(r.pick::<Vec<u8>>(&self.parts)));
            let _ = self.run(r.pick::<String>(&self.cells), None);
        }
    }

    /// Steps cursors that it or others opened, while everybody writes.
    fn reader(&self, mut r: Random) {
        let queries = [
            "SELECT * FROM crsql_changes",
            "SELECT * FROM crsql_changes WHERE db_version > 5 AND [table] = 't'",
            "SELECT changeset FROM starling_changesets(NULL, NULL)",
            "SELECT crsql_db_version(), crsql_site_id(), starling_vector(), crsql_next_db_version()",
            "SELECT table_name, id FROM (SELECT 't' AS table_name), t",
            "SELECT * FROM crsql_pending",
        ];
        while self.working.load(Ordering::Relaxed) > 0 {
            let left = self.cursors.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut cursor = match left {
                Some(cursor) if r.chance(70) => cursor,
                _ => match self.db.prepare(r.pick::<&str>(&queries)) {
                    Ok(cursor) => cursor,
                    Err(code) => {
                        assert!(self.tolerable(code), "a query does not compile: {code}");
                        continue;
                    }
                },
            };
            for _ in 0..r.below(40) {
                self.ran.fetch_add(1, Ordering::Relaxed);
                match cursor.step() {
                    Ok(true) => yield_now(),
                    Ok(false) => break,
                    Err(code) => {
                        assert!(self.tolerable(code), "a cursor: {code}");
                        break;
                    }
                }
            }
            let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
            if cursors.len() < 5 && r.chance(80) {
                cursors.push(cursor);
            }
        }
    }

    /// Interrupts now and then, counted in what the others do.
    fn nuisance(&self, mut r: Random) {
        while self.interrupted && self.working.load(Ordering::Relaxed) > 0 {
            let next = self.ran.load(Ordering::Relaxed) + r.below(60);
            while self.working.load(Ordering::Relaxed) > 0 && self.ran.load(Ordering::Relaxed) < next {
                yield_now();
            }
            self.db.interrupt();
        }
    }
}

const STEPS: u64 = 25;

fn peer(seed: u64) -> Site {
    let peer = Site::memory().with(TABLES);
    let mut r = Random::new(seed + 1_000);
    for n in 0..15 {
        let _ = transaction(&peer.db, &step(&mut r, 1_000_000 + n, "peer"));
    }
    peer
}

/// What must hold of the file whatever happened.
fn examine(path: &Path, acknowledged: &BTreeSet<u64>, peer: &Site) {
    let site = Site::open(path);
    check(&site);
    let sql = "SELECT d.n, c.db_version FROM done AS d JOIN crsql_changes AS c ON c.[table] = 'done' \
               AND c.pk = crsql_pack_columns(d.n) WHERE d.n BETWEEN 0 AND 999999";
    let mut stmt = site.db.prepare(sql).expect("it prepares");
    let held: Vec<(u64, i64)> = stmt
        .query_map([], |r| Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get(1)?)))
        .expect("it runs")
        .collect::<Result<_, _>>()
        .expect("rows");
    drop(stmt);
    let (steps, versions): (BTreeSet<u64>, BTreeSet<i64>) = held.iter().copied().unzip();
    let lost: Vec<_> = acknowledged.difference(&steps).collect();
    assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    assert_eq!(versions.len(), held.len(), "two transactions have one version");
    let same = |other: &Site, how: &str| {
        for (name, _) in TABLES {
            let sql = format!("SELECT * FROM {name} ORDER BY 1, 2");
            assert_eq!(site.rows(&sql), other.rows(&sql), "{name} of a replica {how}");
        }
    };
    let (whole, nine) = (Site::memory().with(TABLES), Site::memory().with(TABLES));
    whole.pull(&site);
    same(&whole, "by changesets");
    assert_eq!(site.changes(), whole.changes());
    meet(&site, peer);
    // Not before: a row whose insert has not come yet is not shown, which nine values cannot say.
    nine.pull_nine(&site, |_| {});
    same(&nine, "by nine values");
}

fn shared(seed: u64) {
    let mut r = Random::new(seed);
    let (journal, interrupted) = (*r.pick(&["wal", "delete", "memory"]), r.chance(40));
    println!("-- seed {seed}: {journal}, interrupted: {interrupted}");
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("a.db");
    let peer = peer(seed);
    drop(Site::open(&path).with(TABLES));
    let cells = "SELECT printf('INSERT INTO crsql_changes VALUES(%Q, %s, %Q, %s, %d, %d, %s, %d, %d)', [table], quote(pk), cid, \
                 quote(val), col_version, db_version, quote(site_id), cl, seq) FROM crsql_changes";
    let world = World {
        db: Shared::open(&path),
        gate: RwLock::new(()),
        acknowledged: Mutex::default(),
        cursors: Mutex::default(),
        working: AtomicUsize::new(3),
        ran: AtomicU64::new(0),
        interrupted,
        parts: peer.answer(&Site::memory().vector()).0.into_iter().map(|(part, _)| part).collect(),
        cells: peer.db.prepare(cells).and_then(|mut s| s.query_map([], |r| r.get(0))?.collect()).expect("its cells"),
    };
    for sql in [&format!("PRAGMA journal_mode = {journal}"), "PRAGMA synchronous = off"] {
        world.db.run(sql, None).expect("a setting");
    }
    scope(|scope| {
        let (world, new) = (&world, |k: u64| Random::new(seed * 100 + k));
        for k in 0..3 {
            scope.spawn(move || world.writer(new(k), 1_000 * (k + 1), STEPS));
        }
        scope.spawn(move || world.careless(new(10)));
        scope.spawn(move || world.merger(new(11)));
        scope.spawn(move || world.reader(new(12)));
        scope.spawn(move || world.reader(new(13)));
        scope.spawn(move || world.nuisance(new(14)));
    });
    assert!(world.db.is_autocommit(), "a transaction was left open");
    let acknowledged = world.acknowledged.into_inner().expect("nobody panicked");
    println!("{} statements, {} steps acknowledged", world.ran.load(Ordering::Relaxed), acknowledged.len());
    let left = world.cursors.into_inner().expect("nobody panicked");
    let refused = !left.is_empty();
    match world.db.close() {
        Ok(()) => assert!(!refused, "it was closed beneath its statements"),
        Err((code, db)) => {
            assert_eq!((code, refused), (ffi::SQLITE_BUSY, true));
            // The last of them closes it, from another thread.
            db.close_later();
            scope(|scope| scope.spawn(move || drop(left)).join()).expect("they are finalized");
        }
    }
    examine(&path, &acknowledged, &peer);
}

#[test]
fn one_connection_shared_by_many_threads_loses_nothing_acknowledged_and_syncs() {
    each_seed("THREADS", 4, shared);
}

/// Opens the file, and makes the tables unless somebody has.
fn newcomer(path: &Path, journal: &str) -> Site {
    let site = Site::open(path);
    let make: Vec<String> = TABLES
        .iter()
        .flat_map(|(name, sql)| {
            [sql.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"), format!("SELECT crsql_as_crr('{name}')")]
        })
        .collect();
    transaction(&site.db, &make).expect("the tables are made, or there");
    starling_tests::wait::until("the journal mode", Duration::from_secs(20), || {
        site.db.pragma_update(None, "journal_mode", journal).is_ok()
    });
    site.exec("PRAGMA synchronous = off");
    site
}

fn separate(seed: u64) {
    let journal = *Random::new(seed).pick(&["wal", "delete"]);
    println!("-- seed {seed}: {journal}");
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("a.db");
    let (acknowledged, begin, peer) = (Mutex::new(BTreeSet::new()), Barrier::new(4), peer(seed));
    let answer = peer.answer(&Site::memory().vector());
    scope(|scope| {
        for k in 1..=4 {
            let (path, acknowledged, begin, answer) = (&path, &acknowledged, &begin, &answer);
            scope.spawn(move || {
                let mut r = Random::new(seed * 100 + k);
                begin.wait();
                for n in (1_000 * k..).take(12) {
                    let site = newcomer(path, journal);
                    if r.chance(20) {
                        starling_tests::workload::merge_all(&site, answer).expect("it merges");
                    }
                    let statements = step(&mut r, n, "separate");
                    transaction(&site.db, &statements).unwrap_or_else(|e| panic!("{statements:?}: {e}"));
                    acknowledged.lock().expect("nobody panicked").insert(n);
                    site.one::<i64>("SELECT count(*) FROM crsql_changes");
                    site.db.close().expect("nothing is left open");
                }
            });
        }
    });
    examine(&path, &acknowledged.into_inner().expect("nobody panicked"), &peer);
}

#[test]
fn connections_that_threads_open_and_close_at_once_on_a_file_that_is_not_there_yet_lose_nothing_and_sync() {
    each_seed("THREADS", 2, separate);
}

//! kill -9, hundreds of times, in each journal mode.

use super::setting;
use starling_tests::random::Random;
use starling_tests::site::Site;
use starling_tests::workload::{check, meet, step, transaction, TABLES};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// One file, its writer's past, and a second replica that met it after every crash.
struct Story {
    folder: tempfile::TempDir,
    /// `bash -c` with a limit on the size of files, instead of a kill.
    limit_kib: Option<u64>,
    journal: &'static str,
    synchronous: &'static str,
    /// Acknowledged: step to db_version.
    acknowledged: BTreeMap<u64, i64>,
    next_step: u64,
    last_version: i64,
    peer: Site,
}

impl Story {
    fn new(journal: &'static str, synchronous: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let peer = Site::memory().with(TABLES);
        let mut r = Random::new(3);
        for n in 0..40 {
            // Some of these fail for a key that is taken: then the step is not done, which is fine.
            let _ = transaction(&peer.db, &step(&mut r, 1_000_000 + n, "peer"));
        }
        let parts = folder.path().join("parts");
        std::fs::create_dir(&parts).expect("a directory");
        for (i, (part, _)) in peer.answer(&Site::memory().vector()).0.iter().enumerate() {
            std::fs::write(parts.join(format!("{i:04}")), part).expect("it writes");
        }
        Self {
            folder,
            limit_kib: None,
            journal,
            synchronous,
            acknowledged: BTreeMap::new(),
            next_step: 1,
            last_version: 0,
            peer,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    fn start(&self, seed: u64) -> Child {
        let mut command = match self.limit_kib {
            None => Command::new(env!("CARGO_BIN_EXE_victim")),
            Some(kib) => {
                let mut shell = Command::new("bash");
                let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\"");
                shell.args(["-c", &script, "victim", env!("CARGO_BIN_EXE_victim")]);
                shell
            }
        };
        let (seed, first) = (seed.to_string(), self.next_step.to_string());
        command
            .arg(self.file())
            .args([self.journal, self.synchronous, &seed, &first])
            .arg(self.folder.path().join("parts"));
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the victim starts")
    }

    /// Reads what the victim told, to the end of its life.
    fn listen(&mut self, child: &mut Child, mut on_line: impl FnMut(&mut Child, u64)) -> u64 {
        let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut lines = 0;
        for line in out.lines() {
            let Ok(line) = line else { break };
            let words: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| words.get(i).and_then(|w| w.parse::<u64>().ok());
            let n = number(1).unwrap_or_else(|| panic!("the victim said: {line}"));
            self.next_step = self.next_step.max(n + 1);
            if let ("done", Some(version)) = (words[0], number(2)) {
                let version = version.cast_signed();
                assert!(version > self.last_version, "{n} was given {version} after {}", self.last_version);
                self.last_version = version;
                self.acknowledged.insert(n, version);
            }
            lines += 1;
            on_line(child, lines);
        }
        lines
    }

    fn kill_once(&mut self, seed: u64) {
        let mut r = Random::new(seed);
        let mut child = self.start(seed);
        let (after_lines, pause) = (r.below(12), Duration::from_micros(r.below(6_000)));
        if after_lines == 0 {
            // While it opens the file, recovers, or makes its tables.
            std::thread::sleep(pause * 5);
            child.kill().expect("it can be killed");
        }
        self.listen(&mut child, |child, lines| {
            if lines == after_lines {
                std::thread::sleep(pause);
                child.kill().expect("it can be killed");
            }
        });
        child.wait().expect("it is gone");
        // The step under way may be committed without a word of it.
        self.next_step += 1;
    }

    /// What survived.
    fn examine(&mut self, meet_too: bool) {
        let site = Site::open(&self.file());
        if site.one::<i64>("SELECT count(*) FROM sqlite_master WHERE name = 'done'") == 0 {
            assert!(self.acknowledged.is_empty(), "the tables are gone");
            return;
        }
        check(&site);
        let version = site.one::<i64>("SELECT crsql_db_version()");
        assert!(version >= self.last_version, "version {version} after {} was acknowledged", self.last_version);
        self.last_version = version;
        let mut stmt = site
            .db
            .prepare("SELECT d.n, c.db_version FROM done AS d JOIN crsql_changes AS c ON c.[table] = 'done' AND c.pk = crsql_pack_columns(d.n) WHERE d.by = 'victim'")
            .expect("it prepares");
        let held: BTreeMap<u64, i64> = stmt
            .query_map([], |r| Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get(1)?)))
            .expect("it runs")
            .collect::<Result<_, _>>()
            .expect("rows");
        for (n, version) in &self.acknowledged {
            assert_eq!(held.get(n), Some(version), "step {n} was acknowledged under version {version}");
        }
        let mut versions: Vec<i64> = held.values().copied().collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), held.len(), "two transactions have one version");
        drop(stmt);
        if meet_too {
            meet(&site, &self.peer);
            self.last_version = site.one("SELECT crsql_db_version()");
        }
    }
}

fn kills(journal: &'static str, synchronous: &'static str) {
    let mut story = Story::new(journal, synchronous);
    let first = setting("STARLING_CRASH_SEED", 1);
    let n = setting("STARLING_CRASH_KILLS", 50);
    for seed in first..first + n {
        println!("{journal} {synchronous}: STARLING_CRASH_SEED={seed}");
        story.kill_once(seed);
        story.examine(seed % 4 == 0);
    }
    story.examine(true);
    println!("{journal} {synchronous}: {n} kills, {} steps acknowledged", story.acknowledged.len());
    assert!(story.acknowledged.len() as u64 > n, "the victim was killed before it did anything");
}

#[test]
fn wal_normal_loses_nothing_acknowledged_by_kill_9() {
    kills("wal", "normal");
}

#[test]
fn wal_full_loses_nothing_acknowledged_by_kill_9() {
    kills("wal", "full");
}

#[test]
fn delete_normal_loses_nothing_acknowledged_by_kill_9() {
    kills("delete", "normal");
}

#[test]
fn delete_full_loses_nothing_acknowledged_by_kill_9() {
    kills("delete", "full");
}

#[test]
fn files_that_may_not_grow_lose_nothing_acknowledged() {
    for (seed, journal) in [(1, "wal"), (2, "delete")] {
        let mut story = Story::new(journal, "normal");
        for round in 0..12 {
            story.limit_kib = Some(80 + 15 * round);
            let mut child = story.start(seed * 100 + round);
            // Where a checkpoint makes room for ever, it is stopped after a while.
            story.listen(&mut child, |child, lines| {
                if lines == 60 {
                    child.kill().expect("it can be killed");
                }
            });
            child.wait().expect("it is gone");
            story.next_step += 1;
            story.examine(true);
        }
        assert!(!story.acknowledged.is_empty(), "it never had room: {}", Path::new(&story.file()).display());
    }
}

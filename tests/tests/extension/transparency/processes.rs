//! The same random SQL on a plain file and on one with CRRs, from several processes that take turns: transactions that one leaves
//! open while others read or try to write, schema changes and VACUUM beneath the others, a process killed in the middle. What
//! each is told, locks included, must be the same. STARLING_PROCESSES_SEED replays one history, STARLING_PROCESSES_RUNS sets
//! how many are run; `--nocapture` shows the SQL.

use super::differential::compare_replicas;
use super::statements::{self, ALL, CRRS};
use serde_json::{json, Value};
use starling_tests::puppet::Puppet;
use starling_tests::random::{each_seed, Random};
use starling_tests::seen::{rows, same};
use starling_tests::site::Site;
use std::path::PathBuf;

const PROCESSES: usize = 3;

/// One of the processes.
struct Process {
    puppet: Puppet,
    /// `changes()` after a COMMIT counts the internal writes too, until the next write (LIMITS.md).
    committed: bool,
    /// VACUUM has left its own mark in `last_insert_rowid()`, which the number of rows in the schema decides.
    marked: bool,
    /// A transaction is open.
    open: bool,
}

struct Theatre {
    files: [PathBuf; 2],
    /// What each process does first: settings, and what is temporary.
    first: Vec<String>,
    processes: Vec<Process>,
    late: usize,
    /// How often a statement found a lock in its way, an old snapshot among them.
    busy: usize,
}

impl Theatre {
    fn start(&self) -> Process {
        let puppet = Puppet::start(env!("CARGO_BIN_EXE_victim"), &self.files);
        let mut process = Process { puppet, committed: false, marked: false, open: false };
        for sql in &self.first {
            process.puppet.tell(Some(sql), Some(sql));
        }
        // Where they begin has nothing to do with the tables.
        process
            .puppet
            .tell(Some("INSERT INTO scratch VALUES(1, 'begin')"), Some("INSERT INTO scratch VALUES(1, 'begin')"));
        process
    }

    /// One statement in one process; whether it succeeded.
    fn step(&mut self, who: usize, sql: &str, dml: bool) -> bool {
        println!("  {who}: {sql};");
        let process = &mut self.processes[who];
        let [mut plain, mut crr] = process.puppet.tell(Some(sql), Some(sql));
        if dml && plain["prepared"] == json!(true) {
            process.committed = false;
        } else if !dml && (plain["autocommit"] == json!(true) || sql == "COMMIT") {
            process.committed = true;
        }
        process.marked |= sql == "VACUUM";
        for seen in [&mut plain, &mut crr] {
            if process.committed {
                seen["changes"] = Value::Null;
            }
            if process.marked {
                seen["rowid"] = Value::Null;
            }
        }
        same(&format!("process {who}: {sql}"), &plain, &crr);
        process.open = plain["autocommit"] == json!(false);
        let code = plain["error"][0].as_i64();
        self.busy += usize::from(code.is_some_and(|code| code & 0xff == 5));
        code.is_none()
    }

    /// What this process sees of every table.
    fn look(&mut self, who: usize) {
        for (table, columns) in ALL {
            self.step(who, &format!("SELECT {columns} FROM {table}"), false);
        }
    }

    /// A function of the extension's, of which nothing must be seen but in `changes()`.
    fn call(&mut self, who: usize, sql: &str) -> Value {
        self.processes[who].committed = true;
        let [_, seen] = self.processes[who].puppet.tell(None, Some(sql));
        seen["error"].clone()
    }

    fn kill(&mut self, who: usize) {
        println!("  {who} is killed");
        self.processes[who].puppet.kill();
        self.processes[who] = self.start();
    }

    /// Whoever changes a schema has the extension look after it at once: a connection that is opened later would, and its
    /// write would be one that the plain file does not see.
    fn announce(&mut self, who: usize) {
        self.call(who, "SELECT starling_resume()");
    }

    /// The version of the schema, read in both files, so that both have seen a read.
    fn schema(&mut self, who: usize) -> [Value; 2] {
        let ask = Some("PRAGMA schema_version");
        self.processes[who].puppet.tell(ask, ask).map(|seen| seen["rows"].clone())
    }

    fn change_schema(&mut self, who: usize, r: &mut Random) {
        if !self.step(who, "BEGIN IMMEDIATE", false) {
            return;
        }
        match r.below(3) {
            0 => {
                self.late += 1;
                let sql = format!("ALTER TABLE x ADD COLUMN late{} DEFAULT 'late'", self.late);
                assert_eq!(self.call(who, "SELECT crsql_begin_alter('x')"), Value::Null);
                self.step(who, &sql, false);
                if r.chance(10) {
                    return self.kill(who);
                }
                assert_eq!(self.call(who, "SELECT crsql_commit_alter('x')"), Value::Null);
                self.announce(who);
            }
            1 => {
                let sql = "CREATE TRIGGER IF NOT EXISTS late AFTER UPDATE ON r BEGIN INSERT INTO note(what) VALUES('late'); END";
                self.step(who, sql, false);
                self.announce(who);
            }
            _ => {
                self.step(who, "CREATE INDEX IF NOT EXISTS late ON b(v, w)", false);
                self.announce(who);
            }
        }
        if !self.step(who, "COMMIT", false) && self.processes[who].open {
            self.step(who, "ROLLBACK", false);
        }
    }

    fn turn(&mut self, r: &mut Random) {
        let who = r.below(PROCESSES as u64) as usize;
        match r.below(100) {
            0..=2 => self.kill(who),
            3..=6 if !self.processes[who].open => self.change_schema(who, r),
            7..=16 => self.look(who),
            17..=26 if !self.processes[who].open => {
                self.step(who, if r.chance(60) { "BEGIN" } else { "BEGIN IMMEDIATE" }, false);
            }
            27..=36 if self.processes[who].open => {
                self.step(who, if r.chance(80) { "COMMIT" } else { "ROLLBACK" }, false);
            }
            _ => {
                let (sql, dml) = statements::statement(r);
                if !["VACUUM", "DROP INDEX", "CREATE INDEX"].iter().any(|verb| sql.starts_with(verb)) {
                    self.step(who, &sql, dml);
                    return;
                }
                let before = self.schema(who);
                self.step(who, &sql, dml);
                if self.schema(who) != before {
                    self.announce(who);
                }
            }
        }
    }
}

fn history(seed: u64) -> usize {
    let r = &mut Random::new(seed);
    let journal = *r.pick(&["WAL", "WAL", "DELETE"]);
    println!("-- seed {seed}: {journal}");
    let dir = tempfile::tempdir().expect("a directory");
    let files = ["plain.db", "crr.db"].map(|name| dir.path().join(name));
    let mut first = statements::settings(r);
    first.push("PRAGMA synchronous = OFF".to_string());
    let mut shared = statements::tables(r);
    let around = statements::surroundings(r).into_iter().chain(statements::triggers(r));
    let (temporary, lasting): (Vec<String>, Vec<String>) = around.partition(|sql| sql.starts_with("CREATE TEMP"));
    first.extend(temporary);
    shared.extend(lasting);
    for file in &files {
        let site = Site::open(file);
        site.exec(&format!("PRAGMA journal_mode = {journal}"));
        shared.iter().for_each(|sql| site.exec(sql));
        if file == &files[1] {
            CRRS.iter().for_each(|(name, _)| drop(site.one::<String>(&format!("SELECT crsql_as_crr('{name}')"))));
        }
    }
    let mut theatre = Theatre { files, first, processes: Vec::new(), late: 0, busy: 0 };
    theatre.processes = (0..PROCESSES).map(|_| theatre.start()).collect();
    for _ in 0..60 + r.below(80) {
        theatre.turn(r);
    }
    for who in 0..PROCESSES {
        if theatre.processes[who].open {
            theatre.step(who, if r.chance(70) { "COMMIT" } else { "ROLLBACK" }, false);
        }
        if theatre.processes[who].open {
            theatre.step(who, "ROLLBACK", false);
        }
    }
    (0..PROCESSES).for_each(|who| theatre.look(who));
    theatre.processes.clear();
    let [plain, crr] = theatre.files.each_ref().map(|file| Site::open(file));
    for (table, columns) in ALL.iter().filter(|(table, _)| !table.starts_with("temp.")) {
        let query = format!("SELECT {columns} FROM {table}");
        same(&query, &rows(&plain.db, &query), &rows(&crr.db, &query));
    }
    let tables: Vec<String> = CRRS
        .iter()
        .map(|(name, _)| plain.one(&format!("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{name}'")))
        .collect();
    compare_replicas(&crr, &tables);
    assert_eq!(rows(&crr.db, "PRAGMA integrity_check"), ["'ok'"]);
    theatre.busy
}

#[test]
fn processes_that_take_turns_are_told_the_same_of_a_plain_file_and_of_one_with_crrs() {
    let busy = std::sync::atomic::AtomicUsize::new(0);
    each_seed("PROCESSES", 12, |seed| {
        busy.fetch_add(history(seed), std::sync::atomic::Ordering::Relaxed);
    });
    println!("{} statements found a lock in their way", busy.into_inner());
}

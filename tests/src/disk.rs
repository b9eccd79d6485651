//! A disk in memory that fails where it is told to, or loses its power: what a database file goes through, without a machine
//! to unplug. Each disk holds one database; one connection at a time may use it.

mod vfs;

use crate::random::Random;
use crate::site::open_on;
use rusqlite::{ffi, Connection};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What happens at the chosen operation, which is a write, a sync, a truncation, a removal or the making of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails, and the next one works.
    Once,
    /// A write stops half-way and says that the disk is full. The next one works.
    Short,
    /// The disk is full until it is mended.
    Full,
    /// A write stops half-way, and that was the process's last one.
    Death,
    /// The power goes: what was not synced is there or not.
    PowerCut,
}

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A change that was not synced yet.
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
            Self::Truncate(len) => bytes.resize(*len, 0),
        }
    }
}

#[derive(Default)]
struct File {
    now: Vec<u8>,
    /// As of its last sync; `None`: a power cut may leave nothing of it, not even its name.
    durable: Option<Vec<u8>>,
    pending: Vec<Change>,
}

/// The state of one disk.
#[derive(Default)]
struct State {
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, File>,
    /// Removed, but the folder was not synced since.
    removed: Vec<(String, u64)>,
    next: u64,
    operations: u64,
    fault: Option<(u64, Fault)>,
    fired: bool,
    dead: bool,
    full: bool,
    /// The wal-index: memory that readers and writers share.
    shared: Vec<Box<[u64; 4096]>>,
}

/// All disks.
static DISKS: Mutex<BTreeMap<u64, State>> = Mutex::new(BTreeMap::new());

fn disks() -> MutexGuard<'static, BTreeMap<u64, State>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of an operation.
enum Verdict {
    Go,
    Half(c_int),
    Fail(c_int),
}

impl State {
    /// Counts an operation; `code` is what it fails with.
    fn verdict(&mut self, code: c_int) -> Verdict {
        if self.dead {
            return Verdict::Fail(code);
        }
        self.operations += 1;
        if self.full {
            return Verdict::Fail(ffi::SQLITE_FULL);
        }
        let Some((_, fault)) = self.fault.filter(|(at, _)| *at == self.operations) else { return Verdict::Go };
        self.fired = true;
        self.full = fault == Fault::Full;
        self.dead = matches!(fault, Fault::Death | Fault::PowerCut);
        match fault {
            Fault::Once | Fault::PowerCut => Verdict::Fail(code),
            Fault::Short | Fault::Full => Verdict::Half(ffi::SQLITE_FULL),
            Fault::Death => Verdict::Half(code),
        }
    }

    fn open(&mut self, name: Option<&str>, create: bool) -> Result<u64, c_int> {
        if let Some(id) = name.and_then(|n| self.names.get(n)) {
            return Ok(*id);
        }
        if !create {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        if let Verdict::Half(code) | Verdict::Fail(code) = self.verdict(ffi::SQLITE_CANTOPEN) {
            return Err(code);
        }
        self.next += 1;
        self.files.insert(self.next, File::default());
        if let Some(name) = name {
            self.names.insert(name.to_string(), self.next);
        }
        Ok(self.next)
    }

    fn change(&mut self, id: u64, change: Change, code: c_int) -> c_int {
        let (change, result) = match (self.verdict(code), change) {
            (Verdict::Go, change) => (change, ffi::SQLITE_OK),
            (Verdict::Half(code), Change::Write(at, mut data)) => {
                data.truncate(data.len() / 2);
                (Change::Write(at, data), code)
            }
            (Verdict::Half(code) | Verdict::Fail(code), _) => return code,
        };
        let Some(file) = self.files.get_mut(&id) else { return code };
        change.apply(&mut file.now);
        file.pending.push(change);
        result
    }

    fn sync(&mut self, id: u64) -> c_int {
        if let Verdict::Half(code) | Verdict::Fail(code) = self.verdict(ffi::SQLITE_IOERR_FSYNC) {
            return code;
        }
        let Some(file) = self.files.get_mut(&id) else { return ffi::SQLITE_IOERR_FSYNC };
        if file.durable.is_none() {
            // The first sync of a new file is followed by one of its folder.
            self.removed.clear();
        }
        file.durable = Some(file.now.clone());
        file.pending.clear();
        ffi::SQLITE_OK
    }

    fn remove(&mut self, name: &str, sync_folder: bool) -> c_int {
        if !self.names.contains_key(name) {
            return ffi::SQLITE_IOERR_DELETE_NOENT;
        }
        if let Verdict::Half(code) | Verdict::Fail(code) = self.verdict(ffi::SQLITE_IOERR_DELETE) {
            return code;
        }
        if let Some(id) = self.names.remove(name) {
            self.removed.push((name.to_string(), id));
        }
        if sync_folder {
            self.removed.clear();
        }
        ffi::SQLITE_OK
    }
}

/// A disk, there until it is dropped.
pub struct Disk(u64);

impl Disk {
    /// With these files on it, all of them safe.
    pub fn new(files: &Files) -> Self {
        let mut disks = disks();
        let id = disks.keys().next_back().map_or(1, |last| last + 1);
        let mut state = State::default();
        for (name, bytes) in files {
            state.next += 1;
            state.names.insert(name.clone(), state.next);
            let file = File { now: bytes.clone(), durable: Some(bytes.clone()), pending: Vec::new() };
            state.files.insert(state.next, file);
        }
        disks.insert(id, state);
        Self(id)
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(disks().entry(self.0).or_default())
    }

    /// Opens its database.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(&self) -> rusqlite::Result<Connection> {
        open_on(Path::new(&format!("/{}/a.db", self.0)), vfs::name())
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.with(|s| s.operations)
    }

    /// Lets the n-th operation from now on fail.
    pub fn fail(&self, n: u64, fault: Fault) {
        self.with(|s| s.fault = Some((s.operations + n, fault)));
    }

    /// Whether that has happened.
    pub fn has_failed(&self) -> bool {
        self.with(|s| s.fired)
    }

    /// Makes room again.
    pub fn mend(&self) {
        self.with(|s| s.full = false);
    }

    /// What a process that ended left.
    pub fn files(&self) -> Files {
        self.with(|s| s.names.iter().map(|(name, id)| (name.clone(), s.files[id].now.clone())).collect())
    }

    /// What may be left when the power comes back: of what was not synced nothing, all, or some.
    pub fn after_power_cut(&self, r: &mut Random) -> Files {
        let share = *r.pick(&[0, 50, 50, 100]);
        self.with(|s| {
            let mut out = Files::new();
            for (name, id) in &s.removed {
                if let Some(durable) = s.files[id].durable.as_ref().filter(|_| r.chance(100 - share)) {
                    out.insert(name.clone(), durable.clone());
                }
            }
            for (name, id) in &s.names {
                let file = &s.files[id];
                if file.durable.is_none() && !r.chance(share) {
                    continue;
                }
                let mut bytes = file.durable.clone().unwrap_or_default();
                for change in file.pending.iter().filter(|_| r.chance(share)) {
                    change.apply(&mut bytes);
                }
                out.insert(name.clone(), bytes);
            }
            out
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        disks().remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a committed row survives power cuts of every luck.
    fn survives(synchronous: &str, journal: &str) -> Vec<bool> {
        let disk = Disk::new(&Files::new());
        let db = disk.open().expect("it opens");
        db.pragma_update(None, "journal_mode", journal).expect("a pragma");
        db.pragma_update(None, "synchronous", synchronous).expect("a pragma");
        db.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES(1)").expect("it runs");
        let held = |seed| {
            let again = Disk::new(&disk.after_power_cut(&mut Random::new(seed)));
            let db = again.open().expect("it opens");
            db.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0)).is_ok_and(|n| n == 1)
        };
        (0..30).map(held).collect()
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_leaves_what_was() {
        for journal in ["wal", "delete"] {
            assert!(survives("extra", journal).iter().all(|held| *held), "{journal}");
            assert!(survives("off", journal).iter().any(|held| !held), "{journal}");
        }
    }
}

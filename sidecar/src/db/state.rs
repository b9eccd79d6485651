//! The small file beside the database that remembers what was shipped, so that a restored or copied database is noticed
//! before it uses a version number twice.

use super::check::{DbPath, FileIdentity};
use serde::{Deserialize, Serialize};
use starling_crdt::{Origin, SiteId, Vector};
use std::io::Write;
use std::path::PathBuf;
use uuid::Uuid;

/// What was true when the last local transaction was shipped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Version of this file's form.
    pub format: u32,
    /// The replica.
    pub site_id: Uuid,
    /// The local counter at the time.
    pub db_version: u64,
    /// The newest local transaction shipped: its epoch, version and token.
    pub shipped: Option<Shipped>,
    /// Which file it was.
    pub file: FileIdentity,
    /// Which boot of the machine.
    pub boot_id: Option<Uuid>,
    /// The process's incarnation; the next one is higher, whatever the clock says.
    pub incarnation: u64,
}

/// A local transaction that left this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shipped {
    /// Its epoch.
    pub epoch: u64,
    /// Its version.
    pub version: u64,
    /// Its token.
    pub token: u64,
}

impl Shipped {
    /// A vector that claims just this dot: what `starling_check` compares with the database.
    #[must_use]
    pub fn as_vector(&self, site: SiteId) -> Vector {
        let mut vector = Vector::default();
        vector.claim(Origin { site, epoch: self.epoch }, self.version, self.version, self.token);
        vector
    }
}

/// The form that this build reads and writes.
pub const FORMAT: u32 = 1;

/// What the file said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remembered {
    /// There is none: the first run.
    Nothing,
    /// It is there and cannot be read.
    Unreadable,
    /// It was read.
    State(State),
}

/// The file.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    fresh: PathBuf,
}

impl StateFile {
    /// The state file of a database.
    #[must_use]
    pub fn of(db: &DbPath) -> Self {
        Self { path: db.beside("-starling.state"), fresh: db.beside("-starling.state.new") }
    }

    /// Reads it.
    #[must_use]
    pub fn load(&self) -> Remembered {
        match std::fs::read(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Remembered::Nothing,
            Err(_) => Remembered::Unreadable,
            Ok(bytes) => match serde_json::from_slice::<State>(&bytes) {
                Ok(state) if state.format == FORMAT => Remembered::State(state),
                _ => Remembered::Unreadable,
            },
        }
    }

    /// Replaces it as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, state: &State) -> std::io::Result<()> {
        let mut file = std::fs::File::create(&self.fresh)?;
        file.write_all(&serde_json::to_vec_pretty(state)?)?;
        file.sync_data()?;
        std::fs::rename(&self.fresh, &self.path)
    }
}

/// Why a new epoch must be drawn before this database is written under its site id again; `None` when it need not.
#[must_use]
pub fn reason_for_new_epoch(
    remembered: &Remembered,
    site: SiteId,
    db_version: u64,
    file: Option<FileIdentity>,
) -> Option<String> {
    let state = match remembered {
        Remembered::Nothing => return None,
        Remembered::Unreadable => {
            return Some("what was shipped before is not known, the state file is damaged".into())
        }
        Remembered::State(state) => state,
    };
    if *state.site_id.as_bytes() != site.0 {
        return None;
    }
    let known = state.shipped.map_or(0, |s| s.version).max(state.db_version);
    if db_version < known {
        return Some(format!(
            "the database is at version {db_version}, but had reached {known}: it was restored or rolled back"
        ));
    }
    if file.is_some_and(|file| file != state.file) {
        return Some("the database file was replaced or copied".into());
    }
    None
}

/// The machine's boot, where the system tells.
#[must_use]
pub fn boot_id() -> Option<Uuid> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Uuid::parse_str(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: SiteId = SiteId([3; 16]);
    const FILE: FileIdentity = FileIdentity { device: 1, inode: 2 };

    fn state() -> State {
        State {
            format: FORMAT,
            site_id: Uuid::from_bytes(SITE.0),
            db_version: 10,
            shipped: Some(Shipped { epoch: 1, version: 9, token: 77 }),
            file: FILE,
            boot_id: boot_id(),
            incarnation: 5,
        }
    }

    #[test]
    fn it_reads_back_and_damage_is_not_taken_for_a_first_run() {
        let dir = tempfile::tempdir().unwrap();
        let db = DbPath::resolve(&dir.path().join("x.db")).unwrap();
        let file = StateFile::of(&db);
        assert_eq!(file.load(), Remembered::Nothing);
        file.store(&state()).unwrap();
        assert_eq!(file.load(), Remembered::State(state()));
        std::fs::write(db.beside("-starling.state"), b"{\"format\":1").unwrap();
        assert_eq!(file.load(), Remembered::Unreadable);
    }

    #[test]
    fn a_database_older_than_what_was_shipped_needs_a_new_epoch() {
        let remembered = Remembered::State(state());
        let reason = |site, version, file| reason_for_new_epoch(&remembered, site, version, Some(file));
        assert_eq!(reason(SITE, 10, FILE), None);
        assert_eq!(reason(SITE, 11, FILE), None);
        assert!(reason(SITE, 8, FILE).unwrap().contains("restored"));
        assert!(reason(SITE, 12, FileIdentity { device: 1, inode: 3 }).unwrap().contains("replaced"));
        assert_eq!(reason(SiteId([4; 16]), 0, FILE), None, "another database says nothing about this one");
        assert_eq!(reason_for_new_epoch(&Remembered::Nothing, SITE, 0, None), None);
        assert!(reason_for_new_epoch(&Remembered::Unreadable, SITE, 0, None).is_some());
    }
}

//! Before the database is opened: is it a file that this process can share with its applications?

use crate::error::Error;
use rustix::fs::Access;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// File systems on which SQLite's locks or shared memory do not hold between programs, by their magic number.
const NETWORK_FILE_SYSTEMS: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x7375_7245, "Coda"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
];

/// A database's path with all symbolic links followed, so that two names of one file are one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DbPath {
    path: PathBuf,
}

impl DbPath {
    /// Follows links. The file itself need not be there yet, its directory must.
    ///
    /// # Errors
    /// Says what is not there.
    pub fn resolve(given: &Path) -> Result<Self, Error> {
        let failed = |problem: String| Error::database(given, problem);
        if let Ok(path) = std::fs::canonicalize(given) {
            return Ok(Self { path });
        }
        if std::fs::symlink_metadata(given).is_ok() {
            return Err(failed("is a symbolic link to a file that is not there or cannot be reached".into()));
        }
        let name = given.file_name().ok_or_else(|| failed("is not a file name".into()))?;
        let parent = given.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let parent = std::fs::canonicalize(parent)
            .map_err(|e| failed(format!("its directory {} cannot be reached: {e}", parent.display())))?;
        Ok(Self { path: parent.join(name) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new("/"))
    }

    /// A file beside it: its name with this suffix.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Its device and inode, looked up by path only; `None` when it is not there.
    #[must_use]
    pub fn identity(&self) -> Option<FileIdentity> {
        std::fs::metadata(&self.path).ok().map(|m| FileIdentity { device: m.dev(), inode: m.ino() })
    }
}

/// Which file a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct FileIdentity {
    /// The device.
    pub device: u64,
    /// The inode there.
    pub inode: u64,
}

/// Refuses what cannot work or would harm an application.
///
/// # Errors
/// Each says what to do.
pub fn preflight(db: &DbPath) -> Result<(), Error> {
    let failed = |problem: String| Error::database(db.path(), problem);
    file_system(db.dir()).map_err(failed)?;
    let dir = std::fs::metadata(db.dir()).map_err(|e| failed(format!("its directory cannot be read: {e}")))?;
    if let Err(e) = rustix::fs::access(db.dir(), Access::WRITE_OK | Access::EXEC_OK) {
        let problem = format!("its directory {} is not writable by this user ({e}); ", db.dir().display());
        return Err(failed(problem + "SQLite keeps its -wal and -shm files there"));
    }
    let file = match std::fs::metadata(db.path()) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(format!("cannot be read: {e}"))),
    };
    if file.is_dir() {
        return Err(failed("is a directory; give the database file itself".into()));
    }
    if !file.is_file() {
        return Err(failed("is not a regular file".into()));
    }
    if file.mode() & 0o222 == 0 {
        return Err(failed("is read-only; give its owner the right to write: chmod u+w FILE".into()));
    }
    if let Err(e) = rustix::fs::access(db.path(), Access::READ_OK | Access::WRITE_OK) {
        let problem = format!("cannot be written by this user (uid {}): {e}; ", effective_uid());
        return Err(failed(problem + &run_as(&file)));
    }
    ownership(&file, &dir, Credentials::own()).map_err(failed)
}

fn file_system(dir: &Path) -> Result<(), String> {
    let stat = rustix::fs::statfs(dir).map_err(|e| format!("its file system cannot be told: {e}"))?;
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let magic = u64::from(stat.f_type as u32);
    refuse_network(magic)
}

fn refuse_network(magic: u64) -> Result<(), String> {
    match NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic) {
        None => Ok(()),
        Some((_, name)) => Err(format!(
            "is on a {name} file system, where SQLite's locks and shared memory do not hold between programs; \
             move it to a local disk"
        )),
    }
}

/// Who this process is to the file system.
#[derive(Clone, Copy, Debug)]
struct Credentials {
    uid: u32,
    gid: u32,
}

impl Credentials {
    fn own() -> Self {
        Self { uid: effective_uid(), gid: rustix::process::getegid().as_raw() }
    }
}

fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The `-wal` and `-shm` files get the database's mode but belong to whoever makes them. They must be writable by the
/// application, which is taken to be the database's owner. (As root, SQLite gives them to the database's owner.)
fn ownership(file: &Metadata, dir: &Metadata, me: Credentials) -> Result<(), String> {
    if me.uid == 0 || me.uid == file.uid() {
        return Ok(());
    }
    let group_of_new_files = if dir.mode() & 0o2000 != 0 { dir.gid() } else { me.gid };
    let by_group = file.mode() & 0o060 == 0o060 && group_of_new_files == file.gid();
    let by_all = file.mode() & 0o006 == 0o006;
    if by_group || by_all {
        return Ok(());
    }
    let (uid, owner) = (me.uid, file.uid());
    Err(format!(
        "belongs to uid {owner}, and the -wal and -shm files made by this user (uid {uid}) could not be written by it; {}",
        run_as(file)
    ))
}

fn run_as(file: &Metadata) -> String {
    let (uid, gid) = (file.uid(), file.gid());
    format!("run the sidecar as the database's owner: sudo -u '#{uid}' -g '#{gid}' starling run …")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_and_a_read_only_file_are_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = preflight(&DbPath::resolve(dir.path()).unwrap()).unwrap_err();
        assert!(error.to_string().contains("is a directory"), "{error}");

        let path = dir.path().join("ro.db");
        std::fs::write(&path, b"").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
        let error = preflight(&DbPath::resolve(&path).unwrap()).unwrap_err();
        assert!(error.to_string().contains("read-only"), "{error}");
        assert_eq!(error.exit_code(), 1);

        assert!(preflight(&DbPath::resolve(&dir.path().join("new.db")).unwrap()).is_ok(), "it may be made later");
        assert!(DbPath::resolve(&dir.path().join("no/such/dir.db")).is_err());
    }

    #[test]
    fn two_names_of_one_file_are_one_database() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a.db"), dir.path().join("b.db"));
        std::fs::write(&path, b"").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(DbPath::resolve(&path).unwrap(), DbPath::resolve(&link).unwrap());
        let dangling = dir.path().join("c.db");
        std::os::unix::fs::symlink(dir.path().join("gone"), &dangling).unwrap();
        assert!(DbPath::resolve(&dangling).is_err());
    }

    #[test]
    fn another_user_may_share_the_file_only_through_a_group_or_everyone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        std::fs::write(&path, b"").unwrap();
        let meta = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            std::fs::metadata(&path).unwrap()
        };
        let dir = std::fs::metadata(dir.path()).unwrap();
        let (uid, gid) = (dir.uid(), dir.gid());
        let check = |mode, me: Credentials| ownership(&meta(mode), &dir, me);
        let stranger = Credentials { uid: uid + 1000, gid: gid + 1000 };
        let colleague = Credentials { uid: uid + 1000, gid };
        assert!(check(0o600, Credentials { uid, gid }).is_ok());
        assert!(check(0o600, Credentials { uid: 0, gid: 0 }).is_ok());
        assert!(check(0o660, colleague).is_ok());
        assert!(check(0o666, stranger).is_ok());
        for (mode, me) in [(0o660, stranger), (0o640, colleague), (0o644, stranger)] {
            let problem = check(mode, me).unwrap_err();
            assert!(problem.contains("sudo -u '#"), "{problem}");
        }
    }

    #[test]
    fn network_file_systems_are_refused_by_name() {
        for (magic, name) in [(0x6969, "NFS"), (0x6573_5546, "FUSE"), (0x0102_1997, "9p")] {
            assert!(refuse_network(magic).unwrap_err().contains(name));
        }
        assert!(refuse_network(0xef53).is_ok(), "ext4");
    }
}

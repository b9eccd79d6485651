//! File events of the database's directory. The directory is watched, not the files: they come and go.

use crate::db::check::DbPath;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

/// Events of the directory, reduced to "the database's files were written, made or moved".
pub(super) struct FileEvents {
    pub(super) inotify: Option<OwnedFd>,
    names: [OsString; 3],
}

impl FileEvents {
    pub(super) fn open(db: &DbPath) -> Result<Self, Errno> {
        let names = ["", "-wal", "-shm"].map(|suffix| db.beside(suffix).file_name().unwrap_or_default().to_owned());
        let fd = match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(e @ (Errno::MFILE | Errno::NFILE | Errno::NOSYS | Errno::NOMEM)) => return Ok(Self::without(names, e)),
            Err(e) => return Err(e),
        };
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        match inotify::add_watch(&fd, db.dir(), flags) {
            Ok(_) => Ok(Self { inotify: Some(fd), names }),
            Err(e @ (Errno::NOSPC | Errno::NOMEM | Errno::NOSYS)) => Ok(Self::without(names, e)),
            Err(e) => Err(e),
        }
    }

    fn without(names: [OsString; 3], why: Errno) -> Self {
        tracing::warn!(
            %why,
            "no file events are to be had, commits are noticed within half a second; raise fs.inotify.max_user_watches"
        );
        Self { inotify: None, names }
    }

    /// Takes all events that are there; whether one was about the database.
    pub(super) fn take(&self) -> bool {
        let Some(fd) = &self.inotify else { return false };
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        let mut ours = false;
        while let Ok(event) = reader.next() {
            let overflow = event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
            let named =
                event.file_name().is_some_and(|name| self.names.iter().any(|n| n.as_bytes() == name.to_bytes()));
            ours |= overflow || named;
        }
        ours
    }
}

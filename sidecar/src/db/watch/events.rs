//! File events: the database and its WAL were written, or files of these names came or went.
//!
//! The files are watched themselves, so that a log file that an application keeps beside the database wakes nobody; their
//! directory is watched for files that are made, moved or deleted, since the last connection to close deletes the WAL and the
//! next one makes it anew. Adding a watch opens no file.

use crate::db::check::DbPath;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Events taken at once. A directory in which files come and go all the time must not keep the watch from its work.
const MAX_EVENTS: usize = 256;

pub(super) struct FileEvents {
    inotify: Option<OwnedFd>,
    /// The watch on the directory; all others are on the database's files.
    dir: i32,
    files: [PathBuf; 2],
    names: [OsString; 3],
}

impl FileEvents {
    pub(super) fn open(db: &DbPath) -> Result<Self, Errno> {
        let names = ["", "-wal", "-shm"].map(|suffix| db.beside(suffix).file_name().unwrap_or_default().to_owned());
        let files = ["", "-wal"].map(|suffix| db.beside(suffix));
        let opened = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|fd| {
            let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
            let dir = inotify::add_watch(&fd, db.dir(), flags)?;
            Ok((fd, dir))
        });
        let (inotify, dir) = match opened {
            Ok((fd, dir)) => (Some(fd), dir),
            Err(why @ (Errno::MFILE | Errno::NFILE | Errno::NOSYS | Errno::NOMEM | Errno::NOSPC)) => {
                tracing::warn!(
                    %why,
                    "no file events are to be had, commits are noticed within half a second; raise fs.inotify limits"
                );
                (None, -1)
            }
            Err(e) => return Err(e),
        };
        let events = Self { inotify, dir, files, names };
        events.watch_files();
        Ok(events)
    }

    /// What becomes readable when there is an event.
    pub(super) const fn readable(&self) -> Option<&OwnedFd> {
        self.inotify.as_ref()
    }

    /// Takes the events that are there; whether one was about the database.
    pub(super) fn take(&self) -> bool {
        let Some(fd) = &self.inotify else { return false };
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        let (mut written, mut renamed) = (false, false);
        for _ in 0..MAX_EVENTS {
            let Ok(event) = reader.next() else { break };
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                renamed = true;
            } else if event.wd() != self.dir {
                written = true;
            } else {
                let name = event.file_name().map(std::ffi::CStr::to_bytes);
                renamed |= name.is_some_and(|name| self.names.iter().any(|n| n.as_bytes() == name));
            }
        }
        if renamed {
            self.watch_files();
        }
        written || renamed
    }

    /// Watches the files that are there now. A watch that stands already is kept, one on a file that is gone ends by itself.
    fn watch_files(&self) {
        let Some(fd) = &self.inotify else { return };
        for file in &self.files {
            match inotify::add_watch(fd, file, WatchFlags::MODIFY) {
                Ok(_) | Err(Errno::NOENT) => {}
                Err(why) => {
                    tracing::warn!(%why, file = %file.display(), "commits are noticed within half a second only")
                }
            }
        }
    }
}

//! Noticing commits by others: file events wake the watch, `PRAGMA data_version` proves a commit, a slow poll finds the rest.
//!
//! SQLite writes the WAL first, which gives the event, and publishes the commit in shared memory a little later, which gives
//! none. So an event opens a window in which the version counter is looked at again and again, ever more slowly. When nothing
//! happens, nothing is looked at but twice a second.

use super::check::{DbPath, FileIdentity};
use super::open::{read_vector_bytes, read_version, roll_back, Opener, ReadSnapshot, Role};
use super::reader::contradiction;
use super::state::{boot_id, Shipped, State, StateFile, FORMAT};
use super::writer::Activity;
use super::{Figures, StoreEvent};
use crate::error::Error;
use crate::limits::{
    LOCAL_BATCH, LOCAL_BATCH_BYTES, MAX_PUSH_BYTES, RECHECK_FIRST, RECHECK_LAST, RECHECK_WINDOW, SLOW_POLL,
};
use bytes::Bytes;
use rusqlite::Connection;
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use starling_crdt::changeset::{Header, PartReader};
use starling_crdt::{SiteId, Vector};
use starling_proto::limits::MAX_PUSH_PARTS;
use starling_proto::Changeset;
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

const LOCAL: &str = include_str!("../../../sql/sidecar/local.sql");
/// After an event in the same window the delay goes back to this: a large transaction that fills the WAL gives an event
/// per page and must not keep a processor busy.
const RECHECK_AGAIN: Duration = Duration::from_millis(1);

/// What a watch begins with.
pub struct WatchConfig {
    /// Opens its connection.
    pub opener: Opener,
    /// This replica.
    pub site: SiteId,
    /// Log records up to here are known to the core.
    pub db_version: u64,
    /// The file that was opened.
    pub file: FileIdentity,
    /// This process.
    pub incarnation: u64,
    /// Told when an application commits.
    pub activity: Arc<Activity>,
    /// Where events go.
    pub events: mpsc::Sender<StoreEvent>,
    /// The newest local transaction shipped by an earlier run, for the state file.
    pub shipped: Option<Shipped>,
}

#[derive(Debug)]
struct Signals {
    wake: OwnedFd,
    stop: AtomicBool,
    paused: AtomicBool,
}

/// The watch's handle.
#[derive(Debug)]
pub struct Watch {
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the database or the file events cannot be had.
    pub fn start(config: WatchConfig) -> Result<Self, Error> {
        let failed = |e: Errno| Error::system("watching the database's directory", e);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        let signals = Arc::new(Signals { wake, stop: AtomicBool::new(false), paused: AtomicBool::new(false) });
        let conn =
            config.opener.open(Role::Reader).map_err(|e| Error::database(config.opener.db().path(), e.to_string()))?;
        let events = FileEvents::open(config.opener.db()).map_err(failed)?;
        let worker = Worker::new(conn, config, events, Arc::clone(&signals));
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || worker.run());
        let thread = thread.map_err(|e| Error::system("starting the watch thread", e))?;
        Ok(Self { signals, thread: Some(thread) })
    }

    /// Nothing is read from the log until [`Watch::go_on`].
    pub fn pause(&self) {
        self.signals.paused.store(true, Ordering::Release);
    }

    /// The end of a pause.
    pub fn go_on(&self) {
        self.signals.paused.store(false, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.signals.wake, &1u64.to_ne_bytes());
    }

    /// Tells the thread to end.
    pub fn stop(&self) {
        self.signals.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end.
    pub fn join(mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Events of the directory, reduced to "the database's files were written, made or moved".
struct FileEvents {
    inotify: Option<OwnedFd>,
    names: [OsString; 3],
}

impl FileEvents {
    fn open(db: &DbPath) -> Result<Self, Errno> {
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
    fn take(&self) -> bool {
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

struct Worker {
    conn: Connection,
    opener: Opener,
    site: SiteId,
    file: FileIdentity,
    incarnation: u64,
    activity: Arc<Activity>,
    events: mpsc::Sender<StoreEvent>,
    files: FileEvents,
    signals: Arc<Signals>,
    state_file: StateFile,
    data_version: i64,
    schema_version: i64,
    seen: u64,
    shipped: Option<Shipped>,
    saved: Option<State>,
    vector: Vec<u8>,
    figures: Figures,
    unexplained: bool,
    left: bool,
}

impl Worker {
    fn new(conn: Connection, config: WatchConfig, files: FileEvents, signals: Arc<Signals>) -> Self {
        let WatchConfig { opener, site, db_version, file, incarnation, activity, events, shipped } = config;
        let state_file = StateFile::of(opener.db());
        Self {
            conn,
            site,
            file,
            incarnation,
            activity,
            events,
            files,
            signals,
            state_file,
            // Neither is ever negative: the first look finds a difference and reads what came since the start.
            data_version: -1,
            schema_version: -1,
            seen: db_version,
            shipped,
            saved: None,
            vector: Vec::new(),
            figures: Figures::default(),
            unexplained: true,
            left: false,
            opener,
        }
    }

    fn run(mut self) {
        self.look();
        self.slow();
        let mut next_slow = Instant::now() + SLOW_POLL;
        while !self.stopping() {
            let woken = self.wait(next_slow.saturating_duration_since(Instant::now()));
            if self.stopping() {
                break;
            }
            if woken {
                self.recheck();
            }
            if Instant::now() >= next_slow {
                self.look();
                self.slow();
                next_slow = Instant::now() + SLOW_POLL;
            }
        }
        self.look();
        self.save();
    }

    fn stopping(&self) -> bool {
        self.left || self.signals.stop.load(Ordering::Acquire)
    }

    /// Waits for a file event or a wake-up; whether one came that concerns the database.
    fn wait(&self, longest: Duration) -> bool {
        let mut fds = vec![PollFd::new(&self.signals.wake, PollFlags::IN)];
        if let Some(fd) = &self.files.inotify {
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
        let timeout = Timespec::try_from(longest).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 500_000_000 });
        if poll(&mut fds, Some(&timeout)).is_err() {
            return false;
        }
        let woken = rustix::io::read(&self.signals.wake, &mut [0u8; 8]).is_ok();
        self.files.take() || woken
    }

    /// Looks for the commit that an event foretold, until there is one or nothing has happened for a while.
    fn recheck(&mut self) {
        let (mut last_event, mut delay) = (Instant::now(), RECHECK_FIRST);
        while !self.look() && last_event.elapsed() < RECHECK_WINDOW && !self.stopping() {
            if self.wait(delay) {
                last_event = Instant::now();
                delay = delay.min(RECHECK_AGAIN);
            }
            delay = (2 * delay).min(RECHECK_LAST);
        }
    }

    /// Whether somebody committed since the last look; what applications committed is passed on.
    fn look(&mut self) -> bool {
        let version = self.conn.prepare_cached("PRAGMA data_version").and_then(|mut s| s.query_row([], |r| r.get(0)));
        let version = match version {
            Ok(version) => version,
            Err(e) => {
                self.trouble(&e.to_string());
                return false;
            }
        };
        if version == self.data_version || self.signals.paused.load(Ordering::Acquire) {
            return false;
        }
        match self.read_log() {
            Ok(()) => self.data_version = version,
            Err(e) => {
                roll_back(&self.conn);
                self.trouble(&e);
            }
        }
        true
    }

    fn trouble(&self, why: &str) {
        tracing::warn!(why, "the database could not be read; trying again");
        std::thread::sleep(RECHECK_LAST);
    }

    fn read_log(&mut self) -> Result<(), String> {
        let text = |e: rusqlite::Error| e.to_string();
        let snapshot = ReadSnapshot::begin(&self.conn).map_err(text)?;
        let schema: i64 = self
            .conn
            .prepare_cached("PRAGMA schema_version")
            .and_then(|mut s| s.query_row([], |r| r.get(0)))
            .map_err(text)?;
        let db_version = read_version(&self.conn, "SELECT crsql_db_version()").map_err(text)?;
        if db_version < self.seen {
            drop(snapshot);
            let why = format!("its version went back from {} to {db_version}: it was restored or replaced", self.seen);
            self.file_changed(why);
            return Ok(());
        }
        self.unexplained = true;
        if db_version > self.seen {
            let batches = Batches { events: &self.events, shipped: &mut self.shipped, any: false };
            if read_local(&self.conn, self.seen, batches)? {
                self.activity.mark();
            }
        }
        snapshot.end().map_err(text)?;
        self.seen = db_version;
        if schema != self.schema_version {
            // At the start too: tables may have been rebuilt while no sidecar ran.
            self.schema_version = schema;
            self.tell(StoreEvent::SchemaChanged);
        }
        Ok(())
    }

    /// Twice a second: is it still the same file, did the vector change by ways that nobody told, are the figures right.
    fn slow(&mut self) {
        if self.signals.paused.load(Ordering::Acquire) || self.left {
            return;
        }
        match self.opener.db().identity() {
            Some(file) if file == self.file => {}
            Some(_) => return self.file_changed("another file stands in its place".into()),
            None => return self.file_changed("it is gone".into()),
        }
        if std::mem::take(&mut self.unexplained) {
            if let Err(e) = self.read_figures() {
                self.unexplained = true;
                self.trouble(&e);
            }
        }
        self.save();
    }

    fn read_figures(&mut self) -> Result<(), String> {
        let text = |e: rusqlite::Error| e.to_string();
        let site: Vec<u8> = self
            .conn
            .prepare_cached("SELECT crsql_site_id()")
            .and_then(|mut s| s.query_row([], |r| r.get(0)))
            .map_err(text)?;
        if site != self.site.0 {
            self.file_changed("its site id changed".into());
            return Ok(());
        }
        if let Some(shipped) = self.shipped {
            if let Some(said) = contradiction(&self.conn, &shipped.as_vector(self.site)).map_err(text)? {
                self.file_changed(format!("what was shipped is not in it: {said}"));
                return Ok(());
            }
        }
        let aside = read_version(&self.conn, "SELECT starling_aside()").map_err(text)?;
        let figures = Figures { db_version: self.seen, aside };
        if figures != self.figures {
            self.figures = figures;
            self.tell(StoreEvent::Figures(figures));
        }
        let bytes = read_vector_bytes(&self.conn).map_err(text)?;
        if bytes != self.vector {
            let vector = Vector::decode(&bytes).map_err(|e| e.to_string())?;
            self.vector = bytes;
            self.tell(StoreEvent::Vector { ticket: None, vector });
        }
        Ok(())
    }

    fn file_changed(&mut self, why: String) {
        self.left = true;
        self.tell(StoreEvent::FileChanged { why });
    }

    /// Remembers what was shipped. Not when the file is another one now: the memory is what shows that at the next start.
    fn save(&mut self) {
        if self.left {
            return;
        }
        let state = State {
            format: FORMAT,
            site_id: Uuid::from_bytes(self.site.0),
            db_version: self.seen,
            shipped: self.shipped,
            file: self.file,
            boot_id: boot_id(),
            incarnation: self.incarnation,
        };
        if self.saved.as_ref() == Some(&state) {
            return;
        }
        match self.state_file.store(&state) {
            Ok(()) => self.saved = Some(state),
            Err(e) => tracing::warn!("the state file beside the database could not be written: {e}"),
        }
    }

    fn tell(&self, event: StoreEvent) {
        let _ = self.events.blocking_send(event);
    }
}

/// Local changesets on their way to the driver.
struct Batches<'w> {
    events: &'w mpsc::Sender<StoreEvent>,
    shipped: &'w mut Option<Shipped>,
    any: bool,
}

/// A local changeset whose parts are being read.
struct Gathering {
    header: Header,
    parts: Vec<Bytes>,
    bytes: usize,
    pushable: bool,
}

impl Gathering {
    const fn new(header: Header) -> Self {
        Self { header, parts: Vec::new(), bytes: 0, pushable: header.claimable }
    }

    fn push(&mut self, part: &[u8]) {
        self.bytes += part.len();
        self.pushable &= self.bytes <= MAX_PUSH_BYTES && self.parts.len() < MAX_PUSH_PARTS;
        if self.pushable {
            self.parts.push(Bytes::copy_from_slice(part));
        } else {
            self.parts.clear();
        }
    }
}

/// Reads what applications committed after the log record `after`; whether there was anything.
fn read_local(conn: &Connection, after: u64, mut batches: Batches<'_>) -> Result<bool, String> {
    let text = |e: rusqlite::Error| e.to_string();
    let mut statement = conn.prepare_cached(LOCAL).map_err(text)?;
    let mut rows = statement.query([i64::try_from(after).unwrap_or(i64::MAX)]).map_err(text)?;
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    let mut open: Option<Gathering> = None;
    while let Some(row) = rows.next().map_err(text)? {
        let part = row.get_ref(0).and_then(|v| Ok(v.as_blob()?)).map_err(text)?;
        let header = *PartReader::new(part).map_err(|e| e.to_string())?.header();
        let mut gathering = match open.take() {
            Some(gathering) if header.part != 0 => gathering,
            _ => Gathering::new(header),
        };
        gathering.push(part);
        if !header.last {
            open = Some(gathering);
            continue;
        }
        batch_bytes += gathering.bytes;
        batches.add(gathering, &mut batch);
        if batch.len() >= LOCAL_BATCH || batch_bytes >= LOCAL_BATCH_BYTES {
            batches.send(&mut batch);
            batch_bytes = 0;
        }
    }
    batches.send(&mut batch);
    Ok(batches.any)
}

impl Batches<'_> {
    fn add(&mut self, gathering: Gathering, batch: &mut Vec<Changeset>) {
        self.any = true;
        let dot = gathering.header.dot;
        *self.shipped = Some(Shipped { epoch: dot.dot.origin.epoch, version: dot.dot.version, token: dot.token });
        if gathering.pushable {
            batch.push(Changeset { header: gathering.header, parts: gathering.parts });
        } else {
            self.send(batch);
            let _ = self.events.blocking_send(StoreEvent::Announce(gathering.header));
        }
    }

    fn send(&self, batch: &mut Vec<Changeset>) {
        if !batch.is_empty() {
            let _ = self.events.blocking_send(StoreEvent::Local(std::mem::take(batch)));
        }
    }
}

#[cfg(test)]
mod tests;

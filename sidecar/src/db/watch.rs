//! Noticing commits by others: file events wake the watch, `PRAGMA data_version` proves a commit, a slow poll finds the rest.
//!
//! SQLite writes the WAL first, which gives the event, and publishes the commit in shared memory a little later, which gives
//! none. So an event opens a window in which the version counter is looked at again and again, ever more slowly. When nothing
//! happens, nothing is looked at but twice a second.

mod events;
mod local;

use super::check::FileIdentity;
use super::open::{read_vector_bytes, read_version, roll_back, Opener, ReadSnapshot, Role};
use super::reader::contradiction;
use super::state::{boot_id, Shipped, State, StateFile, FORMAT};
use super::writer::Activity;
use super::{Figures, StoreEvent};
use crate::error::Error;
use crate::limits::{READ_PACE, RECHECK_FIRST, RECHECK_LAST, RECHECK_WINDOW, SLOW_POLL, STREAM_AFTER};
use events::FileEvents;
use local::{read_local, Batches};
use rusqlite::Connection;
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use starling_crdt::{SiteId, Vector};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

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
    /// Applications wrote since it was looked whether that mends anything.
    wrote: bool,
    left: bool,
    save_failed: bool,
    pace: Pace,
}

/// Keeps a stream of commits from being read one by one.
struct Pace {
    last: Instant,
    streak: u32,
}

impl Pace {
    fn found(&mut self, now: Instant) {
        let close = now.saturating_duration_since(self.last) < 2 * READ_PACE;
        self.streak = if close { self.streak.saturating_add(1) } else { 0 };
        self.last = now;
    }

    fn hold_back(&self) {
        if self.streak >= STREAM_AFTER {
            std::thread::sleep(READ_PACE.saturating_sub(self.last.elapsed()));
        }
    }
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
            wrote: true,
            left: false,
            save_failed: false,
            pace: Pace { last: Instant::now(), streak: 0 },
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
        if let Some(fd) = self.files.readable() {
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
        self.pace.hold_back();
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
        self.pace.found(Instant::now());
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
                self.wrote = true;
            }
        }
        snapshot.end().map_err(text)?;
        self.seen = db_version;
        // Once the other figures are known, too.
        if self.figures.db_version > 0 {
            self.tell_figures(Figures { db_version, ..self.figures });
        }
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

    /// `status` shows a version as soon as its commit was noticed.
    fn tell_figures(&mut self, figures: Figures) {
        if figures != self.figures {
            self.figures = figures;
            self.tell(StoreEvent::Figures(figures));
        }
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
        if std::mem::take(&mut self.wrote) && aside > 0 {
            self.tell(StoreEvent::MayMend);
        }
        let figures = Figures { db_version: self.seen, aside };
        self.tell_figures(figures);
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
            Ok(()) => {
                self.saved = Some(state);
                self.save_failed = false;
            }
            Err(e) => {
                if !std::mem::replace(&mut self.save_failed, true) {
                    tracing::warn!("the state file beside the database could not be written: {e}; trying again");
                }
            }
        }
    }

    fn tell(&self, event: StoreEvent) {
        let _ = self.events.blocking_send(event);
    }
}

#[cfg(test)]
mod tests;

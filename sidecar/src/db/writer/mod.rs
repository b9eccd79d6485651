//! The writer: one thread with one connection, through which every change by others enters the database.
//!
//! Waiting changesets are merged in groups, one short transaction each. A changeset is merged in full or not at all, and
//! what is reported as merged is committed. Nothing is lost to a full disk or a lock: it is tried again until it works.

mod apply;
mod assembly;
mod governor;

pub use apply::MergeSql;
pub use assembly::Window;

use super::open::Opener;
use super::StoreEvent;
use crate::error::Error;
use crate::gate::WriteGate;
use crate::limits::{LOCAL_ACTIVITY, WRITER_QUEUE};
use crate::mailbox::{Mailbox, Popped};
use apply::{Applier, Grouped};
use assembly::{Assembly, Taken, Unit};
use bytes::Bytes;
use governor::Governor;
use rusqlite::Connection;
use starling_crdt::changeset::Header;
use starling_crdt::Vector;
use starling_proto::{PullKey, Source};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

enum Command {
    Part { source: Source, header: Header, bytes: Bytes, window: Window },
    Finish { pull: PullKey, vector: Vector },
    Abandon { source: Source },
    NewEpoch { lost: u64 },
    Rehome { vector: Vector },
    Resume,
    Mend,
}

/// When an application last committed here.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    last_ms: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(u64::MAX) }
    }
}

impl Activity {
    /// An application committed just now.
    pub fn mark(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Whether one did lately.
    #[must_use]
    pub fn is_recent(&self) -> bool {
        let last = self.last_ms.load(Ordering::Relaxed);
        last != u64::MAX && self.now_ms().saturating_sub(last) < LOCAL_ACTIVITY.as_millis() as u64
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What others may see of the writer.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub waiting: AtomicUsize,
    pub commits: AtomicU64,
    pub merged: AtomicU64,
    pub trouble: Mutex<Option<String>>,
    pub stopping: AtomicBool,
}

impl Gauges {
    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Figures of the writer for `status`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriterReport {
    /// Changesets that wait.
    pub waiting: usize,
    /// Transactions committed since the start.
    pub commits: u64,
    /// Changesets merged since the start.
    pub merged: u64,
    /// Why nothing can be merged right now.
    pub trouble: Option<String>,
}

/// What a writer works with.
pub struct WriterConfig {
    /// Opens its connections.
    pub opener: Opener,
    /// Queues with the HTTP API.
    pub gate: Arc<WriteGate>,
    /// When applications commit.
    pub activity: Arc<Activity>,
    /// Where results go.
    pub events: mpsc::Sender<StoreEvent>,
    /// The statements.
    pub sql: MergeSql,
}

/// The writer's handle; no call blocks.
#[derive(Debug)]
pub struct Writer {
    mailbox: Arc<Mailbox<Command>>,
    gauges: Arc<Gauges>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

impl Writer {
    /// Starts the thread on an open connection.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(conn: Connection, config: WriterConfig) -> Result<Self, Error> {
        let mailbox = Arc::new(Mailbox::new(WRITER_QUEUE));
        let gauges = Arc::new(Gauges::default());
        let worker = Worker {
            mailbox: Arc::clone(&mailbox),
            gauges: Arc::clone(&gauges),
            assembly: Assembly::new(config.opener.db().dir().to_owned()),
            activity: config.activity,
            events: config.events.clone(),
            applier: Applier::new(conn, config.opener, config.gate, config.sql, config.events, Arc::clone(&gauges)),
            governor: Governor::new(Instant::now()),
            pushed: VecDeque::new(),
            pulled: VecDeque::new(),
            chores: VecDeque::new(),
        };
        let thread = std::thread::Builder::new()
            .name("write".into())
            .spawn(move || worker.run())
            .map_err(|e| Error::system("starting the writer thread", e))?;
        Ok(Self { mailbox, gauges, thread: Some(thread) })
    }

    /// Queues a part; `window` is dropped once its bytes are out of memory.
    pub fn merge(&self, source: Source, header: Header, bytes: Bytes, window: Window) {
        self.send(Command::Part { source, header, bytes, window });
    }

    /// Queues the claim of a complete answer.
    pub fn finish(&self, pull: PullKey, vector: Vector) {
        self.send(Command::Finish { pull, vector });
    }

    /// Nothing more comes from this source.
    pub fn abandon(&self, source: Source) {
        self.send(Command::Abandon { source });
    }

    /// Draws a new epoch, if the present one is still this.
    pub fn new_epoch(&self, lost: u64) {
        self.send(Command::NewEpoch { lost });
    }

    /// Re-homes the origins of which this vector tells dots that are others here.
    pub fn rehome(&self, vector: Vector) {
        self.send(Command::Rehome { vector });
    }

    /// Repairs triggers and applies what was kept aside, after a change of the schema.
    pub fn resume(&self) {
        self.send(Command::Resume);
    }

    /// Tries again what constraints have refused.
    pub fn mend(&self) {
        self.send(Command::Mend);
    }

    fn send(&self, command: Command) {
        if self.mailbox.push(command).is_err() && !self.mailbox.is_closed() {
            tracing::error!("the writer's queue is full; what is dropped is pulled again");
        }
    }

    /// Figures for `status`.
    #[must_use]
    pub fn report(&self) -> WriterReport {
        WriterReport {
            waiting: self.gauges.waiting.load(Ordering::Relaxed) + self.mailbox.len(),
            commits: self.gauges.commits.load(Ordering::Relaxed),
            merged: self.gauges.merged.load(Ordering::Relaxed),
            trouble: self.gauges.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Takes nothing more; what is queued is merged unless something stands in the way.
    pub fn stop(&self) {
        self.gauges.stopping.store(true, Ordering::Release);
        self.mailbox.close();
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
    mailbox: Arc<Mailbox<Command>>,
    gauges: Arc<Gauges>,
    assembly: Assembly,
    activity: Arc<Activity>,
    events: mpsc::Sender<StoreEvent>,
    applier: Applier,
    governor: Governor,
    pushed: VecDeque<Unit>,
    pulled: VecDeque<Unit>,
    chores: VecDeque<Command>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let idle = self.pushed.is_empty() && self.pulled.is_empty() && self.chores.is_empty();
            let wait = if idle { None } else { Some(Duration::ZERO) };
            match self.mailbox.pop(wait) {
                Popped::Item(command) => {
                    self.take(command);
                    self.drain();
                }
                Popped::Closed if idle => break,
                Popped::Closed | Popped::Empty => {}
            }
            self.work();
        }
    }

    fn drain(&mut self) {
        while let Popped::Item(command) = self.mailbox.pop(Some(Duration::ZERO)) {
            self.take(command);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Part { source, header, bytes, window } => {
                match self.assembly.part(source, &header, bytes, window) {
                    Taken::Nothing => {}
                    Taken::Units(units) => units.into_iter().for_each(|unit| self.queue(unit)),
                    Taken::Misfit(header) => {
                        let why = "its parts do not fit together".to_owned();
                        self.applier.note_failure(source);
                        self.tell(StoreEvent::MergeFailed { source, header, why });
                    }
                }
            }
            Command::Finish { pull, vector } => {
                let unit = self.assembly.finish(pull, vector);
                self.queue(unit);
            }
            Command::Abandon { source } => {
                let units = self.assembly.abandon(source);
                units.into_iter().for_each(|unit| self.queue(unit));
            }
            chore @ (Command::NewEpoch { .. } | Command::Rehome { .. } | Command::Resume | Command::Mend) => {
                self.chores.push_back(chore)
            }
        }
        let waiting = self.pushed.len() + self.pulled.len();
        self.gauges.waiting.store(waiting, Ordering::Relaxed);
    }

    fn forget(&mut self) {
        while let Popped::Item(_) = self.mailbox.pop(Some(Duration::ZERO)) {}
        self.pushed.clear();
        self.pulled.clear();
        self.chores.clear();
    }

    fn queue(&mut self, unit: Unit) {
        match unit.source {
            Source::Push { .. } => self.pushed.push_back(unit),
            Source::Sync { .. } => self.pulled.push_back(unit),
        }
    }

    fn work(&mut self) {
        while let Some(chore) = self.chores.pop_front() {
            if !self.chore(&chore) {
                // What waits was asked for under names that mean something else now; the node begins anew.
                self.mailbox.close();
                self.gauges.stopping.store(true, Ordering::Release);
                self.forget();
                return;
            }
        }
        if self.pushed.is_empty() && self.pulled.is_empty() {
            return;
        }
        let pause = self.governor.wait(Instant::now(), self.activity.is_recent());
        if !pause.is_zero() {
            std::thread::sleep(pause);
            self.drain();
        }
        let mut source = UnitQueue { pushed: &mut self.pushed, pulled: &mut self.pulled };
        match self.applier.group(&mut source) {
            Grouped::Committed { held } => self.governor.committed(Instant::now(), held),
            Grouped::GaveUp => {
                // Stopping: what could not be merged is pulled again by the next run.
                self.pushed.clear();
                self.pulled.clear();
            }
        }
        self.gauges.waiting.store(self.pushed.len() + self.pulled.len(), Ordering::Relaxed);
    }

    /// Does what is neither a merge nor a claim; `false` when nothing that waits may be merged any more.
    fn chore(&mut self, chore: &Command) -> bool {
        match chore {
            Command::NewEpoch { lost } => {
                let drawn = self.applier.call("SELECT starling_new_epoch(?1) IS NOT NULL", [lost.cast_signed()]);
                let drawn = drawn.unwrap_or_else(|e| {
                    tracing::error!("a new epoch could not be drawn: {e}");
                    0
                });
                self.tell(StoreEvent::NewEpoch { drawn: drawn > 0 });
                return drawn == 0;
            }
            Command::Rehome { vector } => {
                let renamed = self.applier.call("SELECT starling_rehome(?1)", [vector.encode()]);
                let origins = renamed.unwrap_or_else(|e| {
                    tracing::error!("transactions whose numbers were used twice could not be told apart yet: {e}");
                    0
                });
                self.tell(StoreEvent::Rehomed { origins });
                return origins == 0;
            }
            Command::Mend => match self.applier.call("SELECT starling_mend()", []) {
                Ok(changes) => self.tell(StoreEvent::Resumed { changes }),
                Err(e) => tracing::warn!("what constraints had refused could not be tried again: {e}"),
            },
            _ => match self.applier.call("SELECT starling_resume()", []) {
                Ok(changes) => {
                    if let Ok(tables @ 1..) = self.applier.call(include_str!("../../../../sql/sidecar/let_go.sql"), [])
                    {
                        tracing::warn!(
                            "{tables} tables that were CRRs cannot be any more and are not replicated: crsql_as_crr says why"
                        );
                    }
                    self.tell(StoreEvent::Resumed { changes });
                }
                Err(e) => tracing::warn!("after a change of the schema, tables could not be checked: {e}"),
            },
        }
        true
    }

    fn tell(&self, event: StoreEvent) {
        let _ = self.events.blocking_send(event);
    }
}

/// Units in the order in which they are merged: pushes first, they are small and somebody waits for them.
pub(crate) struct UnitQueue<'q> {
    pushed: &'q mut VecDeque<Unit>,
    pulled: &'q mut VecDeque<Unit>,
}

impl UnitQueue<'_> {
    fn next(&mut self) -> Option<Unit> {
        self.pushed.pop_front().or_else(|| self.pulled.pop_front())
    }
}

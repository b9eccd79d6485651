//! One transaction: begin, merge the parts of several units, claim, commit; and what to do when a step fails.

use super::assembly::{Ready, Unit};
use super::{Gauges, UnitQueue};
use crate::db::open::{is_busy, roll_back, Opener, Role};
use crate::db::StoreEvent;
use crate::gate::WriteGate;
use crate::limits::{CHECKPOINT_BYTES, WRITE_HOLD};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, Params};
use starling_crdt::Dot;
use starling_proto::Source;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const LOCK_BACKOFF: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(10));
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Waiting for a lock is reported after this long.
const REPORT_AFTER: Duration = Duration::from_secs(1);
/// While stopping, a lock or disk in trouble is waited for this long.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Sources of which a changeset failed, remembered until their claim comes.
const MAX_FAILED: usize = 1024;

/// The statements of a merge.
#[derive(Clone, Copy, Debug)]
pub struct MergeSql {
    /// Merges the part `?1` and gives the number of changes.
    pub merge: &'static str,
    /// Claims the vector `?1`.
    pub claim: &'static str,
}

impl Default for MergeSql {
    fn default() -> Self {
        Self { merge: "SELECT starling_merge(?1)", claim: "SELECT starling_claim(?1)" }
    }
}

/// What became of a group.
pub(super) enum Grouped {
    /// What was taken from the queue is committed or reported as failed.
    Committed {
        /// How long the write lock was held.
        held: Duration,
    },
    /// The process stops and the database is not to be had.
    GaveUp,
}

/// What an error means for the work at hand.
enum Trouble {
    /// Somebody else's lock, a full disk, an error of the disk: later it may work.
    Store(String),
    /// This work cannot be done, ever.
    Poison(String),
}

/// Why a step did not happen.
enum Fault {
    Sql(rusqlite::Error),
    /// The transaction was gone before the step.
    Vanished,
    /// The parts could not be read back.
    Lost(String),
    /// A changeset of the answer failed, so its vector must not be claimed.
    Incomplete,
}

impl Fault {
    fn trouble(self) -> Trouble {
        match self {
            Self::Sql(e) if is_transient(&e) => Trouble::Store(e.to_string()),
            Self::Sql(e) => Trouble::Poison(e.to_string()),
            Self::Vanished => Trouble::Poison("the transaction was rolled back by a trigger".into()),
            Self::Lost(why) => Trouble::Poison(why),
            Self::Incomplete => Trouble::Poison("a changeset of the answer could not be merged".into()),
        }
    }
}

fn is_transient(e: &rusqlite::Error) -> bool {
    is_busy(e)
        || matches!(
            e.sqlite_error_code(),
            Some(
                ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::OutOfMemory
                    | ErrorCode::CannotOpen
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::ReadOnly
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::SchemaChanged
            )
        )
}

/// A changeset of a unit and how many changes it made.
struct Merged {
    dot: Dot,
    claimable: bool,
    changes: u64,
}

/// Pages in the WAL after the last commit, and those of them that a checkpoint has seen.
#[derive(Default)]
struct WalPages {
    now: AtomicI32,
    checkpointed: AtomicI32,
}

/// The connection and how it is used.
pub(super) struct Applier {
    conn: Connection,
    opener: Opener,
    gate: Arc<WriteGate>,
    sql: MergeSql,
    events: mpsc::Sender<StoreEvent>,
    gauges: Arc<Gauges>,
    failed: BTreeSet<Source>,
    wal: Arc<WalPages>,
    page_bytes: u64,
    stop_by: Option<Instant>,
}

impl Applier {
    pub fn new(
        conn: Connection,
        opener: Opener,
        gate: Arc<WriteGate>,
        sql: MergeSql,
        events: mpsc::Sender<StoreEvent>,
        gauges: Arc<Gauges>,
    ) -> Self {
        let (wal, failed) = (Arc::default(), BTreeSet::new());
        let mut applier =
            Self { conn, opener, gate, sql, events, gauges, failed, wal, page_bytes: 4096, stop_by: None };
        applier.prepare_connection();
        applier
    }

    fn prepare_connection(&mut self) {
        let page_bytes = self.conn.query_row("PRAGMA page_size", [], |r| r.get::<_, u32>(0));
        self.page_bytes = page_bytes.map_or(4096, u64::from);
        let wal = Arc::clone(&self.wal);
        let hooked = self.conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            if wal.now.swap(pages, Ordering::Relaxed) > pages {
                wal.checkpointed.store(0, Ordering::Relaxed);
            }
            Ok(())
        }));
        if let Err(e) = hooked {
            tracing::warn!("the size of the WAL cannot be followed: {e}");
        }
    }

    /// A changeset of this source is lost: its answer's vector must not be claimed.
    pub fn note_failure(&mut self, source: Source) {
        if matches!(source, Source::Sync { .. }) {
            self.failed.insert(source);
        }
        if self.failed.len() > MAX_FAILED {
            self.failed.pop_first();
        }
    }

    /// Merges units from the queue in one transaction, as many as fit the time. Whatever was taken is settled afterwards: if
    /// a step fails, each unit gets a transaction of its own, so that a bad one does not stop the others.
    pub fn group(&mut self, queue: &mut UnitQueue<'_>) -> Grouped {
        let mut taken = Vec::new();
        let Some(begun) = self.begin() else { return Grouped::GaveUp };
        let committed = self.fill(queue, &mut taken).and_then(|merged| self.commit().map(|()| merged));
        let held = begun.elapsed();
        match committed {
            Ok(merged) => {
                self.leave();
                taken.iter().zip(merged).for_each(|(unit, merged)| self.report(unit, merged));
            }
            Err(_) => {
                roll_back(&self.conn);
                self.leave();
                for unit in taken {
                    if !self.alone(unit) {
                        return Grouped::GaveUp;
                    }
                }
            }
        }
        self.checkpoint();
        Grouped::Committed { held }
    }

    fn fill(&mut self, queue: &mut UnitQueue<'_>, taken: &mut Vec<Unit>) -> Result<Vec<Vec<Merged>>, Fault> {
        let (start, mut merged) = (Instant::now(), Vec::new());
        while let Some(mut unit) = queue.next() {
            let result = self.unit(&mut unit);
            taken.push(unit);
            merged.push(result?);
            if start.elapsed() >= WRITE_HOLD {
                break;
            }
        }
        Ok(merged)
    }

    /// Settles one unit in transactions of its own; `false` when the process stops and the database is not to be had.
    fn alone(&mut self, mut unit: Unit) -> bool {
        let mut backoff = STORE_BACKOFF.0;
        loop {
            if self.begin().is_none() {
                return false;
            }
            let result = self.unit(&mut unit).and_then(|merged| self.commit().map(|()| merged));
            if result.is_err() {
                roll_back(&self.conn);
            }
            self.leave();
            match result.map_err(Fault::trouble) {
                Ok(merged) => {
                    self.gauges.set_trouble(None);
                    self.report(&unit, merged);
                    return true;
                }
                Err(Trouble::Poison(why)) => return self.split_or_fail(unit, &why),
                Err(Trouble::Store(why)) => {
                    if !self.pause(&mut backoff, &why) {
                        return false;
                    }
                    self.reopen();
                }
            }
        }
    }

    fn split_or_fail(&mut self, unit: Unit, why: &str) -> bool {
        let Unit { source, changesets, claim } = unit;
        let whole = changesets.len() + usize::from(claim.is_some());
        if whole <= 1 {
            for Ready { header, .. } in changesets {
                self.note_failure(source);
                self.tell(StoreEvent::MergeFailed { source, header, why: why.to_owned() });
            }
            if let (Some(_), Source::Sync { pull }) = (claim, source) {
                self.failed.remove(&source);
                self.tell(StoreEvent::Applied { pull, result: Err(why.to_owned()) });
            }
            return true;
        }
        let singles = changesets.into_iter().map(|ready| Unit { source, changesets: vec![ready], claim: None });
        let claim = claim.map(|claim| Unit { source, changesets: Vec::new(), claim: Some(claim) });
        singles.chain(claim).all(|unit| self.alone(unit))
    }

    /// Merges the parts of a unit and claims its vector, inside the open transaction.
    fn unit(&self, unit: &mut Unit) -> Result<Vec<Merged>, Fault> {
        if unit.claim.is_some() && self.failed.contains(&unit.source) {
            return Err(Fault::Incomplete);
        }
        let mut merged = Vec::with_capacity(unit.changesets.len());
        for Ready { header, claimable, body } in &mut unit.changesets {
            let mut changes = 0u64;
            body.for_each(Fault::Lost, |part| {
                changes += self.step(self.sql.merge, part)?;
                Ok(())
            })?;
            merged.push(Merged { dot: header.dot, claimable: *claimable, changes });
        }
        if let Some(vector) = &unit.claim {
            self.step(self.sql.claim, &vector.encode())?;
        }
        Ok(merged)
    }

    /// One statement of the transaction. Some errors end the transaction by themselves; going on would write in autocommit.
    fn step(&self, sql: &str, argument: &[u8]) -> Result<u64, Fault> {
        if self.conn.is_autocommit() {
            return Err(Fault::Vanished);
        }
        let mut statement = self.conn.prepare_cached(sql).map_err(Fault::Sql)?;
        let result: Value = statement.query_row([argument], |r| r.get(0)).map_err(Fault::Sql)?;
        Ok(count(&result))
    }

    fn commit(&self) -> Result<(), Fault> {
        if self.conn.is_autocommit() {
            return Err(Fault::Vanished);
        }
        self.conn.execute_batch("COMMIT").map_err(Fault::Sql)?;
        self.gauges.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the write lock, however long that takes; `None` when the process stops meanwhile. The gate is not held while
    /// waiting, so that HTTP statements get their turn at SQLite's lock too.
    fn begin(&mut self) -> Option<Instant> {
        let (start, mut backoff, mut reported) = (Instant::now(), LOCK_BACKOFF.0, false);
        loop {
            self.gate.take();
            let begun = self.conn.execute_batch("BEGIN IMMEDIATE");
            if begun.is_ok() {
                if reported {
                    self.gauges.set_trouble(None);
                }
                return Some(Instant::now());
            }
            self.leave();
            match begun {
                Err(e) if !is_busy(&e) => {
                    reported = true;
                    backoff = backoff.max(STORE_BACKOFF.0);
                    if !self.pause(&mut backoff, &e.to_string()) {
                        return None;
                    }
                    self.reopen();
                }
                _ => {
                    if self.out_of_patience() {
                        return None;
                    }
                    if !reported && start.elapsed() > REPORT_AFTER {
                        reported = true;
                        let why = format!("another program has held the write lock for {} s", REPORT_AFTER.as_secs());
                        tracing::warn!(why, "merging waits");
                        self.gauges.set_trouble(Some(why));
                    }
                    std::thread::sleep(backoff);
                    backoff = (2 * backoff).min(LOCK_BACKOFF.1);
                }
            }
        }
    }

    fn leave(&self) {
        self.gate.give();
    }

    /// Waits before another try; `false` when the process stops and has waited long enough.
    fn pause(&mut self, backoff: &mut Duration, why: &str) -> bool {
        if self.out_of_patience() {
            return false;
        }
        if *backoff <= STORE_BACKOFF.0 || *backoff >= STORE_BACKOFF.1 {
            tracing::error!(why, "the database takes no changes; trying again until it does");
        }
        self.gauges.set_trouble(Some(why.to_owned()));
        let until = Instant::now() + *backoff;
        while Instant::now() < until && !self.gauges.stopping.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(20).min(*backoff));
        }
        *backoff = (2 * *backoff).min(STORE_BACKOFF.1);
        true
    }

    fn out_of_patience(&mut self) -> bool {
        if !self.gauges.stopping.load(Ordering::Acquire) {
            return false;
        }
        let now = Instant::now();
        now >= *self.stop_by.get_or_insert(now + STOP_PATIENCE)
    }

    /// After an error of the disk the connection may be unusable; a fresh one is taken when it can be had.
    fn reopen(&mut self) {
        if let Ok(conn) = self.opener.open(Role::Writer) {
            self.conn = conn;
            self.prepare_connection();
        }
    }

    fn report(&mut self, unit: &Unit, merged: Vec<Merged>) {
        self.gauges.merged.fetch_add(merged.len() as u64, Ordering::Relaxed);
        let source = unit.source;
        for Merged { dot, claimable, changes } in merged {
            self.tell(StoreEvent::Merged { source, dot, claimed: claimable, changes });
        }
        if let (Some(_), Source::Sync { pull }) = (&unit.claim, source) {
            self.tell(StoreEvent::Applied { pull, result: Ok(()) });
        }
    }

    /// Copies the WAL into the database once it has grown, so that no application's commit has to. Never waits for readers.
    fn checkpoint(&self) {
        let (now, seen) = (self.wal.now.load(Ordering::Relaxed), self.wal.checkpointed.load(Ordering::Relaxed));
        let grown = u64::try_from(now.saturating_sub(seen)).unwrap_or(0) * self.page_bytes;
        if grown < CHECKPOINT_BYTES {
            return;
        }
        let result = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| r.get::<_, i64>(2));
        match result {
            Ok(copied) => self.wal.checkpointed.store(i32::try_from(copied).unwrap_or(now), Ordering::Relaxed),
            Err(e) if is_busy(&e) => {}
            Err(e) => tracing::warn!("the WAL could not be checkpointed: {e}"),
        }
        // What readers keep from being copied now is tried again after as much growth, not after every commit.
        self.wal.checkpointed.fetch_max(now, Ordering::Relaxed);
    }

    /// Runs a statement of the extension in a transaction of its own, and tries as long as merges do: a new epoch that is not
    /// drawn because the disk is full means version numbers used twice, and tables would never be looked at again.
    pub fn call(&mut self, sql: &str, arguments: impl Params + Clone) -> Result<u64, String> {
        let mut backoff = STORE_BACKOFF.0;
        loop {
            self.begin().ok_or("the process stops")?;
            let call = self.conn.prepare_cached(sql);
            let result = call.and_then(|mut s| s.query_row(arguments.clone(), |r| r.get::<_, Value>(0)));
            let result = result.and_then(|value| self.conn.execute_batch("COMMIT").map(|()| value));
            if result.is_err() {
                roll_back(&self.conn);
            }
            self.leave();
            match result {
                Ok(value) => {
                    self.gauges.set_trouble(None);
                    return Ok(count(&value));
                }
                Err(e) if is_transient(&e) && self.pause(&mut backoff, &e.to_string()) => self.reopen(),
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    fn tell(&self, event: StoreEvent) {
        let _ = self.events.blocking_send(event);
    }
}

/// The number that a function of the extension gives; those that have none to give say "OK".
fn count(value: &Value) -> u64 {
    match value {
        Value::Integer(n) => u64::try_from(*n).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;

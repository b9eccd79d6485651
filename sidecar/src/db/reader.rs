//! Reading for others: answers to peers, each from one snapshot, and the small questions of the core.

use super::open::{read_answer_vector, read_vector, roll_back, Opener, ReadSnapshot, Role};
use super::StoreEvent;
use crate::limits::{READER_QUEUE, SERVE_STALL, SERVE_THREADS};
use crate::mailbox::{Mailbox, Popped};
use bytes::Bytes;
use rusqlite::Connection;
use starling_crdt::ids::MAX_VERSION;
use starling_crdt::{SiteId, Vector};
use starling_proto::{frames, ServeKey};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

const SERVE: &str = include_str!("../../../sql/sidecar/serve.sql");

/// Where the messages of an answer go, whatever carries them.
pub trait AnswerTo: Send + 'static {
    /// Hands over one message, waiting for room.
    fn message(&mut self, message: Bytes) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;
    /// The answer is complete. Without it, it counts as broken off.
    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
}

/// What a reader is asked.
pub enum ReadJob {
    /// Answer a peer.
    Serve {
        /// The peer.
        peer: SiteId,
        /// The stream.
        serve: ServeKey,
        /// What the peer claims.
        have: Vector,
        /// Where the answer goes.
        to: Box<dyn AnswerTo>,
    },
    /// Read the vector.
    Vector {
        /// To be given back.
        ticket: Option<u64>,
    },
    /// Compare a peer's vector.
    Check {
        /// The peer.
        peer: SiteId,
        /// Its vector.
        vector: Vector,
    },
}

/// The reader threads.
#[derive(Debug)]
pub struct Readers {
    serves: Arc<Mailbox<ReadJob>>,
    questions: Arc<Mailbox<ReadJob>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for ReadJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Serve { .. } => "Serve",
            Self::Vector { .. } => "Vector",
            Self::Check { .. } => "Check",
        })
    }
}

#[derive(Clone)]
struct Reader {
    opener: Opener,
    events: mpsc::Sender<StoreEvent>,
    runtime: Handle,
}

impl Readers {
    /// Starts the threads. Connections are opened when first needed.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(opener: &Opener, events: &mpsc::Sender<StoreEvent>, runtime: &Handle) -> std::io::Result<Self> {
        let mut readers = Self {
            serves: Arc::new(Mailbox::new(READER_QUEUE)),
            questions: Arc::new(Mailbox::new(READER_QUEUE)),
            threads: Vec::new(),
        };
        let reader = Reader { opener: opener.clone(), events: events.clone(), runtime: runtime.clone() };
        for i in 0..=SERVE_THREADS {
            let (name, mailbox) = match i {
                0 => ("read-questions".to_owned(), Arc::clone(&readers.questions)),
                n => (format!("read-serve-{n}"), Arc::clone(&readers.serves)),
            };
            let reader = reader.clone();
            readers.threads.push(std::thread::Builder::new().name(name).spawn(move || reader.run(&mailbox))?);
        }
        Ok(readers)
    }

    /// Queues a job; `false` when there is no room for it.
    #[must_use]
    pub fn ask(&self, job: ReadJob) -> bool {
        let mailbox = if matches!(job, ReadJob::Serve { .. }) { &self.serves } else { &self.questions };
        mailbox.push(job).is_ok()
    }

    /// Takes no more jobs; the threads end after those they have.
    pub fn stop(&self) {
        self.serves.close();
        self.questions.close();
    }

    /// Waits for the threads.
    pub fn join(self) {
        self.stop();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

impl Reader {
    fn run(self, mailbox: &Mailbox<ReadJob>) {
        let mut conn = None;
        while let Popped::Item(job) = mailbox.pop(None) {
            let done = self.connection(&mut conn).and_then(|c| self.job(c, job));
            if let Some(open) = conn.as_ref() {
                roll_back(open);
            }
            if let Err(e) = done {
                tracing::warn!("reading the database for a peer failed: {e}");
                conn = None;
            }
        }
    }

    fn connection<'c>(&self, slot: &'c mut Option<Connection>) -> Result<&'c Connection, String> {
        if slot.is_none() {
            *slot = Some(self.opener.open(Role::Reader).map_err(|e| e.to_string())?);
        }
        slot.as_ref().ok_or_else(|| "no connection".to_owned())
    }

    fn job(&self, conn: &Connection, job: ReadJob) -> Result<(), String> {
        match job {
            ReadJob::Vector { ticket } => {
                let vector = read_vector(conn)?;
                self.tell(StoreEvent::Vector { ticket, vector });
                Ok(())
            }
            ReadJob::Check { peer, vector } => {
                if let Some(ours) = forks(conn, &vector, &peer)? {
                    self.tell(StoreEvent::Fork { peer, theirs: vector, ours });
                }
                Ok(())
            }
            ReadJob::Serve { peer, serve, have, to } => {
                let served = self.serve(conn, &peer, have, to);
                self.tell(StoreEvent::ServeEnded { serve, completed: served.is_ok() });
                if let Err(why) = served {
                    tracing::info!(why, "an answer to a peer was broken off");
                }
                Ok(())
            }
        }
    }

    /// Streams every part of what the peer does not claim, then the vector of the very same snapshot.
    fn serve(
        &self,
        conn: &Connection,
        peer: &SiteId,
        mut have: Vector,
        mut to: Box<dyn AnswerTo>,
    ) -> Result<(), String> {
        let text = |e: rusqlite::Error| e.to_string();
        let snapshot = ReadSnapshot::begin(conn).map_err(text)?;
        let mut vector = read_answer_vector(conn).map_err(text)?;
        if let Some(forks) = forks(conn, &have, peer)? {
            // Of an origin whose numbers were used twice nothing is sent until that is settled, and so nothing of the answer
            // may be claimed: a cell of the other history may have been overwritten by one that is not sent (X1).
            forks.origins.keys().for_each(|origin| have.claim(*origin, 1, MAX_VERSION, 0));
            vector = Vector::default().encode();
        }
        {
            let mut statement = conn.prepare_cached(SERVE).map_err(text)?;
            let mut rows = statement.query([have.encode()]).map_err(text)?;
            while let Some(row) = rows.next().map_err(text)? {
                let part = row.get_ref(0).and_then(|v| Ok(v.as_blob()?)).map_err(text)?;
                let message = frames::answer_part(part);
                self.in_time(to.message(message))?;
            }
        }
        snapshot.end().map_err(text)?;
        self.in_time(to.message(frames::answer_done(&vector)))?;
        self.in_time(to.end())
    }

    fn in_time(&self, sent: impl Future<Output = Result<(), String>>) -> Result<(), String> {
        let waited = self.runtime.block_on(async { tokio::time::timeout(SERVE_STALL, sent).await });
        waited.unwrap_or_else(|_| Err(format!("the requester took nothing for {} s", SERVE_STALL.as_secs())))
    }

    fn tell(&self, event: StoreEvent) {
        let _ = self.events.blocking_send(event);
    }
}

/// What `starling_forks` says of a peer's vector.
fn forks(conn: &Connection, vector: &Vector, peer: &SiteId) -> Result<Option<Vector>, String> {
    let ask = conn.prepare_cached("SELECT starling_forks(?1, ?2)");
    let forks =
        ask.and_then(|mut s| s.query_row((vector.encode(), peer.0.as_slice()), |r| r.get::<_, Option<Vec<u8>>>(0)));
    forks.map_err(|e| e.to_string())?.map(|bytes| Vector::decode(&bytes).map_err(|e| e.to_string())).transpose()
}

/// What `starling_check` says of a vector.
///
/// # Errors
/// SQLite's.
pub fn contradiction(conn: &Connection, vector: &Vector) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("SELECT starling_check(?1)")?.query_row([vector.encode()], |r| r.get(0))
}

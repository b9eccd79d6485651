//! Threads with a connection each, on which statements run.

use super::exec::{Executor, Outcome, Refusal};
use super::guard::Asker;
use crate::gate::WriteGate;
use crate::limits::{API_THREADS, MAX_REQUESTS};
use crate::mailbox::{Mailbox, Popped};
use axum::http::StatusCode;
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Opens a connection for statements.
pub type OpenConnection = Arc<dyn Fn() -> rusqlite::Result<Connection> + Send + Sync>;

struct Job {
    sql: String,
    asker: Asker,
    answer: oneshot::Sender<Result<Outcome, Refusal>>,
}

/// The threads.
pub struct Pool {
    jobs: Arc<Mailbox<Job>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts the threads; connections are opened when first needed.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(open: &OpenConnection, gate: &Arc<WriteGate>) -> std::io::Result<Self> {
        let jobs: Arc<Mailbox<Job>> = Arc::new(Mailbox::new(MAX_REQUESTS));
        let pool = Self { jobs: Arc::clone(&jobs), threads: Mutex::new(Vec::new()) };
        for i in 0..API_THREADS {
            let (jobs, open, gate) = (Arc::clone(&jobs), Arc::clone(open), Arc::clone(gate));
            let thread =
                std::thread::Builder::new().name(format!("sql-{i}")).spawn(move || run(&jobs, &open, &gate))?;
            pool.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(pool)
    }

    /// Runs a body of statements.
    ///
    /// # Errors
    /// What the requester is told.
    pub(super) async fn run(&self, sql: String) -> Result<Outcome, Refusal> {
        let unavailable = |why: &str| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why);
        let (answer, answered) = oneshot::channel();
        // Goes with this future, which the server drops when the client hangs up.
        let here = Arc::new(());
        self.jobs
            .push(Job { sql, asker: Asker::from(&here), answer })
            .map_err(|_| unavailable("too many requests at once, or the node is stopping"))?;
        answered.await.unwrap_or_else(|_| Err(unavailable("the node is stopping")))
    }

    /// Takes no more statements and waits for those that run.
    pub fn join(&self) {
        self.jobs.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn run(jobs: &Mailbox<Job>, open: &OpenConnection, gate: &WriteGate) {
    let mut executor = None;
    while let Popped::Item(Job { sql, asker, answer }) = jobs.pop(None) {
        if answer.is_closed() {
            continue;
        }
        if executor.is_none() {
            match open().and_then(Executor::new) {
                Ok(fresh) => executor = Some(fresh),
                Err(e) => {
                    let why = format!("the database cannot be opened: {e}");
                    let _ = answer.send(Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, why)));
                    continue;
                }
            }
        }
        let Some(ready) = executor.as_mut() else { continue };
        let result = ready.execute(&sql, asker, gate);
        if result.as_ref().is_err_and(|refusal| refusal.status == StatusCode::INTERNAL_SERVER_ERROR) {
            executor = None;
        }
        let _ = answer.send(result);
    }
}

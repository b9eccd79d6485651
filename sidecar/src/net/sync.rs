//! Sync sessions: a bidirectional stream each, one request one way, the messages of the answer the other.

use super::connection::Link;
use super::framing::{length, read_body, read_length, FramingError};
use super::{refusals, AnswerEvent, NetEvent};
use crate::limits::{ASSEMBLY_MEMORY, PULL_WINDOW, REQUEST_TIMEOUT, SERVE_QUEUE};
use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use starling_crdt::SiteId;
use starling_proto::limits::{MAX_SYNC_MESSAGE, MAX_SYNC_REQUEST};
use std::sync::Arc;
use tokio::sync::{mpsc, Semaphore};
use tokio::task::AbortHandle;

/// Streams are reset with this code when an answer is broken off.
const BROKEN_OFF: u32 = 1;

enum Answer {
    Message(Bytes),
    End,
}

/// Where the messages of an answer go. Dropping it before [`AnswerSink::end`] breaks the answer off, so that the requester
/// never takes a part for the whole.
#[derive(Debug)]
pub struct AnswerSink {
    queue: mpsc::Sender<Answer>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Message(_) => "Message",
            Self::End => "End",
        })
    }
}

impl AnswerSink {
    /// Queues a message, waiting while the requester does not take it.
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn send(&self, message: Bytes) -> Result<(), String> {
        self.queue.send(Answer::Message(message)).await.map_err(|_| "the requester is gone".to_owned())
    }

    /// The answer is complete.
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn end(self) -> Result<(), String> {
        self.queue.send(Answer::End).await.map_err(|_| "the requester is gone".to_owned())
    }

    /// Sends one message and ends; for a fresh sink, whose queue has room for both.
    pub fn only(self, message: Bytes) {
        let _ = self.queue.try_send(Answer::Message(message));
        let _ = self.queue.try_send(Answer::End);
    }
}

/// Which stream is being served.
pub(super) struct Serving {
    pub link: u64,
    pub from: SiteId,
    pub serve: u64,
}

/// Reads the request, hands it to the driver, writes what comes back.
pub(super) async fn serve_stream(
    events: mpsc::Sender<NetEvent>,
    serving: Serving,
    mut send: SendStream,
    mut recv: RecvStream,
) {
    let request = tokio::time::timeout(REQUEST_TIMEOUT, read_request(&mut recv)).await;
    let Ok(Ok(bytes)) = request else {
        let _ = send.reset(VarInt::from_u32(BROKEN_OFF));
        return;
    };
    let (queue, mut answers) = mpsc::channel(SERVE_QUEUE);
    let Serving { link, from, serve } = serving;
    let event = NetEvent::SyncRequested { link, from, serve, bytes, sink: AnswerSink { queue } };
    if events.send(event).await.is_err() {
        return;
    }
    loop {
        let answer = tokio::select! {
            answer = answers.recv() => answer,
            _ = send.stopped() => return,
        };
        match answer {
            Some(Answer::Message(message)) => {
                let mut chunks = [Bytes::copy_from_slice(&length(message.len())), message];
                if send.write_all_chunks(&mut chunks).await.is_err() {
                    return;
                }
            }
            Some(Answer::End) => {
                let _ = send.finish();
                return;
            }
            None => {
                let _ = send.reset(VarInt::from_u32(BROKEN_OFF));
                return;
            }
        }
    }
}

async fn read_request(recv: &mut RecvStream) -> Result<Bytes, FramingError> {
    let len = read_length(recv, MAX_SYNC_REQUEST).await?.ok_or(FramingError::Truncated)?;
    read_body(recv, len).await
}

impl Link {
    /// Opens a sync session and reads its answer; the window keeps the reader from running ahead of the store.
    pub fn open_sync(&self, pull: u64, request: Bytes, answers: mpsc::Sender<AnswerEvent>) -> AbortHandle {
        let connection = self.connection().clone();
        let task = tokio::spawn(async move {
            let result = pull_stream(&connection, pull, request, &answers).await;
            let _ = answers.send(AnswerEvent::Ended { pull, result }).await;
        });
        task.abort_handle()
    }
}

async fn pull_stream(
    connection: &Connection,
    pull: u64,
    request: Bytes,
    answers: &mpsc::Sender<AnswerEvent>,
) -> Result<(), String> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(|e| refusals::explain(&e))?;
    let mut chunks = [Bytes::copy_from_slice(&length(request.len())), request];
    send.write_all_chunks(&mut chunks).await.map_err(|e| format!("the request was not taken: {e}"))?;
    let _ = send.finish();
    let window = Arc::new(Semaphore::new(PULL_WINDOW));
    while let Some(len) = read_length(&mut recv, MAX_SYNC_MESSAGE).await.map_err(|e| e.to_string())? {
        let share = u32::try_from(len.clamp(1, ASSEMBLY_MEMORY)).unwrap_or(u32::MAX);
        let share = Arc::clone(&window).acquire_many_owned(share).await.map_err(|e| e.to_string())?;
        let bytes = read_body(&mut recv, len).await.map_err(|e| e.to_string())?;
        if answers.send(AnswerEvent::Message { pull, bytes, window: share }).await.is_err() {
            return Err("this node is stopping".into());
        }
    }
    Ok(())
}

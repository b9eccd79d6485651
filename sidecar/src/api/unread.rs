//! Answers on their way: how much of them clients may leave unread, all together.

use crate::limits::MAX_UNREAD;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An answer goes out in pieces, so that it is known how far it got.
const PIECE: usize = 64 * 1024;
/// What room is counted in, bytes.
const UNIT: usize = 1024;

/// The room for answers that are not read yet.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self::of(MAX_UNREAD)
    }
}

impl Room {
    /// So many bytes.
    pub fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT)))
    }

    /// Takes room for an answer until it is read, or its client gone. A small one always finds some. `None`: there is not enough.
    pub fn hold(&self, json: String) -> Option<Unread> {
        let place = match json.len() {
            0..=PIECE => None,
            len => {
                let units = u32::try_from(len.div_ceil(UNIT)).ok()?;
                Some(Arc::clone(&self.0).try_acquire_many_owned(units).ok()?)
            }
        };
        Some(Unread { rest: json.into(), _place: place })
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct Unread {
    rest: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl Body for Unread {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

//! Joins the database's reader and the network's stream, which do not know each other.

use crate::db::reader::AnswerTo;
use crate::net::AnswerSink;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// An answer on its way from the database to a stream.
#[derive(Debug)]
pub struct Answering {
    sink: AnswerSink,
}

impl Answering {
    /// Sends to this stream.
    pub const fn new(sink: AnswerSink) -> Self {
        Self { sink }
    }
}

impl AnswerTo for Answering {
    fn message(&mut self, message: Bytes) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(self.sink.send(message))
    }

    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        Box::pin(self.sink.end())
    }
}

//! Connections of HTTP clients: who is let in, and for how long they may say nothing.

use super::patient::Patient;
use crate::limits::{HEADER_TIMEOUT, MAX_CONNECTIONS, READ_TIMEOUT};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{watch, OwnedSemaphorePermit, Semaphore};

/// How long clients are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The head of a request must be there within, on a connection that is kept open that of the next one too.
    pub head: Duration,
    /// Something of an answer must be taken within.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: HEADER_TIMEOUT, answer: READ_TIMEOUT }
    }
}

/// Serves until `stop` says so, then finishes the requests under way.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>, patience: Patience) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Beyond the cap clients wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            stream = accept(&listener) => stream,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        tokio::spawn(converse(stream, router.clone(), stop.clone(), patience, place));
    }
    drop(listener);
    // Every connection gives its place back at its end.
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = places.acquire_many(all).await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // A client that gave up is nothing; where the process has no more files, waiting is all that helps.
            Err(e) => {
                tracing::warn!(error = %e, "an HTTP connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    router: Router,
    mut stop: watch::Receiver<bool>,
    patience: Patience,
    _place: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience.head);
    let stream = TokioIo::new(Patient::new(stream, patience.answer));
    let mut connection = pin!(http.serve_connection(stream, TowerToHyperService::new(router)));
    tokio::select! {
        // What a client does wrong ends its connection, and is nobody else's business.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

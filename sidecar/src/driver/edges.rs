//! The edges as the driver holds them.

use crate::db::reader::Readers;
use crate::db::watch::Watch;
use crate::db::writer::Writer;
use crate::net::{AnswerEvent, Endpoint, Peers};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;

/// A name server that does not answer is not waited for any longer.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything through which the driver acts.
#[derive(Debug)]
pub struct Edges {
    /// Dials.
    pub endpoint: Endpoint,
    /// Who is connected.
    pub peers: Peers,
    /// Merges.
    pub writer: Writer,
    /// Reads.
    pub readers: Readers,
    /// Notices commits.
    pub watch: Watch,
    /// Where answers to pulls are put.
    pub answers: mpsc::Sender<AnswerEvent>,
    /// Where resolved seeds are put.
    pub seeds: mpsc::Sender<Vec<SocketAddr>>,
}

impl Edges {
    /// Resolves seeds anew; what does not resolve is left out.
    pub fn resolve(&self, seeds: Vec<String>) {
        let found = self.seeds.clone();
        tokio::spawn(async move {
            let mut addrs = Vec::new();
            for seed in &seeds {
                match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(seed)).await {
                    Ok(Ok(resolved)) => addrs.extend(resolved),
                    Ok(Err(e)) => tracing::debug!(seed, "does not resolve: {e}"),
                    Err(_) => tracing::debug!(seed, "does not resolve: no answer in time"),
                }
            }
            let _ = found.send(addrs).await;
        });
    }
}

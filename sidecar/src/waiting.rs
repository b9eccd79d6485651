//! What a node answers while its database is away: HTTP requests and the status socket get the reason, instead of no answer.

use crate::admin::{Admin, SocketPlace};
use crate::api;
use crate::db::check::DbPath;
use std::net::TcpListener;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Requests under way are answered within.
const PATIENCE: Duration = Duration::from_millis(500);

/// It answers until it is ended.
#[derive(Debug)]
pub struct Waiting {
    http: JoinHandle<()>,
    stop: watch::Sender<bool>,
    _admin: Option<Admin>,
}

impl Waiting {
    /// Begins to answer on a node's own sockets. What cannot be served is left out: the log says why the node waits.
    pub fn start(tcp: &TcpListener, db: &DbPath) -> std::io::Result<Self> {
        // Nobody receives the questions, which says as much. First, so that whoever was told over HTTP can ask it.
        let (questions, _) = mpsc::channel(1);
        let admin = Admin::start(SocketPlace::of(db.path()), questions).ok();
        let listener = tokio::net::TcpListener::from_std(tcp.try_clone()?)?;
        let (stop, stopped) = watch::channel(false);
        let http = tokio::spawn(api::refuse(listener, stopped));
        Ok(Self { http, stop, _admin: admin })
    }

    /// Answers no more, and leaves the sockets to the node.
    pub async fn end(self) {
        let _ = self.stop.send(true);
        api::end(self.http, PATIENCE).await;
    }
}

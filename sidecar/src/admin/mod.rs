//! The status socket: a unix socket beside the database, for its owner only, that answers one question.
//!
//! A request is one line of JSON, `{"cmd":"status"}`; so is the answer. The database itself is never opened for it.

use crate::error::Error;
use crate::limits::{MAX_ADMIN, MAX_ADMIN_LINE};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, Semaphore};

mod text;

pub use text::human;

/// A socket's path may have this many bytes; the system's limit is 108 with the zero at the end.
const MAX_SOCKET_PATH: usize = 100;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The answer to `status` may be large in a large cluster.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// What `starling status --json` prints. Fields may be added, none goes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// This replica.
    pub site_id: String,
    /// Its local counter.
    pub db_version: u64,
    /// Version of the program.
    pub version: String,
    /// The cluster.
    pub cluster_id: String,
    /// The process.
    pub pid: u32,
    /// For how long it has run.
    pub uptime_ms: u64,
    /// Where QUIC listens.
    pub listen: String,
    /// What others are told to dial.
    pub advertise: String,
    /// Where HTTP listens.
    pub http: String,
    /// Changes kept aside for tables or columns that are not here.
    pub aside: u64,
    /// The members of the cluster, this node included.
    pub members: Vec<MemberStatus>,
    /// What is held and missing, by site.
    pub sites: Vec<SiteStatus>,
    /// The merging side.
    pub store: StoreStatus,
    /// The protocol's counters since the start.
    pub counters: BTreeMap<String, u64>,
}

/// A member of the cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The replica.
    pub site_id: String,
    /// Where it is dialled.
    pub addr: String,
    /// `alive`, `suspect` or `down`.
    pub state: String,
    /// Whether it is the node that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Whether a connection to it stands.
    pub connected: bool,
    /// Whether it is a tree neighbour.
    pub link: bool,
    /// Round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
}

/// What is held and missing of a site.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SiteStatus {
    /// The replica.
    pub site_id: String,
    /// Versions held, as ranges, both ends included.
    pub held: Vec<(u64, u64)>,
    /// Versions that somebody holds and this node does not.
    pub missing: Vec<(u64, u64)>,
    /// For how long something has been missing.
    pub lag_ms: u64,
    /// The same by epoch.
    pub epochs: Vec<EpochStatus>,
}

/// One epoch of a site.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct EpochStatus {
    /// The epoch, as hexadecimal text (it does not fit a JSON number).
    pub epoch: String,
    /// Versions held.
    pub held: Vec<(u64, u64)>,
    /// Versions missing.
    pub missing: Vec<(u64, u64)>,
    /// For how long something has been missing.
    pub lag_ms: u64,
    /// Transactions of which parts are held without a claim.
    pub carried: u64,
    /// Commit time of the newest transaction that passed through here; 0 = none yet.
    pub newest_commit_ms: u64,
}

/// The merging side.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Changesets that wait.
    pub waiting: u64,
    /// Merge transactions committed since the start.
    pub commits: u64,
    /// Changesets merged since the start.
    pub merged: u64,
    /// Why nothing can be merged right now.
    pub trouble: Option<String>,
}

/// A question to the driver.
#[derive(Debug)]
pub struct StatusRequest(pub oneshot::Sender<Status>);

#[derive(Serialize, Deserialize)]
struct Request {
    cmd: String,
}

/// Where a database's socket is: beside it, under a short name where its own is too long for a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPlace {
    dir: PathBuf,
    name: String,
}

impl SocketPlace {
    /// The place for a database whose path has no links in it.
    #[must_use]
    pub fn of(db: &Path) -> Self {
        let dir = db.parent().unwrap_or_else(|| Path::new("/")).to_owned();
        let own = db.file_name().and_then(|n| n.to_str()).map(|n| format!("{n}-starling.sock"));
        let hash = db.as_os_str().as_encoded_bytes();
        let hash =
            hash.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        let name = own.filter(|n| n.len() <= 64).unwrap_or_else(|| format!(".starling-{hash:016x}.sock"));
        Self { dir, name }
    }

    /// The path as a user finds it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// A path short enough for a socket: long directories are reached through an open handle of them.
    fn short(&self) -> std::io::Result<(PathBuf, Option<OwnedFd>)> {
        let path = self.path();
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok((path, None));
        }
        let dir = rustix::fs::open(&self.dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(&self.name);
        Ok((short, Some(dir)))
    }
}

/// The listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Admin {
    place: SocketPlace,
    serving: tokio::task::AbortHandle,
}

impl Admin {
    /// Binds the socket and answers. Whoever holds the lock of the database may replace a socket that was left behind.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn start(place: SocketPlace, driver: mpsc::Sender<StatusRequest>) -> Result<Self, Error> {
        let failed = |e: std::io::Error| Error::system("making the status socket beside the database", e);
        let (short, _dir) = place.short().map_err(failed)?;
        match std::fs::remove_file(&short) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let listener = bind_private(&short).map_err(failed)?;
        let serving = tokio::spawn(serve(listener, driver)).abort_handle();
        Ok(Self { place, serving })
    }
}

/// Binds under a name that nobody knows, restricts it to its owner, and only then gives it its name.
fn bind_private(path: &Path) -> std::io::Result<UnixListener> {
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.serving.abort();
        if let Ok((short, _dir)) = self.place.short() {
            let _ = std::fs::remove_file(short);
        }
    }
}

async fn serve(listener: UnixListener, driver: mpsc::Sender<StatusRequest>) {
    let slots = Arc::new(Semaphore::new(MAX_ADMIN));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let driver = driver.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CLIENT_TIMEOUT, answer(stream, driver)).await;
            drop(slot);
        });
    }
}

async fn answer(mut stream: tokio::net::UnixStream, driver: mpsc::Sender<StatusRequest>) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    tokio::io::BufReader::new(read.take(MAX_ADMIN_LINE as u64)).read_line(&mut line).await?;
    let reply = match serde_json::from_str::<Request>(&line) {
        Ok(request) if request.cmd == "status" => match ask_driver(&driver).await {
            Some(status) => serde_json::to_string(&status)?,
            None => refusal("it waits for its database, or is stopping; its log says more"),
        },
        Ok(_) => refusal("unknown command"),
        Err(_) => refusal("expected one line of JSON"),
    };
    write.write_all(reply.as_bytes()).await?;
    write.write_all(b"\n").await?;
    write.shutdown().await
}

async fn ask_driver(driver: &mpsc::Sender<StatusRequest>) -> Option<Status> {
    let (sender, answered) = oneshot::channel();
    driver.send(StatusRequest(sender)).await.ok()?;
    answered.await.ok()
}

fn refusal(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}

/// Asks the node that runs for this database.
///
/// # Errors
/// When none runs or it does not answer.
pub fn ask(db: &Path) -> Result<Status, Error> {
    let place = SocketPlace::of(db);
    let shown = db.display();
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Error::Status(format!(
            "no sidecar runs for {shown}; start one with: starling run --db {shown} --cluster-key FILE"
        )),
        std::io::ErrorKind::PermissionDenied => {
            Error::Status(format!("the sidecar of {shown} runs under another user; ask as that user or as root"))
        }
        _ => Error::Status(format!("the sidecar of {shown} did not answer: {e}")),
    };
    let (short, _dir) = place.short().map_err(failed)?;
    let mut stream = UnixStream::connect(short).map_err(failed)?;
    stream
        .set_read_timeout(Some(CLIENT_TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(CLIENT_TIMEOUT)))
        .map_err(failed)?;
    stream.write_all(b"{\"cmd\":\"status\"}\n").map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line).map_err(failed)?;
    serde_json::from_str(&line).map_err(|_| {
        let refusal = serde_json::from_str::<serde_json::Value>(&line).ok();
        let why = refusal.as_ref().and_then(|r| r.get("error")).and_then(serde_json::Value::as_str);
        Error::Status(format!("the sidecar of {shown} answered: {}", why.unwrap_or(line.trim())))
    })
}

#[cfg(test)]
mod tests;

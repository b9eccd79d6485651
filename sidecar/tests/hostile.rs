//! A member that breaks the protocol, against real processes: its connection ends with the reason, the log says so in one line,
//! and the others replicate as before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use quinn::{Connection, ConnectionError, SendStream};
use starling_crdt::SiteId;
use starling_proto::frames::{Frame, Hello};
use starling_sidecar::cluster::ClusterKey;
use starling_sidecar::net::tls::{Identity, PeerId, SERVER_NAME};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const HOSTILE: SiteId = SiteId([9; 16]);

struct Node {
    child: Child,
    http: SocketAddr,
    listen: SocketAddr,
    log: std::path::PathBuf,
}

impl Node {
    fn start(dir: &Path, name: &str, join: &[&Node]) -> Self {
        let log = dir.join(name).with_extension("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
        command.arg("run").arg("--db").arg(dir.join(name)).arg("--cluster-key").arg(dir.join("key"));
        command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log", "info"]);
        for node in join {
            command.args(["--join", &node.listen.to_string()]);
        }
        let stderr = std::fs::File::create(&log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let field = |name: &str| ready.split_whitespace().find_map(|f| f.strip_prefix(name)).unwrap().parse().unwrap();
        Self { http: field("http="), listen: field("listen="), child, log }
    }

    fn sql(&self, sql: &str) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        let (host, length) = (self.http, sql.len());
        let head = format!("POST /sql HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n");
        write!(stream, "{head}Content-Type: application/sql\r\n\r\n{sql}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Two nodes with a table, and the cluster's key.
fn cluster(dir: &Path) -> (Node, Node, ClusterKey) {
    let key = ClusterKey::generate().unwrap();
    key.create_file(&dir.join("key")).unwrap();
    let a = Node::start(dir, "a.db", &[]);
    let b = Node::start(dir, "b.db", &[&a]);
    for node in [&a, &b] {
        let made = node.sql("CREATE TABLE m(id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('m')");
        assert!(made.contains("200 OK"), "{made}");
    }
    (a, b, key)
}

fn replicates(a: &Node, b: &Node, id: u32) {
    assert!(a.sql(&format!("INSERT INTO m VALUES({id}, 'x')")).contains("200 OK"));
    until("it replicates", || b.sql(&format!("SELECT count(*) FROM m WHERE id = {id}")).contains("[[1]]"));
}

fn hello(key: &ClusterKey) -> Vec<u8> {
    let here = SocketAddr::from(([127, 0, 0, 1], 1));
    let cluster_id = *key.id.as_bytes();
    Frame::Hello(Hello { cluster_id, site: HOSTILE, incarnation: 1, advertise: here, observed: here }).encode().to_vec()
}

/// A connection with its control stream, as a member makes it. The endpoint lives as long as the connection is needed.
async fn connect(key: &ClusterKey, to: SocketAddr) -> (quinn::Endpoint, Connection, SendStream) {
    let identity = Identity::issue(key, PeerId { site: HOSTILE, incarnation: 1 }).unwrap();
    let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let connection = endpoint.connect_with(identity.client, to, SERVER_NAME).unwrap().await.unwrap();
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[1]).await.unwrap();
    (endpoint, connection, control)
}

async fn send(control: &mut SendStream, frame: &[u8]) {
    let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
    control.write_all(&[&length[..], frame].concat()).await.unwrap();
}

/// Sends these frames; the code and reason with which the node closes.
async fn refused(key: &ClusterKey, to: SocketAddr, frames: &[Vec<u8>]) -> (u64, String) {
    let (_endpoint, connection, mut control) = connect(key, to).await;
    for frame in frames {
        send(&mut control, frame).await;
    }
    let closed = tokio::time::timeout(SOON, connection.closed()).await.expect("the connection is closed");
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
    (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_violation_ends_that_connection_with_one_line_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, key) = cluster(dir.path());
    let good = hello(&key);
    let mut other_version = good.clone();
    other_version[1] = 2;
    let mut longer_of_the_future = other_version.clone();
    longer_of_the_future.extend([7; 100]);
    let cut = good[..20].to_vec();
    let longer = [&good[..], &[0]].concat();
    let cases = [
        (vec![other_version], 2, "protocol version 2"),
        (vec![longer_of_the_future], 2, "protocol version 2"),
        (vec![cut], 1, "cut short"),
        (vec![longer], 1, ""),
        (vec![vec![]], 1, "frame"),
        (vec![vec![0x7f, 1, 2]], 1, "frame type"),
        (vec![vec![5]], 1, "before the hello"),
        (vec![good.clone(), good.clone()], 1, "second hello"),
        (vec![good.clone(), vec![0x0f]], 1, "frame type"),
        (vec![good.clone(), vec![2, 0, 200, 1]], 1, ""),
        (vec![good, [&[2, 0, 1][..], &[0xff; 64]].concat()], 1, ""),
    ];
    for (i, (frames, code, reason)) in cases.into_iter().enumerate() {
        let before = a.log().matches("connection closed").count();
        let (said_code, said) = refused(&key, a.listen, &frames).await;
        assert_eq!(said_code, code, "{i}: {said}");
        assert!(said.contains(reason), "{i}: {said}");
        until("the log says so", || a.log().matches("connection closed").count() > before);
        assert_eq!(a.log().matches("connection closed").count(), before + 1, "{i}");
        replicates(&a, &b, u32::try_from(i).unwrap());
    }
    assert!(!a.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_never_end_and_garbage_datagrams_disturb_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, key) = cluster(dir.path());
    let (_endpoint, connection, mut control) = connect(&key, a.listen).await;
    send(&mut control, &hello(&key)).await;
    // Announced: a request of 16 MiB. Sent: two bytes of it. No more streams than the transport allows can be opened.
    let mut open = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), connection.open_bi()).await {
        let (mut request, answer) = stream.unwrap();
        request.write_all(&[0, 0, 0, 1, 0x20, 0]).await.unwrap();
        open.push((request, answer));
        assert!(open.len() < 64, "the number of streams is bounded");
    }
    for i in 0..2_000u32 {
        let garbage = i.wrapping_mul(2_654_435_761).to_le_bytes().repeat(i as usize % 200);
        let _ = connection.send_datagram(Bytes::from(garbage));
    }
    // Half a frame, and no more.
    control.write_all(&[0, 0, 64, 0, 2]).await.unwrap();
    replicates(&a, &b, 1);
    replicates(&b, &a, 2);
    assert!(!a.log().contains("panicked"));
}

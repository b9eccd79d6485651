//! Real endpoints on the loopback interface: who is let in, who is refused, and what is said about it on both sides.

use super::*;
use crate::cluster::ClusterKey;
use crate::net::framing::{length, STREAM_CONTROL};
use crate::net::tls::{PeerId, ALPN};
use crate::net::{AnswerEvent, Link};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::CertificateDer;
use starling_crdt::SiteId;
use starling_proto::limits::MAX_FRAME;

struct Peer {
    endpoint: Endpoint,
    events: mpsc::Receiver<NetEvent>,
    addr: SocketAddr,
}

fn peer(key: &ClusterKey, site: u8) -> Peer {
    let identity = Identity::issue(key, PeerId { site: SiteId([site; 16]), incarnation: 1 }).unwrap();
    let (sender, events) = mpsc::channel(64);
    let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let endpoint = Endpoint::start(NetConfig { socket, identity, events: sender }).unwrap();
    let addr = endpoint.local_addr().unwrap();
    Peer { endpoint, events, addr }
}

impl Peer {
    async fn next(&mut self) -> NetEvent {
        tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await.expect("an event in time").unwrap()
    }

    async fn up(&mut self) -> Link {
        match self.next().await {
            NetEvent::Up { link, .. } => link,
            other => panic!("{other:?}"),
        }
    }

    async fn dial_fails(&mut self, addr: SocketAddr) -> String {
        self.endpoint.dial(addr);
        match self.next().await {
            NetEvent::DialFailed { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }
}

async fn connected() -> (Peer, Link, Peer, Link) {
    let key = ClusterKey::generate().unwrap();
    let (mut a, mut b) = (peer(&key, 1), peer(&key, 2));
    a.endpoint.dial(b.addr);
    let (at_a, at_b) = (a.up().await, b.up().await);
    (a, at_a, b, at_b)
}

#[tokio::test]
async fn two_nodes_of_a_cluster_know_each_other_by_their_certificates() {
    let (mut a, at_a, mut b, at_b) = connected().await;
    assert_eq!((at_a.peer.site, at_a.dialed), (SiteId([2; 16]), true));
    assert_eq!((at_b.peer.site, at_b.dialed), (SiteId([1; 16]), false));

    at_a.send_frame(Bytes::from_static(b"one"));
    at_a.send_frame(Bytes::from_static(b"two"));
    at_b.send_datagram(Bytes::from_static(b"ping"));
    for expected in ["one", "two"] {
        let NetEvent::Frame { bytes, from, .. } = b.next().await else { panic!("a frame") };
        assert_eq!((&bytes[..], from), (expected.as_bytes(), SiteId([1; 16])));
    }
    let NetEvent::Datagram { bytes, .. } = a.next().await else { panic!("a datagram") };
    assert_eq!(&bytes[..], b"ping");

    at_a.close(0, "the node is leaving the cluster");
    let NetEvent::Down { why, .. } = b.next().await else { panic!("down") };
    assert!(why.contains("leaving"), "{why}");
}

#[tokio::test]
async fn a_packet_too_large_for_the_path_goes_by_the_control_stream() {
    let (_a, at_a, mut b, _at_b) = connected().await;
    let large = Bytes::from(vec![7u8; 1100]);
    at_a.send_datagram(large.clone());
    let NetEvent::Datagram { bytes, .. } = b.next().await else { panic!("a datagram") };
    assert_eq!(bytes, large);
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_and_told_why() {
    let mut home = peer(&ClusterKey::generate().unwrap(), 1);
    let mut stranger = peer(&ClusterKey::generate().unwrap(), 2);
    let why = stranger.dial_fails(home.addr).await;
    assert!(why.contains("certificate"), "{why}");
    assert!(home.events.try_recv().is_err(), "nothing of it reaches the driver");
}

/// A client that knows the authority but shows no certificate, or speaks another protocol.
async fn outsider(key: &ClusterKey, alpn: &[u8], addr: SocketAddr) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(key.ca_cert_pem.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(std::sync::Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    match endpoint.connect_with(config, addr, SERVER_NAME).unwrap().await {
        Err(e) => explain(&e),
        Ok(connection) => explain(&connection.closed().await),
    }
}

#[tokio::test]
async fn without_a_certificate_or_with_another_protocol_nobody_gets_in() {
    let key = ClusterKey::generate().unwrap();
    let mut home = peer(&key, 1);
    let why = outsider(&key, ALPN, home.addr).await;
    assert!(why.contains("no client certificate"), "{why}");
    let why = outsider(&key, b"starling/9", home.addr).await;
    assert!(why.contains("no common protocol"), "{why}");
    assert!(home.events.try_recv().is_err(), "nothing of it reaches the driver");

    let mut friend = peer(&key, 3);
    friend.endpoint.dial(home.addr);
    assert_eq!(home.up().await.peer.site, SiteId([3; 16]), "and nobody else is disturbed");
    friend.up().await;
}

/// A connection by a member that then does not keep to the framing.
async fn member_connection(key: &ClusterKey, addr: SocketAddr) -> (quinn::Endpoint, quinn::Connection) {
    let identity = Identity::issue(key, PeerId { site: SiteId([9; 16]), incarnation: 1 }).unwrap();
    let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let connection = endpoint.connect_with(identity.client, addr, SERVER_NAME).unwrap().await.unwrap();
    (endpoint, connection)
}

#[tokio::test]
async fn an_oversize_frame_ends_the_connection_with_the_reason() {
    let key = ClusterKey::generate().unwrap();
    let mut home = peer(&key, 1);
    let (_endpoint, connection) = member_connection(&key, home.addr).await;
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[STREAM_CONTROL]).await.unwrap();
    let _link = home.up().await;
    control.write_all(&length(MAX_FRAME + 1)).await.unwrap();
    let why = explain(&connection.closed().await);
    assert!(why.contains("above the limit"), "{why}");
    let NetEvent::Down { why, .. } = home.next().await else { panic!("down") };
    assert!(why.contains("above the limit"), "{why}");
}

#[tokio::test]
async fn an_unknown_kind_of_stream_ends_the_connection() {
    let key = ClusterKey::generate().unwrap();
    let mut home = peer(&key, 1);
    let (_endpoint, connection) = member_connection(&key, home.addr).await;
    connection.open_uni().await.unwrap().write_all(&[0x7f]).await.unwrap();
    let why = explain(&connection.closed().await);
    assert!(why.contains("unknown kind"), "{why}");
    assert!(home.events.try_recv().is_err());
}

#[tokio::test]
async fn a_sync_session_carries_a_request_and_the_messages_of_its_answer() {
    let (_a, at_a, mut b, _at_b) = connected().await;
    let (sender, mut answers) = mpsc::channel(4);
    at_a.open_sync(7, Bytes::from_static(b"what I have"), sender.clone());
    let NetEvent::SyncRequested { bytes, sink, .. } = b.next().await else { panic!("a request") };
    assert_eq!(&bytes[..], b"what I have");
    let large = Bytes::from(vec![3u8; 3 * 1024 * 1024]);
    let sent = large.clone();
    tokio::spawn(async move {
        sink.send(Bytes::from_static(b"first")).await.unwrap();
        sink.send(sent).await.unwrap();
        sink.end().await.unwrap();
    });
    for expected in [Bytes::from_static(b"first"), large] {
        let Some(AnswerEvent::Message { pull: 7, bytes, .. }) = answers.recv().await else { panic!("a message") };
        assert!(bytes == expected);
    }
    assert!(matches!(answers.recv().await, Some(AnswerEvent::Ended { pull: 7, result: Ok(()) })));

    at_a.open_sync(8, Bytes::new(), sender);
    let NetEvent::SyncRequested { sink, .. } = b.next().await else { panic!("a request") };
    sink.send(Bytes::from_static(b"part")).await.unwrap();
    drop(sink);
    let mut last = answers.recv().await;
    if matches!(last, Some(AnswerEvent::Message { .. })) {
        last = answers.recv().await;
    }
    let Some(AnswerEvent::Ended { pull: 8, result: Err(_) }) = last else {
        panic!("broken off, not complete: {last:?}")
    };
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_the_sender_and_not_the_memory() {
    let (_a, at_a, mut b, _at_b) = connected().await;
    let (sender, mut answers) = mpsc::channel(1);
    at_a.open_sync(7, Bytes::new(), sender);
    let NetEvent::SyncRequested { sink, .. } = b.next().await else { panic!("a request") };
    let message = Bytes::from(vec![0u8; 1024 * 1024]);
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(500), sink.send(message.clone())).await.is_ok() {
        sent += 1;
        assert!(sent < 64, "the windows are bounded");
    }
    let mut received = 0;
    while received < sent {
        let Some(AnswerEvent::Message { .. }) = answers.recv().await else { panic!("a message") };
        received += 1;
    }
}

#[tokio::test]
async fn a_copy_of_a_database_is_found_out_while_the_original_is_alive() {
    use crate::net::close_code::{CLONE, SUPERSEDED};
    use crate::net::{Admitted, Peers};
    let key = ClusterKey::generate().unwrap();
    let mut home = peer(&key, 1);
    let mut peers = Peers::new(SiteId([1; 16]));
    let process = |incarnation| {
        let identity = Identity::issue(&key, PeerId { site: SiteId([2; 16]), incarnation }).unwrap();
        let (sender, events) = mpsc::channel(64);
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let endpoint = Endpoint::start(NetConfig { socket, identity, events: sender }).unwrap();
        let addr = endpoint.local_addr().unwrap();
        Peer { endpoint, events, addr }
    };
    let (mut original, mut copy) = (process(10), process(20));
    let code = |event| match event {
        NetEvent::Down { code, .. } => u32::try_from(code.expect("a code")).unwrap(),
        other => panic!("{other:?}"),
    };
    original.endpoint.dial(home.addr);
    let _first = original.up().await;
    assert_eq!(peers.admit(home.up().await, Instant::now()), Admitted::Up);
    copy.endpoint.dial(home.addr);
    let _second = copy.up().await;
    assert_eq!(peers.admit(home.up().await, Instant::now()), Admitted::Up, "it looks like a restart");
    assert_eq!(code(original.next().await), SUPERSEDED);

    let mut dials = 0;
    loop {
        dials += 1;
        original.endpoint.dial(home.addr);
        let _link = original.up().await;
        let link = loop {
            if let NetEvent::Up { link, .. } = home.next().await {
                break link;
            }
        };
        if peers.admit(link, Instant::now()) == Admitted::Up {
            break;
        }
        assert_eq!(code(original.next().await), SUPERSEDED);
        assert!(dials < 10);
    }
    assert_eq!(dials, 3, "once could be the last sign of a process that was restarted");
    assert_eq!(code(copy.next().await), CLONE);
}

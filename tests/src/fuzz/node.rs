//! The core of the sidecar under hostile peers: datagrams, frames, requests and answers that nobody would send, in any order.
//!
//! Whatever comes, it must not panic, must end its outputs, must keep what it sends within the protocol's limits, and must never
//! hand the store a part whose header is not that of its bytes.

use super::feed::Feed;
use bytes::Bytes;
use starling_crdt::changeset::{DotHeader, PartReader};
use starling_crdt::{SiteId, Vector};
use starling_proto::limits::{MAX_DATAGRAM, MAX_FRAME};
use starling_proto::{Input, Node, NodeConfig, Now, Output, PullKey, ServeKey, Source, Timing};
use std::net::SocketAddr;

const CLUSTER: [u8; 16] = *b"0123456789abcdef";

fn addr(i: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, i], 8787))
}

/// The peers that there are: sites 1, 2, 3; the node itself is site 0, and a peer may claim to be it.
fn peer(feed: &mut Feed<'_>) -> (SiteId, SocketAddr) {
    let i = feed.pick(&[1u8, 2, 3, 0]);
    (SiteId([i; 16]), addr(i))
}

/// The names that the core gave out or was given, to be used again and too late.
#[derive(Default)]
struct Names {
    pulls: Vec<PullKey>,
    merges: Vec<(Source, starling_crdt::Dot)>,
    tickets: Vec<u64>,
    serves: u64,
}

fn input(feed: &mut Feed<'_>, names: &mut Names) -> Input {
    let (from, at) = peer(feed);
    let pull = PullKey(names.pulls.get(feed.below(4)).map_or(7, |k| k.0));
    match feed.below(16) {
        0 => Input::PeerUp { peer: from, addr: at, dialed: (feed.below(2) == 1).then_some(at) },
        1 => Input::PeerDown { peer: from, why: "it broke".into() },
        2..=4 => Input::Frame { from, bytes: Bytes::copy_from_slice(feed.run()) },
        5 | 6 => {
            let run = feed.run();
            Input::Datagram { from, bytes: Bytes::copy_from_slice(&run[..run.len().min(MAX_DATAGRAM)]) }
        }
        7 => {
            names.serves += 1;
            Input::SyncRequested { from, serve: ServeKey(names.serves), bytes: Bytes::copy_from_slice(feed.run()) }
        }
        8 | 9 => Input::SyncAnswer { pull, bytes: Bytes::copy_from_slice(feed.run()) },
        10 => Input::SyncEnded { pull, result: if feed.below(2) == 0 { Ok(()) } else { Err("it broke".into()) } },
        11 => match names.merges.pop() {
            Some((source, dot)) if feed.below(2) == 0 => {
                Input::Merged { source, dot, claimed: feed.below(2) == 1, changes: 1 }
            }
            Some((source, dot)) => {
                let header = DotHeader { dot, token: 1, prev: dot.version / 2, prev_token: 1, commit_ms: 0 };
                Input::MergeFailed { source, header, why: "it cannot".into() }
            }
            None => Input::SyncApplied { pull },
        },
        12 => Input::ServeEnded { serve: ServeKey(u64::from(feed.byte())), completed: feed.below(2) == 1 },
        13 => Input::Vector { ticket: names.tickets.pop(), vector: Vector::decode(feed.run()).unwrap_or_default() },
        14 => Input::DialFailed { addr: at, why: "nobody".into() },
        _ => Input::Started { vector: Vector::decode(feed.run()).unwrap_or_default() },
    }
}

fn drain(node: &mut Node, names: &mut Names) {
    for n in 0.. {
        let Some(output) = node.poll_output() else { return };
        assert!(n < 10_000, "the outputs of one input do not end: {output:?}");
        match output {
            Output::SendDatagram { bytes, .. } => assert!(bytes.len() <= MAX_DATAGRAM),
            Output::SendFrame { bytes, .. } => assert!(bytes.len() <= MAX_FRAME),
            Output::OpenSync { pull, .. } => names.pulls.push(pull),
            Output::ReadVector { ticket } => names.tickets.push(ticket),
            Output::Merge { source, header, part } => {
                let read = PartReader::new(&part).expect("a part handed over has a head");
                assert_eq!(*read.header(), header);
                if header.last {
                    names.merges.push((source, header.dot.dot));
                }
            }
            _ => {}
        }
    }
}

/// The target.
pub fn node(data: &[u8]) {
    let mut feed = Feed::new(data);
    let mut now = Now(1);
    let config = NodeConfig {
        cluster_id: CLUSTER,
        site_id: SiteId([0; 16]),
        incarnation: 5,
        advertise: addr(0),
        seed: feed.word(),
        timing: Timing::default(),
    };
    let mut node = Node::new(config, now);
    let mut names = Names::default();
    node.handle(now, Input::Started { vector: Vector::default() });
    for i in 1..=2 {
        node.handle(now, Input::PeerUp { peer: SiteId([i; 16]), addr: addr(i), dialed: None });
    }
    drain(&mut node, &mut names);
    for _ in 0..200 {
        if feed.is_empty() {
            break;
        }
        let given = input(&mut feed, &mut names);
        node.handle(now, given);
        drain(&mut node, &mut names);
        let step = u64::from(feed.byte());
        now = now.after(step * step * 100);
        if node.next_deadline().is_some_and(|due| due <= now) {
            node.handle_timeout(now);
            drain(&mut node, &mut names);
        }
    }
}

//! What one node does, input by input.

use super::*;
use crate::api::{Changeset, HangupReason, HeldBy, PullKey, ServeKey, Timing};
use crate::frames::{answer_done, answer_part, answer_refused, encode_payload, sync_request, Hello};
use crate::limits::MAX_UNMERGED_BYTES;
use starling_crdt::changeset::{DotHeader, Header, PartReader, PartWriter};
use starling_crdt::{Dot, Origin, Vector};

struct Rig {
    node: Node,
    now: Now,
}

fn site(n: u8) -> SiteId {
    SiteId([n; 16])
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8787))
}

fn config() -> NodeConfig {
    NodeConfig {
        cluster_id: [3; 16],
        site_id: site(1),
        incarnation: 100,
        advertise: addr(1),
        seed: 1,
        timing: Timing::default(),
    }
}

fn hello(n: u8) -> Hello {
    Hello { cluster_id: [3; 16], site: site(n), incarnation: 50, advertise: addr(n), observed: addr(1) }
}

fn header(n: u8, version: u64) -> DotHeader {
    let dot = Dot { origin: Origin { site: site(n), epoch: 1 }, version };
    DotHeader { dot, token: 9 + version, prev: version - 1, prev_token: 0, commit_ms: 5 }
}

fn part(n: u8, version: u64, claimable: bool, padding: usize) -> Bytes {
    let header = Header { dot: header(n, version), claimable, last: true, group: false, part: 0 };
    let mut writer = PartWriter::new(&header);
    writer.table(&"x".repeat(padding), 1, ["a"].into_iter());
    writer.finish(true).into()
}

impl Rig {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: NodeConfig) -> Self {
        let mut rig = Self { node: Node::new(config, Now(0)), now: Now(0) };
        rig.give(Input::Started { vector: Vector::default() });
        rig
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.node.handle(self.now, input);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.node.poll_output()).collect()
    }

    fn frame(&mut self, from: u8, frame: &Frame) -> Vec<Output> {
        self.give(Input::Frame { from: site(from), bytes: frame.encode() })
    }

    fn up(&mut self, n: u8) -> Vec<Output> {
        self.give(Input::PeerUp { peer: site(n), addr: addr(n), dialed: None })
    }

    fn ready(&mut self, n: u8) -> Vec<Output> {
        let mut outputs = self.up(n);
        outputs.extend(self.frame(n, &Frame::Hello(hello(n))));
        outputs
    }

    /// Lets every timer fire that is due within `micros`.
    fn pass(&mut self, micros: u64) -> Vec<Output> {
        let end = self.now.after(micros);
        let mut outputs = Vec::new();
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.node.handle_timeout(self.now);
            outputs.extend(self.outputs());
        }
        self.now = end;
        outputs
    }

    fn push(&mut self, from: u8, origin: u8, version: u64) -> Vec<Output> {
        self.give(Input::Frame { from: site(from), bytes: encode_payload(0, &[part(origin, version, true, 10)]) })
    }

    /// Makes the node pull from peer 2.
    fn pull(&mut self) -> PullKey {
        let outputs = self.frame(2, &Frame::Pull(header(7, 1).dot));
        assert!(opened(&outputs).is_none());
        opened(&self.pass(100)).expect("a pull")
    }
}

fn opened(outputs: &[Output]) -> Option<PullKey> {
    outputs.iter().find_map(|o| if let Output::OpenSync { pull, .. } = o { Some(*pull) } else { None })
}

fn hung_up(outputs: &[Output]) -> Option<(SiteId, HangupReason)> {
    outputs
        .iter()
        .find_map(|o| if let Output::Hangup { peer, reason } = o { Some((*peer, reason.clone())) } else { None })
}

fn frames_to(outputs: &[Output], n: u8) -> Vec<Frame> {
    let mine = |o: &Output| match o {
        Output::SendFrame { to, bytes } if *to == site(n) => Some(Frame::decode(bytes).unwrap()),
        _ => None,
    };
    outputs.iter().filter_map(mine).collect()
}

fn merges(outputs: &[Output]) -> usize {
    outputs.iter().filter(|o| matches!(o, Output::Merge { .. })).count()
}

fn event(outputs: &[Output], wanted: impl Fn(&Event) -> bool) -> bool {
    outputs.iter().any(|o| matches!(o, Output::Event(e) if wanted(e)))
}

#[test]
fn a_peer_that_sends_garbage_is_closed_and_nobody_else_is_disturbed() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.ready(3);
    let out = rig.give(Input::Frame { from: site(2), bytes: Bytes::from_static(&[0xff, 1, 2]) });
    assert!(matches!(hung_up(&out), Some((peer, HangupReason::Violation(_))) if peer == site(2)));
    assert!(rig.push(2, 7, 1).is_empty(), "what still comes from it is ignored");
    assert_eq!(merges(&rig.push(3, 7, 1)), 1);
    assert_eq!(rig.node.counters().frames_refused, 1);
}

#[test]
fn strangers_are_told_why_they_are_refused() {
    let refusals = [
        (Frame::Prune.encode(), HangupReason::Violation("a frame before the hello".to_owned())),
        (Frame::Hello(Hello { cluster_id: [4; 16], ..hello(2) }).encode(), HangupReason::Cluster),
        (Frame::Hello(hello(3)).encode(), HangupReason::Site),
        (Bytes::from_static(&[1, 200]), HangupReason::Version(200)),
    ];
    for (bytes, wanted) in refusals {
        let mut rig = Rig::new();
        rig.up(2);
        let out = rig.give(Input::Frame { from: site(2), bytes });
        assert_eq!(hung_up(&out), Some((site(2), wanted.clone())));
        assert!(event(&out, |e| *e == Event::Refused { peer: site(2), reason: wanted.clone() }));
    }
    let mut rig = Rig::new();
    rig.ready(2);
    assert!(hung_up(&rig.frame(2, &Frame::Hello(hello(2)))).is_some(), "a second hello");
}

#[test]
fn who_says_nothing_is_closed() {
    let mut rig = Rig::new();
    rig.up(2);
    assert_eq!(hung_up(&rig.pass(11_000_000)), Some((site(2), HangupReason::NoHello)));
}

#[test]
fn a_node_without_an_address_takes_the_one_its_first_peer_sees() {
    let mut rig = Rig::with(NodeConfig { advertise: "[::]:8787".parse().unwrap(), ..config() });
    rig.up(2);
    let observed: SocketAddr = "[::ffff:192.168.1.9]:50000".parse().unwrap();
    rig.frame(2, &Frame::Hello(Hello { observed, advertise: "0.0.0.0:99".parse().unwrap(), ..hello(2) }));
    assert_eq!(rig.node.advertised(), "192.168.1.9:8787".parse().unwrap());
    assert_eq!(rig.node.members()[0].addr, "10.0.0.2:99".parse().unwrap(), "the peer's likewise");
}

#[test]
fn meeting_oneself_is_noticed_and_not_repeated() {
    let mut rig = Rig::new();
    rig.give(Input::Join { addrs: vec![addr(9)] });
    let out = rig.give(Input::PeerUp { peer: site(1), addr: addr(9), dialed: Some(addr(9)) });
    assert_eq!(hung_up(&out), Some((site(1), HangupReason::OwnSite)));
    let out = rig.give(Input::Join { addrs: vec![addr(9)] });
    assert!(!out.iter().any(|o| matches!(o, Output::Dial { .. })));
}

#[test]
fn a_member_whose_address_leads_to_another_site_is_not_dialled_while_that_one_is_connected() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.give(Input::PeerDown { peer: site(2), why: "its database was exchanged".into() });
    rig.give(Input::PeerUp { peer: site(3), addr: addr(2), dialed: Some(addr(2)) });
    rig.frame(3, &Frame::Hello(Hello { advertise: addr(2), ..hello(3) }));
    let site_2 = site(2);
    let dials =
        |out: &[Output]| out.iter().filter(|o| matches!(o, Output::Dial { site, .. } if *site == Some(site_2))).count();
    assert_eq!(dials(&rig.pass(60_000_000)), 0, "each dial would replace the connection that stands");
    rig.give(Input::PeerDown { peer: site(3), why: "gone".into() });
    assert!(rig.pass(60_000_000).iter().any(|o| matches!(o, Output::Dial { .. })));
}

#[test]
fn a_late_incarnation_is_taken_when_the_cluster_remembers_a_later_one() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.frame(2, &Frame::Outdated { incarnation: 5_000, addr: addr(1), alive: false });
    assert_eq!(rig.node.swim.ident().incarnation, 5_001);
    let out = rig.frame(2, &Frame::Outdated { incarnation: 6_000, addr: addr(8), alive: true });
    assert!(event(&out, |e| matches!(e, Event::Clone { .. })));
    assert!(rig.frame(2, &Frame::Outdated { incarnation: 3, addr: addr(8), alive: true }).is_empty());
}

#[test]
fn a_local_change_goes_to_every_peer_of_a_small_cluster_at_once() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.ready(3);
    let bytes = part(1, 1, true, 10);
    let changeset = Changeset { header: *PartReader::new(&bytes).unwrap().header(), parts: vec![bytes] };
    let out = rig.give(Input::LocalChangesets(vec![changeset]));
    for n in [2, 3] {
        assert!(matches!(frames_to(&out, n)[..], [Frame::Payload(ref p)] if p.hops == 0));
    }
    assert!(rig.node.book.claims(&header(1, 1).dot));
}

#[test]
fn a_push_is_merged_once_and_claimed_when_the_store_says_so() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.ready(3);
    let dot = header(7, 1).dot;
    assert_eq!(merges(&rig.push(2, 7, 1)), 1);
    let again = rig.push(3, 7, 1);
    assert_eq!((merges(&again), frames_to(&again, 3)), (0, vec![Frame::Prune]));
    assert!(!rig.node.book.claims(&dot));
    rig.give(Input::Merged { source: Source::Push { from: site(2) }, dot, claimed: true, changes: 1 });
    assert!(rig.node.book.claims(&dot));
}

#[test]
fn nothing_is_taken_before_the_store_is_open() {
    let mut rig = Rig { node: Node::new(config(), Now(0)), now: Now(0) };
    rig.ready(2);
    assert!(rig.push(2, 7, 1).is_empty());
    let bytes = sync_request(&Vector::default().encode());
    let out = rig.give(Input::SyncRequested { from: site(2), serve: ServeKey(1), bytes });
    assert!(matches!(out[..], [Output::RefuseSync { .. }]));
    let out = rig.give(Input::Started { vector: Vector::default() });
    assert!(matches!(frames_to(&out, 2)[..], [Frame::Digest(_)]));
}

#[test]
fn a_missing_predecessor_is_pulled_unless_it_comes_by_itself() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.push(2, 7, 2);
    assert!(opened(&rig.pass(10_000)).is_none());
    assert!(opened(&rig.pass(50_000)).is_some());
    let mut rig = Rig::new();
    rig.ready(2);
    rig.push(2, 7, 2);
    rig.push(2, 7, 1);
    let dot = header(7, 1).dot;
    rig.give(Input::Merged { source: Source::Push { from: site(2) }, dot, claimed: true, changes: 1 });
    assert!(opened(&rig.pass(50_000)).is_none());
}

#[test]
fn an_announced_change_that_does_not_come_is_asked_for_from_one_after_the_other() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.ready(3);
    let dot = header(7, 1).dot;
    rig.frame(2, &Frame::IHave(vec![dot]));
    rig.frame(3, &Frame::IHave(vec![dot]));
    let first = rig.pass(110_000);
    assert!(
        frames_to(&first, 2).contains(&Frame::Graft(vec![dot]))
            && !frames_to(&first, 3).contains(&Frame::Graft(vec![dot]))
    );
    assert!(frames_to(&rig.pass(210_000), 3).contains(&Frame::Graft(vec![dot])));
    assert!(opened(&rig.pass(210_000)).is_some(), "and pulled in the end");
}

#[test]
fn a_store_that_lags_is_spared_and_catches_up_by_a_pull() {
    let mut rig = Rig::new();
    rig.ready(2);
    let big = 4_000_000;
    let mut told = 0;
    for version in 1..=(MAX_UNMERGED_BYTES / big) as u64 + 3 {
        let out = rig.give(Input::Frame { from: site(2), bytes: encode_payload(0, &[part(7, version, true, big)]) });
        told += usize::from(event(&out, |e| matches!(e, Event::StoreBehind { .. })));
    }
    assert_eq!(told, 1);
    assert!(rig.node.counters().pushes_dropped >= 2);
    assert!(rig.node.tree.unmerged_bytes() <= MAX_UNMERGED_BYTES);
    assert!(opened(&rig.pass(5_000_000)).is_some());
}

#[test]
fn a_peer_whose_queue_is_long_gets_a_digest_instead_of_pushes() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.give(Input::Congested { peer: site(2), congested: true });
    let bytes = part(1, 1, true, 10);
    let changeset = Changeset { header: *PartReader::new(&bytes).unwrap().header(), parts: vec![bytes] };
    assert!(frames_to(&rig.give(Input::LocalChangesets(vec![changeset])), 2).is_empty());
    let out = rig.give(Input::Congested { peer: site(2), congested: false });
    assert!(matches!(frames_to(&out, 2)[..], [Frame::Digest(_)]));
}

#[test]
fn a_whole_answer_is_claimed_and_only_a_whole_one() {
    let mut rig = Rig::new();
    rig.ready(2);
    let pull = rig.pull();
    let out = rig.give(Input::SyncAnswer { pull, bytes: answer_part(&part(7, 1, false, 10)) });
    assert_eq!(merges(&out), 1);
    let broken = rig.give(Input::SyncEnded { pull, result: Ok(()) });
    assert!(broken.iter().any(|o| matches!(o, Output::CancelSync { .. })));
    assert!(!broken.iter().any(|o| matches!(o, Output::FinishSync { .. })));

    let pull = opened(&rig.pass(400_000)).expect("tried again");
    rig.give(Input::SyncAnswer { pull, bytes: answer_part(&part(7, 1, false, 10)) });
    let mut vector = Vector::default();
    vector.claim(header(7, 1).dot.origin, 1, 1, 10);
    let out = rig.give(Input::SyncAnswer { pull, bytes: answer_done(&vector.encode()) });
    assert!(matches!(out.last(), Some(Output::FinishSync { .. })));
    rig.give(Input::SyncEnded { pull, result: Err("reset after the end".to_owned()) });
    let source = Source::Sync { pull };
    rig.give(Input::Merged { source, dot: header(7, 1).dot, claimed: false, changes: 1 });
    assert!(!rig.node.book.claims(&header(7, 1).dot));
    let out = rig.give(Input::SyncApplied { pull });
    assert!(rig.node.book.claims(&header(7, 1).dot));
    assert!(event(&out, |e| matches!(e, Event::PullDone { changesets: 1, changes: 1, .. })));
    let news = rig.pass(20_000);
    assert!(matches!(frames_to(&news, 2)[..], [Frame::Digest(_)]), "the neighbours hear of it");
}

#[test]
fn a_pull_without_progress_is_given_up_but_one_that_waits_for_the_store_is_not() {
    let mut rig = Rig::new();
    rig.ready(2);
    let pull = rig.pull();
    rig.give(Input::SyncAnswer { pull, bytes: answer_part(&part(7, 1, true, 10)) });
    let gave_up = |out: &[Output]| event(out, |e| matches!(e, Event::PullFailed { .. }));
    assert!(!gave_up(&rig.pass(60_000_000)));
    rig.give(Input::Merged { source: Source::Sync { pull }, dot: header(7, 1).dot, claimed: true, changes: 1 });
    assert!(gave_up(&rig.pass(21_000_000)));
}

#[test]
fn a_busy_peer_is_asked_again_soon_a_failing_one_ever_later() {
    let mut rig = Rig::new();
    rig.ready(2);
    let mut pull = rig.pull();
    for _ in 0..6 {
        rig.give(Input::SyncAnswer { pull, bytes: answer_refused("busy") });
        pull = opened(&rig.pass(510_000)).expect("asked again");
    }
    for _ in 0..8 {
        rig.give(Input::SyncEnded { pull, result: Err("reset".to_owned()) });
        pull = opened(&rig.pass(31_000_000)).expect("tried again");
    }
    rig.give(Input::SyncEnded { pull, result: Err("reset".to_owned()) });
    assert!(opened(&rig.pass(10_000_000)).is_none());
}

#[test]
fn a_peer_that_answers_out_of_order_is_closed() {
    let mut rig = Rig::new();
    rig.ready(2);
    let pull = rig.pull();
    let header = Header { dot: header(7, 1), claimable: true, last: true, group: false, part: 3 };
    let bytes = answer_part(&PartWriter::new(&header).finish(true));
    let out = rig.give(Input::SyncAnswer { pull, bytes });
    assert!(matches!(hung_up(&out), Some((_, HangupReason::Violation(_)))));
    assert_eq!(merges(&out), 0);
}

#[test]
fn commits_that_the_book_has_not_heard_of_are_no_lost_commits() {
    let mut rig = Rig::new();
    rig.ready(2);
    let mut theirs = Vector::default();
    theirs.claim(header(1, 4).dot.origin, 1, 4, 13);
    let ask = |rig: &mut Rig| {
        let out = rig.frame(2, &Frame::Vector { answer: true, vector: theirs.clone() });
        out.iter().find_map(|o| if let Output::ReadVector { ticket } = o { Some(*ticket) } else { None })
    };
    let lost = |out: &[Output]| out.iter().filter(|o| matches!(o, Output::NewEpoch { .. })).count();
    let ticket = ask(&mut rig).expect("the store is asked first");
    assert_eq!(lost(&rig.give(Input::Vector { ticket: Some(ticket), vector: theirs.clone() })), 0);

    let mut rig = Rig::new();
    rig.ready(2);
    let ticket = ask(&mut rig).expect("the store is asked first");
    assert_eq!(lost(&rig.give(Input::Vector { ticket: Some(ticket), vector: Vector::default() })), 1);
    assert_eq!(ask(&mut rig), None, "one new epoch is enough");
}

#[test]
fn what_a_site_may_have_written_since_is_asked_and_only_what_is_certain_is_logged_once() {
    let mut rig = Rig::new();
    rig.ready(2);
    let origin = Origin { site: site(2), epoch: 1 };
    let vector = |version, token| {
        let mut vector = Vector::default();
        vector.claim(origin, version, version, token);
        vector
    };
    let mut found = |token| {
        let outputs = rig.give(Input::ForkDetected { peer: site(2), theirs: vector(3, 12), ours: vector(4, token) });
        rig.now = rig.now.after(6_000_000);
        let asked = frames_to(&outputs, 2).iter().any(|f| matches!(f, Frame::Fork(_)));
        (asked, event(&outputs, |e| matches!(e, Event::Fork { .. })))
    };
    assert_eq!([found(0), found(77), found(77)], [(true, false), (true, true), (true, false)]);
    // Not over and over, but again to one that has begun anew.
    let detected = || Input::ForkDetected { peer: site(2), theirs: vector(3, 12), ours: vector(4, 77) };
    let tells = |outputs: &[Output]| frames_to(outputs, 2).iter().any(|f| matches!(f, Frame::Fork(_)));
    assert!(tells(&rig.give(detected())));
    assert!(!tells(&rig.give(detected())));
    rig.give(Input::PeerDown { peer: site(2), why: "it begins anew".to_owned() });
    rig.ready(2);
    assert!(tells(&rig.give(detected())));
}

#[test]
fn a_node_that_overslept_accuses_nobody() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.pass(900_000);
    for _ in 0..5 {
        rig.now = rig.now.after(30_000_000);
        rig.node.handle_timeout(rig.now);
        let out = rig.outputs();
        assert!(event(&out, |e| matches!(e, Event::Overslept { .. })));
        assert!(!event(&out, |e| matches!(e, Event::MemberSuspect { .. } | Event::MemberDown { .. })));
    }
}

#[test]
fn who_leaves_says_so_and_is_silent_afterwards() {
    let mut rig = Rig::new();
    rig.ready(2);
    let out = rig.give(Input::Leave);
    assert!(out.iter().any(|o| matches!(o, Output::SendDatagram { .. })));
    assert!(matches!(hung_up(&out), Some((_, HangupReason::Leaving))));
    assert!(matches!(out.last(), Some(Output::Event(Event::Left))));
    assert_eq!(rig.node.next_deadline(), None);
    assert!(rig.push(2, 7, 1).is_empty());
}

#[test]
fn who_stops_before_the_first_connection_stands_waits_for_it_but_not_for_one_that_failed() {
    let mut rig = Rig::new();
    assert_eq!(rig.node.held_by(), HeldBy::All);
    rig.give(Input::Join { addrs: vec![addr(2)] });
    assert_eq!(rig.node.held_by(), HeldBy::Nobody);
    rig.give(Input::DialFailed { addr: addr(2), why: "nobody answers".to_owned() });
    assert_eq!(rig.node.held_by(), HeldBy::All);
    rig.up(2);
    assert_eq!(rig.node.held_by(), HeldBy::Nobody, "it has not said who it is");
}

#[test]
fn timeouts_at_any_time_are_harmless() {
    let mut rig = Rig::new();
    rig.ready(2);
    rig.pass(1);
    for _ in 0..100 {
        rig.node.handle_timeout(rig.now);
    }
    assert!(rig.outputs().is_empty());
}

//! Round trips, garbage, and the caps.

use super::*;
use crate::limits::{MAX_FRAME, MAX_PUSH};
use proptest::prelude::*;
use starling_crdt::changeset::{DotHeader, PartWriter};

fn any_addr() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn any_dot() -> impl Strategy<Value = Dot> {
    (any::<[u8; 16]>(), any::<u64>(), 0..=MAX_VERSION)
        .prop_map(|(site, epoch, version)| Dot { origin: Origin { site: SiteId(site), epoch }, version })
}

fn any_hello() -> impl Strategy<Value = Frame> {
    (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u64>(), any_addr(), any_addr()).prop_map(
        |(cluster_id, site, incarnation, advertise, observed)| {
            Frame::Hello(Hello { cluster_id, site: SiteId(site), incarnation, advertise, observed })
        },
    )
}

fn any_vector() -> impl Strategy<Value = Vector> {
    proptest::collection::vec((any_dot(), 0u64..50, any::<bool>()), 0..6).prop_map(|dots| {
        let mut vector = Vector::default();
        for (dot, n, carried) in dots {
            if carried {
                vector.origins.entry(dot.origin).or_default().carried.insert(dot.version, n);
            } else {
                vector.claim(dot.origin, dot.version.saturating_sub(n), dot.version, n);
            }
        }
        vector
    })
}

fn part(dot: Dot, n: u64, last: bool, claimable: bool) -> Bytes {
    let dot = Dot { version: dot.version.max(1), ..dot };
    let dot = DotHeader { dot, token: 5, prev: dot.version - 1, prev_token: 0, commit_ms: 9 };
    PartWriter::new(&Header { dot, claimable, last, group: false, part: n }).finish(last).into()
}

fn any_payload() -> impl Strategy<Value = Frame> {
    (any_dot(), 1u64..5, any::<u8>()).prop_map(|(dot, n, hops)| {
        let parts: Vec<Bytes> = (0..n).map(|i| part(dot, i, i + 1 == n, true)).collect();
        let headers = parts.iter().map(|p| *PartReader::new(p).unwrap().header()).collect();
        Frame::Payload(Payload { hops, headers, parts })
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let dots = || proptest::collection::vec(any_dot(), 0..9);
    prop_oneof![
        any_hello(),
        any_payload(),
        dots().prop_map(Frame::IHave),
        dots().prop_map(Frame::Graft),
        Just(Frame::Prune),
        any::<bool>().prop_map(|eager| Frame::Link { eager }),
        Just(Frame::Unlink),
        any::<u64>().prop_map(Frame::Digest),
        (any::<bool>(), any_vector()).prop_map(|(answer, vector)| Frame::Vector { answer, vector }),
        any_dot().prop_map(Frame::Pull),
        Just(Frame::Differ),
        Just(Frame::Leave),
        any_vector().prop_map(Frame::Fork),
        (any::<u64>(), any_addr(), any::<bool>()).prop_map(|(incarnation, addr, alive)| Frame::Outdated {
            incarnation,
            addr,
            alive
        }),
    ]
}

proptest! {
    #[test]
    fn frames_round_trip(frame in any_frame()) {
        prop_assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
    }

    #[test]
    fn a_frame_followed_by_anything_is_refused(frame in any_frame(), more in 1usize..4) {
        let mut bytes = frame.encode().to_vec();
        bytes.extend(std::iter::repeat_n(0u8, more));
        prop_assert!(Frame::decode(&bytes.into()).is_err());
    }

    #[test]
    fn a_frame_cut_short_is_refused(frame in any_frame(), keep in 0.0..1.0f64) {
        let bytes = frame.encode();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let keep = (bytes.len() as f64 * keep) as usize;
        prop_assert!(Frame::decode(&bytes.slice(..keep)).is_err());
    }

    #[test]
    fn garbage_never_panics(mut bytes: Vec<u8>, tag in 0u8..0x28) {
        let _ = Frame::decode(&bytes.clone().into());
        if let Some(first) = bytes.first_mut() { *first = tag; }
        let _ = decode_request(&bytes);
        let bytes: Bytes = bytes.into();
        let _ = Frame::decode(&bytes);
        let _ = Answer::decode(&bytes);
    }

    #[test]
    fn a_flipped_bit_never_panics(frame in any_frame(), at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = frame.encode().to_vec();
        let i = at.index(bytes.len());
        bytes[i] ^= 1 << bit;
        let _ = Frame::decode(&bytes.into());
    }

    #[test]
    fn sync_messages_round_trip(vector in any_vector(), dot in any_dot(), why in "\\PC{0,300}") {
        prop_assert_eq!(&decode_request(&sync_request(&vector.encode())).unwrap(), &vector);
        prop_assert_eq!(Answer::decode(&answer_done(&vector.encode())).unwrap(), Answer::Done(vector));
        let bytes = part(dot, 0, true, false);
        let header = *PartReader::new(&bytes).unwrap().header();
        prop_assert_eq!(Answer::decode(&answer_part(&bytes)).unwrap(), Answer::Part { header, part: bytes });
        let Answer::Refused(text) = Answer::decode(&answer_refused(&why)).unwrap() else { panic!("not refused") };
        prop_assert!(why.starts_with(&text) && text.len() <= MAX_TEXT);
    }
}

fn dot(version: u64) -> Dot {
    Dot { origin: Origin { site: SiteId([7; 16]), epoch: 3 }, version }
}

#[test]
fn another_protocol_version_is_named_before_anything_else_is_read() {
    assert_eq!(Frame::decode(&Bytes::from_static(&[HELLO, 2, 99])), Err(FrameError::Version(2)));
}

#[test]
fn a_push_must_be_one_whole_claimable_changeset() {
    let good = [part(dot(4), 0, false, true), part(dot(4), 1, true, true)];
    assert!(Frame::decode(&encode_payload(0, &good)).is_ok());
    let thinned = [part(dot(4), 0, true, false)];
    let cut = [part(dot(4), 0, false, true)];
    let swapped = [part(dot(4), 1, true, true), part(dot(4), 0, false, true)];
    let mixed = [part(dot(4), 0, false, true), part(dot(5), 1, true, true)];
    let early = [part(dot(4), 0, true, true), part(dot(4), 1, true, true)];
    for parts in [&thinned[..], &cut, &swapped, &mixed, &early, &[]] {
        assert!(Frame::decode(&encode_payload(0, parts)).is_err(), "{parts:?}");
    }
}

#[test]
fn lists_beyond_their_caps_are_refused() {
    let dots: Vec<Dot> = (0..=MAX_DOTS as u64).map(dot).collect();
    assert!(Frame::decode(&Frame::IHave(dots.clone()).encode()).is_err());
    assert!(Frame::decode(&Frame::IHave(dots[..MAX_DOTS].to_vec()).encode()).is_ok());
    let parts: Vec<Bytes> =
        (0..=MAX_PUSH_PARTS as u64).map(|i| part(dot(1), i, i == MAX_PUSH_PARTS as u64, true)).collect();
    assert!(Frame::decode(&encode_payload(0, &parts)).is_err());
    assert!(Frame::decode(&encode_vector(false, &vec![1; MAX_VECTOR_FRAME + 1])).is_err());
}

#[test]
fn the_largest_push_fits_a_frame() {
    let n = MAX_PUSH_PARTS;
    let parts: Vec<Bytes> = std::iter::repeat_n(Bytes::from(vec![0; MAX_PUSH / n]), n).collect();
    assert!(encode_payload(255, &parts).len() <= MAX_FRAME);
}

/// The bytes of version 1. They never change; a new version gets new ones.
#[test]
fn golden_bytes_of_version_1() {
    let hex = |frame: &Frame| frame.encode().iter().map(|b| format!("{b:02x}")).collect::<String>();
    let hello = Hello {
        cluster_id: [0xcc; 16],
        site: SiteId([0x55; 16]),
        incarnation: 0x0102_0304,
        advertise: SocketAddr::from(([10, 0, 0, 1], 8787)),
        observed: "[fd00::2]:9".parse().unwrap(),
    };
    let (c, s) = ("cc".repeat(16), "55".repeat(16));
    assert_eq!(
        hex(&Frame::Hello(hello)),
        format!("0101{c}{s}0403020100000000040a000001225306fd0000000000000000000000000000020009")
    );
    let d = format!("{}0300000000000000ac02", "07".repeat(16));
    assert_eq!(hex(&Frame::IHave(vec![dot(300)])), format!("0301{d}"));
    assert_eq!(hex(&Frame::Graft(vec![dot(300)])), format!("0401{d}"));
    assert_eq!(hex(&Frame::Prune), "05");
    assert_eq!(hex(&Frame::Link { eager: true }), "0601");
    assert_eq!(hex(&Frame::Unlink), "07");
    assert_eq!(hex(&Frame::Digest(0x1122)), "082211000000000000");
    assert_eq!(hex(&Frame::Vector { answer: true, vector: Vector::default() }), "09010100");
    assert_eq!(hex(&Frame::Pull(dot(300))), format!("0a{d}"));
    assert_eq!(hex(&Frame::Differ), "0b");
    assert_eq!(hex(&Frame::Leave), "0d");
    assert_eq!(hex(&Frame::Fork(Vector::default())), "0e0100");
    let outdated = Frame::Outdated { incarnation: 5, addr: SocketAddr::from(([10, 0, 0, 1], 8787)), alive: true };
    assert_eq!(hex(&outdated), "0c0500000000000000040a000001225301");
    assert_eq!(hex(&Frame::decode(&encode_payload(3, &[part(dot(300), 0, true, true)])).unwrap())[..6], *"020301");
}

//! Every message of the protocol except SWIM's: the frames of the control stream and the messages of a sync stream.
//!
//! Decoding is total: it names the field that is wrong, allocates no more than the input justifies and consumes everything.

use crate::limits::{MAX_DOTS, MAX_PUSH_PARTS, MAX_SYNC_REQUEST, MAX_TEXT, MAX_VECTOR_FRAME, PROTOCOL_VERSION};
use bytes::Bytes;
use starling_crdt::changeset::{Header, PartReader};
use starling_crdt::cursor::{put_bytes, put_varint, Problem, Reader};
use starling_crdt::ids::MAX_VERSION;
use starling_crdt::{DecodeError, Dot, Origin, SiteId, Vector};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first frame each way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// The speaker's site.
    pub site: SiteId,
    /// Its boot incarnation.
    pub incarnation: u64,
    /// Where it is dialled; the IP may be unspecified, then it is the one that the connection comes from.
    pub advertise: SocketAddr,
    /// The address under which the speaker sees the other end.
    pub observed: SocketAddr,
}

/// A pushed changeset, checked: one dot, claimable, all parts in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// Forwardings so far; 0 = from its origin.
    pub hops: u8,
    /// The header of each part.
    pub headers: Vec<Header>,
    /// The parts.
    pub parts: Vec<Bytes>,
}

/// A frame of the control stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Payload`].
    Payload(Payload),
    /// The sender holds these, or is about to.
    IHave(Vec<Dot>),
    /// Send these, and push to me from now on.
    Graft(Vec<Dot>),
    /// Announce to me instead of pushing.
    Prune,
    /// Be my tree neighbour; `eager`: push to me and I to you, else announce.
    Link {
        /// Push.
        eager: bool,
    },
    /// Be it no longer (or: no room).
    Unlink,
    /// Hash of the sender's version vector.
    Digest(u64),
    /// The sender's version vector. `answer`: it answers a vector, so it needs none in return.
    Vector {
        /// No vector is wanted in return.
        answer: bool,
        /// The vector.
        vector: Vector,
    },
    /// Pull from me now: I hold this dot and cannot push it.
    Pull(Dot),
    /// Our vectors differ and mine is too large for a frame: pull from me.
    Differ,
    /// The cluster knows your site under a later incarnation than the one in your hello (your clock was set back, or a copy of your
    /// database runs elsewhere): take a later one.
    Outdated {
        /// The incarnation known.
        incarnation: u64,
        /// The address known with it.
        addr: SocketAddr,
        /// Whether a process with it is taken to be alive.
        alive: bool,
    },
    /// The sender stops: it is to be taken for down at once.
    Leave,
    /// Under these numbers the sender holds other transactions than the receiver claims: one dot per origin, with its token; token 0
    /// where the receiver claims less than the sender and the sender cannot tell whether it is the same.
    Fork(Vector),
}

const HELLO: u8 = 0x01;
const PAYLOAD: u8 = 0x02;
const IHAVE: u8 = 0x03;
const GRAFT: u8 = 0x04;
const PRUNE: u8 = 0x05;
const LINK: u8 = 0x06;
const UNLINK: u8 = 0x07;
const DIGEST: u8 = 0x08;
const VECTOR: u8 = 0x09;
const PULL: u8 = 0x0a;
const DIFFER: u8 = 0x0b;
const OUTDATED: u8 = 0x0c;
const LEAVE: u8 = 0x0d;
const FORK: u8 = 0x0e;

const REQUEST: u8 = 0x20;
const ANSWER_PART: u8 = 0x21;
const ANSWER_DONE: u8 = 0x22;
const ANSWER_REFUSED: u8 = 0x23;

/// Why a message is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The bytes say something that is not allowed.
    Decode(DecodeError),
    /// A hello of another protocol version; the rest of it was not read.
    Version(u8),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decode(e) => e.fmt(f),
            Self::Version(v) => write!(f, "protocol version {v} is not known"),
        }
    }
}

impl std::error::Error for FrameError {}

impl From<DecodeError> for FrameError {
    fn from(e: DecodeError) -> Self {
        Self::Decode(e)
    }
}

impl Frame {
    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Hello(hello) => put_hello(&mut out, hello),
            Self::Payload(p) => return encode_payload(p.hops, &p.parts),
            Self::IHave(dots) => put_dots(&mut out, IHAVE, dots),
            Self::Graft(dots) => put_dots(&mut out, GRAFT, dots),
            Self::Prune => out.push(PRUNE),
            Self::Link { eager } => out.extend_from_slice(&[LINK, u8::from(*eager)]),
            Self::Unlink => out.push(UNLINK),
            Self::Digest(hash) => {
                out.push(DIGEST);
                out.extend_from_slice(&hash.to_le_bytes());
            }
            Self::Vector { answer, vector } => return encode_vector(*answer, &vector.encode()),
            Self::Pull(dot) => {
                out.push(PULL);
                put_dot(&mut out, dot);
            }
            Self::Differ => out.push(DIFFER),
            Self::Leave => out.push(LEAVE),
            Self::Fork(vector) => {
                out.push(FORK);
                out.extend_from_slice(&vector.encode());
            }
            Self::Outdated { incarnation, addr, alive } => {
                out.push(OUTDATED);
                out.extend_from_slice(&incarnation.to_le_bytes());
                put_addr(&mut out, addr);
                out.push(u8::from(*alive));
            }
        }
        out.into()
    }

    /// Decodes one frame; parts stay slices of `bytes`.
    ///
    /// # Errors
    /// Names what is wrong; the connection must then be closed.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let mut r = Reader::new(bytes);
        let start = r;
        let frame = match r.u8("frame type")? {
            HELLO => Self::Hello(read_hello(&mut r)?),
            PAYLOAD => Self::Payload(read_payload(&mut r, bytes)?),
            IHAVE => Self::IHave(read_dots(&mut r)?),
            GRAFT => Self::Graft(read_dots(&mut r)?),
            PRUNE => Self::Prune,
            LINK => Self::Link { eager: read_flag(&mut r, "eager flag")? },
            UNLINK => Self::Unlink,
            DIGEST => Self::Digest(r.u64_le("digest")?),
            VECTOR => {
                let answer = read_flag(&mut r, "vector answer flag")?;
                Self::Vector { answer, vector: read_vector(&mut r)? }
            }
            FORK => Self::Fork(read_vector(&mut r)?),
            PULL => Self::Pull(read_dot(&mut r)?),
            DIFFER => Self::Differ,
            LEAVE => Self::Leave,
            OUTDATED => Self::Outdated {
                incarnation: r.u64_le("incarnation")?,
                addr: read_addr(&mut r, "known address")?,
                alive: read_flag(&mut r, "alive flag")?,
            },
            _ => return Err(start.error("frame type", Problem::UnknownVersion).into()),
        };
        r.finish("frame")?;
        Ok(frame)
    }
}

/// A `Payload` frame of these parts.
#[must_use]
pub fn encode_payload(hops: u8, parts: &[Bytes]) -> Bytes {
    let size = parts.iter().map(|p| p.len() + 5).sum::<usize>();
    let mut out = Vec::with_capacity(size + 8);
    out.push(PAYLOAD);
    out.push(hops);
    put_varint(&mut out, parts.len() as u64);
    for part in parts {
        put_bytes(&mut out, part);
    }
    out.into()
}

/// A `Vector` frame of an encoded vector.
#[must_use]
pub fn encode_vector(answer: bool, vector: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(vector.len() + 2);
    out.push(VECTOR);
    out.push(u8::from(answer));
    out.extend_from_slice(vector);
    out.into()
}

/// A message of a sync answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// One part of a changeset.
    Part {
        /// Its header.
        header: Header,
        /// Its bytes.
        part: Bytes,
    },
    /// All is sent that the snapshot holds and the request did not claim.
    Done(Vector),
    /// No answer is given.
    Refused(String),
}

impl Answer {
    /// Decodes one message of an answer; the part stays a slice of `bytes`.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let mut r = Reader::new(bytes);
        let start = r;
        match r.u8("answer type")? {
            ANSWER_PART => {
                let part = bytes.slice(r.offset()..);
                let header = *PartReader::new(&part)?.header();
                Ok(Self::Part { header, part })
            }
            ANSWER_DONE => {
                if r.remaining() > MAX_SYNC_REQUEST {
                    return Err(r.error("vector", Problem::TooLarge).into());
                }
                Ok(Self::Done(Vector::decode(r.take(r.remaining(), "vector")?)?))
            }
            ANSWER_REFUSED => {
                let text = read_text(&mut r)?;
                r.finish("answer")?;
                Ok(Self::Refused(text))
            }
            _ => Err(start.error("answer type", Problem::UnknownVersion).into()),
        }
    }
}

/// The message of an answer that carries one part. (For a writer that wants to avoid the copy: one byte, then the part.)
#[must_use]
pub fn answer_part(part: &[u8]) -> Bytes {
    tagged(ANSWER_PART, part)
}

/// The first byte of an answer message that carries a part; the part's bytes follow it.
pub const ANSWER_PART_TAG: u8 = ANSWER_PART;

/// The last message of a complete answer: the snapshot's `starling_vector()`.
#[must_use]
pub fn answer_done(vector: &[u8]) -> Bytes {
    tagged(ANSWER_DONE, vector)
}

/// The only message of a refused request.
#[must_use]
pub fn answer_refused(why: &str) -> Bytes {
    let mut out = vec![ANSWER_REFUSED];
    put_bytes(&mut out, cut(why).as_bytes());
    out.into()
}

/// The one message of a request: what the requester claims.
#[must_use]
pub fn sync_request(vector: &[u8]) -> Bytes {
    tagged(REQUEST, vector)
}

/// Decodes a request.
///
/// # Errors
/// Names what is wrong.
pub fn decode_request(bytes: &[u8]) -> Result<Vector, FrameError> {
    let mut r = Reader::new(bytes);
    let start = r;
    if bytes.len() > MAX_SYNC_REQUEST {
        return Err(start.error("sync request", Problem::TooLarge).into());
    }
    if r.u8("request type")? != REQUEST {
        return Err(start.error("request type", Problem::UnknownVersion).into());
    }
    Ok(Vector::decode(r.take(r.remaining(), "vector")?)?)
}

fn tagged(tag: u8, bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len() + 1);
    out.push(tag);
    out.extend_from_slice(bytes);
    out.into()
}

/// `text` cut to [`MAX_TEXT`] bytes at a character's border.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

fn read_text(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let start = *r;
    let text = r.str("text")?;
    if text.len() > MAX_TEXT {
        return Err(start.error("text", Problem::TooLarge));
    }
    Ok(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}

fn read_vector(r: &mut Reader<'_>) -> Result<Vector, DecodeError> {
    if r.remaining() > MAX_VECTOR_FRAME {
        return Err(r.error("vector", Problem::TooLarge));
    }
    Vector::decode(r.take(r.remaining(), "vector")?)
}

fn read_flag(r: &mut Reader<'_>, field: &'static str) -> Result<bool, DecodeError> {
    let start = *r;
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(start.error(field, Problem::Invalid)),
    }
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    out.push(HELLO);
    out.push(PROTOCOL_VERSION);
    out.extend_from_slice(&hello.cluster_id);
    out.extend_from_slice(&hello.site.0);
    out.extend_from_slice(&hello.incarnation.to_le_bytes());
    put_addr(out, &hello.advertise);
    put_addr(out, &hello.observed);
}

fn read_hello(r: &mut Reader<'_>) -> Result<Hello, FrameError> {
    let version = r.u8("protocol version")?;
    if version != PROTOCOL_VERSION {
        return Err(FrameError::Version(version));
    }
    Ok(Hello {
        cluster_id: r.array("cluster id")?,
        site: SiteId(r.array("site id")?),
        incarnation: r.u64_le("incarnation")?,
        advertise: read_addr(r, "advertised address")?,
        observed: read_addr(r, "observed address")?,
    })
}

/// One byte of family (4 or 6), the IP, the port in network order.
pub(crate) fn put_addr(out: &mut Vec<u8>, addr: &SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// What [`put_addr`] wrote.
pub(crate) fn read_addr(r: &mut Reader<'_>, field: &'static str) -> Result<SocketAddr, DecodeError> {
    let start = *r;
    let ip = match r.u8(field)? {
        4 => IpAddr::V4(Ipv4Addr::from(r.array::<4>(field)?)),
        6 => IpAddr::V6(Ipv6Addr::from(r.array::<16>(field)?)),
        _ => return Err(start.error(field, Problem::Invalid)),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(r.array(field)?)))
}

fn put_dot(out: &mut Vec<u8>, dot: &Dot) {
    out.extend_from_slice(&dot.origin.site.0);
    out.extend_from_slice(&dot.origin.epoch.to_le_bytes());
    put_varint(out, dot.version);
}

fn read_dot(r: &mut Reader<'_>) -> Result<Dot, DecodeError> {
    let origin = Origin { site: SiteId(r.array("site id")?), epoch: r.u64_le("epoch")? };
    Ok(Dot { origin, version: r.varint(MAX_VERSION, "version")? })
}

fn put_dots(out: &mut Vec<u8>, tag: u8, dots: &[Dot]) {
    out.push(tag);
    put_varint(out, dots.len() as u64);
    for dot in dots {
        put_dot(out, dot);
    }
}

fn read_dots(r: &mut Reader<'_>) -> Result<Vec<Dot>, DecodeError> {
    let start = *r;
    let n = r.count(25, "number of dots")?;
    if n > MAX_DOTS {
        return Err(start.error("number of dots", Problem::TooLarge));
    }
    (0..n).map(|_| read_dot(r)).collect()
}

fn read_payload(r: &mut Reader<'_>, bytes: &Bytes) -> Result<Payload, DecodeError> {
    let hops = r.u8("hops")?;
    let start = *r;
    let n = r.count(2, "number of parts")?;
    if n == 0 || n > MAX_PUSH_PARTS {
        return Err(start.error("number of parts", Problem::TooLarge));
    }
    let mut payload = Payload { hops, headers: Vec::with_capacity(n), parts: Vec::with_capacity(n) };
    for i in 0..n {
        let len = r.count(1, "part length")?;
        let start = *r;
        r.take(len, "part")?;
        let part = bytes.slice(start.offset()..r.offset());
        let header = *PartReader::new(&part)?.header();
        let fits = header.claimable && header.part == i as u64 && header.last == (i + 1 == n);
        if !fits || payload.headers.first().is_some_and(|first| first.dot != header.dot) {
            return Err(start.error("part header", Problem::Invalid));
        }
        payload.headers.push(header);
        payload.parts.push(part);
    }
    Ok(payload)
}

#[cfg(test)]
mod tests;

//! SWIM packets on the wire (docs/PROTOCOL.md, "Datagrams"): a total, compact codec for foca.

use crate::frames::{put_addr, read_addr};
use crate::swim::Ident;
use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};
use starling_crdt::cursor::{put_varint, Problem, Reader};
use starling_crdt::{DecodeError, SiteId};
use std::fmt;

const FORMAT: u8 = 1;

/// Encodes and decodes packets of one cluster; those of another are refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SwimCodec {
    cluster: [u8; 8],
}

/// Why a packet could not be coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CodecError {
    /// It does not fit (foca then sends it with less in it).
    Full,
    /// It belongs to another cluster.
    Cluster,
    /// It is malformed.
    Decode(DecodeError),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the packet is full"),
            Self::Cluster => f.write_str("the packet belongs to another cluster"),
            Self::Decode(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for CodecError {}

impl From<DecodeError> for CodecError {
    fn from(e: DecodeError) -> Self {
        Self::Decode(e)
    }
}

impl SwimCodec {
    pub(crate) fn new(cluster_id: &[u8; 16]) -> Self {
        let mut cluster = [0u8; 8];
        cluster.iter_mut().zip(cluster_id).for_each(|(to, from)| *to = *from);
        Self { cluster }
    }

    /// Who a packet says it is from.
    pub(crate) fn source(&self, bytes: &[u8]) -> Result<Ident, CodecError> {
        let mut reader = Reader::new(bytes);
        self.read_head(&mut reader)?;
        Ok(read_ident(&mut reader)?)
    }

    fn read_head(&self, r: &mut Reader<'_>) -> Result<(), CodecError> {
        let start = *r;
        if r.u8("packet format")? != FORMAT {
            return Err(start.error("packet format", Problem::UnknownVersion).into());
        }
        if r.array::<8>("cluster")? != self.cluster {
            return Err(CodecError::Cluster);
        }
        Ok(())
    }
}

fn put_ident(out: &mut Vec<u8>, ident: &Ident) {
    out.extend_from_slice(&ident.site.0);
    put_varint(out, ident.incarnation);
    put_addr(out, &ident.addr);
}

fn read_ident(r: &mut Reader<'_>) -> Result<Ident, DecodeError> {
    Ok(Ident {
        site: SiteId(r.array("site id")?),
        incarnation: r.varint(u64::MAX, "incarnation")?,
        addr: read_addr(r, "address")?,
    })
}

fn put_probe(out: &mut Vec<u8>, tag: u8, ident: Option<&Ident>, probe: u8) {
    out.push(tag);
    out.push(probe);
    if let Some(ident) = ident {
        put_ident(out, ident);
    }
}

fn put_message(out: &mut Vec<u8>, message: &Message<Ident>) {
    match message {
        Message::Ping(n) => put_probe(out, 1, None, *n),
        Message::Ack(n) => put_probe(out, 2, None, *n),
        Message::PingReq { target, probe_number } => put_probe(out, 3, Some(target), *probe_number),
        Message::IndirectPing { origin, probe_number } => put_probe(out, 4, Some(origin), *probe_number),
        Message::IndirectAck { target, probe_number } => put_probe(out, 5, Some(target), *probe_number),
        Message::ForwardedAck { origin, probe_number } => put_probe(out, 6, Some(origin), *probe_number),
        Message::Announce => out.push(7),
        Message::Feed => out.push(8),
        Message::Gossip => out.push(9),
        Message::Broadcast => out.push(10),
        Message::TurnUndead => out.push(11),
    }
}

fn read_message(r: &mut Reader<'_>) -> Result<Message<Ident>, DecodeError> {
    let start = *r;
    let tag = r.u8("message type")?;
    let probe_number = if (1..=6).contains(&tag) { r.u8("probe number")? } else { 0 };
    Ok(match tag {
        1 => Message::Ping(probe_number),
        2 => Message::Ack(probe_number),
        3 => Message::PingReq { target: read_ident(r)?, probe_number },
        4 => Message::IndirectPing { origin: read_ident(r)?, probe_number },
        5 => Message::IndirectAck { target: read_ident(r)?, probe_number },
        6 => Message::ForwardedAck { origin: read_ident(r)?, probe_number },
        7 => Message::Announce,
        8 => Message::Feed,
        9 => Message::Gossip,
        10 => Message::Broadcast,
        11 => Message::TurnUndead,
        _ => return Err(start.error("message type", Problem::UnknownVersion)),
    })
}

fn flush(out: &[u8], mut buf: impl BufMut) -> Result<(), CodecError> {
    if buf.remaining_mut() < out.len() {
        return Err(CodecError::Full);
    }
    buf.put_slice(out);
    Ok(())
}

impl Codec<Ident> for SwimCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Ident>, buf: impl BufMut) -> Result<(), CodecError> {
        let mut out = Vec::with_capacity(160);
        out.push(FORMAT);
        out.extend_from_slice(&self.cluster);
        put_ident(&mut out, &header.src);
        out.extend_from_slice(&header.src_incarnation.to_le_bytes());
        put_ident(&mut out, &header.dst);
        put_message(&mut out, &header.message);
        flush(&out, buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Ident>, CodecError> {
        let mut r = Reader::new(buf.chunk());
        self.read_head(&mut r)?;
        let src = read_ident(&mut r)?;
        let src_incarnation = u16::from_le_bytes(r.array("suspicion counter")?);
        let dst = read_ident(&mut r)?;
        let message = read_message(&mut r)?;
        let read = r.offset();
        buf.advance(read);
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Ident>, buf: impl BufMut) -> Result<(), CodecError> {
        let mut out = Vec::with_capacity(48);
        put_ident(&mut out, member.id());
        out.extend_from_slice(&member.incarnation().to_le_bytes());
        out.push(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        flush(&out, buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Ident>, CodecError> {
        let mut r = Reader::new(buf.chunk());
        let ident = read_ident(&mut r)?;
        let counter = u16::from_le_bytes(r.array("suspicion counter")?);
        let start = r;
        let state = match r.u8("member state")? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(start.error("member state", Problem::Invalid).into()),
        };
        let read = r.offset();
        buf.advance(read);
        Ok(Member::new(ident, counter, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, SocketAddr};

    fn any_ident() -> impl Strategy<Value = Ident> {
        let ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
        (any::<[u8; 16]>(), any::<u64>(), ip, any::<u16>()).prop_map(|(site, incarnation, ip, port)| Ident {
            site: SiteId(site),
            incarnation,
            addr: SocketAddr::new(ip, port),
        })
    }

    fn any_message() -> impl Strategy<Value = Message<Ident>> {
        (0u8..11, any_ident(), any::<u8>()).prop_map(|(kind, i, n)| match kind {
            0 => Message::Ping(n),
            1 => Message::Ack(n),
            2 => Message::PingReq { target: i, probe_number: n },
            3 => Message::IndirectPing { origin: i, probe_number: n },
            4 => Message::IndirectAck { target: i, probe_number: n },
            5 => Message::ForwardedAck { origin: i, probe_number: n },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            _ => Message::TurnUndead,
        })
    }

    proptest! {
        #[test]
        fn packets_round_trip(src in any_ident(), dst in any_ident(), n: u16, message in any_message(), state in 0u8..3) {
            let mut codec = SwimCodec::new(b"0123456789abcdef");
            let header = Header { src, src_incarnation: n, dst, message };
            let state = [State::Alive, State::Suspect, State::Down][usize::from(state)];
            let member = Member::new(dst, n, state);
            let mut out = Vec::new();
            codec.encode_header(&header, &mut out).unwrap();
            codec.encode_member(&member, &mut out).unwrap();
            prop_assert_eq!(codec.source(&out).unwrap(), src);
            let mut buf = out.as_slice();
            prop_assert_eq!(codec.decode_header(&mut buf).unwrap(), header);
            prop_assert_eq!(codec.decode_member(&mut buf).unwrap(), member);
            prop_assert!(buf.is_empty());
            let mut other = SwimCodec::new(b"another cluster!");
            prop_assert_eq!(other.decode_header(out.as_slice()).unwrap_err(), CodecError::Cluster);
        }

        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>, keep in 0usize..12) {
            let mut codec = SwimCodec::new(b"0123456789abcdef");
            let _ = codec.decode_header(bytes.as_slice());
            let _ = codec.decode_member(bytes.as_slice());
            let head = [&[FORMAT][..], b"01234567"].concat();
            let n = keep.min(head.len()).min(bytes.len());
            bytes.splice(..n, head.iter().copied());
            let _ = codec.decode_header(bytes.as_slice());
        }
    }

    #[test]
    fn a_full_buffer_is_left_clean() {
        let ident = Ident { site: SiteId([1; 16]), incarnation: 1, addr: "10.0.0.1:1".parse().unwrap() };
        let mut codec = SwimCodec::new(b"0123456789abcdef");
        let mut out = Vec::new();
        let full = codec.encode_member(&Member::alive(ident), (&mut out).limit(10));
        assert_eq!((full, out.len()), (Err(CodecError::Full), 0));
    }
}

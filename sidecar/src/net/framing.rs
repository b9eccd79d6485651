//! Lengths on streams: four bytes, little-endian, then the message. On a control stream the highest bit marks a SWIM packet
//! that did not fit the path's datagrams.

use bytes::{Buf, Bytes, BytesMut};
use quinn::RecvStream;
use tokio::io::AsyncReadExt;

/// The first byte of a control stream.
pub const STREAM_CONTROL: u8 = 0x01;
/// The bit of a control stream's length that marks a SWIM packet.
pub const SWIM_BIT: u32 = 1 << 31;
/// Bytes of a length.
pub const LENGTH_BYTES: usize = 4;
/// Memory is taken for a message in steps of this size, as its bytes arrive.
const STEP: usize = 256 * 1024;

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// The peer announced more than is allowed.
    #[error("a message of {len} bytes is above the limit of {max}")]
    Oversize {
        /// Announced.
        len: u64,
        /// Allowed.
        max: usize,
    },
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Truncated,
    /// The connection or stream broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The length of a message as it goes on the wire.
#[must_use]
pub fn length(len: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// One message of a control stream.
#[derive(Debug, PartialEq, Eq)]
pub enum ControlMessage {
    /// A frame.
    Frame(Bytes),
    /// A SWIM packet.
    Swim(Bytes),
}

/// Cuts a control stream into messages.
#[derive(Debug, Default)]
pub struct ControlReader {
    buffer: BytesMut,
}

impl ControlReader {
    /// The next whole message in the buffer; `None` when more bytes are needed.
    ///
    /// # Errors
    /// `Oversize` for a length above its limit, before anything of it is read.
    pub fn next_buffered(&mut self) -> Result<Option<ControlMessage>, FramingError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let word = u32::from_le_bytes(*prefix);
        let swim = word & SWIM_BIT != 0;
        let len = (word & !SWIM_BIT) as usize;
        let max = if swim { starling_proto::limits::MAX_DATAGRAM } else { starling_proto::limits::MAX_FRAME };
        if len > max {
            return Err(FramingError::Oversize { len: len as u64, max });
        }
        if self.buffer.len() < LENGTH_BYTES + len {
            self.buffer.reserve((LENGTH_BYTES + len - self.buffer.len()).min(STEP));
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let message = self.buffer.split_to(len).freeze();
        Ok(Some(if swim { ControlMessage::Swim(message) } else { ControlMessage::Frame(message) }))
    }

    /// Reads on; `false` at the stream's orderly end.
    ///
    /// # Errors
    /// `Truncated` when it ends inside a message.
    pub async fn fill(&mut self, stream: &mut RecvStream) -> Result<bool, FramingError> {
        self.buffer.reserve(8 * 1024);
        match stream.read_buf(&mut self.buffer).await? {
            0 if self.buffer.is_empty() => Ok(false),
            0 => Err(FramingError::Truncated),
            _ => Ok(true),
        }
    }

    /// Takes bytes that are there already.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }
}

/// Reads the length of a sync message; `None` at the stream's orderly end.
///
/// # Errors
/// `Oversize`, `Truncated`, or the stream broke.
pub async fn read_length(stream: &mut RecvStream, max: usize) -> Result<Option<usize>, FramingError> {
    let mut prefix = [0u8; LENGTH_BYTES];
    let mut at = 0;
    while at < LENGTH_BYTES {
        let Some(rest) = prefix.get_mut(at..) else { break };
        match AsyncReadExt::read(stream, rest).await? {
            0 if at == 0 => return Ok(None),
            0 => return Err(FramingError::Truncated),
            n => at += n,
        }
    }
    let len = u32::from_le_bytes(prefix) as usize;
    if len > max {
        return Err(FramingError::Oversize { len: len as u64, max });
    }
    Ok(Some(len))
}

/// Reads a sync message of a known length. Memory grows with what arrives, not with what was announced.
///
/// # Errors
/// `Truncated`, or the stream broke.
pub async fn read_body(stream: &mut RecvStream, len: usize) -> Result<Bytes, FramingError> {
    let mut body = BytesMut::with_capacity(len.min(STEP));
    while body.len() < len {
        let missing = len - body.len();
        if body.len() == body.capacity() {
            body.reserve(missing.min(STEP.max(body.len())));
        }
        let mut part = AsyncReadExt::take(&mut *stream, missing as u64);
        if part.read_buf(&mut body).await? == 0 {
            return Err(FramingError::Truncated);
        }
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_proto::limits::{MAX_DATAGRAM, MAX_FRAME};

    #[test]
    fn messages_come_out_as_they_went_in_however_the_stream_is_cut() {
        let mut wire = Vec::new();
        for body in [&b"hello"[..], b"", b"swim"] {
            let swim = if body == b"swim" { SWIM_BIT } else { 0 };
            wire.extend_from_slice(&(u32::try_from(body.len()).unwrap() | swim).to_le_bytes());
            wire.extend_from_slice(body);
        }
        let mut reader = ControlReader::default();
        let mut seen = Vec::new();
        for byte in wire {
            reader.feed(&[byte]);
            while let Some(message) = reader.next_buffered().unwrap() {
                seen.push(message);
            }
        }
        let frame = |b: &'static [u8]| ControlMessage::Frame(Bytes::from_static(b));
        assert_eq!(seen, [frame(b"hello"), frame(b""), ControlMessage::Swim(Bytes::from_static(b"swim"))]);
    }

    #[test]
    fn an_oversize_length_is_refused_before_its_bytes_are_read() {
        for (word, max) in [
            (u32::try_from(MAX_FRAME + 1).unwrap(), MAX_FRAME),
            (u32::try_from(MAX_DATAGRAM + 1).unwrap() | SWIM_BIT, MAX_DATAGRAM),
            (SWIM_BIT - 1, MAX_FRAME),
        ] {
            let mut reader = ControlReader::default();
            reader.feed(&word.to_le_bytes());
            match reader.next_buffered() {
                Err(FramingError::Oversize { max: said, .. }) => assert_eq!(said, max),
                other => panic!("{other:?}"),
            }
        }
    }

    /// splitmix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Reads everything that a stream holds, fed in pieces of at most `step` bytes.
    fn read_all(stream: &[u8], step: usize) -> (Vec<ControlMessage>, bool) {
        let (mut reader, mut out) = (ControlReader::default(), Vec::new());
        for piece in stream.chunks(step) {
            reader.feed(piece);
            loop {
                match reader.next_buffered() {
                    Ok(Some(message)) => out.push(message),
                    Ok(None) => break,
                    Err(_) => return (out, false),
                }
            }
            assert!(
                reader.buffer.capacity() <= stream.len() * 2 + 2 * STEP,
                "memory follows what came, not what was said"
            );
        }
        (out, true)
    }

    #[test]
    fn streams_of_any_bytes_read_the_same_however_they_are_cut() {
        let mut state = 7;
        for _ in 0..2_000 {
            let mut stream = Vec::new();
            for _ in 0..random(&mut state) % 6 {
                let r = random(&mut state);
                // Mostly small lengths that fit, now and then any.
                let word =
                    if r.is_multiple_of(4) { (r >> 32) as u32 } else { ((r >> 8) as u32 % 40) | (r as u32 & SWIM_BIT) };
                stream.extend_from_slice(&word.to_le_bytes());
                stream.extend((0..random(&mut state) % 40).map(|i| i as u8));
            }
            let whole = read_all(&stream, stream.len().max(1));
            for step in [1, 3, 7] {
                assert_eq!(read_all(&stream, step), whole, "{stream:02x?} in pieces of {step}");
            }
            let length = |m: &ControlMessage| match m {
                ControlMessage::Frame(b) | ControlMessage::Swim(b) => b.len() + LENGTH_BYTES,
            };
            assert!(whole.0.iter().map(length).sum::<usize>() <= stream.len());
        }
    }
}

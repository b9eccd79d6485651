//! Log records: what stands in a row of the log besides its db_version.
//!
//! One blob and not a column per field: a row of one column is written in less than half the time of one of fourteen, and
//! each small transaction writes one.

use crate::cursor::{put_bytes, put_varint, DecodeError, Problem, Reader};
use alloc::vec::Vec;

const FORMAT: u8 = 1;

/// The flags of a record that programs of this build ask for, as in the blob.
pub mod flags {
    /// The record names every cell that its dot wrote: a changeset made from it may be claimed.
    pub const WHOLE: u8 = 1;
    /// Its dot stands for nine-value inserts that were given one db_version.
    pub const GROUP: u8 = 2;
    /// Its entries do not stand in seq order.
    pub const UNSORTED: u8 = 4;
    /// All of them.
    pub const ALL: u8 = WHOLE | GROUP | UNSORTED;
}

const FOREIGN: u8 = 8;
const REACHES: u8 = 16;
const CARRIES: u8 = 32;

/// No field is above this, so that each fits into a column of SQLite's.
const MAX: u64 = i64::MAX as u64;

/// The fixed part of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Ordinal of the dot's origin.
    pub origin: u32,
    /// What depends on where it was written.
    pub side: Side,
    /// The dot's token, 48 bits.
    pub token: u64,
    /// Version of its predecessor at the origin; 0 = it is the first.
    pub prev: u64,
    /// The predecessor's token.
    pub prev_token: u64,
    /// Milliseconds since 1970 by the origin's clock.
    pub commit_ms: u64,
    /// [`flags`].
    pub flags: u8,
    /// Chunks besides the one in the record itself.
    pub chunks: u64,
    /// Entries superseded and not dropped yet, as of this record.
    pub garbage: u64,
    /// All entries of the log, as of this record.
    pub weight: u64,
}

/// Where a record was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Here: its db_version is the dot's version.
    Local {
        /// How many db_versions back the oldest record is whose young clocks are in force; `None` = none are.
        reaches: Option<u64>,
    },
    /// Elsewhere.
    Foreign {
        /// The dot's version.
        version: u64,
        /// The newest local dot as of this record; 0 = none.
        last_local: u64,
        /// Its token.
        last_local_token: u64,
    },
}

/// A record as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'b> {
    /// The fixed part.
    pub head: Head,
    /// Young clocks that a local record carries ([`crate::young`]).
    pub young: Option<&'b [u8]>,
    /// The first chunk, where it is the only one and short; else empty.
    pub entries: &'b [u8],
}

impl<'b> Record<'b> {
    /// Appends the blob. A number above its limit is cut down to it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let head = &self.head;
        out.reserve(64 + self.young.map_or(0, <[u8]>::len) + self.entries.len());
        let of_side = match head.side {
            Side::Local { reaches } => {
                let bit = |there: bool, bit| if there { bit } else { 0 };
                bit(reaches.is_some(), REACHES) | bit(self.young.is_some(), CARRIES)
            }
            Side::Foreign { .. } => FOREIGN,
        };
        out.push(FORMAT);
        out.push(head.flags & flags::ALL | of_side);
        put_varint(out, u64::from(head.origin));
        put_token(out, head.token);
        put_varint(out, head.prev.min(MAX));
        put_token(out, head.prev_token);
        put_varint(out, head.commit_ms.min(MAX));
        put_varint(out, head.chunks.min(MAX));
        put_varint(out, head.garbage.min(MAX));
        put_varint(out, head.weight.min(MAX));
        match head.side {
            Side::Local { reaches } => {
                reaches.into_iter().for_each(|back| put_varint(out, back.min(MAX)));
                self.young.into_iter().for_each(|clocks| put_bytes(out, clocks));
            }
            Side::Foreign { version, last_local, last_local_token } => {
                put_varint(out, version.min(MAX));
                put_varint(out, last_local.min(MAX));
                put_token(out, last_local_token);
            }
        }
        out.extend_from_slice(self.entries);
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// Names the field; an unknown format or flag is refused. What stands in the entries is not looked at.
    pub fn decode(bytes: &'b [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let start = r;
        if r.u8("record format")? != FORMAT {
            return Err(start.error("record format", Problem::UnknownVersion));
        }
        let start = r;
        let bits = r.u8("record flags")?;
        let of_side = bits & !flags::ALL;
        if of_side & !(FOREIGN | REACHES | CARRIES) != 0 || (of_side & FOREIGN != 0 && of_side != FOREIGN) {
            return Err(start.error("record flags", Problem::Invalid));
        }
        let start = r;
        let origin = u32::try_from(r.varint(MAX, "origin")?).map_err(|_| start.error("origin", Problem::TooLarge))?;
        let token = token(&mut r, "token")?;
        let prev = r.varint(MAX, "predecessor")?;
        let prev_token = self::token(&mut r, "predecessor's token")?;
        let commit_ms = r.varint(MAX, "commit time")?;
        let chunks = r.varint(MAX, "chunks")?;
        let garbage = r.varint(MAX, "garbage")?;
        let weight = r.varint(MAX, "weight")?;
        let mut young = None;
        let side = if of_side & FOREIGN == 0 {
            let reaches = if of_side & REACHES == 0 { None } else { Some(r.varint(MAX, "reach")?) };
            if of_side & CARRIES != 0 {
                young = Some(r.bytes("young clocks")?);
            }
            Side::Local { reaches }
        } else {
            let version = r.varint(MAX, "version")?;
            let last_local = r.varint(MAX, "last local version")?;
            Side::Foreign { version, last_local, last_local_token: self::token(&mut r, "last local token")? }
        };
        let entries = r.take(r.remaining(), "entries")?;
        let flags = bits & flags::ALL;
        let head = Head { origin, side, token, prev, prev_token, commit_ms, flags, chunks, garbage, weight };
        Ok(Self { head, young, entries })
    }
}

const TOKEN_BYTES: usize = 6;

fn put_token(out: &mut Vec<u8>, token: u64) {
    out.extend_from_slice(token.to_le_bytes().get(..TOKEN_BYTES).unwrap_or_default());
}

fn token(r: &mut Reader<'_>, field: &'static str) -> Result<u64, DecodeError> {
    let low: [u8; TOKEN_BYTES] = r.array(field)?;
    let mut all = [0; 8];
    all.iter_mut().zip(low).for_each(|(byte, low)| *byte = low);
    Ok(u64::from_le_bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heads() -> impl Strategy<Value = Head> {
        let local = proptest::option::of(0..=MAX).prop_map(|reaches| Side::Local { reaches });
        let foreign = (0..=MAX, 0..=MAX, 0..1u64 << 48).prop_map(|(version, last_local, last_local_token)| {
            Side::Foreign { version, last_local, last_local_token }
        });
        let side = prop_oneof![local, foreign];
        let tokens = (0..1u64 << 48, 0..1u64 << 48);
        (any::<u32>(), side, tokens, 0..=MAX, 0..=MAX, 0..=flags::ALL, (0..=MAX, 0..=MAX, 0..=MAX)).prop_map(
            |(origin, side, (token, prev_token), prev, commit_ms, flags, (chunks, garbage, weight))| Head {
                origin,
                side,
                token,
                prev,
                prev_token,
                commit_ms,
                flags,
                chunks,
                garbage,
                weight,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(head in heads(), young: Option<Vec<u8>>, entries: Vec<u8>) {
            let young = young.as_deref().filter(|_| matches!(head.side, Side::Local { .. }));
            let record = Record { head, young, entries: &entries };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
            // Cut anywhere before the entries it is none.
            for end in 0..bytes.len() - entries.len() {
                prop_assert!(Record::decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn an_unknown_format_and_an_unknown_flag_are_refused() {
        let side = Side::Foreign { version: 7, last_local: 3, last_local_token: 4 };
        let head = Head {
            origin: 1,
            side,
            token: 2,
            prev: 5,
            prev_token: 6,
            commit_ms: 8,
            flags: flags::WHOLE,
            chunks: 0,
            garbage: 9,
            weight: 10,
        };
        let mut bytes = Vec::new();
        Record { head, young: None, entries: b"" }.encode(&mut bytes);
        for (at, wrong) in [(0, 2), (1, 64), (1, 128), (1, FOREIGN | REACHES), (1, FOREIGN | CARRIES)] {
            let mut other = bytes.clone();
            other[at] = wrong;
            assert!(Record::decode(&other).is_err(), "byte {at} = {wrong}");
        }
    }
}

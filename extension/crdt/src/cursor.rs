//! Reading and writing bytes: a cursor that names what is wrong and where, and the varints all codecs share.

use alloc::vec::Vec;
use core::fmt;

/// Why bytes could not be decoded: the field, the offset and the complaint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// The field that was being read.
    pub field: &'static str,
    /// The offset in the input at which it was read.
    pub offset: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// The kinds of complaint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The input ends inside the field.
    Truncated,
    /// The value is above the cap for this field.
    TooLarge,
    /// The value has no meaning here.
    Invalid,
    /// Bytes are left after the last field.
    Trailing,
    /// A format version this build does not know.
    UnknownVersion,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self.problem {
            Problem::Truncated => "is cut short",
            Problem::TooLarge => "is above its limit",
            Problem::Invalid => "is not valid",
            Problem::Trailing => "is followed by bytes that do not belong to it",
            Problem::UnknownVersion => "is of a version that this build does not know",
        };
        write!(f, "{} at byte {} {}", self.field, self.offset, problem)
    }
}

impl core::error::Error for DecodeError {}

/// A cursor over borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How far it has read.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// An error at the present offset.
    #[must_use]
    pub const fn error(&self, field: &'static str, problem: Problem) -> DecodeError {
        DecodeError { field, offset: self.at, problem }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// `Truncated` when fewer are left.
    #[inline]
    pub fn take(&mut self, n: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(n).ok_or_else(|| self.error(field, Problem::TooLarge))?;
        let slice = self.bytes.get(self.at..end).ok_or_else(|| self.error(field, Problem::Truncated))?;
        self.at = end;
        Ok(slice)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// `Truncated` when fewer are left.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let slice = self.take(N, field)?;
        let mut out = [0u8; N];
        out.copy_from_slice(slice);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// `Truncated` at the end.
    #[inline]
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.error(field, Problem::Truncated))?;
        self.at += 1;
        Ok(byte)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn u64_le(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A LEB128 varint of at most `max`.
    ///
    /// # Errors
    /// `Truncated`, or `TooLarge` above `max`.
    #[inline(always)]
    pub fn varint(&mut self, max: u64, field: &'static str) -> Result<u64, DecodeError> {
        // Most have one byte.
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 && u64::from(*byte) <= max => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(max, field),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, max: u64, field: &'static str) -> Result<u64, DecodeError> {
        let start = *self;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(start.error(field, Problem::TooLarge));
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return if value > max { Err(start.error(field, Problem::TooLarge)) } else { Ok(value) };
            }
        }
        Err(start.error(field, Problem::TooLarge))
    }

    /// A varint that counts things of at least `min_bytes` each, so never more than the input can hold.
    ///
    /// # Errors
    /// `Truncated`, or `TooLarge` when the rest cannot hold that many.
    #[inline]
    pub fn count(&mut self, min_bytes: usize, field: &'static str) -> Result<usize, DecodeError> {
        let start = *self;
        let n = self.varint(u64::MAX, field)?;
        let n = usize::try_from(n).map_err(|_| start.error(field, Problem::TooLarge))?;
        match n.checked_mul(min_bytes.max(1)) {
            Some(bytes) if bytes <= self.remaining() => Ok(n),
            _ => Err(start.error(field, Problem::TooLarge)),
        }
    }

    /// A varint length and that many bytes.
    ///
    /// # Errors
    /// `Truncated`.
    #[inline]
    pub fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let n = self.count(1, field)?;
        self.take(n, field)
    }

    /// Length-prefixed UTF-8.
    ///
    /// # Errors
    /// `Truncated`, `Invalid` when it is not UTF-8.
    pub fn str(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let start = *self;
        core::str::from_utf8(self.bytes(field)?).map_err(|_| start.error(field, Problem::Invalid))
    }

    /// Says that everything must have been consumed.
    ///
    /// # Errors
    /// `Trailing` when bytes are left.
    pub fn finish(&self, field: &'static str) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(self.error(field, Problem::Trailing))
        }
    }
}

/// Appends a LEB128 varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[allow(clippy::cast_possible_truncation)]
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)]
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip_and_respect_their_cap(value: u64, max: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(u64::MAX, "x"), Ok(value));
            prop_assert!(reader.finish("x").is_ok());
            prop_assert_eq!(Reader::new(&out).varint(max, "x").is_ok(), value <= max);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() {
                if reader.bytes("x").is_err() { break; }
            }
        }
    }

    #[test]
    fn an_overlong_varint_is_refused() {
        assert!(Reader::new(&[0xff; 10]).varint(u64::MAX, "x").is_err());
        assert!(Reader::new(&[0x80; 11]).varint(u64::MAX, "x").is_err());
    }
}

//! SQL values as the merge sees them: a total order that every replica agrees on, and one compact encoding.

use crate::cursor::{put_bytes, DecodeError, Problem, Reader};
use alloc::vec::Vec;
use core::cmp::Ordering;

/// A borrowed SQL value. Text is raw bytes: SQLite stores text that is not valid UTF-8.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// NULL
    Null,
    /// INTEGER
    Integer(i64),
    /// REAL
    Real(f64),
    /// TEXT
    Text(&'a [u8]),
    /// BLOB
    Blob(&'a [u8]),
}

/// An owned SQL value.
#[derive(Clone, Debug)]
pub enum Value {
    /// NULL
    Null,
    /// INTEGER
    Integer(i64),
    /// REAL
    Real(f64),
    /// TEXT
    Text(Vec<u8>),
    /// BLOB
    Blob(Vec<u8>),
}

impl Value {
    /// Borrows it.
    #[must_use]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(i) => ValueRef::Integer(*i),
            Self::Real(r) => ValueRef::Real(*r),
            Self::Text(t) => ValueRef::Text(t),
            Self::Blob(b) => ValueRef::Blob(b),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

/// The order of doubles for a tie: bitwise equal or different, so −0.0 < 0.0 (DESIGN X15).
fn real_order(a: f64, b: f64) -> Ordering {
    a.total_cmp(&b)
}

impl<'a> ValueRef<'a> {
    /// Whether it is NULL.
    #[must_use]
    pub const fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    /// The bytes of a text or blob; of anything else, none.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Text(bytes) | Self::Blob(bytes) => bytes,
            _ => &[],
        }
    }

    /// Copies it.
    #[must_use]
    pub fn to_owned(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(i) => Value::Integer(i),
            Self::Real(r) => Value::Real(r),
            Self::Text(t) => Value::Text(t.to_vec()),
            Self::Blob(b) => Value::Blob(b.to_vec()),
        }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Blob(_) => 1,
            Self::Text(_) => 2,
            Self::Real(_) => 3,
            Self::Integer(_) => 4,
        }
    }

    /// The order by which ties are decided: type first (NULL < BLOB < TEXT < REAL < INTEGER), then value.
    #[must_use]
    pub fn merge_order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            (Self::Real(a), Self::Real(b)) => real_order(a, b),
            (Self::Text(a), Self::Text(b)) | (Self::Blob(a), Self::Blob(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    /// Appends the value: a tag byte, then what the tag asks for (docs/FORMAT.md, "Values").
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(TAG_NULL),
            Self::Integer(i) => encode_integer(i, out),
            Self::Real(r) => {
                out.push(TAG_REAL);
                out.extend_from_slice(&r.to_bits().to_be_bytes());
            }
            Self::Text(t) => {
                if let Some(uuid) = parse_uuid(t) {
                    out.push(TAG_UUID);
                    out.extend_from_slice(&uuid);
                } else {
                    encode_run(TAG_TEXT, t, out);
                }
            }
            Self::Blob(b) => encode_run(TAG_BLOB, b, out),
        }
    }

    /// Reads one value. Text that was folded into a UUID tag is unfolded into `scratch`-free form by the caller through
    /// [`Encoded`].
    ///
    /// # Errors
    /// Names the tag or length that is wrong.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Encoded<'a>, DecodeError> {
        let start = *reader;
        let tag = reader.u8("value tag")?;
        Ok(match tag {
            TAG_NULL => Encoded::Plain(ValueRef::Null),
            TAG_NEGATIVE..=TAG_ZERO_MAX => {
                let (negative, len) = integer_shape(tag).ok_or_else(|| start.error("value tag", Problem::Invalid))?;
                Encoded::Plain(ValueRef::Integer(decode_integer(negative, reader.take(len, "integer")?)))
            }
            TAG_REAL => Encoded::Plain(ValueRef::Real(f64::from_bits(u64::from_be_bytes(reader.array("real")?)))),
            TAG_TEXT => Encoded::Plain(ValueRef::Text(reader.bytes("text")?)),
            TAG_BLOB => Encoded::Plain(ValueRef::Blob(reader.bytes("blob")?)),
            TAG_TEXT_SHORT..=TAG_TEXT_SHORT_MAX => {
                Encoded::Plain(ValueRef::Text(reader.take(usize::from(tag - TAG_TEXT_SHORT), "text")?))
            }
            TAG_BLOB_SHORT..=TAG_BLOB_SHORT_MAX => {
                Encoded::Plain(ValueRef::Blob(reader.take(usize::from(tag - TAG_BLOB_SHORT), "blob")?))
            }
            TAG_UUID => Encoded::Uuid(UuidText::from_bytes(reader.array("uuid")?)),
            _ => return Err(start.error("value tag", Problem::Invalid)),
        })
    }
}

impl PartialEq for ValueRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.merge_order(*other) == Ordering::Equal
    }
}

/// The 36 characters of a canonical UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UuidText(pub [u8; 36]);

impl UuidText {
    fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = bytes;
        let digits = |bytes| digits_of(u32::from_be_bytes(bytes)).to_be_bytes();
        let a = digits([a0, a1, a2, a3]);
        let [b @ .., e0, e1, e2, e3] = digits([b0, b1, b2, b3]);
        let [c @ .., f0, f1, f2, f3] = digits([c0, c1, c2, c3]);
        let d = digits([d0, d1, d2, d3]);
        let mut text = [b'-'; 36];
        let mut put = |place: usize, run: &[u8]| {
            if let Some(slot) = text.get_mut(place..place + run.len()) {
                slot.copy_from_slice(run);
            }
        };
        put(0, &a);
        put(9, &b);
        put(14, &[e0, e1, e2, e3]);
        put(19, &c);
        put(24, &[f0, f1, f2, f3]);
        put(28, &d);
        Self(text)
    }
}

/// A decoded value: borrowed as it stood, or a UUID that stood as 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoded<'a> {
    /// As it stands in the input.
    Plain(ValueRef<'a>),
    /// Text that was folded into 16 bytes.
    Uuid(UuidText),
}

impl Encoded<'_> {
    /// The SQL value.
    #[must_use]
    pub fn value(&self) -> ValueRef<'_> {
        match self {
            Self::Plain(v) => *v,
            Self::Uuid(u) => ValueRef::Text(&u.0),
        }
    }
}

const TAG_NULL: u8 = 0x00;
/// 0x10 + 8 − n: negative, n bytes of its low end, big-endian; 0x20 + n: zero or positive, n bytes. Sorted by bytes they
/// are sorted by value, which keeps neighbours together in the row clock's b-tree.
const TAG_NEGATIVE: u8 = 0x10;
const TAG_POSITIVE: u8 = 0x20;
const TAG_ZERO_MAX: u8 = 0x28;
const TAG_REAL: u8 = 0x30;
const TAG_TEXT: u8 = 0x31;
const TAG_BLOB: u8 = 0x32;
const TAG_UUID: u8 = 0x33;
const TAG_TEXT_SHORT: u8 = 0x40;
const TAG_TEXT_SHORT_MAX: u8 = 0x7f;
const TAG_BLOB_SHORT: u8 = 0x80;
const TAG_BLOB_SHORT_MAX: u8 = 0xbf;

const fn integer_shape(tag: u8) -> Option<(bool, usize)> {
    match tag {
        TAG_NEGATIVE..=0x17 => Some((true, (0x18 - tag) as usize)),
        TAG_POSITIVE..=TAG_ZERO_MAX => Some((false, (tag - TAG_POSITIVE) as usize)),
        _ => None,
    }
}

fn encode_integer(i: i64, out: &mut Vec<u8>) {
    let bytes = i.to_be_bytes();
    if i >= 0 {
        let skip = (i.leading_zeros() / 8) as usize;
        let n = 8 - skip;
        #[allow(clippy::cast_possible_truncation)]
        out.push(TAG_POSITIVE + n as u8);
        out.extend(bytes.iter().skip(skip));
    } else {
        // At least one byte: −1 is one byte of 0xff.
        let skip = ((i.leading_ones() / 8) as usize).min(7);
        let n = 8 - skip;
        #[allow(clippy::cast_possible_truncation)]
        out.push(0x18 - n as u8);
        out.extend(bytes.iter().skip(skip));
    }
}

fn decode_integer(negative: bool, bytes: &[u8]) -> i64 {
    let start: i64 = if negative { -1 } else { 0 };
    bytes.iter().fold(start, |acc, b| (acc << 8) | i64::from(*b))
}

fn encode_run(long_tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    let short = if long_tag == TAG_TEXT { TAG_TEXT_SHORT } else { TAG_BLOB_SHORT };
    if let Some(n) = u8::try_from(bytes.len()).ok().filter(|n| *n < 0x40) {
        out.push(short + n);
        out.extend_from_slice(bytes);
    } else {
        out.push(long_tag);
        put_bytes(out, bytes);
    }
}

/// The 16 bytes of a canonical lower-case UUID text, else `None`. Every key passes here, so eight digits are read at once.
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let &[a0, a1, a2, a3, a4, a5, a6, a7, b'-', b0, b1, b2, b3, b'-', c0, c1, c2, c3, b'-', d0, d1, d2, d3, b'-', ref e @ ..] =
        text
    else {
        return None;
    };
    let &[e0, e1, e2, e3, ref f @ ..] = e;
    let words = [
        u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
        u64::from_be_bytes([b0, b1, b2, b3, c0, c1, c2, c3]),
        u64::from_be_bytes([d0, d1, d2, d3, e0, e1, e2, e3]),
        u64::from_be_bytes(*f),
    ];
    let mut out = [0u8; 16];
    for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&eight_digits(word)?.to_be_bytes());
    }
    Some(out)
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// Eight lower-case hexadecimal digits, the first one in the highest byte. Every key of that form passes here on its way to the
/// table, so they are made at once.
const fn digits_of(value: u32) -> u64 {
    let fours = (value as u64 | (value as u64) << 16) & 0x0000_ffff_0000_ffff;
    let pairs = (fours | fours << 8) & 0x00ff_00ff_00ff_00ff;
    let values = (pairs | pairs << 4) & (0x0f * ONES);
    // A letter is what carries into bit 4 when 6 is added; it stands 39 places behind what follows the digits.
    let letters = (values + 6 * ONES) >> 4 & ONES;
    values + b'0' as u64 * ONES + 39 * letters
}

/// The value of eight lower-case hexadecimal digits, the first one in the highest byte.
const fn eight_digits(text: u64) -> Option<u32> {
    // A letter has bit 6, and its low half counts from 1.
    let values = (text & (0x0f * ONES)) + 9 * (text >> 6 & ONES);
    let letters = (values + 6 * ONES) >> 4 & ONES;
    // What these values are written as: anything else was no digit. ('a' comes 39 places after where ':' stands.)
    if values & (0xf0 * ONES) != 0 || values + b'0' as u64 * ONES + 39 * letters != text {
        return None;
    }
    let pairs = (values | values >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    #[allow(clippy::cast_possible_truncation)]
    Some((fours | fours >> 16) as u32)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-300i64..70000).prop_map(Value::Integer),
            any::<u64>().prop_map(|b| Value::Real(f64::from_bits(b))),
            proptest::collection::vec(any::<u8>(), 0..80).prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..80).prop_map(Value::Blob),
            any::<[u8; 16]>().prop_map(|b| Value::Text(UuidText::from_bytes(b).0.to_vec())),
        ]
    }

    proptest! {
        #[test]
        fn values_round_trip(v in any_value()) {
            let mut out = Vec::new();
            v.as_ref().encode(&mut out);
            let mut reader = Reader::new(&out);
            let back = ValueRef::decode(&mut reader).unwrap();
            prop_assert_eq!(back.value(), v.as_ref());
            prop_assert!(reader.finish("v").is_ok());
        }

        #[test]
        fn the_order_is_total(a in any_value(), b in any_value(), c in any_value()) {
            let (a, b, c) = (a.as_ref(), b.as_ref(), c.as_ref());
            prop_assert_eq!(a.merge_order(b), b.merge_order(a).reverse());
            if a.merge_order(b) == Ordering::Less && b.merge_order(c) == Ordering::Less {
                prop_assert_eq!(a.merge_order(c), Ordering::Less);
            }
        }

        #[test]
        fn integers_sort_by_their_bytes(a: i64, b: i64) {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            ValueRef::Integer(a).encode(&mut x);
            ValueRef::Integer(b).encode(&mut y);
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() {
                if ValueRef::decode(&mut reader).is_err() { break; }
            }
        }
    }

    #[test]
    fn types_rank_as_documented() {
        let order = [
            ValueRef::Null,
            ValueRef::Blob(b"z"),
            ValueRef::Text(b"a"),
            ValueRef::Real(-0.0),
            ValueRef::Real(0.0),
            ValueRef::Integer(i64::MIN),
        ];
        for pair in order.windows(2) {
            if let [a, b] = pair {
                assert_eq!(a.merge_order(*b), Ordering::Less);
            }
        }
    }

    #[test]
    fn a_uuid_is_written_as_the_library_writes_numbers() {
        let mut x = 1u32;
        for _ in 0..100_000 {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            let text = digits_of(x).to_be_bytes();
            assert_eq!(core::str::from_utf8(&text).unwrap(), alloc::format!("{x:08x}"));
            assert_eq!(eight_digits(u64::from_be_bytes(text)), Some(x));
        }
        let bytes = [1, 0x89, 0x0a, 0x5d, 0xac, 0x96, 0x77, 0x4b, 0xbc, 0xce, 0xb3, 2, 9, 0x9a, 0x80, 0x57];
        assert_eq!(&UuidText::from_bytes(bytes).0, b"01890a5d-ac96-774b-bcce-b302099a8057");
    }

    #[test]
    fn eight_digits_are_the_lower_case_ones_and_nothing_else() {
        for place in 0..8 {
            for ch in 0..=255u8 {
                let mut text = *b"0a9f1e5c";
                text[place] = ch;
                let plain =
                    core::str::from_utf8(&text).ok().filter(|t| t.bytes().all(|b| b"0123456789abcdef".contains(&b)));
                let expected = plain.and_then(|t| u32::from_str_radix(t, 16).ok());
                assert_eq!(eight_digits(u64::from_be_bytes(text)), expected, "{ch} at {place}");
            }
        }
    }

    #[test]
    fn a_uuid_takes_sixteen_bytes_and_an_upper_case_one_stays_text() {
        let mut out = Vec::new();
        ValueRef::Text(b"01890a5d-ac96-774b-bcce-b302099a8057").encode(&mut out);
        assert_eq!(out.len(), 17);
        out.clear();
        ValueRef::Text(b"01890A5D-AC96-774B-BCCE-B302099A8057").encode(&mut out);
        assert_eq!(out.len(), 37);
    }
}

//! Primary keys: the internal form (what log and row clocks hold) and the public form (`crsql_pack_columns`).

use crate::cursor::{DecodeError, Problem, Reader};
use crate::value::{Encoded, ValueRef};
use alloc::vec::Vec;

/// Columns a packed key may have: SQLite's own limit on columns, as one byte counts them.
pub const MAX_KEY_COLUMNS: usize = 255;

/// Appends the internal form: the columns' values one after the other. The table says how many there are.
pub fn encode<'a>(columns: impl IntoIterator<Item = ValueRef<'a>>, out: &mut Vec<u8>) {
    for column in columns {
        column.encode(out);
    }
}

/// Decodes an internal key of `n` columns.
///
/// # Errors
/// Says what is wrong with the bytes, also when there are more of them.
pub fn decode(bytes: &[u8], n: usize) -> Result<Vec<Encoded<'_>>, DecodeError> {
    let mut out = Vec::with_capacity(n.min(bytes.len()));
    for column in columns(bytes, n) {
        out.push(column?);
    }
    Ok(out)
}

/// The columns of an internal key, one after the other: as [`decode`], without a place for all of them.
#[derive(Clone, Debug)]
pub struct Columns<'a> {
    reader: Reader<'a>,
    left: usize,
    ended: bool,
}

/// Reads an internal key of `n` columns. Bytes behind the last one are an error that follows it.
#[must_use]
pub const fn columns(bytes: &[u8], n: usize) -> Columns<'_> {
    Columns { reader: Reader::new(bytes), left: n, ended: false }
}

impl<'a> Iterator for Columns<'a> {
    type Item = Result<Encoded<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.ended = true;
            return self.reader.finish("key").err().map(Err);
        };
        self.left = left;
        let column = ValueRef::decode(&mut self.reader);
        self.ended = column.is_err();
        Some(column)
    }
}

const PACK_INTEGER: u8 = 1;
const PACK_REAL: u8 = 2;
const PACK_TEXT: u8 = 3;
const PACK_BLOB: u8 = 4;
const PACK_NULL: u8 = 5;

/// The public packed form, byte for byte cr-sqlite's: a column count, then per column `(n << 3) | type` and n bytes.
///
/// # Errors
/// `TooLarge` for more than 255 columns.
pub fn pack<'a>(columns: impl ExactSizeIterator<Item = ValueRef<'a>>) -> Result<Vec<u8>, DecodeError> {
    let count = u8::try_from(columns.len()).map_err(|_| DecodeError {
        field: "number of packed columns",
        offset: 0,
        problem: Problem::TooLarge,
    })?;
    let mut out = alloc::vec![count];
    for column in columns {
        match column {
            ValueRef::Null => out.push(PACK_NULL),
            ValueRef::Integer(i) => pack_unsigned(i.cast_unsigned(), PACK_INTEGER, &mut out),
            ValueRef::Real(r) => {
                out.push(PACK_REAL);
                out.extend_from_slice(&r.to_bits().to_be_bytes());
            }
            ValueRef::Text(t) => {
                pack_unsigned(t.len() as u64, PACK_TEXT, &mut out);
                out.extend_from_slice(t);
            }
            ValueRef::Blob(b) => {
                pack_unsigned(b.len() as u64, PACK_BLOB, &mut out);
                out.extend_from_slice(b);
            }
        }
    }
    Ok(out)
}

/// `(n << 3) | type`, then the n significant bytes of `value`, big-endian.
fn pack_unsigned(value: u64, kind: u8, out: &mut Vec<u8>) {
    let skip = (value.leading_zeros() / 8) as usize;
    #[allow(clippy::cast_possible_truncation)]
    out.push((((8 - skip) as u8) << 3) | kind);
    out.extend(value.to_be_bytes().iter().skip(skip));
}

/// Decodes the public packed form.
///
/// # Errors
/// Says which byte is wrong; bytes after the last column are an error.
pub fn unpack(bytes: &[u8]) -> Result<Vec<ValueRef<'_>>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let count = usize::from(reader.u8("packed column count")?);
    let mut out = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        let start = reader;
        let head = reader.u8("packed column type")?;
        let n = usize::from(head >> 3);
        if n > 8 {
            return Err(start.error("packed length", Problem::Invalid));
        }
        out.push(match head & 7 {
            PACK_INTEGER => ValueRef::Integer(unsigned(reader.take(n, "packed integer")?).cast_signed()),
            PACK_REAL if n == 0 => ValueRef::Real(f64::from_bits(u64::from_be_bytes(reader.array("packed real")?))),
            PACK_NULL if n == 0 => ValueRef::Null,
            kind @ (PACK_TEXT | PACK_BLOB) => {
                let len = unsigned(reader.take(n, "packed length")?);
                let len = usize::try_from(len).map_err(|_| start.error("packed length", Problem::TooLarge))?;
                let run = reader.take(len, "packed bytes")?;
                if kind == PACK_TEXT {
                    ValueRef::Text(run)
                } else {
                    ValueRef::Blob(run)
                }
            }
            _ => return Err(start.error("packed column type", Problem::Invalid)),
        });
    }
    reader.finish("packed key")?;
    Ok(out)
}

fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |acc, b| (acc << 8) | u64::from(*b))
}

/// Whether equal keys have one form: SQLite calls 1 and 1.0, and 0.0 and −0.0, equal; `false` where a stored value would
/// differ from what every replica must store (the caller refuses the write).
#[must_use]
pub fn is_canonical(column: ValueRef<'_>) -> bool {
    match column {
        ValueRef::Real(r) => {
            // An integral real inside the integers' range equals an integer key.
            const LIMIT: f64 = 9_223_372_036_854_775_808.0;
            !(r.is_finite() && (-LIMIT..LIMIT).contains(&r) && r % 1.0 == 0.0)
        }
        _ => true,
    }
}

/// A key column as a REAL column stores it: −0.0 is 0.0 there.
#[must_use]
pub fn without_negative_zero(column: ValueRef<'_>) -> ValueRef<'_> {
    match column {
        ValueRef::Real(r) => ValueRef::Real(if r == 0.0 { 0.0 } else { r }),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::tests::any_value;
    use crate::value::Value;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn public_keys_round_trip(values in proptest::collection::vec(any_value(), 0..6)) {
            let packed = pack(values.iter().map(Value::as_ref)).unwrap();
            let back = unpack(&packed).unwrap();
            prop_assert_eq!(back.len(), values.len());
            for (a, b) in back.iter().zip(&values) { prop_assert_eq!(*a, b.as_ref()); }
        }

        #[test]
        fn internal_keys_round_trip(values in proptest::collection::vec(any_value(), 0..6)) {
            let mut out = Vec::new();
            encode(values.iter().map(Value::as_ref), &mut out);
            let back = decode(&out, values.len()).unwrap();
            let back: Vec<Value> = back.iter().map(|c| c.value().to_owned()).collect();
            prop_assert_eq!(back, values);
        }

        #[test]
        fn columns_one_by_one_are_those_of_the_whole_key(bytes: Vec<u8>, n in 0usize..5) {
            let one_by_one: Result<Vec<_>, _> = columns(&bytes, n).collect();
            prop_assert_eq!(one_by_one, decode(&bytes, n));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, n in 0usize..5) {
            let _ = unpack(&bytes);
            let _ = decode(&bytes, n);
        }
    }

    #[test]
    fn packed_bytes_are_those_that_the_peers_programs_know() {
        let of = |v| pack([v].into_iter()).unwrap();
        assert_eq!(of(ValueRef::Integer(0)), [1, 1]);
        assert_eq!(of(ValueRef::Integer(1)), [1, 9, 1]);
        assert_eq!(of(ValueRef::Integer(200)), [1, 9, 200]);
        assert_eq!(of(ValueRef::Integer(65535)), [1, 17, 255, 255]);
        assert_eq!(of(ValueRef::Integer(-1)), [1, 65, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(of(ValueRef::Text(b"")), [1, 3]);
        assert_eq!(of(ValueRef::Text(b"ab")), [1, 11, 2, b'a', b'b']);
        assert_eq!(of(ValueRef::Blob(b"")), [1, 4]);
        assert_eq!(of(ValueRef::Null), [1, 5]);
    }

    #[test]
    fn keys_that_sqlite_calls_equal_are_recognised() {
        assert!(!is_canonical(ValueRef::Real(1.0)));
        assert!(!is_canonical(ValueRef::Real(-0.0)));
        assert!(is_canonical(ValueRef::Real(1.5)));
        assert!(is_canonical(ValueRef::Real(1e300)));
    }
}

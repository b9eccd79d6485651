//! Young clocks: the row clocks that a small transaction wrote, kept with its log record until they move into their blocks.
//!
//! The blob names no keys: it holds one slot for each entry of the record, in the order of the entries.

use crate::cursor::{put_bytes, DecodeError, Problem, Reader};
use alloc::vec::Vec;

const FORMAT: u8 = 1;

/// Encodes the slots: an entry's row clock, or nothing where a later entry has the row's clock or the row needs none.
pub fn encode<'c>(slots: impl IntoIterator<Item = Option<&'c [u8]>>, out: &mut Vec<u8>) {
    out.push(FORMAT);
    for slot in slots {
        put_bytes(out, slot.unwrap_or_default());
    }
}

/// Decodes the slots.
///
/// # Errors
/// Names the field; an unknown format and a slot that is cut short are refused.
pub fn decode(bytes: &[u8]) -> Result<Vec<Option<&[u8]>>, DecodeError> {
    let mut r = Reader::new(bytes);
    if r.u8("young clocks format")? != FORMAT {
        return Err(Reader::new(bytes).error("young clocks format", Problem::UnknownVersion));
    }
    let mut slots = Vec::new();
    while !r.is_empty() {
        slots.push(Some(r.bytes("row clock")?).filter(|clock| !clock.is_empty()));
    }
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else_is_taken() {
        let slots = vec![Some(&b"one"[..]), None, Some(&[0; 300])];
        let mut bytes = Vec::new();
        encode(slots.iter().copied(), &mut bytes);
        assert_eq!(decode(&bytes).unwrap(), slots);
        assert_eq!(decode(&bytes[..1]).unwrap(), Vec::<Option<&[u8]>>::new());
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode(&[]).is_err() && decode(&[2]).is_err());
    }
}

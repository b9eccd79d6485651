//! Column affinity, applied to incoming values before they are compared, so that '1' and 1 do not win over each other for
//! ever where two nodes declare a column differently (E12).

use crate::catalog::Table;
use crate::schema::Affinity;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::value::Encoded;
use starling_crdt::{DecodeError, Value, ValueRef};
use std::borrow::Cow;

impl Session {
    /// The value as a column of this affinity stores it. How many digits a REAL has as TEXT is the library's own choice,
    /// so it is asked.
    pub fn stored_as(&self, value: ValueRef<'_>, affinity: Affinity) -> Result<Value> {
        Ok(self.converted(value, affinity)?.unwrap_or_else(|| value.to_owned()))
    }

    /// As [`Session::stored_as`]; `None` where it stores the value as it is, as it mostly does.
    pub fn converted(&self, value: ValueRef<'_>, affinity: Affinity) -> Result<Option<Value>> {
        if !matches!((affinity, value), (Affinity::Text, ValueRef::Real(_))) {
            return Ok(apply_affinity(value, affinity));
        }
        let mut cast = self.fixed("SELECT CAST(?1 AS TEXT)")?;
        cast.bind_value(1, value)?;
        Ok(Some(if cast.step()? { cast.column(0).to_owned() } else { Value::Null }))
    }
}

/// The rules that need no library (SQLite, "Datatypes In SQLite", section 3). `None`: the value stays as it is.
fn apply_affinity(value: ValueRef<'_>, affinity: Affinity) -> Option<Value> {
    match (affinity, value) {
        (Affinity::Text, ValueRef::Integer(i)) => Some(Value::Text(i.to_string().into_bytes())),
        (Affinity::Numeric | Affinity::Integer, ValueRef::Text(t)) => {
            number(t).map(|n| integral(n).unwrap_or(n.to_owned()))
        }
        (Affinity::Numeric | Affinity::Integer, ValueRef::Real(_)) => integral(value),
        // SQLite stores a REAL column's −0.0 as 0.
        (Affinity::Real, ValueRef::Real(0.0)) => Some(Value::Real(0.0)),
        (Affinity::Real, ValueRef::Integer(i)) => Some(Value::Real(i as f64)),
        (Affinity::Real, ValueRef::Text(t)) => match number(t) {
            Some(ValueRef::Integer(i)) => Some(Value::Real(i as f64)),
            Some(ValueRef::Real(r)) => Some(Value::Real(r)),
            _ => None,
        },
        _ => None,
    }
}

/// The whole number that a version, a counter or a setting is given as. Drivers bind what their language has: JavaScript's
/// numbers come as REAL, the scalars of Perl and of PHP's PDO as TEXT. An INTEGER column would take those, so they count here.
pub fn whole_number(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(i) => Some(i),
        ValueRef::Real(_) | ValueRef::Text(_) => match apply_affinity(value, Affinity::Integer) {
            Some(Value::Integer(i)) => Some(i),
            _ => None,
        },
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

/// A real that an integer represents exactly.
fn integral(value: ValueRef<'_>) -> Option<Value> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    match value {
        ValueRef::Real(r) if r % 1.0 == 0.0 && r.abs() < LIMIT => Some(Value::Integer(r as i64)),
        _ => None,
    }
}

/// Text that is wholly a number.
fn number(text: &[u8]) -> Option<ValueRef<'static>> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t', '\n', '\r', '\x0c']);
    if !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
        return None;
    }
    if let Ok(i) = text.parse::<i64>() {
        return Some(ValueRef::Integer(i));
    }
    text.parse::<f64>().ok().filter(|r| r.is_finite()).map(ValueRef::Real)
}

/// Why a row of the table waits that stood here before its key became another one.
pub const OTHER_KEY: &str = "its key has another type here";

/// The key as this table's key columns store it, so that '1', 1 and 1.0 are one row where SQLite makes them one (E12).
/// Without one (the inner error says why) the row cannot be merged here.
pub fn canonical_key<'k>(
    session: &Session,
    table: &Table,
    bytes: &'k [u8],
) -> Result<std::result::Result<Cow<'k, [u8]>, String>> {
    let mut out = session.spare_key.take();
    out.clear();
    let columns = starling_crdt::key::columns(bytes, table.info.keys.len());
    Ok(match put_canonical(session, table, columns, &mut out)? {
        Some(why) => Err(why),
        None if out == bytes => {
            session.spare_key.set(out);
            Ok(Cow::Borrowed(bytes))
        }
        None if session.began_anew(table.info.id)? => Err(OTHER_KEY.to_string()),
        None => Ok(Cow::Owned(out)),
    })
}

/// Appends the key that these columns are as this table's key columns store them; where they are none, says why.
pub fn put_canonical<'k>(
    session: &Session,
    table: &Table,
    columns: impl Iterator<Item = std::result::Result<Encoded<'k>, DecodeError>>,
    out: &mut Vec<u8>,
) -> Result<Option<String>> {
    let mut why = None;
    for (i, column) in columns.enumerate() {
        let column = match column {
            Ok(column) => column,
            // Bytes that are no key are told before any of their values.
            Err(e) => return Ok(Some(e.to_string())),
        };
        let Some(key) = table.info.keys.get(i).filter(|_| why.is_none()) else { continue };
        let mut put = |value: ValueRef<'_>| {
            why = no_key(table, key.affinity, value);
            value.encode(out);
        };
        match session.converted(column.value(), key.affinity)? {
            Some(converted) => put(converted.as_ref()),
            None => put(column.value()),
        }
    }
    Ok(why.map(str::to_string))
}

/// Why a value cannot stand in a key column of this affinity.
fn no_key(table: &Table, affinity: Affinity, value: ValueRef<'_>) -> Option<&'static str> {
    match value {
        ValueRef::Null => Some("a key column is NULL"),
        ValueRef::Real(_) if affinity != Affinity::Real && !starling_crdt::key::is_canonical(value) => {
            Some("a REAL key equals an integer")
        }
        ValueRef::Integer(_) => None,
        _ if table.info.int_key => Some("the key is not an integer here"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_what_the_column_stores() {
        let apply = |v: ValueRef<'_>, a| apply_affinity(v, a).unwrap_or_else(|| v.to_owned());
        assert_eq!(apply(ValueRef::Text(b"1"), Affinity::Integer), Value::Integer(1));
        assert_eq!(apply(ValueRef::Text(b" 1.0 "), Affinity::Numeric), Value::Integer(1));
        assert_eq!(apply(ValueRef::Text(b"1x"), Affinity::Numeric), Value::Text(b"1x".to_vec()));
        assert_eq!(apply(ValueRef::Text(b"nan"), Affinity::Numeric), Value::Text(b"nan".to_vec()));
        assert_eq!(apply(ValueRef::Integer(1), Affinity::Text), Value::Text(b"1".to_vec()));
        assert_eq!(apply(ValueRef::Integer(1), Affinity::Real), Value::Real(1.0));
        assert_eq!(apply(ValueRef::Real(1.0), Affinity::None), Value::Real(1.0));
    }

    #[test]
    fn whole_numbers_are_known_whatever_type_a_driver_gives_them() {
        for same in [ValueRef::Integer(7), ValueRef::Real(7.0), ValueRef::Text(b"7"), ValueRef::Text(b"7.0")] {
            assert_eq!(whole_number(same), Some(7), "{same:?}");
        }
        assert_eq!(whole_number(ValueRef::Real(-1.0)), Some(-1));
        assert_eq!(whole_number(ValueRef::Integer(i64::MAX)), Some(i64::MAX));
        for other in [
            ValueRef::Null,
            ValueRef::Blob(b"7"),
            ValueRef::Text(b""),
            ValueRef::Text(b"7x"),
            ValueRef::Real(7.5),
            ValueRef::Real(1e300),
            ValueRef::Real(f64::INFINITY),
        ] {
            assert_eq!(whole_number(other), None, "{other:?}");
        }
    }
}

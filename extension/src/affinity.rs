//! Column affinity, applied to incoming values before they are compared, so that '1' and 1 do not win over each other for
//! ever where two nodes declare a column differently (E12).

use crate::catalog::Table;
use crate::schema::Affinity;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::{Value, ValueRef};
use std::borrow::Cow;

impl Session {
    /// The value as a column of this affinity stores it. How many digits a REAL has as TEXT is the library's own choice,
    /// so it is asked.
    pub fn stored_as(&self, value: ValueRef<'_>, affinity: Affinity) -> Result<Value> {
        if !matches!((affinity, value), (Affinity::Text, ValueRef::Real(_))) {
            return Ok(apply_affinity(value, affinity));
        }
        let mut cast = self.fixed("SELECT CAST(?1 AS TEXT)")?;
        cast.bind_value(1, value)?;
        Ok(if cast.step()? { cast.column(0).to_owned() } else { Value::Null })
    }
}

/// The rules that need no library (SQLite, "Datatypes In SQLite", section 3).
fn apply_affinity(value: ValueRef<'_>, affinity: Affinity) -> Value {
    match (affinity, value) {
        (Affinity::Text, ValueRef::Integer(i)) => Value::Text(i.to_string().into_bytes()),
        (Affinity::Numeric | Affinity::Integer, ValueRef::Text(t)) => {
            number(t).map_or_else(|| value.to_owned(), |n| integral(n).unwrap_or(n.to_owned()))
        }
        (Affinity::Numeric | Affinity::Integer, ValueRef::Real(_)) => {
            integral(value).unwrap_or_else(|| value.to_owned())
        }
        // SQLite stores a REAL column's −0.0 as 0.
        (Affinity::Real, ValueRef::Real(0.0)) => Value::Real(0.0),
        (Affinity::Real, ValueRef::Integer(i)) => Value::Real(i as f64),
        (Affinity::Real, ValueRef::Text(t)) => match number(t) {
            Some(ValueRef::Integer(i)) => Value::Real(i as f64),
            Some(ValueRef::Real(r)) => Value::Real(r),
            _ => value.to_owned(),
        },
        _ => value.to_owned(),
    }
}

/// The whole number that a version, a counter or a setting is given as. Drivers bind what their language has: JavaScript's
/// numbers come as REAL, the scalars of Perl and of PHP's PDO as TEXT. An INTEGER column would take those, so they count here.
pub fn whole_number(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(i) => Some(i),
        ValueRef::Real(_) | ValueRef::Text(_) => match apply_affinity(value, Affinity::Integer) {
            Value::Integer(i) => Some(i),
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

/// The key as this table's key columns store it, so that '1', 1 and 1.0 are one row where SQLite makes them one (E12).
/// Without one (the inner error says why) the row cannot be merged here.
pub fn canonical_key<'k>(
    session: &Session,
    table: &Table,
    bytes: &'k [u8],
) -> Result<std::result::Result<Cow<'k, [u8]>, String>> {
    let columns = match starling_crdt::key::decode(bytes, table.info.keys.len()) {
        Ok(columns) => columns,
        Err(e) => return Ok(Err(e.to_string())),
    };
    let mut stored = Vec::with_capacity(columns.len());
    for (column, key) in columns.iter().zip(&table.info.keys) {
        let value = session.stored_as(column.value(), key.affinity)?;
        match value {
            Value::Null => return Ok(Err("a key column is NULL".to_string())),
            Value::Real(_) if key.affinity != Affinity::Real && !starling_crdt::key::is_canonical(value.as_ref()) => {
                return Ok(Err("a REAL key equals an integer".to_string()));
            }
            Value::Integer(_) => {}
            _ if table.info.int_key => return Ok(Err("the key is not an integer here".to_string())),
            _ => {}
        }
        stored.push(value);
    }
    let mut out = Vec::with_capacity(bytes.len());
    starling_crdt::key::encode(stored.iter().map(Value::as_ref), &mut out);
    Ok(Ok(if out == bytes { Cow::Borrowed(bytes) } else { Cow::Owned(out) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_what_the_column_stores() {
        let apply = |v, a| apply_affinity(v, a);
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

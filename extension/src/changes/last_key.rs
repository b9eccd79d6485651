//! The key that the cell before had: unpacking a key and finding its form here depends on nothing but the key and the table, and
//! the cells of one row come one after the other.

use crate::affinity::{put_canonical, OTHER_KEY};
use crate::catalog::Table;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::value::Encoded;
use starling_crdt::{key, ValueRef};
use std::cell::Cell;
use std::rc::Rc;

/// A packed key, and what it is in a table.
pub struct LastKey {
    /// As long as it is held no other table has its address, and it says the same for ever.
    table: Rc<Table>,
    packed: Vec<u8>,
    /// Internal form.
    pub key: Vec<u8>,
    /// The rowid that the row got when the cell before inserted it. Another row may have it by now.
    pub rowid: Cell<Option<i64>>,
}

impl LastKey {
    /// Whether it is this key that was unpacked.
    pub fn unpacks(&self, packed: &[u8]) -> bool {
        self.packed == packed
    }

    /// Whether it says what that key is in this table.
    pub fn is_in(&self, table: &Rc<Table>) -> bool {
        Rc::ptr_eq(&self.table, table)
    }

    /// Finds the form that a key has in a table; the inner error says why it has none. `before`: its memory is used again.
    pub fn find(
        session: &Session,
        table: &Rc<Table>,
        (pk, columns): (&[u8], &[ValueRef<'_>]),
        before: Option<Self>,
    ) -> Result<std::result::Result<Self, String>> {
        let (mut packed, mut key) = before.map(|before| (before.packed, before.key)).unwrap_or_default();
        packed.clear();
        packed.extend_from_slice(pk);
        key.clear();
        let why = put_canonical(session, table, columns.iter().map(|c| Ok(Encoded::Plain(*c))), &mut key)?;
        let why = match why {
            None if converted(session, columns, &key) && session.began_anew(table.info.id)? => {
                Some(OTHER_KEY.to_string())
            }
            why => why,
        };
        let rowid = Cell::new(None);
        Ok(why.map_or_else(|| Ok(Self { table: Rc::clone(table), packed, key, rowid }), Err))
    }
}

/// Whether a key was given otherwise than it is stored.
fn converted(session: &Session, columns: &[ValueRef<'_>], key: &[u8]) -> bool {
    let mut given = session.spare_key.take();
    given.clear();
    key::encode(columns.iter().copied(), &mut given);
    let converted = given != key;
    session.spare_key.set(given);
    converted
}

/// The internal form of a key's columns as they are given.
pub fn internal(columns: &[ValueRef<'_>], len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    key::encode(columns.iter().copied(), &mut bytes);
    bytes
}

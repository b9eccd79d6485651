//! SQL text made from names and ids. [`Ident`] and [`Literal`] are the only quoting there is.

use crate::schema::{Column, TableInfo};
use std::fmt;

/// The journal's virtual table. Its name is what a program without the extension reads ("no such table: main.…"), so it
/// says what to do; it carries the format number, so that an older build refuses a newer file.
pub const JOURNAL: &str = "starling_extension_is_not_loaded__load_starling_so__format_1";

/// A quoted identifier.
pub struct Ident<'a>(pub &'a str);

impl fmt::Display for Ident<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// A quoted text literal.
pub struct Literal<'a>(pub &'a str);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

/// What a trigger says happened; the low four bits of a tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TagOp {
    /// AFTER INSERT
    Insert,
    /// AFTER DELETE
    Delete,
    /// AFTER UPDATE, the key as it was
    Update,
    /// The new key of a key update
    Move,
    /// BEFORE an insert or a key update over an existing row, on tables whose own schema says ON CONFLICT REPLACE
    Overwrite,
    /// AFTER UPDATE within an alter window: any column may have been written
    Rewrite,
}

/// Largest table id and mask word that fit a tag.
pub const MAX_TABLE_ID: u32 = (1 << 20) - 1;
/// File ids are 27 bits, so that a tag stays a positive SQL integer.
pub const FILE_ID_MASK: u32 = (1 << 27) - 1;

/// A tag: file id, table id, mask word, packed-key flag and operation in one integer, a constant in the trigger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// Which file's catalogue the table id belongs to.
    pub file: u32,
    /// Table id.
    pub table: u32,
    /// Which group of columns an update's mask speaks of.
    pub word: u16,
    /// The key came packed, in the first slot.
    pub packed: bool,
    /// What happened.
    pub op: TagOp,
}

impl Tag {
    /// As an integer.
    pub fn encode(self) -> i64 {
        let op = match self.op {
            TagOp::Insert => 0,
            TagOp::Delete => 1,
            TagOp::Update => 2,
            TagOp::Move => 3,
            TagOp::Overwrite => 4,
            TagOp::Rewrite => 5,
        };
        (i64::from(self.file) << 36)
            | (i64::from(self.table) << 16)
            | (i64::from(self.word & 0x7ff) << 5)
            | (i64::from(self.packed) << 4)
            | op
    }

    /// Back from an integer; `None` if it is no tag.
    pub fn decode(tag: i64) -> Option<Self> {
        let op = match tag & 15 {
            0 => TagOp::Insert,
            1 => TagOp::Delete,
            2 => TagOp::Update,
            3 => TagOp::Move,
            4 => TagOp::Overwrite,
            5 => TagOp::Rewrite,
            _ => return None,
        };
        Some(Self {
            file: u32::try_from(tag >> 36).ok()?,
            table: ((tag >> 16) & i64::from(MAX_TABLE_ID)) as u32,
            word: ((tag >> 5) & 0x7ff) as u16,
            packed: tag & 16 != 0,
            op,
        })
    }
}

/// Key columns that are passed in slots of their own; a longer key is passed packed.
pub const KEY_SLOTS: usize = 4;

/// Items with a separator between them.
pub fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>, separator: &str) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(separator)
}

/// A template with its placeholders filled.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    // One pass, so that a name which looks like a placeholder is left alone.
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, tail) = rest.split_at(open);
        out.push_str(before);
        match tail.find('}') {
            Some(close) => {
                let name = &tail[1..close];
                out.push_str(values.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v));
                rest = &tail[close + 1..];
            }
            None => {
                out.push_str(tail);
                rest = "";
            }
        }
    }
    out.push_str(rest);
    out
}

/// A CREATE statement of ours, to be run: in `main`, whatever temporary table has the same name. (SQLite leaves the
/// schema's name out of the text that it keeps.)
pub fn in_main(create: &str) -> String {
    for kind in ["CREATE TRIGGER ", "CREATE VIEW ", "CREATE INDEX "] {
        if let Some(rest) = create.strip_prefix(kind) {
            return format!("{kind}main.{rest}");
        }
    }
    create.to_string()
}

/// The name prefix of a CRR's triggers.
pub fn trigger_prefix(table: &str) -> String {
    format!("{table}__crsql_")
}

/// What the trigger templates are filled with, for one table.
struct Templates<'t> {
    table: &'t TableInfo,
    file: u32,
    packed: bool,
}

impl<'t> Templates<'t> {
    fn new(table: &'t TableInfo, file: u32) -> Self {
        Self { table, file, packed: table.keys.len() > KEY_SLOTS }
    }

    fn tag(&self, op: TagOp, word: u16) -> String {
        Tag { file: self.file, table: self.table.id, word, packed: self.packed, op }.encode().to_string()
    }

    fn keys(&self, row: &str) -> String {
        let columns = list(self.table.keys.iter().map(|k| format!("{row}.{}", Ident(&k.name))), ", ");
        if self.packed {
            format!("crsql_pack_columns({columns})")
        } else {
            columns
        }
    }

    /// A trigger's name and its SQL.
    fn make(&self, kind: &str, template: &str, tag: String, mask: &str, of: &str) -> (String, String) {
        let table = self.table;
        let name = trigger_prefix(&table.name) + kind;
        let values = [
            ("trigger", Ident(&name).to_string()),
            ("table", Ident(&table.name).to_string()),
            ("vt", JOURNAL.to_string()),
            ("tag", tag),
            ("mask", mask.to_string()),
            ("columns", of.to_string()),
            ("key_slots", list((0..if self.packed { 1 } else { table.keys.len() }).map(|i| format!("k{i}")), ", ")),
            ("new_keys", self.keys("NEW")),
            ("old_keys", self.keys("OLD")),
            ("same_key", list(table.keys.iter().map(|k| format!("NOT ({})", differs(&k.name, k.untyped()))), " AND ")),
            ("match_new", list(table.keys.iter().map(|k| format!("{0} = NEW.{0}", Ident(&k.name))), " AND ")),
            ("delete_tag", self.tag(TagOp::Delete, 0)),
            ("insert_tag", self.tag(TagOp::Move, 0)),
        ];
        let values: Vec<(&str, &str)> = values.iter().map(|(n, v)| (*n, v.as_str())).collect();
        (name, fill(template, &values).trim_end().to_string())
    }

    /// The triggers that name no column but the key's.
    fn on_keys(&self) -> Vec<(String, String)> {
        let (insert, delete) = (self.tag(TagOp::Insert, 0), self.tag(TagOp::Delete, 0));
        vec![
            self.make("insert", include_str!("../../sql/extension/trigger_insert.sql"), insert, "", ""),
            self.make("delete", include_str!("../../sql/extension/trigger_delete.sql"), delete, "", ""),
            self.make("move", include_str!("../../sql/extension/trigger_move.sql"), String::new(), "", ""),
        ]
    }
}

/// The CREATE TRIGGER statements of a CRR, each with its trigger's name. SQLite fires the newest trigger first, so the
/// column groups are made last to first, that their touches come in column order.
pub fn triggers(table: &TableInfo, file: u32) -> Vec<(String, String)> {
    let templates = Templates::new(table, file);
    let mut out = templates.on_keys();
    for (word, group) in table.columns.chunks(starling_crdt::local::MASK_BITS as usize).enumerate().rev() {
        let bits = group.iter().enumerate().map(|(i, c)| format!("(({})<<{i})", differs(&c.name, c.untyped())));
        let of = list(group.iter().map(|c| Ident(&c.name)), ", ");
        let template = include_str!("../../sql/extension/trigger_update.sql");
        let tag = templates.tag(TagOp::Update, word as u16);
        out.push(templates.make(&format!("update_{word}"), template, tag, &list(bits, "|"), &of));
    }
    if table.replaces_by_schema {
        let tag = templates.tag(TagOp::Overwrite, 0);
        let template = include_str!("../../sql/extension/trigger_before_insert.sql");
        out.push(templates.make("before", template, tag.clone(), "", ""));
        let template = include_str!("../../sql/extension/trigger_before_update.sql");
        out.push(templates.make("before_move", template, tag, "", ""));
    }
    out
}

/// The triggers of a CRR within an alter window: no column is named, so that every column can be dropped.
pub fn window_triggers(table: &TableInfo, file: u32) -> Vec<(String, String)> {
    let templates = Templates::new(table, file);
    let mut out = templates.on_keys();
    let template = include_str!("../../sql/extension/trigger_rewrite.sql");
    out.push(templates.make("rewrite", template, templates.tag(TagOp::Rewrite, 0), "", ""));
    out
}

/// Whether a column's old and new value differ as replicas see it: bytes and type, whatever the column's collation says
/// (E2), and −0.0 from 0.0 (X15) where a column keeps them apart.
fn differs(column: &str, untyped: bool) -> String {
    let c = Ident(column);
    let bytes = format!("NEW.{c} IS NOT OLD.{c} COLLATE BINARY");
    if untyped {
        format!("{bytes} OR typeof(NEW.{c}) IS NOT typeof(OLD.{c}) OR (NEW.{c} = 0 AND starling_zeros_differ(NEW.{c}, OLD.{c}))")
    } else {
        bytes
    }
}

fn key_match(table: &TableInfo, first: usize) -> String {
    list(table.keys.iter().enumerate().map(|(i, k)| format!("{} = ?{}", Ident(&k.name), first + i)), " AND ")
}

/// `SELECT` of all columns of one row, by key.
pub fn select_row(table: &TableInfo) -> String {
    let columns = if table.columns.is_empty() {
        "1".to_string()
    } else {
        list(table.columns.iter().map(|c| Ident(&c.name)), ", ")
    };
    format!("SELECT {columns} FROM main.{} WHERE {}", Ident(&table.name), key_match(table, 1))
}

/// `SELECT` of all rows: keys, then columns.
pub fn select_rows(table: &TableInfo) -> String {
    let all = list(table.keys.iter().chain(&table.columns).map(|c| Ident(&c.name)), ", ");
    format!("SELECT {all} FROM main.{}", Ident(&table.name))
}

/// `SELECT` of the keys of rows where one of these columns does not hold its default, and for each whether it does not.
pub fn select_not_default(table: &TableInfo, columns: &[&Column]) -> String {
    let keys = list(table.keys.iter().map(|k| Ident(&k.name)), ", ");
    let differs = |c: &&Column| format!("({} IS NOT ({}))", Ident(&c.name), c.default_sql.as_deref().unwrap_or("NULL"));
    let flags = list(columns.iter().map(differs), ", ");
    let any = list(columns.iter().map(differs), " OR ");
    format!("SELECT {keys}, {flags} FROM main.{} WHERE {any} ORDER BY {keys}", Ident(&table.name))
}

/// `SELECT` of all keys.
pub fn select_keys(table: &TableInfo) -> String {
    let keys = list(table.keys.iter().map(|k| Ident(&k.name)), ", ");
    format!("SELECT {keys} FROM main.{} ORDER BY {keys}", Ident(&table.name))
}

/// Whether a row is there.
pub fn row_exists(table: &TableInfo) -> String {
    format!("SELECT 1 FROM main.{} WHERE {}", Ident(&table.name), key_match(table, 1))
}

/// `INSERT` of keys and the given columns; nothing happens where the key is taken.
pub fn insert_row(table: &TableInfo, columns: &[usize]) -> String {
    let keys = list(table.keys.iter().map(|k| Ident(&k.name)), ", ");
    let names = columns.iter().filter_map(|i| table.columns.get(*i)).map(|c| format!(", {}", Ident(&c.name)));
    let slots = list((1..=table.keys.len() + columns.len()).map(|i| format!("?{i}")), ", ");
    format!(
        "INSERT INTO main.{}({keys}{}) VALUES({slots}) ON CONFLICT({keys}) DO NOTHING",
        Ident(&table.name),
        list(names, "")
    )
}

/// `UPDATE` of the given columns, by key (which comes first in the parameters).
pub fn update_row(table: &TableInfo, columns: &[usize]) -> String {
    let first = table.keys.len() + 1;
    let sets = columns
        .iter()
        .filter_map(|i| table.columns.get(*i))
        .enumerate()
        .map(|(i, c)| format!("{} = ?{}", Ident(&c.name), first + i));
    format!("UPDATE main.{} SET {} WHERE {}", Ident(&table.name), list(sets, ", "), key_match(table, 1))
}

/// `DELETE` by key.
pub fn delete_row(table: &TableInfo) -> String {
    format!("DELETE FROM main.{} WHERE {}", Ident(&table.name), key_match(table, 1))
}

/// The row clock table of a CRR: blocks of row clocks by their first key.
pub fn create_rows_table(id: u32) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS main.crsql_rows_{id}(first BLOB PRIMARY KEY, block BLOB NOT NULL) WITHOUT ROWID"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_round_trip() {
        for op in [TagOp::Insert, TagOp::Delete, TagOp::Update, TagOp::Move, TagOp::Overwrite, TagOp::Rewrite] {
            let tag = Tag { file: FILE_ID_MASK, table: MAX_TABLE_ID, word: 40, packed: true, op };
            assert!(tag.encode() > 0);
            assert_eq!(Tag::decode(tag.encode()), Some(tag));
        }
        assert_eq!(Tag::decode(-1), None);
    }

    #[test]
    fn placeholders_in_names_are_left_alone() {
        assert_eq!(fill("a {x} b {y}", &[("x", "{y}"), ("y", "2")]), "a {y} b 2");
        assert_eq!(Ident("a\"b").to_string(), "\"a\"\"b\"");
        assert_eq!(Literal("a'b").to_string(), "'a''b'");
    }
}

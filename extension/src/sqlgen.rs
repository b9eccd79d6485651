//! SQL text made from names and ids. [`Ident`] and [`Literal`] are the only quoting there is.

use crate::inbox::{inbox_name, InboxTag, MAX_MASK_BIT};
use crate::schema::{Column, TableInfo};
use std::fmt;

/// The journal's virtual table. Its name is what a program without the extension reads ("no such table: main.…"), so it
/// says what to do; it carries the format number, so that an older build refuses a newer file.
pub const JOURNAL: &str = crate::sql_text::text_of(JOURNAL_C);
pub const JOURNAL_C: &std::ffi::CStr = c"starling_extension_is_not_loaded__load_starling_so__format_1";

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
    Insert = 0,
    /// AFTER DELETE
    Delete = 1,
    /// AFTER UPDATE, the key as it was
    Update = 2,
    /// The new key of a key update
    Move = 3,
    /// BEFORE an insert or a key update over an existing row, on tables whose own schema says ON CONFLICT REPLACE
    Overwrite = 4,
    /// AFTER UPDATE within an alter window: any column may have been written
    Rewrite = 5,
}

impl TagOp {
    /// By its number.
    pub fn of(number: i64) -> Option<Self> {
        let all = [Self::Insert, Self::Delete, Self::Update, Self::Move, Self::Overwrite, Self::Rewrite];
        usize::try_from(number).ok().and_then(|i| all.get(i)).copied()
    }
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
        (i64::from(self.file) << 36)
            | (i64::from(self.table) << 16)
            | (i64::from(self.word & 0x7ff) << 5)
            | (i64::from(self.packed) << 4)
            | self.op as i64
    }

    /// Back from an integer; `None` if it is no tag.
    pub fn decode(tag: i64) -> Option<Self> {
        let op = TagOp::of(tag & 15)?;
        Some(Self {
            file: u32::try_from(tag >> 36).ok()?,
            table: ((tag >> 16) & i64::from(MAX_TABLE_ID)) as u32,
            word: ((tag >> 5) & 0x7ff) as u16,
            packed: tag & 16 != 0,
            op,
        })
    }
}

/// Where a table's triggers write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sink {
    /// The journal's virtual table, under this file id.
    Journal(u32),
    /// The table's inbox, an ordinary table: nothing needs to be loaded.
    Inbox,
}

impl Sink {
    fn tag(self, op: TagOp, table: &TableInfo, packed: bool, word: usize) -> String {
        match self {
            Self::Journal(file) => Tag { file, table: table.id, word: word as u16, packed, op }.encode().to_string(),
            Self::Inbox => InboxTag { op, first: word as u32 }.encode().to_string(),
        }
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
    sink: Sink,
    packed: bool,
}

impl<'t> Templates<'t> {
    fn new(table: &'t TableInfo, sink: Sink) -> Self {
        Self { table, sink, packed: sink != Sink::Inbox && table.keys.len() > KEY_SLOTS }
    }

    fn tag(&self, op: TagOp, word: usize) -> String {
        self.sink.tag(op, self.table, self.packed, word)
    }

    fn keys(&self, row: &str) -> String {
        self.key_of(|k| format!("{row}.{}", Ident(&k.name)))
    }

    /// The key of a row as it is told, out of its columns' values.
    fn key_of(&self, value: impl Fn(&Column) -> String) -> String {
        let columns = list(self.table.keys.iter().map(value), ", ");
        if self.packed {
            format!("crsql_pack_columns({columns})")
        } else {
            columns
        }
    }

    /// The condition that a row has the key that NEW will have. A REPLACE makes the default of a NULL, after BEFORE triggers.
    fn matches_new(&self) -> String {
        let new = |k: &Column| match self.has_given_default(k) {
            true => format!("coalesce(NEW.{}, {})", Ident(&k.name), k.default()),
            false => format!("NEW.{}", Ident(&k.name)),
        };
        list(self.table.keys.iter().map(|k| format!("{} = {}", Ident(&k.name), new(k))), " AND ")
    }

    /// The key of that row, as it is stored.
    fn keys_before(&self) -> String {
        let from = Ident(&self.table.name);
        self.key_of(|k| match self.has_given_default(k) {
            true => format!("(SELECT {} FROM {from} WHERE {})", Ident(&k.name), self.matches_new()),
            false => format!("NEW.{}", Ident(&k.name)),
        })
    }

    fn has_given_default(&self, key: &Column) -> bool {
        !self.table.int_key && key.default_sql.is_some() && !key.defaults_vary()
    }

    /// The names by which a statement can set the key: only then need its triggers run.
    fn key_columns(&self) -> String {
        let mut names = list(self.table.keys.iter().map(|k| Ident(&k.name)), ", ");
        if self.table.int_key {
            names.push_str(", rowid, oid, _rowid_");
        }
        names
    }

    /// A trigger's name and its SQL.
    fn make(&self, kind: &str, template: &str, tag: String, mask: &str, of: &str) -> (String, String) {
        let table = self.table;
        let name = trigger_prefix(&table.name) + kind;
        let values = [
            ("trigger", Ident(&name).to_string()),
            ("table", Ident(&table.name).to_string()),
            ("vt", if self.sink == Sink::Inbox { inbox_name(table.id) } else { JOURNAL.to_string() }),
            ("tag", tag),
            ("mask", mask.to_string()),
            ("columns", of.to_string()),
            ("key_slots", list((0..if self.packed { 1 } else { table.keys.len() }).map(|i| format!("k{i}")), ", ")),
            ("key_columns", self.key_columns()),
            ("new_keys", self.keys("NEW")),
            ("old_keys", self.keys("OLD")),
            ("same_key", list(table.keys.iter().map(|k| format!("NOT ({})", differs(k, self.sink))), " AND ")),
            ("match_new", self.matches_new()),
            ("keys_before", self.keys_before()),
            ("delete_tag", self.tag(TagOp::Delete, 0)),
            ("insert_tag", self.tag(TagOp::Move, 0)),
        ];
        let values: Vec<(&str, &str)> = values.iter().map(|(n, v)| (*n, v.as_str())).collect();
        (name, fill(template, &values).trim_end().to_string())
    }

    /// The triggers that name no column but the key's.
    fn on_keys(&self) -> Vec<(String, String)> {
        let (insert, delete) = (self.tag(TagOp::Insert, 0), self.tag(TagOp::Delete, 0));
        let gone = match self.sink {
            Sink::Journal(_) => include_str!("../../sql/extension/trigger_delete.sql"),
            Sink::Inbox => include_str!("../../sql/extension/portable_delete.sql"),
        };
        vec![
            self.make("insert", include_str!("../../sql/extension/trigger_insert.sql"), insert, "", ""),
            self.make("delete", gone, delete, "", ""),
            self.make("move", include_str!("../../sql/extension/trigger_move.sql"), String::new(), "", ""),
        ]
    }

    /// The triggers that tell which row a write is about to overwrite, where they are wanted.
    fn told_before(&self) -> Vec<(String, String)> {
        if !self.table.tells_overwritten && self.sink != Sink::Inbox {
            return Vec::new();
        }
        let tag = self.tag(TagOp::Overwrite, 0);
        let insert = include_str!("../../sql/extension/trigger_before_insert.sql");
        let update = include_str!("../../sql/extension/trigger_before_update.sql");
        vec![self.make("before", insert, tag.clone(), "", ""), self.make("before_move", update, tag, "", "")]
    }

    /// No function is there to refuse a REAL key that equals an integer: plain triggers do it themselves.
    fn checks(&self) -> Vec<(String, String)> {
        let untyped = || self.table.keys.iter().filter(|k| k.untyped());
        if self.sink != Sink::Inbox || untyped().next().is_none() {
            return Vec::new();
        }
        let odd = list(untyped().map(|k| equals_integer(&k.name)), " OR ");
        let of = list(untyped().map(|k| Ident(&k.name)), ", ");
        let insert = include_str!("../../sql/extension/portable_check_insert.sql");
        let update = include_str!("../../sql/extension/portable_check_update.sql");
        vec![
            self.make("check", insert, String::new(), &odd, ""),
            self.make("check_move", update, String::new(), &odd, &of),
        ]
    }
}

/// The CREATE TRIGGER statements of a CRR, each with its trigger's name. SQLite fires the newest trigger first, so the
/// column groups are made last to first, that their touches come in column order.
pub fn triggers(table: &TableInfo, sink: Sink) -> Vec<(String, String)> {
    triggers_with(table, sink, Masks::Sum)
}

/// How a trigger's text puts a mask together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Masks {
    /// As a sum. SQLite adds two integers in place.
    Sum,
    /// By shifts and ors, as earlier builds did: SQLite calls its conversions for each.
    Shifted,
}

impl Masks {
    fn text(self, bits: impl Iterator<Item = (u32, String)>) -> String {
        let bit = |(bit, differs): (u32, String)| match (self, bit) {
            (Self::Shifted, _) => format!("(({differs})<<{bit})"),
            (Self::Sum, 0) => format!("({differs})"),
            (Self::Sum, _) => format!("CASE WHEN {differs} THEN {} ELSE 0 END", 1u64 << bit),
        };
        list(bits.map(bit), if self == Self::Sum { "+" } else { "|" })
    }
}

/// As [`triggers`], in a certain wording.
pub fn triggers_with(table: &TableInfo, sink: Sink, masks: Masks) -> Vec<(String, String)> {
    let templates = Templates::new(table, sink);
    let mut out = templates.on_keys();
    let update = match sink {
        Sink::Journal(_) => include_str!("../../sql/extension/trigger_update.sql"),
        Sink::Inbox => include_str!("../../sql/extension/portable_update.sql"),
    };
    for (i, (word, group)) in groups(table, sink).into_iter().enumerate().rev() {
        let mask = masks.text(group.iter().map(|(bit, c)| (*bit, differs(c, sink))));
        let of = list(group.iter().map(|(_, c)| Ident(&c.name)), ", ");
        let tag = templates.tag(TagOp::Update, word);
        out.push(templates.make(&format!("update_{i}"), update, tag, &mask, &of));
    }
    out.extend(templates.checks());
    out.extend(templates.told_before());
    out
}

/// A group of columns that share an update trigger: the number in its tag, and each column with its bit.
type Group<'t> = (usize, Vec<(u32, &'t Column)>);

/// The journal is told positions, which hold within a transaction. What an inbox holds may be read when the table has other
/// columns, so there the tag has the group's lowest column id, and a bit stands for that id plus its number.
fn groups(table: &TableInfo, sink: Sink) -> Vec<Group<'_>> {
    let size = starling_crdt::local::MASK_BITS as usize;
    if sink != Sink::Inbox {
        let numbered = table.columns.chunks(size).enumerate();
        return numbered.map(|(word, group)| (word, (0..).zip(group).collect())).collect();
    }
    let first = |group: &[Column]| group.iter().map(|c| c.id).min().unwrap_or(0);
    let wide = |group: &[Column]| group.iter().any(|c| c.id - first(group) > MAX_MASK_BIT);
    let size = if table.columns.chunks(size).any(wide) { 1 } else { size };
    let group = |group| (first(group) as usize, group.iter().map(|c: &Column| (c.id - first(group), c)).collect());
    table.columns.chunks(size).map(group).collect()
}

/// Whether a key that is about to be written is a REAL that equals an integer.
fn equals_integer(column: &str) -> String {
    let c = Ident(column);
    format!("(typeof(NEW.{c}) = 'real' AND NEW.{c} = CAST(NEW.{c} AS INTEGER))")
}

/// The triggers of a CRR within an alter window: no column is named, so that every column can be dropped. Only the
/// connection that opened the window writes then, so they go to the journal in either way of capture.
pub fn window_triggers(table: &TableInfo, file: u32) -> Vec<(String, String)> {
    let templates = Templates::new(table, Sink::Journal(file));
    let mut out = templates.on_keys();
    let template = include_str!("../../sql/extension/trigger_rewrite.sql");
    out.push(templates.make("rewrite", template, templates.tag(TagOp::Rewrite, 0), "", ""));
    out.extend(templates.told_before());
    out
}

/// Whether a column's old and new value differ as replicas see it: bytes and type, whatever the column's collation says
/// (E2), and −0.0 from 0.0 (X15) where a column keeps them apart.
fn differs(column: &Column, sink: Sink) -> String {
    let c = Ident(&column.name);
    let (new, old) = (format!("NEW.{c}"), format!("OLD.{c}"));
    let zeros = match sink {
        Sink::Journal(_) => zeros_differ(&new, &old),
        // No SQL can tell −0.0 from 0.0: to write a zero once more counts as a change.
        Sink::Inbox => format!("typeof({new}) = 'real'"),
    };
    not_same(column, &new, &old, &zeros)
}

fn zeros_differ(a: &str, b: &str) -> String {
    format!("starling_zeros_differ({a}, {b})")
}

/// Whether a value of a column is another one than `b`. `zeros`: whether they are, if both are 0.
fn not_same(column: &Column, a: &str, b: &str, zeros: &str) -> String {
    let bytes = format!("{a} IS NOT {b} COLLATE BINARY");
    if !column.untyped() {
        return bytes;
    }
    format!("{bytes} OR typeof({a}) IS NOT typeof({b}) OR ({a} = 0 AND {zeros})")
}

/// The condition that a row has the key in the parameters from `first` on.
pub fn key_match(table: &TableInfo, first: usize) -> String {
    list(table.keys.iter().enumerate().map(|(i, k)| format!("{} = ?{}", table.of(k), first + i)), " AND ")
}

impl TableInfo {
    /// A column, named with its table: a bare name in double quotes that is none any more (somebody has just renamed the column)
    /// would be a string to SQLite, and no error.
    fn of(&self, column: &Column) -> String {
        format!("{}.{}", Ident(&self.name), Ident(&column.name))
    }
}

/// `SELECT` of all columns of one row, by key.
pub fn select_row(table: &TableInfo) -> String {
    let columns =
        if table.columns.is_empty() { "1".to_string() } else { list(table.columns.iter().map(|c| table.of(c)), ", ") };
    format!("SELECT {columns} FROM main.{} WHERE {}", Ident(&table.name), key_match(table, 1))
}

/// Rows that [`select_batch`] looks up at once.
pub const BATCH: usize = 32;

/// As [`select_row`], for as many keys as a batch has: the number of each row's key, then the row's columns. Of a key that is NULL, none.
pub fn select_batch(table: &TableInfo) -> String {
    let width = table.keys.len();
    let key = |n: usize| list((1..=width).map(|i| format!("?{}", n * width + i)), ", ");
    let keys = list((0..BATCH).map(|n| format!("({n}, {})", key(n))), ", ");
    let names = list((0..width).map(|i| format!("k{i}")), ", ");
    let same = list(table.keys.iter().enumerate().map(|(i, k)| format!("{} = crsql_w.k{i}", table.of(k))), " AND ");
    let columns = list(table.columns.iter().map(|c| format!(", {}", table.of(c))), "");
    let (wanted, from) = (format!("WITH crsql_w(n, {names}) AS (VALUES{keys})"), Ident(&table.name));
    format!("{wanted} SELECT crsql_w.n{columns} FROM crsql_w CROSS JOIN main.{from} ON {same}")
}

/// `SELECT` of all rows: keys, then columns.
pub fn select_rows(table: &TableInfo) -> String {
    let all = list(table.keys.iter().chain(&table.columns).map(|c| table.of(c)), ", ");
    format!("SELECT {all} FROM main.{}", Ident(&table.name))
}

/// `SELECT` of the keys of rows where one of these columns does not hold its default, and for each whether it does not.
pub fn select_not_default(table: &TableInfo, columns: &[&Column]) -> String {
    let keys = list(table.keys.iter().map(|k| table.of(k)), ", ");
    let differs = |c: &&Column| {
        if c.defaults_vary() {
            // Elsewhere it comes to something else.
            return "1".to_string();
        }
        let (value, default) = (table.of(c), c.default());
        format!("({})", not_same(c, &value, &default, &zeros_differ(&value, &default)))
    };
    let flags = list(columns.iter().map(differs), ", ");
    let any = list(columns.iter().map(differs), " OR ");
    format!("SELECT {keys}, {flags} FROM main.{} WHERE {any} ORDER BY {keys}", Ident(&table.name))
}

/// `SELECT` of all columns' defaults.
pub fn select_defaults(table: &TableInfo) -> String {
    format!("SELECT {}", list(table.columns.iter().map(Column::default), ", "))
}

/// `SELECT` of all keys.
pub fn select_keys(table: &TableInfo) -> String {
    let keys = list(table.keys.iter().map(|k| table.of(k)), ", ");
    format!("SELECT {keys} FROM main.{} ORDER BY {keys}", Ident(&table.name))
}

/// Whether a row is there.
pub fn row_exists(table: &TableInfo) -> String {
    format!("SELECT 1 FROM main.{} WHERE {}", Ident(&table.name), key_match(table, 1))
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

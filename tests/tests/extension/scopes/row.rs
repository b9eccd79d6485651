//! What a row must become, by the rules alone. Shares no code with the extension.

use std::collections::BTreeMap;

/// A value. Of two types the later one here is the larger.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Value {
    Text(String),
    Integer(i64),
}

impl Value {
    /// Another one of the same type, so that writing it after this one is a write.
    pub fn other(&self) -> Self {
        match self {
            Self::Text(t) => Self::Text(format!("{t}u")),
            Self::Integer(i) => Self::Integer(i + 100),
        }
    }
}

/// One key: how often it was born or died, whether a key update gave it its first life, and its cells with their versions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    pub cl: u64,
    pub moved: bool,
    pub cells: BTreeMap<&'static str, (u64, Value)>,
}

impl Row {
    pub fn alive(&self) -> bool {
        self.cl % 2 == 1
    }

    /// The merge rule: the longer past wins the row, else each cell goes to the larger (version, value).
    pub fn merge(&mut self, other: &Self) {
        if other.cl > self.cl {
            *self = other.clone();
        } else if other.cl == self.cl && self.alive() {
            self.moved |= other.moved;
            for (name, cell) in &other.cells {
                let mine = self.cells.entry(name).or_insert_with(|| cell.clone());
                if *cell > *mine {
                    *mine = cell.clone();
                }
            }
        }
    }

    fn begin(&mut self, cells: &[(&'static str, Value)], moved: bool) {
        self.cl += 1;
        self.moved = moved && self.cl == 1;
        self.cells = cells.iter().map(|(name, value)| (*name, (1, value.clone()))).collect();
    }

    /// Keeps the lifetime and writes each cell once more. Where nothing is known of the key, a row may have been there.
    fn replace(&mut self, cells: &[(&'static str, Value)], moved: bool) {
        let known = self.cl > 0;
        if known && !self.alive() {
            return self.begin(cells, moved);
        }
        self.cl = self.cl.max(1);
        self.moved |= moved && self.cl == 1;
        for (name, value) in cells {
            let version = self.cells.get(name).map_or(1, |c| c.0);
            self.cells.insert(name, (version + 1, value.clone()));
        }
    }

    fn die(&mut self) {
        *self = Self { cl: self.cl + 1, ..Self::default() };
    }
}

/// A statement about the first key, or about both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sql {
    Insert,
    InsertOrIgnore,
    Replace,
    SetA,
    SetB,
    Delete,
    /// The first key becomes the second.
    Move,
    /// And the reverse.
    Back,
    /// The first key becomes the second, whatever is there.
    MoveOver,
}

/// Two keys of one replica.
pub type Rows = [Row; 2];

/// Runs a statement; whether it succeeded.
pub fn run(rows: &mut Rows, sql: Sql, columns: bool, a: &Value) -> bool {
    let fresh = if columns { vec![("a", a.clone()), ("b", Value::Integer(0))] } else { Vec::new() };
    let [first, second] = rows;
    match sql {
        Sql::Insert if first.alive() => return false,
        Sql::Insert => first.begin(&fresh, false),
        Sql::InsertOrIgnore if !first.alive() => first.begin(&fresh, false),
        Sql::Replace => first.replace(&fresh, false),
        Sql::SetA => write(first, "a", |_| a.other()),
        Sql::SetB => write(first, "b", |old| match old {
            Value::Integer(n) => Value::Integer(n + 1),
            Value::Text(_) => unreachable!("b holds integers"),
        }),
        Sql::Delete if first.alive() => first.die(),
        Sql::Move => return rename(first, second, false),
        Sql::Back => return rename(second, first, false),
        Sql::MoveOver => return rename(first, second, true),
        Sql::InsertOrIgnore | Sql::Delete => {}
    }
    true
}

fn write(row: &mut Row, name: &'static str, value: impl Fn(&Value) -> Value) {
    let alive = row.alive();
    if let Some(cell) = row.cells.get_mut(name).filter(|_| alive) {
        *cell = (cell.0 + 1, value(&cell.1));
    }
}

fn rename(from: &mut Row, to: &mut Row, over: bool) -> bool {
    if !from.alive() {
        return true;
    }
    if to.alive() && !over {
        return false;
    }
    let cells: Vec<_> = from.cells.iter().map(|(name, cell)| (*name, cell.1.clone())).collect();
    from.die();
    if over {
        to.replace(&cells, true);
    } else {
        to.begin(&cells, true);
    }
    true
}

/// What a transaction wrote, as its changeset tells it: a row that was made is told whole.
pub fn written(before: &Rows, after: &Rows) -> Rows {
    [0, 1].map(|i| {
        let (old, new) = (&before[i], &after[i]);
        if old.cl != new.cl || old == new {
            return if old == new { Row::default() } else { new.clone() };
        }
        let cells = new.cells.iter().filter(|(name, cell)| old.cells.get(*name) != Some(cell));
        Row { cells: cells.map(|(name, cell)| (*name, cell.clone())).collect(), ..new.clone() }
    })
}

//! The SQL of an ordered list: the templates of sql/extension/fract_*.sql, filled.

use super::list::{after, List};
use crate::sqlgen::{fill, list as join, Ident, Literal};

/// The name of the index that finds a row's neighbours.
pub fn index(table: &str) -> String {
    trigger(table, "order")
}

/// The CREATE statements, each with its object's name.
pub fn objects(list: &List) -> Vec<(String, String)> {
    let pend = include_str!("../../../sql/extension/fract_pend.sql");
    let update = format!("UPDATE OF {}", Ident(&list.order));
    let mut all = vec![
        object(list, trigger(&list.table, "insert"), pend, &[("event", "INSERT")]),
        object(list, trigger(&list.table, "update"), pend, &[("event", &update)]),
        (view(&list.table), create_view(list)),
        insert_into_view(list),
        update_of_view(list),
        move_in_view(list),
    ];
    if !list.indexed {
        all.push(create_index(list));
    }
    all
}

fn create_index(list: &List) -> (String, String) {
    let (name, columns) = (index(&list.table), join(list.lists.iter().chain([&list.order]).map(|c| Ident(c)), ", "));
    let values = [("index", &*Ident(&name).to_string()), ("columns", &*columns)];
    let sql = with_names(list, include_str!("../../../sql/extension/fract_index.sql"), &values);
    (name, sql)
}

/// Rows with an order value: key columns, list columns, the value, whether it is a key.
pub fn rows(list: &List) -> String {
    let columns = join(list.keys.iter().chain(&list.lists).map(|c| Ident(c)), ", ");
    let lists = list.lists.iter().map(|c| format!("{}, ", Ident(c))).collect::<String>();
    let keys = join(list.keys.iter().map(|c| Ident(c)), ", ");
    let template = include_str!("../../../sql/extension/fract_rows.sql");
    with_names(list, template, &[("columns", &columns), ("lists", &lists), ("keys", &keys)])
}

/// `UPDATE` of the order column (?1) of one row (key from ?2).
pub fn set_key(list: &List) -> String {
    let row = join(list.keys.iter().enumerate().map(|(i, k)| format!("{} = ?{}", Ident(k), i + 2)), " AND ");
    format!("UPDATE main.{} SET {} = ?1 WHERE {row}", Ident(&list.table), Ident(&list.order))
}

/// The name of the view.
pub fn view(table: &str) -> String {
    format!("{table}_fractindex")
}

fn trigger(table: &str, kind: &str) -> String {
    format!("{table}__fractindex_{kind}")
}

fn with_names(list: &List, template: &str, values: &[(&str, &str)]) -> String {
    let (table, order, view) =
        (Ident(&list.table).to_string(), Ident(&list.order).to_string(), Ident(&view(&list.table)).to_string());
    let in_list = same(&list.lists, "o", "NEW");
    let is_new_row = equal(list, |k| column("NEW", k), &Ident(&list.table).to_string());
    let mut all = vec![
        ("table", table.as_str()),
        ("order", &order),
        ("view", &view),
        ("in_list", &in_list),
        ("is_new_row", &is_new_row),
    ];
    all.extend_from_slice(values);
    fill(template, &all).trim_end().to_string()
}

fn object(list: &List, name: String, template: &str, values: &[(&str, &str)]) -> (String, String) {
    let quoted = Ident(&name).to_string();
    let mut all = vec![("trigger", quoted.as_str())];
    all.extend_from_slice(values);
    let sql = with_names(list, template, &all);
    (name, sql)
}

fn column(row: &str, name: &str) -> String {
    format!("{row}.{}", Ident(name))
}

fn new_after(key: &str) -> String {
    column("NEW", &after(key))
}

/// Two rows agree in these columns.
fn same(columns: &[String], left: &str, right: &str) -> String {
    if columns.is_empty() {
        return "1".to_string();
    }
    join(columns.iter().map(|c| format!("{} IS {}", column(left, c), column(right, c))), " AND ")
}

/// A row has the key that `value` gives.
fn equal(list: &List, value: impl Fn(&str) -> String, row: &str) -> String {
    join(list.keys.iter().map(|k| format!("{} = {}", column(row, k), value(k))), " AND ")
}

/// A key comes before another, column by column; with `or_equal` also where they are the same.
fn before(list: &List, left: impl Fn(&str) -> String, right: impl Fn(&str) -> String, or_equal: bool) -> String {
    let mut rest: Option<String> = None;
    for key in list.keys.iter().rev() {
        let (l, r) = (left(key), right(key));
        rest = Some(match rest {
            None if or_equal => format!("{l} <= {r}"),
            None => format!("{l} < {r}"),
            Some(rest) => format!("{l} < {r} OR ({l} = {r} AND ({rest}))"),
        });
    }
    format!("({})", rest.unwrap_or_else(|| "0".to_string()))
}

fn create_view(list: &List) -> String {
    let columns = join(list.columns.iter().map(|c| column("r", &c.name)), ", ");
    let same_list = same(&list.lists, "p", "r");
    let p_before_r = before(list, |k| column("p", k), |k| column("r", k), false);
    let desc = join(list.keys.iter().map(|k| format!("{} DESC", column("p", k))), ", ");
    let predecessor = |key: &String| {
        let values = [
            ("key", &*Ident(key).to_string()),
            ("after", &*Ident(&after(key)).to_string()),
            ("same_list", &*same_list),
            ("p_before_r", &*p_before_r),
            ("p_keys_desc", &*desc),
        ];
        with_names(list, include_str!("../../../sql/extension/fract_predecessor.sql"), &values)
    };
    let afters = join(list.keys.iter().map(predecessor), ", ");
    let template = include_str!("../../../sql/extension/fract_view.sql");
    with_names(list, template, &[("columns", &columns), ("afters", &afters)])
}

/// What the two triggers that place a row after another have in common.
struct Placing {
    is_after: String,
    no_after: String,
    x_in_list: String,
    no_such_row: String,
    new_key: String,
    untie: String,
}

impl Placing {
    /// `moved`: the row is in the table already, and no neighbour of itself.
    fn new(list: &List, moved: bool) -> Self {
        let table = Ident(&list.table).to_string();
        let other = |row: &str| {
            if moved {
                format!("NOT ({})", equal(list, |k| column("OLD", k), row))
            } else {
                "1".to_string()
            }
        };
        let is_after = equal(list, new_after, "x");
        let (is_other, row_is_other) = (other("o"), other(&table));
        let common = [("is_after", is_after.as_str()), ("is_other", &is_other)];
        let new_key = with_names(list, include_str!("../../../sql/extension/fract_key.sql"), &common);
        let order = Ident(&list.order);
        let tied = format!("(SELECT x.{order} FROM {table} AS x WHERE {is_after})");
        let in_list = same(&list.lists, "o", "NEW");
        let below = format!(
            "(SELECT o.{order} FROM {table} AS o WHERE {in_list} AND {is_other} AND starling_fract_is_key(o.{order}) \
             AND o.{order} COLLATE BINARY < {tied} ORDER BY o.{order} COLLATE BINARY DESC LIMIT 1)"
        );
        let untie = [
            ("is_other", is_other.as_str()),
            ("row_is_other", &row_is_other),
            ("tied", &tied),
            ("below", &below),
            ("row_in_list", &same(&list.lists, &table, "NEW")),
            ("up_to_row", &before(list, |k| column("o", k), |k| column(&table, k), true)),
            ("o_up_to_after", &before(list, |k| column("o", k), new_after, true)),
            ("row_up_to_after", &before(list, |k| column(&table, k), new_after, true)),
        ];
        let untie = with_names(list, include_str!("../../../sql/extension/fract_untie.sql"), &untie);
        let names = join(list.keys.iter().map(|k| after(k)), ", ");
        let no_such_row = format!("{}: there is no row with that {names} in this list", view(&list.table));
        Self {
            no_after: join(list.keys.iter().map(|k| format!("{} IS NULL", new_after(k))), " AND "),
            x_in_list: same(&list.lists, "x", "NEW"),
            no_such_row: Literal(&no_such_row).to_string(),
            is_after,
            new_key,
            untie,
        }
    }

    fn values(&self) -> [(&str, &str); 6] {
        [
            ("is_after", &self.is_after),
            ("no_after", &self.no_after),
            ("x_in_list", &self.x_in_list),
            ("no_such_row", &self.no_such_row),
            ("new_key", &self.new_key),
            ("untie", &self.untie),
        ]
    }
}

fn insert_into_view(list: &List) -> (String, String) {
    let placing = Placing::new(list, false);
    let stored = || list.columns.iter().filter(|c| c.stored);
    let columns = join(stored().map(|c| Ident(&c.name)), ", ");
    let values = stored().map(|c| {
        let new = column("NEW", &c.name);
        match &c.default {
            _ if c.name == list.order => {
                let (no_after, key) = (&placing.no_after, &placing.new_key);
                format!("CASE WHEN {no_after} AND {new} IS NOT NULL THEN {new} ELSE {key} END")
            }
            Some(default) => format!("coalesce({new}, ({default}))"),
            None => new,
        }
    });
    let values = join(values, ", ");
    let mut all = vec![("columns", columns.as_str()), ("values", &values)];
    all.extend(placing.values());
    object(
        list,
        trigger(&list.table, "view_insert"),
        include_str!("../../../sql/extension/fract_view_insert.sql"),
        &all,
    )
}

fn update_of_view(list: &List) -> (String, String) {
    let stored = || list.columns.iter().filter(|c| c.stored);
    let columns = join(stored().map(|c| Ident(&c.name)), ", ");
    let sets = stored().map(|c| {
        let (name, new) = (Ident(&c.name), column("NEW", &c.name));
        if c.name == list.order {
            // A move in the same statement has set it, or will.
            return format!("{name} = CASE WHEN {new} IS {} THEN {name} ELSE {new} END", column("OLD", &c.name));
        }
        format!("{name} = {new}")
    });
    let sets = join(sets, ", ");
    let is_old_row = equal(list, |k| column("OLD", k), &Ident(&list.table).to_string());
    let values = [("columns", columns.as_str()), ("sets", &sets), ("is_old_row", &is_old_row)];
    object(
        list,
        trigger(&list.table, "view_update"),
        include_str!("../../../sql/extension/fract_view_update.sql"),
        &values,
    )
}

fn move_in_view(list: &List) -> (String, String) {
    let placing = Placing::new(list, true);
    let afters: Vec<String> = list.keys.iter().map(|k| after(k)).collect();
    let view = view(&list.table);
    let one = format!("{view}: a move, and a new key or order value, need an UPDATE each");
    let itself = format!("{view}: a row cannot come after itself");
    let is_itself = join(list.keys.iter().map(|k| format!("{} = {}", new_after(k), column("OLD", k))), " AND ");
    let is_old_row = equal(list, |k| column("OLD", k), &Ident(&list.table).to_string());
    let mut all = vec![
        ("after_columns", join(afters.iter().map(|a| Ident(a)), ", ")),
        ("same_after", same(&afters, "NEW", "OLD")),
        ("same_list", same(&list.lists, "NEW", "OLD")),
        ("same_key", same(&list.keys, "NEW", "OLD")),
        ("one_at_a_time", Literal(&one).to_string()),
        ("after_itself", Literal(&itself).to_string()),
        ("is_itself", is_itself),
        ("is_old_row", is_old_row),
    ];
    all.extend(placing.values().map(|(name, value)| (name, value.to_string())));
    let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
    object(list, trigger(&list.table, "view_move"), include_str!("../../../sql/extension/fract_view_move.sql"), &all)
}

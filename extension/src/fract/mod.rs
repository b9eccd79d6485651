//! Ordered lists: `crsql_fract_as_ordered` and the functions of order keys.
//!
//! A list is the rows of a table that agree in the list columns, in the order of the order column, ties by primary key. The
//! order column holds keys (`starling_crdt::order_key`), and that of a CRR is replicated as any other. The triggers installed
//! here use functions only that an untrusted schema may call, and do nothing in merges: a merged key is final.

mod list;
mod sql;

use crate::schema::TableInfo;
use crate::session::{Session, Shared};
use crate::sqlgen::Ident;
use crate::sqlite::{codes, Args, Db, Error, Output, Result, ValueRef};
use list::List;
use starling_crdt::order_key;
use starling_crdt::Value;

/// `crsql_fract_key_between(a, b)`
pub fn key_between(_: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    const NAME: &str = "crsql_fract_key_between";
    let (a, b) = (side(args.get(0), NAME, "first")?, side(args.get(1), NAME, "second")?);
    order_key::key_between(a, b).map(Output::TextBytes).map_err(|e| no_key(NAME, a, b, e))
}

/// `starling_fract_nth_key(a, b, i, n)`: the i-th of n keys between two, for rows that share a key.
pub fn nth_key(_: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    const NAME: &str = "starling_fract_nth_key";
    let (a, b) = (side(args.get(0), NAME, "first")?, side(args.get(1), NAME, "second")?);
    let (ValueRef::Integer(i), ValueRef::Integer(n)) = (args.get(2), args.get(3)) else {
        return Err(Error::msg(format!("{NAME}: which key, and of how many, must be integers")));
    };
    let (i, n) = (u64::try_from(i).unwrap_or(1), u64::try_from(n).unwrap_or(1));
    order_key::nth_key_between(a, b, i, n).map(Output::TextBytes).map_err(|e| no_key(NAME, a, b, e))
}

/// `starling_fract_is_key(v)`
pub fn is_key(_: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    Ok(Output::Integer(i64::from(matches!(args.get(0), ValueRef::Text(key) if order_key::is_order_key(key)))))
}

/// `crsql_fract_as_ordered(table, order column, list columns…)`
pub fn as_ordered(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let mut names = Vec::with_capacity(args.len());
    for i in 0..args.len() {
        match args.get(i) {
            ValueRef::Text(name) => names.push(crate::schema::text(name)),
            _ => return Err(Error::msg(format!("{CALL}: every argument must be text, the name of a table or column"))),
        }
    }
    match names.as_slice() {
        [table, order, lists @ ..] => session.order_table(table, order, lists)?,
        _ => {
            return Err(Error::msg(format!("{CALL}(table, order column, list columns…): give at least the first two")))
        }
    }
    Ok(Output::Text("OK".to_string()))
}

/// Where the columns of a list that is no CRR are noted.
fn plain_list(table: &str) -> String {
    format!("ordered.{}", table.to_ascii_lowercase())
}

const CALL: &str = "crsql_fract_as_ordered";

fn side<'a>(value: ValueRef<'a>, function: &str, which: &str) -> Result<Option<&'a [u8]>> {
    match value {
        ValueRef::Null => Ok(None),
        ValueRef::Text(key) => Ok(Some(key)),
        _ => Err(Error::msg(format!("{function}: the {which} key must be text or NULL"))),
    }
}

fn no_key(function: &str, a: Option<&[u8]>, b: Option<&[u8]>, why: order_key::OrderKeyError) -> Error {
    let show = |key: Option<&[u8]>| {
        key.map_or_else(|| "NULL".to_string(), |k| format!("'{:.40}'", String::from_utf8_lossy(k)))
    };
    Error::msg(format!("{function}({}, {}): {why}", show(a), show(b)))
}

impl Session {
    /// Makes a table (a CRR, or one that may become one later) an ordered list, or several, one per value of the list columns. Doing it
    /// again with the same columns changes nothing.
    ///
    /// # Errors
    /// No such table or column, an order column that cannot hold keys in their order, or a name that is taken.
    fn order_table(&self, table: &str, order: &str, lists: &[String]) -> Result<()> {
        self.atomically(|| {
            // The lock first: whoever waits for it finds the table as it is then.
            self.join_transaction()?;
            let found = crate::schema::read(self.db, table)?;
            let info = found.ok_or_else(|| Error::msg(format!("{CALL}: no such table: {table}")))?;
            let list = List::new(self.db, &info, order, lists)?;
            self.key_rows_without_key(&info, &list)?;
            self.ensure_schema()?;
            self.refresh()?;
            if self.table_named(&info.name)?.is_some() {
                // Whatever was done to it in between, its triggers capture what the list's do.
                self.as_crr(None, &info.name, None)?;
            }
            self.install(&list)?;
            match self.table_named(&info.name)? {
                Some(crr) => self.remember_order(&crr.info, &list),
                None => self.remember_plain(&list),
            }
        })
    }

    /// Gives keys to rows whose order value is something else (positions, say): in their present order, after those that
    /// have keys. NULL stays: such a row has no place in the list.
    fn key_rows_without_key(&self, info: &TableInfo, list: &List) -> Result<()> {
        let (keys, lists) = (info.keys.len(), list.lists.len());
        let mut updates: Vec<(Vec<Value>, Vec<u8>)> = Vec::new();
        let mut rows = self.db.prepare_transient(&sql::rows(list))?;
        let mut current: Option<(Vec<Value>, Option<Vec<u8>>)> = None;
        while rows.step()? {
            let values =
                |from: usize, n: usize| (from..from + n).map(|i| rows.column(i).to_owned()).collect::<Vec<_>>();
            let place = values(keys, lists);
            let last = match current.take() {
                Some((list, last)) if list == place => last,
                _ => None,
            };
            let key = if rows.column_int(keys + lists + 1) == 1 {
                rows.column_text(keys + lists).to_vec()
            } else {
                let key = order_key::key_between(last.as_deref(), None)
                    .map_err(|e| no_key(CALL, last.as_deref(), None, e))?;
                updates.push((values(0, keys), key.clone()));
                key
            };
            current = Some((place, Some(key)));
        }
        drop(rows);
        if updates.is_empty() {
            return Ok(());
        }
        let mut update = self.db.prepare_transient(&sql::set_key(list))?;
        for (row, key) in &updates {
            update.bind_text(1, key)?;
            for (i, value) in row.iter().enumerate() {
                update.bind_value(i + 2, value.as_ref())?;
            }
            update.execute()?;
        }
        Ok(())
    }

    /// Makes view, triggers and index, unless they stand there as they ought to.
    fn install(&self, list: &List) -> Result<()> {
        let wanted = sql::objects(list);
        let mut complete = true;
        for (name, sql) in &wanted {
            complete &= self.object(name)?.is_some_and(|found| found == *sql);
        }
        if complete {
            return Ok(());
        }
        self.uninstall(&list.table)?;
        for (_, sql) in &wanted {
            self.db.exec(&crate::sqlgen::in_main(sql))?;
        }
        Ok(())
    }

    /// Drops what `install` made on a table, also under a name that it had before; what others made under such names stays.
    fn uninstall(&self, table: &str) -> Result<()> {
        let view = sql::view(table);
        if self.object(&view)?.is_some_and(|sql| sql.contains("crsql_fract_")) {
            // Its triggers go with it.
            self.db.exec(&format!("DROP VIEW main.{}", Ident(&view)))?;
        }
        let mut made = Vec::new();
        {
            let mut all = self.db.prepare_transient(
                "SELECT type, name FROM main.sqlite_master WHERE type IN ('trigger', 'index') \
                 AND lower(tbl_name) = lower(?1) AND name LIKE '%\\_\\_fractindex\\_%' ESCAPE '\\' \
                 AND instr(sql, 'crsql_fract_') > 0",
            )?;
            all.bind_text(1, table)?;
            while all.step()? {
                made.push((crate::schema::text(all.column_text(0)), crate::schema::text(all.column_text(1))));
            }
        }
        for (kind, name) in made {
            self.db.exec(&format!("DROP {kind} main.{}", Ident(&name)))?;
        }
        Ok(())
    }

    /// The SQL text of a view, trigger or index.
    fn object(&self, name: &str) -> Result<Option<String>> {
        let mut find = self.db.prepare_transient(
            "SELECT sql FROM main.sqlite_master WHERE type IN ('view', 'trigger', 'index') AND lower(name) = lower(?1)",
        )?;
        find.bind_text(1, name)?;
        Ok(if find.step()? { Some(crate::schema::text(find.column_text(0))) } else { None })
    }

    /// Notes the columns by their stable ids, so that a rebuilt table gets its order back.
    fn remember_order(&self, info: &TableInfo, list: &List) -> Result<()> {
        let id = |name: &String| info.keys.iter().chain(&info.columns).find(|c| c.name == *name).map_or(0, |c| c.id);
        let ids: Vec<String> = std::iter::once(&list.order).chain(&list.lists).map(|n| id(n).to_string()).collect();
        let ids = ids.join(",");
        self.set_table_note("fract", info.id, &ids)
    }

    /// Notes the columns of a list that is no CRR, by name, for the day when it becomes one.
    fn remember_plain(&self, list: &List) -> Result<()> {
        let names = std::iter::once(&list.order).chain(&list.lists).map(|name| ValueRef::Text(name.as_bytes()));
        let names: Vec<ValueRef<'_>> = names.collect();
        let names = starling_crdt::key::pack(names.into_iter()).map_err(|e| Error::msg(format!("{CALL}: {e}")))?;
        let mut put =
            self.db.prepare_transient("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES(?1, ?2)")?;
        put.bind_text(1, plain_list(&list.table))?;
        put.bind_blob(2, &names)?;
        put.execute()
    }

    /// A table that has become a CRR is the list that it was before, if its view is there still.
    pub fn adopt_order(&self, name: &str) -> Result<()> {
        let mut find = self.db.prepare_transient("SELECT value FROM main.crsql_master WHERE key = ?1")?;
        find.bind_text(1, plain_list(name))?;
        if !find.step()? {
            return Ok(());
        }
        let unpacked = starling_crdt::key::unpack(find.column_blob(0)).unwrap_or_default();
        let names: Vec<String> = unpacked.iter().map(|name| crate::schema::text(name.bytes())).collect();
        drop(find);
        let mut forget = self.db.prepare_transient("DELETE FROM main.crsql_master WHERE key = ?1")?;
        forget.bind_text(1, plain_list(name))?;
        forget.execute()?;
        match self.object(&sql::view(name))? {
            Some(view) if view.contains("crsql_fract_") => self.order_anew(name, &names),
            _ => Ok(()),
        }
    }

    /// Makes view and triggers anew for a table that was rebuilt or altered. Where its columns went, the order goes too.
    pub fn keep_order(&self, info: &TableInfo) -> Result<()> {
        let Some(ids) = self.remembered_order(info.id)? else { return Ok(()) };
        let names: Option<Vec<String>> = ids
            .iter()
            .map(|id| info.keys.iter().chain(&info.columns).find(|c| c.id == *id && *id != 0).map(|c| c.name.clone()))
            .collect();
        let list = match names.as_deref() {
            Some([order, lists @ ..]) => List::new(self.db, info, order, lists).ok(),
            _ => None,
        };
        match list {
            Some(list) => match self.atomically(|| self.install(&list)) {
                // A name is taken: no reason to leave tables untracked. The next crsql_fract_as_ordered says so.
                Err(e) if e.primary() == codes::ERROR => Ok(()),
                other => other,
            },
            None => self.forget_order(info.id, &info.name),
        }
    }

    /// Drops view and triggers until `keep_order` makes them anew: for the time of an alter window, where a view that names
    /// a column would keep it from being dropped, and under a name that the table does not have any more.
    pub fn pause_order(&self, id: u32, name: &str) -> Result<()> {
        match self.remembered_order(id)? {
            Some(_) => self.uninstall(name),
            None => Ok(()),
        }
    }

    /// Drops view and triggers of a table that is an ordered list no more, or is gone.
    pub fn forget_order(&self, id: u32, name: &str) -> Result<()> {
        if self.remembered_order(id)?.is_none() {
            return Ok(());
        }
        self.uninstall(name)?;
        self.drop_table_note("fract", id)
    }

    /// The columns that make a table an ordered list, by the names that they had when it was last looked at; empty where it is
    /// none, or where one of them is gone.
    pub fn order_by_name(&self, id: u32) -> Result<Vec<String>> {
        let ids = self.remembered_order(id)?.unwrap_or_default();
        let listed = self.all_listed_columns(id)?;
        let name = |id: u32| listed.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone());
        // All of them or none: with fewer list columns, lists that have nothing to do with each other would become one.
        Ok(ids.into_iter().map(name).collect::<Option<_>>().unwrap_or_default())
    }

    /// A table that began anew is the list that it was, if it can be.
    pub fn order_anew(&self, table: &str, names: &[String]) -> Result<()> {
        let ([order, lists @ ..], Some(table)) = (names, self.table_named(table)?) else { return Ok(()) };
        if let Ok(list) = List::new(self.db, &table.info, order, lists) {
            self.remember_order(&table.info, &list)?;
        }
        self.keep_order(&table.info)
    }

    fn remembered_order(&self, id: u32) -> Result<Option<Vec<u32>>> {
        let ids = self.table_note("fract", id)?;
        Ok(ids.map(|ids| ids.split(',').map(|id| id.parse().unwrap_or(0)).collect()))
    }
}

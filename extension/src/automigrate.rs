//! `crsql_automigrate(schema[, cleanup])`: brings the database to the tables and indexes that a schema text describes, and
//! keeps the data.
//!
//! The text is run in a scratch database first, so SQLite itself says what it means. Then each table that differs is
//! altered where ALTER TABLE can, else made anew and its rows copied; CRRs within an alter window. All of it or nothing.

use crate::portable::Capture;
use crate::schema;
use crate::session::Session;
use crate::sql_text::{create_table, first_token, normal_form, written_table, CreateTable};
use crate::sqlgen::{Ident, Literal, JOURNAL};
use crate::sqlite::{Db, Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Schema objects by name, in lower case as SQLite compares names.
type Objects = BTreeMap<String, Object>;

#[derive(Clone, Debug)]
struct Object {
    name: String,
    sql: String,
    /// The table that it belongs to.
    table: String,
}

/// What a schema text describes.
struct Wanted {
    tables: Objects,
    indexes: Objects,
    /// Views and triggers: made where they are missing or differ, never dropped.
    others: Objects,
    /// Statements that write rows, or one of the numbers that a file has for its application.
    writes: Vec<String>,
    /// Tables that the text makes CRRs, and the way of capture where it asks for another one than the default.
    crrs: Vec<(String, Option<Capture>)>,
}

/// What a statement of a schema text is, besides what it makes of the scratch database.
enum Step {
    /// It writes rows of a table, or a number that a file has for its application.
    Writes { table: Option<String> },
    /// It undoes something, or what comes before it is about other tables: what the text writes is not what it comes to.
    Controls,
    /// It says what tables there are to be, or nothing.
    Describes,
}

fn step_of(sql: &str) -> Step {
    if let table @ Some(_) = written_table(sql) {
        return Step::Writes { table };
    }
    let form = normal_form(sql);
    let mut words = form.split([' ', '.', '=', '(', ';']).filter(|word| !word.is_empty());
    match words.next() {
        Some("pragma") if words.any(|word| word == "user_version" || word == "application_id") => {
            Step::Writes { table: None }
        }
        Some("begin" | "commit" | "end" | "rollback" | "savepoint" | "release" | "drop" | "alter" | "attach") => {
            Step::Controls
        }
        Some("create") if matches!(words.next(), Some("temp" | "temporary")) => Step::Controls,
        _ => Step::Describes,
    }
}

impl Session {
    /// Migrates.
    ///
    /// # Errors
    /// The text is not valid SQL, a table cannot become what it describes, or what SQLite says; then nothing has changed.
    pub fn automigrate(&self, schema_sql: &str, cleanup: Option<&str>) -> Result<()> {
        let wanted = self.wanted(schema_sql)?;
        self.ensure_schema()?;
        self.atomically(|| {
            self.join_transaction()?;
            self.flush()?;
            let there = objects(self.db, "table")?;
            for (_, gone) in there.iter().filter(|(name, _)| !wanted.tables.contains_key(*name)) {
                self.drop_table(&gone.name)?;
            }
            for (name, object) in &wanted.tables {
                match there.get(name) {
                    Some(old) => self.migrate_table(&old.name, &old.sql, &object.sql)?,
                    None => self.db.exec(&object.sql)?,
                }
            }
            self.migrate_indexes(&wanted.indexes)?;
            for kind in ["view", "trigger"] {
                self.migrate_others(kind, &wanted)?;
            }
            for (name, capture) in &wanted.crrs {
                self.as_crr(None, name, *capture)?;
            }
            wanted.writes.iter().try_for_each(|sql| self.db.exec(sql))?;
            cleanup.map_or(Ok(()), |sql| self.db.exec(sql))?;
            self.refresh()?;
            self.retry_aside().map(drop)
        })
    }

    /// Runs the schema text where it can do no harm.
    fn wanted(&self, schema_sql: &str) -> Result<Wanted> {
        let scratch = self.db.scratch()?;
        if scratch.prepare_transient("SELECT starling_version()").is_err() {
            crate::register(*scratch)?;
        }
        let (mut writes, mut controls) = (Vec::new(), false);
        scratch
            .exec_each(schema_sql, &mut |sql| match step_of(sql) {
                Step::Writes { table } => writes.push((table, sql.to_string())),
                Step::Controls => controls = true,
                Step::Describes => {}
            })
            .map_err(|e| Error::new(e.code, format!("crsql_automigrate: the schema: {}", e.message)))?;
        let mut crrs = Vec::new();
        let mut active = scratch.prepare_transient(
            "SELECT t.name, m.value FROM crsql_table AS t LEFT JOIN crsql_master AS m ON m.key = 'capture.' || t.id \
             WHERE t.active = 1 ORDER BY t.name",
        )?;
        while active.step()? {
            crrs.push((schema::text(active.column_text(0)), Capture::named(&schema::text(active.column_text(1)))));
        }
        let mut others = objects(*scratch, "view")?;
        others.extend(objects(*scratch, "trigger")?);
        let (tables, indexes) = (objects(*scratch, "table")?, objects(*scratch, "index")?);
        let lasts = |table: &Option<String>| table.as_ref().is_none_or(|name| tables.contains_key(name));
        writes.retain(|(table, _)| !controls && lasts(table));
        let writes = writes.into_iter().map(|(_, sql)| sql).collect();
        Ok(Wanted { tables, indexes, others, writes, crrs })
    }

    fn drop_table(&self, name: &str) -> Result<()> {
        if self.table_named(name)?.is_some() {
            self.as_table(name)?;
        }
        self.db.exec(&format!("DROP TABLE main.{}", Ident(name)))
    }

    fn migrate_table(&self, name: &str, old: &str, new: &str) -> Result<()> {
        let (Some(from), Some(to)) = (create_table(old), create_table(new)) else {
            // A virtual table without arguments.
            return if normal_form(old) == normal_form(new) {
                Ok(())
            } else {
                Err(cannot(name, "it is a virtual table"))
            };
        };
        if normal_form(from.body) == normal_form(to.body) {
            return Ok(());
        }
        if schema::is_virtual(self.db, name)? {
            return Err(cannot(name, "it is a virtual table"));
        }
        let crr = self.table_named(name)?.is_some();
        if crr {
            self.begin_alter(name)?;
        }
        let altered = self.alter_in_place(name, &from, &to)?;
        if !altered {
            self.rebuild(name, &to)?;
        }
        if crr {
            self.commit_alter(name)?;
        }
        Ok(())
    }

    /// Adds and drops columns where that is all it takes; `false` leaves the table as it was.
    fn alter_in_place(&self, name: &str, from: &CreateTable<'_>, to: &CreateTable<'_>) -> Result<bool> {
        let Some(steps) = steps(from, to) else { return Ok(false) };
        let altered = self.atomically(|| {
            for step in &steps {
                self.db.exec(&format!("ALTER TABLE main.{} {step}", Ident(name)))?;
            }
            Ok(())
        });
        // SQLite refuses some (a column that an index names, NOT NULL without a default): the table is made anew then.
        Ok(altered.is_ok() && !self.db.is_autocommit())
    }

    /// Makes the table anew, copies the columns that both have, and puts back the triggers that it had.
    fn rebuild(&self, name: &str, to: &CreateTable<'_>) -> Result<()> {
        if self.is_referenced(name)? {
            return Err(cannot(
                name,
                "other tables refer to it by foreign keys; turn PRAGMA foreign_keys off meanwhile",
            ));
        }
        let mut triggers = objects(self.db, "trigger")?;
        triggers.retain(|_, t| t.table.eq_ignore_ascii_case(name));
        let fresh = format!("crsql_new_{name}");
        self.db.exec(&format!("CREATE TABLE main.{} {}", Ident(&fresh), to.body))?;
        let (old, new) = (stored_columns(self.db, name)?, stored_columns(self.db, &fresh)?);
        let kept: Vec<String> = new.iter().filter(|c| old.contains(c)).map(|c| Ident(c).to_string()).collect();
        if !kept.is_empty() {
            let kept = kept.join(", ");
            self.db
                .exec(&format!("INSERT INTO main.{}({kept}) SELECT {kept} FROM main.{}", Ident(&fresh), Ident(name)))
                .map_err(|e| {
                    Error::new(e.code, format!("crsql_automigrate: rows of {}: {}", Ident(name), e.message))
                })?;
        }
        self.db.exec(&format!("DROP TABLE main.{}", Ident(name)))?;
        self.without_reference_checks(|| {
            self.db.exec(&format!("ALTER TABLE main.{} RENAME TO {}", Ident(&fresh), Ident(name)))
        })?;
        triggers.values().try_for_each(|t| self.db.exec(&t.sql))
    }

    /// Runs a rename that leaves views and triggers of others as they are: they name the table that is just being replaced.
    fn without_reference_checks(&self, rename: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut ask = self.db.prepare_transient("PRAGMA legacy_alter_table")?;
        let before = ask.step()? && ask.column_int(0) != 0;
        drop(ask);
        self.db.exec("PRAGMA legacy_alter_table = ON")?;
        let result = rename();
        if !before {
            self.db.exec("PRAGMA legacy_alter_table = OFF")?;
        }
        result
    }

    /// Whether dropping the table would reach into others.
    fn is_referenced(&self, name: &str) -> Result<bool> {
        let mut on = self.db.prepare_transient("PRAGMA foreign_keys")?;
        if !on.step()? || on.column_int(0) == 0 {
            return Ok(false);
        }
        for other in objects(self.db, "table")?.values() {
            let list = format!("PRAGMA main.foreign_key_list({})", Literal(&other.name));
            let mut keys = self.db.prepare_transient(&list)?;
            while keys.step()? {
                if schema::text(keys.column_text(2)).eq_ignore_ascii_case(name) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn migrate_indexes(&self, wanted: &Objects) -> Result<()> {
        let there = objects(self.db, "index")?;
        let same = |name: &str, old: &Object| {
            wanted.get(name).is_some_and(|new| normal_form(&new.sql) == normal_form(&old.sql))
        };
        for (_, old) in there.iter().filter(|(name, old)| !same(name, old)) {
            self.db.exec(&format!("DROP INDEX main.{}", Ident(&old.name)))?;
        }
        for (_, new) in wanted.iter().filter(|(name, _)| !there.get(*name).is_some_and(|old| same(name, old))) {
            self.db.exec(&new.sql)?;
        }
        Ok(())
    }

    fn migrate_others(&self, kind: &str, wanted: &Wanted) -> Result<()> {
        let there = objects(self.db, kind)?;
        let of_kind = |o: &Object| create_kind(&o.sql) == kind;
        for (name, new) in wanted.others.iter().filter(|(_, o)| of_kind(o)) {
            match there.get(name) {
                Some(old) if normal_form(&old.sql) == normal_form(&new.sql) => continue,
                Some(old) => self.db.exec(&format!("DROP {kind} main.{}", Ident(&old.name)))?,
                None => {}
            }
            self.db.exec(&new.sql)?;
        }
        Ok(())
    }
}

fn cannot(name: &str, why: &str) -> Error {
    Error::msg(format!("crsql_automigrate: table {} cannot be changed to what the schema says: {why}", Ident(name)))
}

/// The second or third word of a CREATE statement: `view`, `trigger`.
fn create_kind(sql: &str) -> &'static str {
    let normal = normal_form(sql);
    let first = normal.split(' ').find(|w| matches!(*w, "view" | "trigger" | "table" | "index"));
    match first {
        Some("view") => "view",
        Some("trigger") => "trigger",
        _ => "",
    }
}

/// The application's own schema objects of a kind, by name.
fn objects(db: Db, kind: &str) -> Result<Objects> {
    let mut shadows = BTreeSet::new();
    // Tables that belong to virtual ones come and go with these. (An old library does not tell them.)
    if let Ok(mut list) = db.prepare_transient("SELECT name FROM pragma_table_list WHERE type = 'shadow'") {
        while list.step()? {
            shadows.insert(schema::text(list.column_text(0)));
        }
    }
    let mut all = db.prepare_transient(
        "SELECT name, sql, tbl_name FROM main.sqlite_master WHERE type = ?1 AND sql IS NOT NULL \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'crsql\\_%' ESCAPE '\\' AND instr(sql, ?2) = 0 \
         AND instr(sql, 'INTO crsql_inbox_') = 0 AND instr(sql, 'starling: a REAL key') = 0",
    )?;
    all.bind_text(1, kind)?;
    all.bind_text(2, JOURNAL)?;
    let mut out = Objects::new();
    while all.step()? {
        let name = schema::text(all.column_text(0));
        if !shadows.contains(&name) {
            let (sql, table) = (schema::text(all.column_text(1)), schema::text(all.column_text(2)));
            out.insert(name.to_ascii_lowercase(), Object { name, sql, table });
        }
    }
    Ok(out)
}

/// Columns that hold values of their own.
fn stored_columns(db: Db, table: &str) -> Result<Vec<String>> {
    let mut all = db.prepare_transient(&format!("PRAGMA main.table_xinfo({})", Literal(table)))?;
    let mut out = Vec::new();
    while all.step()? {
        if all.column_int(6) == 0 {
            out.push(schema::text(all.column_text(1)));
        }
    }
    Ok(out)
}

/// What ALTER TABLE must do to get from one table to the other; `None` where it cannot.
fn steps(from: &CreateTable<'_>, to: &CreateTable<'_>) -> Option<Vec<String>> {
    if normal_form(from.options) != normal_form(to.options) {
        return None;
    }
    let normal = |d: &CreateTable<'_>| -> Vec<String> { d.definitions.iter().map(|t| normal_form(t)).collect() };
    let (old, new) = (normal(from), normal(to));
    let gone: Vec<&String> = old.iter().filter(|d| !new.contains(d)).collect();
    let came: Vec<(usize, &String)> = new.iter().enumerate().filter(|(_, d)| !old.contains(d)).collect();
    let kept_in_order = old.iter().filter(|d| new.contains(d)).eq(new.iter().filter(|d| old.contains(d)));
    let constraint =
        |d: &str| matches!(first_token(d), Some("constraint" | "primary" | "unique" | "check" | "foreign"));
    let name = |text: &str| first_token(text).map(normal_form);
    let text_of = |i: usize| to.definitions.get(i).copied().unwrap_or_default();
    let drops: Vec<&str> =
        from.definitions.iter().zip(&old).filter(|(_, d)| gone.contains(d)).map(|(text, _)| *text).collect();
    let changed = came.iter().any(|(i, _)| drops.iter().any(|text| name(text) == name(text_of(*i))));
    if !kept_in_order || changed || gone.iter().any(|d| constraint(d)) || came.iter().any(|(_, d)| constraint(d)) {
        return None;
    }
    // New columns come last, before the table's constraints.
    let columns = new.iter().take_while(|d| !constraint(d)).count();
    if came.iter().any(|(i, _)| *i + came.len() < columns) {
        return None;
    }
    let drop_steps = drops.iter().filter_map(|text| Some(format!("DROP COLUMN {}", first_token(text)?)));
    let add_steps = came.iter().map(|(i, _)| format!("ADD COLUMN {}", text_of(*i)));
    Some(add_steps.chain(drop_steps).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(from: &str, to: &str) -> Option<Vec<String>> {
        let (from, to) = (format!("CREATE TABLE t({from})"), format!("CREATE TABLE t({to})"));
        steps(&create_table(&from).expect("a table"), &create_table(&to).expect("a table"))
    }

    #[test]
    fn alter_table_does_what_it_can() {
        let add = vec!["ADD COLUMN c TEXT DEFAULT 'x, y'".to_string()];
        assert_eq!(between("id INT, b", "id int, b, c TEXT DEFAULT 'x, y'"), Some(add.clone()));
        assert_eq!(between("id INT, b, CHECK (b)", "id int, b, c TEXT DEFAULT 'x, y', CHECK (b)"), Some(add));
        assert_eq!(between("id INT, b, c", "id INT, c"), Some(vec!["DROP COLUMN b".to_string()]));
        assert_eq!(between("id INT, b", "id INT, c, b"), None, "not at the end");
        assert_eq!(between("id INT, b", "id INT, b TEXT"), None, "another type");
        assert_eq!(between("id INT, b, c", "id INT, c, b"), None, "another order");
        assert_eq!(between("id INT, b", "id INT, b, CHECK (b)"), None, "another constraint");
    }
}

//! Running a body of SQL as one transaction, and its answer in JSON.

use super::guard::{Asker, Guard};
use crate::gate::WriteGate;
use crate::limits::{MAX_RESULT_BYTES, STATEMENT_TIMEOUT};
use axum::http::StatusCode;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{ffi, Batch, Connection, ErrorCode, Statement};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// A body that was run.
#[derive(Debug)]
pub struct Outcome {
    /// The answer.
    pub json: String,
}

/// Where in the body an error is.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes before it.
    pub offset: usize,
    /// Its line, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
}

/// A request that was not done.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
}

impl Refusal {
    /// Without a place.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), place: None }
    }
}

/// A connection that runs bodies.
#[derive(Debug)]
pub struct Executor {
    conn: Connection,
    guard: Guard,
    installed: Instant,
}

/// How a body must be begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

#[derive(Default)]
struct Results {
    wrote: bool,
    rows_affected: u64,
    /// `"columns":[…],"rows":[…]` of the last statement that returns rows.
    rows: Option<String>,
}

/// Why a body stopped; the place is known later.
enum Stop {
    Sql(rusqlite::Error),
    Refused(Refusal),
}

impl From<rusqlite::Error> for Stop {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sql(e)
    }
}

impl Executor {
    /// Puts a connection under guard.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new(mut conn: Connection) -> rusqlite::Result<Self> {
        let guard = Guard::install(&mut conn)?;
        Ok(Self { conn, guard, installed: Instant::now() })
    }

    /// Runs a body. A writing one waits for its turn at the gate first, and runs to its end; one that only reads is given up when nobody
    /// asks any more.
    ///
    /// # Errors
    /// Nothing of the body was done.
    pub fn execute(&mut self, sql: &str, asker: Asker, gate: &WriteGate) -> Result<Outcome, Refusal> {
        let start = Instant::now();
        self.guard.set_deadline(self.installed.elapsed(), STATEMENT_TIMEOUT);
        let result = self.attempt(sql, asker, gate, start);
        self.guard.clear_deadline();
        roll_back_if_open(&self.conn);
        result.map_err(|stop| self.refusal(sql, stop))
    }

    fn attempt(&self, sql: &str, asker: Asker, gate: &WriteGate, start: Instant) -> Result<Outcome, Stop> {
        if self.classify(sql)? == Kind::Read {
            self.guard.run_for(asker);
            self.conn.execute_batch("BEGIN DEFERRED")?;
            let results = self.run(sql)?;
            self.conn.execute_batch("COMMIT")?;
            return Ok(results.answer(None, start.elapsed()));
        }
        let _pass = gate.enter();
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        self.guard.set_deadline(self.installed.elapsed(), STATEMENT_TIMEOUT);
        let results = self.run(sql)?;
        // Writes to portable tables get their version in this transaction too.
        self.number("SELECT starling_drain()")?;
        let next = self.number("SELECT crsql_next_db_version()")?;
        self.conn.execute_batch("COMMIT")?;
        // The version that the transaction would get is the database's version now, exactly if it changed a CRR.
        let reached = self.number("SELECT crsql_db_version()")?;
        Ok(results.answer((reached >= next).then_some(next), start.elapsed()))
    }

    fn number(&self, sql: &str) -> rusqlite::Result<i64> {
        self.conn.prepare_cached(sql)?.query_row([], |r| r.get(0))
    }

    /// Prepares all statements once. One that cannot be prepared may need an earlier one of the body to have run, so it makes a
    /// writing body; what is wrong with it shows then. The very first has no such excuse.
    fn classify(&self, sql: &str) -> Result<Kind, Stop> {
        let (mut batch, mut kind, mut first) = (Batch::new(&self.conn, sql), Kind::Read, true);
        let _ = self.guard.take_writes();
        loop {
            match self.guard.guarded(|| batch.next()) {
                Ok(None) if first => {
                    let refusal = Refusal::new(StatusCode::BAD_REQUEST, "the body holds no statement");
                    return Err(Stop::Refused(refusal));
                }
                Ok(None) => return Ok(kind),
                Ok(Some(statement)) => {
                    if !statement.readonly() || self.guard.take_writes() {
                        kind = Kind::Write;
                    }
                }
                Err(e) if first || kind == Kind::Read => return Err(e.into()),
                Err(_) => return Ok(Kind::Write),
            }
            first = false;
        }
    }

    fn run(&self, sql: &str) -> Result<Results, Stop> {
        let (mut batch, mut results) = (Batch::new(&self.conn, sql), Results::default());
        while let Some(mut statement) = self.guard.guarded(|| batch.next())? {
            if statement.parameter_count() > 0 {
                let message = "parameters (?, :name) cannot be bound here; write the values into the SQL";
                return Err(Stop::Refused(Refusal::new(StatusCode::BAD_REQUEST, message)));
            }
            let writes = !statement.readonly();
            results.wrote |= writes;
            let before = self.conn.total_changes();
            if statement.column_count() > 0 {
                results.rows = Some(collect(&mut statement)?);
            } else {
                statement.raw_execute()?;
            }
            if writes && self.conn.total_changes() != before {
                results.rows_affected += self.conn.changes();
            }
        }
        if self.conn.is_autocommit() {
            let message = "a trigger rolled the transaction back";
            return Err(Stop::Refused(Refusal::new(StatusCode::CONFLICT, message)));
        }
        Ok(results)
    }

    fn refusal(&self, sql: &str, stop: Stop) -> Refusal {
        let error = match stop {
            Stop::Refused(refusal) => return refusal,
            Stop::Sql(error) => error,
        };
        if let Some(denied) = self.guard.take_denied() {
            return Refusal::new(StatusCode::FORBIDDEN, format!("not allowed over HTTP: {denied}"));
        }
        if self.guard.timed_out() {
            let message = format!("interrupted after {} s, nothing was changed", STATEMENT_TIMEOUT.as_secs());
            return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message);
        }
        let status = match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => StatusCode::CONFLICT,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StatusCode::SERVICE_UNAVAILABLE,
            Some(
                ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory,
            ) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Refusal { status, message: message(&error), place: place(sql, &error) }
    }
}

fn roll_back_if_open(conn: &Connection) {
    if !conn.is_autocommit() {
        let _ = conn.execute_batch("ROLLBACK");
    }
}

fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } | rusqlite::Error::SqliteFailure(_, Some(msg)) => msg.clone(),
        rusqlite::Error::SqliteFailure(ffi::Error { extended_code, .. }, None) => {
            ffi::code_to_str(*extended_code).to_owned()
        }
        other => other.to_string(),
    }
}

/// The place of an error. SQLite gives it within the text that it was handed, which is the rest of the body.
fn place(body: &str, error: &rusqlite::Error) -> Option<Place> {
    let rusqlite::Error::SqlInputError { sql, offset, .. } = error else { return None };
    let within = usize::try_from(*offset).ok()?;
    let offset = body.len().checked_sub(sql.len())? + within;
    let before = body.get(..offset)?;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Some(Place { offset, line, column })
}

fn collect(statement: &mut Statement<'_>) -> Result<String, Stop> {
    let mut json = String::from("\"columns\":[");
    for (i, name) in statement.column_names().enumerate() {
        separate(&mut json, i);
        push_text(&mut json, name);
    }
    json.push_str("],\"rows\":[");
    let (columns, mut n) = (statement.column_count(), 0);
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        separate(&mut json, n);
        json.push('[');
        for i in 0..columns {
            separate(&mut json, i);
            let value = row.get_ref(i)?;
            // Value by value: one row may hold a thousand large ones.
            if json.len() + least_length(value) > MAX_RESULT_BYTES {
                let message = format!("the result is larger than {MAX_RESULT_BYTES} bytes; ask for less with LIMIT");
                return Err(Stop::Refused(Refusal::new(StatusCode::BAD_REQUEST, message)));
            }
            push_value(&mut json, value);
        }
        json.push(']');
        n += 1;
    }
    json.push(']');
    Ok(json)
}

fn separate(json: &mut String, i: usize) {
    if i > 0 {
        json.push(',');
    }
}

/// What a value takes as JSON at least.
const fn least_length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(text) => text.len(),
        ValueRef::Blob(bytes) => 2 * bytes.len(),
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Null => 1,
    }
}

fn push_value(json: &mut String, value: ValueRef<'_>) {
    match value {
        ValueRef::Integer(n) => {
            let _ = write!(json, "{n}");
        }
        // JSON has no infinities; a whole REAL keeps its point, so that it stays one.
        ValueRef::Real(x) if x.is_finite() => json.push_str(&serde_json::Value::from(x).to_string()),
        ValueRef::Real(_) | ValueRef::Null => json.push_str("null"),
        ValueRef::Text(text) => push_text(json, &String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => {
            json.push('[');
            for (i, byte) in bytes.iter().enumerate() {
                separate(json, i);
                let _ = write!(json, "{byte}");
            }
            json.push(']');
        }
    }
}

fn push_text(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

impl Results {
    fn answer(self, version: Option<i64>, took: Duration) -> Outcome {
        let time = serde_json::Value::from(took.as_secs_f64());
        let rows = self.rows.unwrap_or_default();
        let json = if self.wrote || version.is_some() {
            let version = version.map_or_else(|| "null".to_owned(), |v| v.to_string());
            let comma = if rows.is_empty() { "" } else { "," };
            format!("{{\"rows_affected\":{},\"version\":{version},\"time\":{time}{comma}{rows}}}", self.rows_affected)
        } else if rows.is_empty() {
            format!("{{\"columns\":[],\"rows\":[],\"time\":{time}}}")
        } else {
            format!("{{{rows},\"time\":{time}}}")
        };
        Outcome { json }
    }
}

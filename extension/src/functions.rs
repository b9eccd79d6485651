//! The SQL functions. One table of them; a test asserts the exact list.

use crate::affinity::whole_number;
use crate::fract;
use crate::portable::Capture;
use crate::session::Shared;
use crate::sqlite::{create_function, Args, Arity, Db, Error, FunctionFlags, Output, Result, ValueRef};
use starling_crdt::{key, SiteId, Vector};
use std::ffi::CStr;

type Function = fn(&Shared, Db, &Args<'_>) -> Result<Output>;

/// May be used in triggers and views even where the schema is not trusted.
const SAFE: FunctionFlags = FunctionFlags::INNOCUOUS;
/// Changes the database: only in statements of the application itself.
const DIRECT: FunctionFlags = FunctionFlags::DIRECTONLY;

/// Any number of arguments.
const ANY: Arity = (0, i32::MAX);

/// Name, numbers of arguments from and to, flags, body.
pub const FUNCTIONS: &[(&CStr, Arity, FunctionFlags, Function)] = &[
    (c"crsql_as_crr", (1, 3), DIRECT, as_crr),
    (c"crsql_as_table", (1, 1), DIRECT, as_table),
    (c"crsql_automigrate", (1, 2), DIRECT, automigrate),
    (c"crsql_begin_alter", (1, 2), DIRECT, begin_alter),
    (c"crsql_commit_alter", (1, 3), DIRECT, commit_alter),
    (c"crsql_site_id", (0, 0), SAFE, site_id),
    (c"crsql_db_version", (0, 0), SAFE, db_version),
    (c"crsql_next_db_version", (0, 1), SAFE, next_db_version),
    (c"crsql_rows_impacted", (0, 0), SAFE, rows_impacted),
    (c"crsql_internal_sync_bit", (0, 0), SAFE, sync_bit),
    (c"crsql_internal_sync_bit", (1, 1), DIRECT, set_sync_bit),
    (c"crsql_config_set", (2, 2), DIRECT, config_set),
    (c"crsql_config_get", (1, 1), SAFE, config_get),
    (c"crsql_pack_columns", ANY, SAFE, pack_columns),
    (c"crsql_get_seq", (0, 0), SAFE, get_seq),
    (c"crsql_increment_and_get_seq", (0, 0), SAFE, increment_seq),
    (c"crsql_fract_as_ordered", ANY, DIRECT, fract::as_ordered),
    (c"crsql_fract_key_between", (2, 2), SAFE, fract::key_between),
    (c"starling_fract_nth_key", (4, 4), SAFE, fract::nth_key),
    (c"starling_fract_is_key", (1, 1), SAFE, fract::is_key),
    (c"crsql_pending", (0, 0), SAFE, pending),
    (c"crsql_finalize", (0, 0), DIRECT, finalize),
    (c"crsql_sha", (0, 0), SAFE, sha),
    (c"starling_version", (0, 0), SAFE, version),
    (c"starling_vector", (0, 0), SAFE, vector),
    (c"starling_answer_vector", (0, 0), SAFE, answer_vector),
    (c"starling_merge", (1, 1), DIRECT, merge),
    (c"starling_claim", (1, 1), DIRECT, claim),
    (c"starling_check", (1, 1), DIRECT, check),
    (c"starling_forks", (1, 2), DIRECT, forks),
    (c"starling_rehome", (1, 1), DIRECT, rehome),
    (c"starling_new_epoch", (0, 1), DIRECT, new_epoch),
    (c"starling_new_site", (0, 1), DIRECT, new_site),
    (c"starling_prune", (1, 1), DIRECT, prune),
    (c"starling_aside", (0, 0), SAFE, aside),
    (c"starling_resume", (0, 0), DIRECT, resume),
    (c"starling_mend", (0, 0), DIRECT, mend),
    (c"starling_drain", (0, 0), DIRECT, drain),
    (c"starling_zeros_differ", (2, 2), SAFE, zeros_differ),
    (crate::sqlgen::JOURNAL_C, ANY, SAFE, touch),
    (c"uuid7", (0, 0), SAFE, uuid7),
    (c"uuid7_blob", (0, 0), SAFE, uuid7_blob),
];

const VERSION: &str = env!("CARGO_PKG_VERSION");
const BUILD: &str = match option_env!("STARLING_BUILD_SHA") {
    Some(sha) => sha,
    None => "unknown",
};

/// Whether this very build is registered on the connection already.
pub fn is_registered(db: Db) -> bool {
    let ask = || -> Result<bool> {
        // Asked first, so that a first load leaves no "no such function" in the application's error log; by a table of ours,
        // since to list all functions took a third of the time that opening a connection takes.
        // Where the file is locked, so that the schema cannot be read, the function has to tell.
        let known = db.prepare_transient("PRAGMA main.table_info(starling_changesets)").and_then(|mut q| q.step());
        if known == Ok(false) {
            return Ok(false);
        }
        let mut stmt = db.prepare_transient("SELECT starling_version() || ' ' || crsql_sha()")?;
        Ok(stmt.step()? && stmt.column_text(0) == format!("{VERSION} {BUILD}").as_bytes())
    };
    let registered = ask().unwrap_or(false);
    if !registered {
        // SQLite takes the connection's last error for ours: a success puts it out of mind.
        let _ = db.exec(";");
    }
    registered
}

/// Registers them all.
pub fn register(db: Db, session: &Shared) -> Result<()> {
    for (name, arity, flags, body) in FUNCTIONS {
        create_function(db, name, *arity, *flags, session.clone(), *body)?;
    }
    Ok(())
}

fn text<'a>(args: &Args<'a>, i: usize, function: &str, what: &str) -> Result<&'a str> {
    match args.get(i) {
        ValueRef::Text(t) => std::str::from_utf8(t).map_err(|_| Error::msg(format!("{function}: {what} is not UTF-8"))),
        _ => Err(Error::msg(format!("{function}: {what} must be text"))),
    }
}

fn ok() -> Output {
    Output::Text("OK".to_string())
}

fn integer(v: u64) -> Output {
    Output::Integer(v.cast_signed())
}

fn unknown_capture(name: &str) -> Error {
    Error::msg(format!("crsql_as_crr: unknown way of capture {name}; there are native, exact and portable"))
}

fn as_crr(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let first = text(args, 0, "crsql_as_crr", "the table's name")?;
    match args.len() {
        1 => session.as_crr(None, first, None)?,
        2 => {
            let second = text(args, 1, "crsql_as_crr", "the table's name or the way of capture")?;
            match Capture::named(second) {
                // ('main', 'portable') is the table of that name, where there is one.
                Some(_) if first.eq_ignore_ascii_case("main") && session.is_table(second)? => {
                    session.as_crr(Some(first), second, None)?;
                }
                Some(capture) => session.as_crr(None, first, Some(capture))?,
                None if !first.eq_ignore_ascii_case("main") && session.is_table(first)? => {
                    return Err(unknown_capture(second))
                }
                None => session.as_crr(Some(first), second, None)?,
            }
        }
        _ => {
            let name = text(args, 1, "crsql_as_crr", "the table's name")?;
            let capture = text(args, 2, "crsql_as_crr", "the way of capture")?;
            let capture = Capture::named(capture).ok_or_else(|| unknown_capture(capture))?;
            session.as_crr(Some(first), name, Some(capture))?;
        }
    }
    // A convenience: nothing is lost without it.
    session.unless_it_ended_all(|| session.join_when_inboxes_fill())?;
    Ok(ok())
}

fn as_table(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    session.as_table(text(args, 0, "crsql_as_table", "the table's name")?)?;
    Ok(ok())
}

fn automigrate(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let schema_sql = text(args, 0, "crsql_automigrate", "the schema")?;
    let cleanup = match args.len() {
        1 => None,
        _ if matches!(args.get(1), ValueRef::Null) => None,
        _ => Some(text(args, 1, "crsql_automigrate", "the cleanup")?),
    };
    session.automigrate(schema_sql, cleanup)?;
    Ok(Output::Text("migration complete".to_string()))
}

/// The table's name, which may follow the schema's.
fn altered<'a>(args: &Args<'a>, function: &str) -> Result<&'a str> {
    let first = text(args, 0, function, "the table's name")?;
    if args.len() < 2 {
        return Ok(first);
    }
    if !first.eq_ignore_ascii_case("main") {
        return Err(Error::msg(format!("{function}: only tables of the main database are CRRs")));
    }
    text(args, 1, function, "the table's name")
}

fn begin_alter(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let table = altered(args, "crsql_begin_alter")?;
    session.keeping_rowid(|| session.begin_alter(table))?;
    Ok(ok())
}

/// A third argument, by which other implementations were told that no column went, is not needed.
fn commit_alter(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let table = altered(args, "crsql_commit_alter")?;
    session.keeping_rowid(|| session.commit_alter(table))?;
    Ok(ok())
}

fn site_id(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    session.ensure_schema()?;
    session.refresh()?;
    Ok(Output::Blob(session.meta()?.site.0.to_vec()))
}

fn db_version(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    session.committed_version().map(integer)
}

fn next_db_version(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let given = match (args.is_null(0), whole_number(args.get(0))) {
        (true, _) => 0,
        // The largest of three numbers is asked for: one below zero asks for nothing.
        (_, Some(v)) => u64::try_from(v).unwrap_or(0),
        _ => return Err(Error::msg("crsql_next_db_version: the version must be an integer")),
    };
    session.next_version(given).map(integer)
}

fn rows_impacted(session: &Shared, db: Db, _: &Args<'_>) -> Result<Output> {
    let n = if db.is_autocommit() { 0 } else { session.tx.borrow().rows_impacted };
    Ok(Output::Integer(n))
}

fn sync_bit(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    Ok(Output::Integer(i64::from(session.unwatched.get() || session.merging.borrow().is_some())))
}

/// While it is set by hand, what this connection writes is nobody's change.
fn set_sync_bit(session: &Shared, db: Db, args: &Args<'_>) -> Result<Output> {
    match whole_number(args.get(0)) {
        Some(bit @ (0 | 1)) => session.unwatched.set(bit == 1),
        _ => return Err(Error::msg("crsql_internal_sync_bit: the bit is 0 or 1")),
    }
    sync_bit(session, db, args)
}

fn config_set(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let name = text(args, 0, "crsql_config_set", "the setting's name")?;
    let value = match (name, whole_number(args.get(1))) {
        ("merge-equal-values", Some(v @ (0 | 1))) => v,
        ("merge-equal-values", _) => return Err(Error::msg("crsql_config_set: merge-equal-values is 0 or 1")),
        _ => return Err(Error::msg(format!("crsql_config_set: unknown setting {name}; there is merge-equal-values"))),
    };
    session.keeping_rowid(|| session.set_config(name, value))?;
    Ok(Output::Integer(value))
}

fn config_get(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    match text(args, 0, "crsql_config_get", "the setting's name")? {
        "merge-equal-values" if session.has_schema()? => {
            session.refresh()?;
            Ok(Output::Integer(i64::from(session.meta()?.merge_equal)))
        }
        "merge-equal-values" => Ok(Output::Integer(0)),
        name => Err(Error::msg(format!("crsql_config_get: unknown setting {name}; there is merge-equal-values"))),
    }
}

fn pack_columns(_: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let values: Vec<ValueRef<'_>> = (0..args.len()).map(|i| args.get(i)).collect();
    key::pack(values.into_iter()).map(Output::Blob).map_err(|e| Error::msg(format!("crsql_pack_columns: {e}")))
}

fn get_seq(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    Ok(integer(session.journal.borrow().next_seq()))
}

fn increment_seq(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    if !session.db.is_autocommit() {
        // The numbers are those of a transaction, which begins for us with its first write.
        session.join_transaction()?;
    }
    Ok(integer(session.journal.borrow_mut().take_seqs(1)))
}

fn finalize(_: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    Ok(Output::Text("finalized".to_string()))
}

fn sha(_: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    Ok(Output::Text(BUILD.to_string()))
}

fn version(_: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    Ok(Output::Text(VERSION.to_string()))
}

fn vector(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    if !session.has_schema()? {
        return Ok(Output::Blob(Vector::default().encode()));
    }
    session.refresh()?;
    session.flush()?;
    session.drain_if_possible()?;
    Ok(Output::Blob(session.in_one_snapshot(|| session.vector())?.encode()))
}

fn answer_vector(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    if !session.has_schema()? {
        return Ok(Output::Blob(Vector::default().encode()));
    }
    session.refresh()?;
    session.flush()?;
    session.drain_to_serve()?;
    Ok(Output::Blob(session.in_one_snapshot(|| session.answer_vector())?.encode()))
}

fn blob<'a>(args: &Args<'a>, function: &str, what: &str) -> Result<&'a [u8]> {
    match args.get(0) {
        ValueRef::Blob(b) => Ok(b),
        _ => Err(Error::msg(format!("{function}: {what} must be a blob"))),
    }
}

fn decode_vector(bytes: &[u8], function: &str) -> Result<Vector> {
    Vector::decode(bytes).map_err(|e| Error::msg(format!("{function}: the vector cannot be read: {e}")))
}

fn merge(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    session.merge_part(blob(args, "starling_merge", "a changeset")?).map(integer)
}

fn claim(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let vector = decode_vector(blob(args, "starling_claim", "a vector")?, "starling_claim")?;
    session.ensure_schema()?;
    session.atomically(|| {
        session.join_transaction()?;
        session.refresh()?;
        session.claim_vector(&vector)
    })?;
    Ok(ok())
}

fn check(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let forks = known_forks(session, args, "starling_check", None)?;
    let first = forks.origins.iter().find_map(|(origin, state)| state.claimed.max().map(|head| (origin, head)));
    Ok(first.map_or(Output::Null, |(origin, head)| {
        Output::Text(format!("site {} epoch {:016x} version {head}", origin.site, origin.epoch))
    }))
}

fn forks(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let speaker = match args.get(1) {
        ValueRef::Null => None,
        ValueRef::Blob(id) => SiteId::from_slice(id).filter(|_| id.len() == 16),
        _ => return Err(Error::msg("starling_forks: a site id must be a blob of 16 bytes")),
    };
    let forks = known_forks(session, args, "starling_forks", speaker)?;
    Ok(if forks.origins.is_empty() { Output::Null } else { Output::Blob(forks.encode()) })
}

fn known_forks(session: &Shared, args: &Args<'_>, function: &str, speaker: Option<SiteId>) -> Result<Vector> {
    let vector = decode_vector(blob(args, function, "a vector")?, function)?;
    if !session.has_schema()? {
        return Ok(Vector::default());
    }
    session.in_one_snapshot(|| session.forks(&vector, speaker))
}

fn rehome(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let vector = decode_vector(blob(args, "starling_rehome", "a vector")?, "starling_rehome")?;
    session.ensure_schema()?;
    let renamed = session.atomically(|| {
        session.join_transaction()?;
        session.refresh()?;
        under_new_names(session, || session.rehome(&vector))
    })?;
    Ok(Output::Integer(renamed.cast_signed()))
}

/// What has no version yet, in the inboxes too, gets one under the name that the file has then: in a copy, the former name has used
/// that version for something else. Only a transaction that has begun its record ends it first.
fn under_new_names<T>(session: &Shared, rename: impl FnOnce() -> Result<T>) -> Result<T> {
    if session.tx.borrow().local.is_some() {
        session.flush()?;
    }
    let renamed = rename()?;
    let left = session.as_it_is.take();
    let taken_up = session.flush().and_then(|()| if left { session.resume() } else { Ok(0) });
    taken_up.map(|_| renamed).inspect_err(|_| session.as_it_is.set(left))
}

/// With an argument, an epoch as a signed integer: only if the present one is still that; else NULL.
fn new_epoch(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let lost = match args.get(0) {
        ValueRef::Null => None,
        ValueRef::Integer(epoch) => Some(epoch.cast_unsigned()),
        _ => return Err(Error::msg("starling_new_epoch: an epoch must be an integer")),
    };
    session.ensure_schema()?;
    let drawn = session.atomically(|| {
        session.join_transaction()?;
        session.refresh()?;
        under_new_names(session, || match lost {
            Some(lost) if lost != session.meta()?.epoch => Ok(false),
            _ => session.new_epoch().map(|()| true),
        })
    })?;
    Ok(if drawn { ok() } else { Output::Null })
}

fn new_site(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let wanted = match args.get(0) {
        ValueRef::Null => None,
        ValueRef::Blob(id) if id.len() == 16 => id.try_into().ok().map(SiteId),
        _ => return Err(Error::msg("starling_new_site: a site id is a BLOB of 16 bytes")),
    };
    session.ensure_schema()?;
    session.atomically(|| {
        session.join_transaction()?;
        session.refresh()?;
        under_new_names(session, || session.new_site(wanted))
    })?;
    Ok(Output::Blob(session.meta()?.site.0.to_vec()))
}

fn aside(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    session.aside_count().map(Output::Integer)
}

fn pending(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    Ok(Output::Integer(session.in_one_snapshot(|| session.pending())?.values().sum()))
}

fn prune(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let Some(budget) = whole_number(args.get(0)) else {
        return Err(Error::msg("starling_prune: the number of entries to look at must be an integer"));
    };
    if !session.has_schema()? {
        return Ok(Output::Integer(0));
    }
    session
        .atomically(|| {
            session.join_transaction()?;
            session.refresh()?;
            session.flush()?;
            let dropped = session.prune(u64::try_from(budget).unwrap_or(0))?;
            session.thin_tokens().map(|()| dropped)
        })
        .map(integer)
}

fn resume(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    if !session.has_schema()? {
        return Ok(Output::Integer(0));
    }
    session.resume().map(integer)
}

fn mend(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    session.mend_some().map(integer)
}

fn drain(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    let drained = session.drain()?;
    // A convenience: nothing is lost without it.
    session.unless_it_ended_all(|| session.join_when_inboxes_fill())?;
    Ok(Output::Integer(i64::from(drained)))
}

/// What the triggers of updates and deletes called in files that earlier builds made; those of today read from the table
/// of the same name.
fn touch(session: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    session.touched(args)?;
    Ok(Output::Null)
}

/// For the triggers: whether two values that SQLite calls equal are 0.0 and −0.0, which no SQL can tell apart.
fn zeros_differ(_: &Shared, _: Db, args: &Args<'_>) -> Result<Output> {
    let differ = match (args.get(0), args.get(1)) {
        (ValueRef::Real(a), ValueRef::Real(b)) => a.to_bits() != b.to_bits(),
        _ => false,
    };
    Ok(Output::Integer(i64::from(differ)))
}

fn new_uuid7(session: &Shared) -> uuid::Uuid {
    let mut random = [0u8; 10];
    if getrandom::fill(&mut random).is_err() {
        random[..8].copy_from_slice(&session.token().to_le_bytes());
    }
    uuid::Builder::from_unix_timestamp_millis(crate::log::now_ms(), &random).into_uuid()
}

fn uuid7(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    Ok(Output::Text(new_uuid7(session).hyphenated().to_string()))
}

fn uuid7_blob(session: &Shared, _: Db, _: &Args<'_>) -> Result<Output> {
    Ok(Output::Blob(new_uuid7(session).into_bytes().to_vec()))
}

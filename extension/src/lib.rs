//! Starling's SQLite extension: tables become CRDTs, `crsql_changes` reads and merges their changes.
//!
//! Layers point one way: `sqlite` (the fence, all `unsafe`) and `starling_crdt` (pure) below; `session`, `meta`,
//! `catalog`, `log`, `rows` on top of them; `flush`, `apply`, `merge`, `serve`, `changes` above those; `functions` last.
#![deny(unsafe_op_in_unsafe_fn)]

mod affinity;
mod alter;
mod apply;
mod arm;
mod aside;
mod automigrate;
mod backlog;
mod catalog;
mod cell_statements;
mod changes;
mod changesets_table;
mod clock_map;
mod clock_store;
mod converted;
mod crr;
mod differences;
mod digest;
mod evolve;
mod filled;
mod flush;
mod fnv;
mod fork;
mod fract;
mod functions;
mod generations;
mod inbox;
mod joint;
mod journal;
mod journal_table;
mod keeper;
mod key_order;
mod live;
mod log;
mod mend;
mod merge;
mod merge_cell;
mod meta;
mod names;
mod nine;
mod no_rows;
mod notes;
mod outlived;
mod overrule;

mod pending;
mod pending_table;
mod plain;
mod portable;
mod prune;
mod records;
mod resume;
mod row_sql;
mod rows;
mod schema;
mod serve;
mod session;
mod sight;
mod single;
mod sites;
mod spent;
mod sql_text;
mod sqlgen;
pub mod sqlite;
mod statements;
mod tokens;
mod touched;
mod tx;
mod uncommitted;
mod unpack;
mod vector;
mod versions;
mod waiting;
mod young;

pub use sqlgen::JOURNAL;
pub use sqlite::auto_extension_entry;

use sqlite::{create_module, Db, Result};
use std::cell::Cell;
use std::rc::Rc;

/// Registers everything on a connection. A database that can be written gets its internal tables now, as programs expect
/// `crsql_site_id` to be there; where that is not possible they are made when first needed.
pub(crate) fn register(db: Db) -> Result<()> {
    // To open a connection does not wait for locks, and this one may be a thread's that waits for the program to go on:
    // Python loads extensions with its global lock held. A busy handler of the program's own could not be put back; none is
    // in force while automatic extensions are loaded.
    let patience = patience(db);
    if patience == 0 {
        return register_at_once(db);
    }
    db.set_busy_timeout(0);
    let registered = register_at_once(db);
    db.set_busy_timeout(patience);
    registered
}

/// The connection's busy timeout, in milliseconds. While another connection of the same shared cache changes the schema nothing
/// compiles, and nothing waits either: such a lock is no matter for a busy handler.
fn patience(db: Db) -> i32 {
    let asked = db.prepare_transient("PRAGMA busy_timeout").and_then(|mut ask| ask.step().map(|_| ask.column_int(0)));
    asked.ok().and_then(|ms| i32::try_from(ms).ok()).unwrap_or(0)
}

/// Makes the internal tables where they are missing, looks after triggers that were lost, and joins the inboxes.
fn settle(session: &session::Session) -> Result<()> {
    {
        // Mostly there is nothing to do: what that takes to know is asked under one lock, where each question would take its own.
        let mut reading = session.db.prepare_transient("PRAGMA main.schema_version")?;
        if reading.step()? && session.has_schema()? && session.join_if_noted(reading.column_int(0))? {
            return Ok(());
        }
    }
    let ready = session.ensure_schema();
    let repaired = ready.and_then(|()| session.resume_if_altered());
    session.join_when_inboxes_fill().and(repaired)
}

thread_local! {
    static AS_IT_IS: Cell<bool> = const { Cell::new(false) };
}

/// Runs `open`, in which this thread opens connections for which nothing that is found in the file gets a version: not what programs
/// without the extension have written, nor what a migration has changed. `starling_new_site()`, `starling_new_epoch()` and
/// `starling_rehome()` give the file its new name first, and then look after all that; `starling_resume()` goes on under the name it has.
pub fn as_it_is<T>(open: impl FnOnce() -> T) -> T {
    let _until = AsItIs(AS_IT_IS.replace(true));
    open()
}

/// Puts back what was in force, also where `open` panics: every connection of the thread would be left as it is from then on.
struct AsItIs(bool);

impl Drop for AsItIs {
    fn drop(&mut self) {
        AS_IT_IS.set(self.0);
    }
}

fn register_at_once(db: Db) -> Result<()> {
    if functions::is_registered(db) {
        // Loaded twice, by the program and by a library that it uses, say.
        return Ok(());
    }
    let session = Rc::new(session::Session::new(db));
    functions::register(db, &session)?;
    create_module::<journal_table::JournalTable>(db, sqlgen::JOURNAL_C, Rc::clone(&session))?;
    create_module::<keeper::Keeper>(db, keeper::KEEPER_C, Rc::clone(&session))?;
    create_module::<changes::ChangesTable>(db, c"crsql_changes", Rc::clone(&session))?;
    create_module::<changesets_table::ChangesetsTable>(db, c"starling_changesets", Rc::clone(&session))?;
    create_module::<pending_table::PendingTable>(db, c"crsql_pending", Rc::clone(&session))?;
    create_module::<unpack::UnpackTable>(db, c"crsql_unpack_columns", Rc::clone(&session))?;
    session.loading.set(true);
    if AS_IT_IS.get() {
        session.as_it_is.set(true);
    } else if db.is_readonly("main") == Some(false) {
        // A locked or full file is no reason to refuse the connection.
        if settle(&session).is_err() {
            // SQLite takes the connection's last error for ours.
            db.forget_error();
        }
    }
    session.loading.set(false);
    session.finalize_statements();
    Ok(())
}

//! What statements over HTTP may do: everything to the tables of this database, nothing to other files, to the settings of
//! the connection, or to Starling's own tables.
//!
//! `sqlite3_stmt_readonly` is true for ATTACH, COMMIT and functions that write, so it decides nothing here: an authorizer does,
//! asked while a statement is prepared. It is asked, too, for the statements that the extension prepares while one runs; those
//! are the extension's own business, so the guard is up only while statements of the body are being prepared.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::Connection;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Functions of the extension that may be called; its others change what only the sidecar should.
const EXTENSION_FUNCTIONS: &[&str] = &[
    "crsql_as_crr",
    "crsql_as_table",
    "crsql_begin_alter",
    "crsql_commit_alter",
    "crsql_config_get",
    "crsql_db_version",
    "crsql_fract_as_ordered",
    "crsql_fract_key_between",
    "crsql_get_seq",
    "crsql_internal_sync_bit",
    "crsql_next_db_version",
    "crsql_pack_columns",
    "crsql_pending",
    "crsql_rows_impacted",
    "crsql_sha",
    "crsql_site_id",
    "starling_aside",
    "starling_fract_is_key",
    "starling_fract_nth_key",
    "starling_vector",
    "starling_version",
];

/// Functions of the extension that write: a body with one is a writing one, whatever SQLite says of the statement.
const WRITING_FUNCTIONS: &[&str] =
    &["crsql_as_crr", "crsql_as_table", "crsql_begin_alter", "crsql_commit_alter", "crsql_fract_as_ordered"];

/// What the capturing triggers call, and nobody else may.
const CAPTURING_FUNCTIONS: &[&str] = &[starling_extension::JOURNAL, "starling_zeros_differ"];

/// Functions of SQLite itself that reach beyond the database.
const DENIED_FUNCTIONS: &[&str] = &["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"];

/// Pragmas that only tell; what stands in brackets names what is asked about.
const TELLING_PRAGMAS: &[&str] = &[
    "application_id",
    "collation_list",
    "compile_options",
    "data_version",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "module_list",
    "page_count",
    "page_size",
    "pragma_list",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];

/// Pragmas of which the value may be asked but not set.
const ASKED_PRAGMAS: &[&str] = &["foreign_keys", "journal_mode", "recursive_triggers", "schema_version"];

/// Of the telling ones, those for which `= value` would change something.
const SETTING_PRAGMAS: &[&str] = &["application_id", "encoding", "page_size", "schema_version"];

const NOTHING_TEMPORARY: &str = "temporary tables, views and triggers; no connection is yours";

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub struct Asker(Weak<()>);

impl From<&Arc<()>> for Asker {
    /// It waits as long as that lives.
    fn from(here: &Arc<()>) -> Self {
        Self(Arc::downgrade(here))
    }
}

/// The guard of one connection.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    up: Arc<AtomicBool>,
    writes: Arc<AtomicBool>,
    denied: Arc<Mutex<Option<String>>>,
    deadline_us: Arc<AtomicU64>,
    timed_out: Arc<AtomicBool>,
    asker: Arc<Mutex<Option<Asker>>>,
}

impl Guard {
    /// Puts a connection under guard.
    ///
    /// # Errors
    /// SQLite's.
    pub fn install(conn: &mut Connection) -> rusqlite::Result<Self> {
        let guard = Self::default();
        conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, crate::limits::MAX_SQL_VALUE)?;
        conn.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        conn.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
        let authorizer = guard.clone();
        conn.authorizer(Some(move |context: AuthContext<'_>| authorizer.decide(&context)))?;
        let timer = guard.clone();
        let epoch = Instant::now();
        let clock = move || u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        guard.deadline_us.store(u64::MAX, Ordering::Relaxed);
        conn.progress_handler(4_000, Some(move || timer.is_late(clock()) || timer.is_alone()))?;
        Ok(guard)
    }

    /// Statements are interrupted once `limit` has passed; `since_install` is the time since [`Guard::install`].
    pub fn set_deadline(&self, since_install: Duration, limit: Duration) {
        let at = u64::try_from((since_install + limit).as_micros()).unwrap_or(u64::MAX);
        self.timed_out.store(false, Ordering::Relaxed);
        self.deadline_us.store(at, Ordering::Relaxed);
    }

    /// Statements are interrupted, too, once this one does not wait any more.
    pub fn run_for(&self, asker: Asker) {
        *self.asker.lock().unwrap_or_else(PoisonError::into_inner) = Some(asker);
    }

    /// Nothing is interrupted any more.
    pub fn clear_deadline(&self) {
        self.deadline_us.store(u64::MAX, Ordering::Relaxed);
        *self.asker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_alone(&self) -> bool {
        let asker = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        asker.as_ref().is_some_and(|Asker(here)| here.strong_count() == 0)
    }

    /// Whether a statement was interrupted.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Prepares with the guard up.
    pub fn guarded<T>(&self, prepare: impl FnOnce() -> T) -> T {
        self.up.store(true, Ordering::Relaxed);
        let prepared = prepare();
        self.up.store(false, Ordering::Relaxed);
        prepared
    }

    /// Whether a function that writes was named since the last question.
    #[must_use]
    pub fn take_writes(&self) -> bool {
        self.writes.swap(false, Ordering::Relaxed)
    }

    /// What was denied since the last question.
    #[must_use]
    pub fn take_denied(&self) -> Option<String> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_late(&self, now_us: u64) -> bool {
        let late = now_us > self.deadline_us.load(Ordering::Relaxed);
        if late {
            self.timed_out.store(true, Ordering::Relaxed);
        }
        late
    }

    fn decide(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.up.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        if let AuthAction::Function { function_name } = context.action {
            if WRITING_FUNCTIONS.iter().any(|f| f.eq_ignore_ascii_case(function_name)) {
                self.writes.store(true, Ordering::Relaxed);
            }
        }
        match denial(context) {
            None => Authorization::Allow,
            Some(what) => {
                *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
                Authorization::Deny
            }
        }
    }
}

/// Why an action is not allowed; `None` when it is.
fn denial(context: &AuthContext<'_>) -> Option<String> {
    // The capture triggers and views of the extension touch its tables in the name of whoever writes.
    let direct = context.accessor.is_none();
    if direct && context.database_name == Some("temp") && changes(&context.action) {
        return Some(NOTHING_TEMPORARY.into());
    }
    match context.action {
        AuthAction::Attach { .. } => Some("ATTACH".into()),
        AuthAction::Detach { .. } => Some("DETACH".into()),
        AuthAction::Transaction { .. } => Some("transaction statements; the whole body is one transaction".into()),
        AuthAction::Savepoint { .. } => Some("savepoints; the whole body is one transaction".into()),
        AuthAction::Unknown { .. } => Some("this statement".into()),
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::CreateTempTrigger { .. } => Some(NOTHING_TEMPORARY.into()),
        AuthAction::Pragma { pragma_name, pragma_value } => pragma_denial(pragma_name, pragma_value),
        AuthAction::Function { function_name } => function_denial(function_name, direct),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::CreateTrigger { table_name, .. }
        | AuthAction::CreateIndex { table_name, .. }
            if direct && is_internal(table_name) =>
        {
            Some(format!("changes of {table_name}, which is Starling's own"))
        }
        AuthAction::DropTrigger { trigger_name, .. } if trigger_name.to_ascii_lowercase().contains("__crsql_") => {
            Some(format!("dropping {trigger_name}; use SELECT crsql_as_table('…')"))
        }
        AuthAction::DropView { view_name } if is_internal(view_name) => Some(format!("dropping {view_name}")),
        AuthAction::CreateVtable { module_name, .. } if module_name.eq_ignore_ascii_case("csv") => {
            Some("virtual tables on other files".into())
        }
        _ => None,
    }
}

/// `CREATE TABLE temp.t` is not among the actions on temporary things, and would hide the table `t` from whoever comes next.
/// A trigger `temp.x` shows only in the row that it adds to the schema. (What ALTER TABLE updates there is SQLite's own doing: it
/// looks whether anything temporary names what is renamed or dropped.)
fn changes(action: &AuthAction<'_>) -> bool {
    match action {
        AuthAction::Update { table_name, .. } => !matches!(*table_name, "sqlite_temp_master" | "sqlite_temp_schema"),
        AuthAction::CreateTable { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::CreateVtable { .. }
        | AuthAction::Insert { .. }
        | AuthAction::Delete { .. } => true,
        _ => false,
    }
}

fn is_internal(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let open = matches!(name.as_str(), "crsql_changes" | "crsql_tracked_peers") || name.ends_with("_fractindex");
    (name.starts_with("crsql_") || name.starts_with("starling_") || name.starts_with("__starling")) && !open
}

fn function_denial(name: &str, direct: bool) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if !direct && CAPTURING_FUNCTIONS.contains(&lower.as_str()) {
        return None;
    }
    let extension = lower.starts_with("crsql_") || lower.starts_with("starling_");
    let denied =
        DENIED_FUNCTIONS.contains(&lower.as_str()) || (extension && !EXTENSION_FUNCTIONS.contains(&lower.as_str()));
    denied.then(|| format!("the function {name}()"))
}

fn pragma_denial(name: &str, value: Option<&str>) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let name = lower.as_str();
    let telling = TELLING_PRAGMAS.contains(&name) && !(value.is_some() && SETTING_PRAGMAS.contains(&name));
    let asked = ASKED_PRAGMAS.contains(&name) && value.is_none();
    (!telling && !asked).then(|| match value {
        Some(_) => format!("PRAGMA {name} with a value"),
        None => format!("PRAGMA {name}"),
    })
}

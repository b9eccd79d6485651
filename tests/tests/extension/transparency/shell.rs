//! The same through the stock sqlite3 shell with the extension that ships (STARLING_SO), in files and in every journal mode.

use super::statements::{self, ALL, CRRS};
use starling_tests::random::{each_seed, Random};
use starling_tests::seen::same;
use starling_tests::site::Site;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the shell prints, and what it complains about (with line numbers).
fn shell(so: &OsString, db: &Path, script: &str) -> Option<(String, String)> {
    let mut child = Command::new("sqlite3")
        .args(["-batch", "-cmd"])
        .arg(format!(".load '{}'", so.to_string_lossy()))
        .arg(db)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let out = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(script.as_bytes()).expect("it reads"));
        child.wait_with_output().expect("it ends")
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&out.stdout), text(&out.stderr)))
}

/// One line per statement, so that both complain about the same lines.
fn script(seed: u64, armed: bool) -> String {
    let r = &mut Random::new(seed);
    let journal = *r.pick(&["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL"]);
    let mut lines = vec![".mode quote".to_string(), format!("PRAGMA journal_mode = {journal}")];
    lines.extend(statements::settings(r));
    lines.extend(statements::tables(r));
    lines.extend(statements::surroundings(r));
    lines.extend(statements::triggers(r));
    for (name, _) in CRRS {
        lines.push(if armed { format!("SELECT crsql_as_crr('{name}')") } else { "SELECT 'OK'".to_string() });
    }
    lines.push("REPLACE INTO note VALUES(1, 'begin')".to_string());
    for _ in 0..10 + r.below(40) {
        let (sql, dml) = statements::statement(r);
        let vacuum = sql == "VACUUM";
        lines.push(sql);
        if dml {
            lines.push("SELECT changes(), last_insert_rowid()".to_string());
        }
        if vacuum {
            // It leaves its mark in last_insert_rowid(), which the number of rows in the schema decides.
            lines.push("REPLACE INTO note VALUES(1, 'vacuumed')".to_string());
        }
        lines.extend(ALL.iter().map(|(table, columns)| format!("SELECT {columns} FROM {table}")));
    }
    lines.push("COMMIT".to_string());
    lines.extend(CRRS.iter().map(|(table, columns)| format!("SELECT {columns} FROM {table}")));
    lines.push("PRAGMA integrity_check".to_string());
    lines.iter().map(|l| if l.starts_with('.') { format!("{l}\n") } else { format!("{l};\n") }).collect()
}

fn history(seed: u64) {
    let Some(so) = std::env::var_os("STARLING_SO").filter(|so| Path::new(so).exists()) else {
        return println!("skipped: STARLING_SO names no extension");
    };
    println!("-- seed {seed}");
    let dir = tempfile::tempdir().expect("a directory");
    let run = |armed: bool| shell(&so, &dir.path().join(format!("{armed}.db")), &script(seed, armed));
    let (Some((plain, complaints)), Some((crr, crr_complaints))) = (run(false), run(true)) else {
        return println!("skipped: no sqlite3 shell");
    };
    println!("{}", script(seed, true));
    same("complaints", &lines(&complaints), &lines(&crr_complaints));
    let (plain, crr) = (lines(&plain), lines(&crr));
    let first = plain.iter().zip(&crr).position(|(a, b)| a != b);
    assert_eq!(first.map(|i| (plain[i], crr[i])), None, "line {first:?} of {}", plain.len());
    assert_eq!(plain.len(), crr.len());
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn loading_twice_is_loading_once() {
    let Some(so) = std::env::var_os("STARLING_SO").filter(|so| Path::new(so).exists()) else {
        return println!("skipped: STARLING_SO names no extension");
    };
    let so_text = so.to_string_lossy();
    let script = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a);\nSELECT crsql_as_crr('t');\nINSERT INTO t VALUES(1, 1);\n.load '{so_text}'\n\
         INSERT INTO t VALUES(2, 2);\nBEGIN;\nINSERT INTO t VALUES(3, 3);\nSELECT load_extension('{so_text}');\n\
         UPDATE t SET a = 4 WHERE id = 3;\nCOMMIT;\nSELECT val, col_version, db_version FROM crsql_changes;\n"
    );
    let Some((out, complaints)) = shell(&so, Path::new(":memory:"), &script) else {
        return println!("skipped: no sqlite3 shell");
    };
    assert_eq!((out.as_str(), complaints.as_str()), ("OK\n\n1|1|1\n2|1|2\n4|2|3\n", ""));
}

#[test]
fn loading_does_not_wait_for_locks_and_leaves_the_busy_timeout_as_it_was() {
    let Some(so) = std::env::var_os("STARLING_SO").filter(|so| Path::new(so).exists()) else {
        return println!("skipped: STARLING_SO names no extension");
    };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let holder = starling_tests::site::plain(&path);
    holder.execute_batch("CREATE TABLE x(y); BEGIN EXCLUSIVE").expect("a lock");
    let (patience, begin) = (Duration::from_secs(60), Instant::now());
    let script = format!(".timeout 60000\n.load '{}'\nPRAGMA busy_timeout;\n", so.to_string_lossy());
    let mut child = Command::new("sqlite3")
        .arg("-batch")
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    child.stdin.take().expect("stdin is piped").write_all(script.as_bytes()).expect("it reads");
    let out = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "60000\n");
    assert!(begin.elapsed() < patience, "it waited for the lock");
    holder.execute_batch("COMMIT").expect("the lock is given up");
    let site = Site::open(&path);
    assert_eq!(site.one::<i64>("SELECT length(crsql_site_id())"), 16);
}

#[test]
fn the_stock_shell_prints_the_same() {
    each_seed("LAWS", 25, history);
}

const DESERIALIZE: &str = "
import sqlite3, sys
if not (hasattr(sqlite3.Connection, 'enable_load_extension') and hasattr(sqlite3.Connection, 'deserialize')):
    sys.exit(77)
def loaded():
    db = sqlite3.connect(':memory:')
    db.enable_load_extension(True)
    db.load_extension(sys.argv[1])
    return db
a = loaded()
a.executescript(\"CREATE TABLE t(id INTEGER PRIMARY KEY, a); SELECT crsql_as_crr('t'); INSERT INTO t VALUES(1, 'one')\")
b = loaded()
b.deserialize(a.serialize())
b.execute(\"INSERT INTO t VALUES(2, 'two')\")
print(b.execute('SELECT crsql_site_id() = ?, group_concat(val) FROM crsql_changes',
                a.execute('SELECT crsql_site_id()').fetchone()).fetchone())
";

/// SQLite frees the schema of `main` when it deserializes: nothing that loading makes may still point there. What is freed is
/// overwritten, so that luck does not hide it.
#[test]
fn a_file_is_deserialized_into_a_connection_of_debians_python_that_was_just_opened() {
    let Some(so) = std::env::var_os("STARLING_SO").filter(|so| Path::new(so).exists()) else {
        return println!("skipped: STARLING_SO names no extension");
    };
    let mut python = Command::new("/usr/bin/python3");
    let Ok(out) = python.args(["-c", DESERIALIZE]).arg(so).env("MALLOC_PERTURB_", "165").output() else {
        return println!("skipped: there is no /usr/bin/python3");
    };
    if out.status.code() == Some(77) {
        return println!("skipped: the sqlite3 module of /usr/bin/python3 loads no extensions, or cannot deserialize");
    }
    let said = String::from_utf8_lossy(&out.stdout);
    assert_eq!(said.trim(), "(1, 'one,two')", "{} {}", out.status, String::from_utf8_lossy(&out.stderr));
}

//! Golden SQL: every tests/golden/*.sql runs through the stock sqlite3 shell with `.load` and through the embedded SQLite,
//! and both must print what stands in the .out file beside it. UPDATE_GOLDEN=1 writes it anew (read the difference).

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use starling_tests::site::Site;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn scripts() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the folder is there")
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "sql"))
        .collect();
    all.sort();
    assert!(all.len() >= 8, "scripts are missing: {all:?}");
    all
}

/// Through the stock shell; `None` where it or the extension is not there.
fn shell(script: &str) -> Option<String> {
    let so = std::env::var_os("STARLING_SO").filter(|so| Path::new(so).exists())?;
    let mut child = Command::new("sqlite3")
        .args(["-batch", "-bail", "-cmd"])
        .arg(format!(".load '{}'", so.to_string_lossy()))
        .arg(":memory:")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take().expect("stdin is piped").write_all(script.as_bytes()).expect("it reads");
    let out = child.wait_with_output().expect("it ends");
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Whether the stock shell is there and no older than this.
fn shell_is_at_least(major: u32, minor: u32) -> bool {
    let Ok(out) = Command::new("sqlite3").arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut numbers = text.split(['.', ' ']).map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// Through the embedded SQLite, printed as the shell prints in list mode.
fn embedded(script: &str) -> String {
    let site = Site::memory();
    let mut batch = rusqlite::Batch::new(&site.db, script);
    let mut out = String::new();
    while let Some(mut stmt) = batch.next().unwrap_or_else(|e| panic!("{e}")) {
        let n = stmt.column_count();
        let mut rows = stmt.query([]).expect("it runs");
        while let Some(row) = rows.next().unwrap_or_else(|e| panic!("{e}")) {
            let cells: Vec<String> = (0..n)
                .map(|i| match row.get_ref(i).expect("a value") {
                    ValueRef::Null => String::new(),
                    ValueRef::Integer(v) => v.to_string(),
                    ValueRef::Real(v) => format!("{v:?}"),
                    ValueRef::Text(v) | ValueRef::Blob(v) => String::from_utf8_lossy(v).into_owned(),
                })
                .collect();
            out.push_str(&cells.join("|"));
            out.push('\n');
        }
    }
    out
}

#[test]
fn the_stock_shell_and_the_embedded_sqlite_print_what_is_written() {
    for path in scripts() {
        let script = std::fs::read_to_string(&path).expect("it reads");
        let expected = path.with_extension("out");
        let mine = embedded(&script);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &mine).expect("it writes");
        }
        let written = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(mine, written, "embedded, {}", path.display());
        if script.contains(") STRICT") && !shell_is_at_least(3, 37) {
            println!("skipped in the stock shell for {}: it does not know STRICT", path.display());
            continue;
        }
        match shell(&script) {
            Some(out) => assert_eq!(out, written, "stock shell, {}", path.display()),
            None => println!("skipped for {}: no sqlite3 shell, or STARLING_SO names no extension", path.display()),
        }
    }
}

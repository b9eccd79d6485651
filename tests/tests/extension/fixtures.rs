//! Databases and changesets that released versions wrote must stay readable, writable and exchangeable. They are kept in
//! `tests/fixtures`, a directory for each format, beside texts that say what they hold.
//!
//! UPDATE_FIXTURES=1 makes those that are missing, and never touches one that is there.

#[path = "fixtures/make.rs"]
mod make;

use make::{Fixture, FIXTURES};
use starling_tests::ledger;
use starling_tests::site::{plain, Site};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Where the present format's fixtures are.
const PRESENT: &str = "v4";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn updating() -> bool {
    std::env::var_os("UPDATE_FIXTURES").is_some()
}

/// Makes those of the present format that are missing.
fn update() {
    let present = folder().join(PRESENT);
    std::fs::create_dir_all(&present).expect("a folder");
    for fixture in FIXTURES {
        let path = present.join(fixture.name).with_extension("db");
        if !path.exists() {
            make(fixture, &path);
        }
    }
}

/// Every format's directory.
fn formats() -> Vec<PathBuf> {
    static UPDATED: Once = Once::new();
    if updating() {
        UPDATED.call_once(update);
    }
    let entries = std::fs::read_dir(folder()).expect("tests/fixtures is there");
    let mut out: Vec<_> = entries.map(|e| e.expect("an entry").path()).filter(|p| p.is_dir()).collect();
    out.sort();
    assert!(out.contains(&folder().join(PRESENT)));
    out
}

/// The names of a site's tables that are no internal ones.
fn tables(site: &Site, and: &str) -> Vec<String> {
    let sql = format!(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'crsql_%' AND name NOT LIKE 'sqlite_%' \
         {and} ORDER BY name"
    );
    let mut stmt = site.db.prepare(&sql).expect("it prepares");
    let names = stmt.query_map([], |r| r.get(0)).expect("it runs");
    names.collect::<Result<_, _>>().expect("names")
}

const CRRS: &str = "AND name IN (SELECT name FROM crsql_table WHERE active = 1)";

fn rows_of(site: &Site, table: &str) -> Vec<String> {
    let mut rows = site.rows(&format!("SELECT * FROM \"{table}\""));
    rows.sort();
    rows
}

/// What can be asked of a database, as text. The vector is that of before what waits in an inbox is drained, since that draws
/// random numbers.
fn tell(site: &Site) -> String {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut out = String::new();
    let mut section = |name: &str, rows: Vec<String>| {
        let _ = writeln!(out, "[{name}]");
        rows.iter().for_each(|row| out.push_str(&format!("{row}\n")));
    };
    site.exec("PRAGMA query_only = 1");
    section("vector", vec![hex(site.vector())]);
    site.exec("PRAGMA query_only = 0");
    section("sites", site.rows("SELECT ordinal, hex(site_id) FROM crsql_site_id ORDER BY 1"));
    section("settings", site.rows("SELECT key, value FROM crsql_master WHERE key GLOB 'co*.*' ORDER BY 1"));
    section("peers", site.rows("SELECT * FROM crsql_tracked_peers ORDER BY 1, 4, 5"));
    for table in tables(site, "") {
        section(&format!("table {table}"), rows_of(site, &table));
    }
    let columns = "[table], hex(pk), cid, quote(val), col_version, db_version, hex(site_id), cl, seq, origin_version";
    section("changes", site.rows(&format!("SELECT {columns} FROM crsql_changes ORDER BY db_version, seq, cid, pk")));
    section("pending", site.rows("SELECT [table], reason, hex(site_id), db_version, changes FROM crsql_pending"));
    section("version", site.rows("SELECT crsql_db_version()"));
    out
}

/// Compares with the kept text, or writes it where there is none yet and fixtures are being made.
fn compare(path: &Path, told: &str) {
    if updating() && !path.exists() {
        std::fs::write(path, told).expect("it writes");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut lines = kept.lines();
    for line in told.lines() {
        assert_eq!(lines.next().unwrap_or(""), line, "{}", path.display());
    }
    assert_eq!(lines.next(), None, "{}", path.display());
}

/// A copy that may be written to.
fn copied(from: &Path, dir: &Path) -> Site {
    let path = dir.join("copy.db");
    std::fs::copy(from, &path).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    Site::open(&path)
}

/// Both end equal, and what their logs say is what they hold.
fn exchange(a: &Site, b: &Site) {
    for _ in 0..2 {
        a.pull(b);
        b.pull(a);
    }
    for table in tables(a, CRRS) {
        assert_eq!(rows_of(a, &table), rows_of(b, &table), "{table}");
    }
    assert_eq!(a.changes(), b.changes());
    assert_eq!(a.vector(), b.vector());
    for site in [a, b] {
        ledger::check(site);
        assert_eq!(site.one::<String>("PRAGMA integrity_check"), "ok");
    }
}

/// An empty replica with the CRRs of another.
fn fresh(like: &Site) -> Site {
    let site = Site::memory();
    for name in tables(like, CRRS) {
        let sql = format!("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{name}'");
        site.exec(&like.one::<String>(&sql));
        site.one::<String>(&format!("SELECT crsql_as_crr('{name}')"));
    }
    site
}

/// Takes the writes of a later version, which a connection sees as they must be seen, and exchanges with a fresh replica.
fn goes_on(site: &Site, seen_by: &Site, fixture: &Fixture) {
    site.exec(fixture.write);
    for (sql, expected) in fixture.then {
        assert_eq!(seen_by.rows(sql), *expected, "{sql}");
    }
    let other = fresh(site);
    other.exec(fixture.elsewhere);
    exchange(site, &other);
}

/// Small pages, one file, and the boot of no machine: whoever writes to it is the first after a reboot.
fn make(fixture: &Fixture, path: &Path) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("made.db");
    let site = Site::open(&file);
    site.exec("PRAGMA page_size = 1024; VACUUM");
    (fixture.make)(&site, &file);
    drop(site);
    let db = plain(&file);
    db.execute_batch("UPDATE crsql_master SET value = 'of the fixture' WHERE key = 'boot_id'").expect("it runs");
    drop(db);
    let bytes = std::fs::read(&file).expect("it reads");
    assert!(bytes.len() < 100_000, "{}: {} bytes", fixture.name, bytes.len());
    std::fs::write(path, bytes).expect("it writes");
}

#[test]
fn files_of_every_format_read_as_they_did_and_take_writes_and_exchanges() {
    for format in formats() {
        for fixture in FIXTURES {
            let path = format.join(fixture.name).with_extension("db");
            // What an older format did not have it has no fixture of.
            if !path.exists() && !format.ends_with(PRESENT) {
                continue;
            }
            println!("{}", path.display());
            let dir = tempfile::tempdir().expect("a directory");
            let site = copied(&path, dir.path());
            assert_eq!(site.one::<String>("PRAGMA integrity_check"), "ok");
            compare(&path.with_extension("txt"), &tell(&site));
            // Of a table that was let go nobody may claim anything.
            if site.one::<i64>("SELECT count(*) FROM crsql_table WHERE active <> 1") == 0 {
                exchange(&site, &fresh(&site));
            }

            let site = copied(&path, dir.path());
            goes_on(&site, &site, fixture);
        }
    }
}

/// Files of formats whose records have a column for each field.
fn with_columns() -> Vec<(PathBuf, &'static Fixture)> {
    let older = formats().into_iter().filter(|format| !format.ends_with(PRESENT));
    let files = older.flat_map(|format| FIXTURES.iter().map(move |f| (format.join(f.name).with_extension("db"), f)));
    files.filter(|(path, _)| path.exists()).collect()
}

fn has_columns(site: &Site) -> bool {
    site.one::<i64>("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'crsql_log'") == 1
}

#[test]
fn files_of_earlier_formats_become_ones_of_the_present_when_triggers_are_made_and_lose_nothing() {
    for (path, fixture) in with_columns() {
        println!("{}", path.display());
        let dir = tempfile::tempdir().expect("a directory");
        let site = copied(&path, dir.path());
        // Who else has the file open goes on with what it finds.
        let other = Site::open(&dir.path().join("copy.db"));
        let before = (site.changes(), site.vector());
        // Where the schema was changed without the extension, its triggers are made anew when it is loaded.
        let as_it_was = has_columns(&site);
        assert!(as_it_was || fixture.name == "ordered", "{}", path.display());
        assert_eq!((other.changes(), has_columns(&other)), (before.0.clone(), as_it_was));
        site.exec("CREATE TABLE later(id INTEGER PRIMARY KEY, v)");
        site.exec("BEGIN; SELECT crsql_as_crr('later'); INSERT INTO later VALUES(1, 1); ROLLBACK");
        assert!(has_columns(&site) == as_it_was && site.changes() == before.0, "what was rolled back");
        site.exec("SELECT crsql_as_crr('later')");
        assert!(!has_columns(&site));
        assert_eq!(
            site.one::<i64>("SELECT count(DISTINCT value) FROM crsql_master WHERE key GLOB 'starling.*' AND value = 4"),
            1
        );
        // A new CRR is a reason to try what waits once more, and parts of that may be carried from then on.
        let waits = site.one::<i64>("SELECT count(*) FROM crsql_pending") > 0;
        // What asks for nothing but a number finds the former table gone.
        assert_eq!(other.one::<i64>("SELECT crsql_db_version()"), site.one::<i64>("SELECT crsql_db_version()"));
        for reader in [&other, &site] {
            assert_eq!(reader.changes(), before.0, "{}", path.display());
            assert!(waits || reader.vector() == before.1, "{}", path.display());
        }
        other.exec("INSERT INTO later VALUES(77, 'other'); DELETE FROM later");
        goes_on(&site, &other, fixture);
    }
}

#[test]
fn a_file_of_an_earlier_format_stays_one_while_a_statement_reads() {
    for (path, _) in with_columns().into_iter().filter(|(_, fixture)| fixture.name == "rows") {
        let dir = tempfile::tempdir().expect("a directory");
        let site = copied(&path, dir.path());
        let before = site.changes();
        site.exec("CREATE TABLE later(id INTEGER PRIMARY KEY, v); CREATE TABLE last(id INTEGER PRIMARY KEY, v)");
        let mut reads = site.db.prepare("SELECT val FROM crsql_changes").expect("it prepares");
        let mut rows = reads.query([]).expect("it runs");
        assert!(rows.next().expect("a row").is_some());
        site.exec("SELECT crsql_as_crr('later')");
        let mut read = 1;
        while rows.next().expect("it goes on").is_some() {
            read += 1;
        }
        assert_eq!((read, site.changes()), (before.len(), before), "{}", path.display());
        drop(rows);
        // The former table could not be dropped then: the next change of the schema does it.
        assert!(has_columns(&site));
        site.exec("SELECT crsql_as_crr('last')");
        assert!(!has_columns(&site));
        ledger::check(&site);
    }
}

#[test]
fn a_transaction_that_has_written_records_goes_on_with_them_when_the_file_becomes_one_of_the_present_format() {
    for (path, fixture) in with_columns().into_iter().filter(|(_, fixture)| fixture.name == "rows") {
        let dir = tempfile::tempdir().expect("a directory");
        let site = copied(&path, dir.path());
        site.exec("CREATE TABLE later(id INTEGER PRIMARY KEY, v); BEGIN; UPDATE t SET a = 'within'");
        let peer = Site::memory().with(&[("later", "CREATE TABLE later(id INTEGER PRIMARY KEY, v)")]);
        peer.exec("INSERT INTO later VALUES(7, 'of the peer')");
        // What is open has been logged before the schema changes, and is gone on with after.
        site.one::<i64>("SELECT count(*) FROM crsql_changes");
        site.exec(
            "SELECT crsql_as_crr('later'); INSERT INTO later VALUES(1, 'within'); UPDATE t SET a = 'again'; COMMIT",
        );
        assert!(!has_columns(&site));
        site.pull(&peer);
        let version = "SELECT count(DISTINCT db_version) FROM crsql_changes WHERE val IN ('within', 'again')";
        assert_eq!(site.one::<i64>(version), 1, "{}", path.display());
        site.exec(fixture.write);
        exchange(&site, &fresh(&site));
    }
}

#[test]
fn a_renamed_column_is_no_write_whatever_build_made_the_triggers() {
    for format in formats() {
        let dir = tempfile::tempdir().expect("a directory");
        let site = copied(&format.join("rows.db"), dir.path());
        let before = site.one::<i64>("SELECT crsql_db_version()");
        site.exec("ALTER TABLE t RENAME COLUMN a TO renamed; UPDATE t SET renamed = 'after' WHERE id = 'pristine'");
        let since = format!("SELECT cid, val FROM crsql_changes WHERE db_version > {before}");
        assert_eq!(site.rows(&since), ["'renamed'|'after'"], "{}", format.display());
    }
}

/// Each line of such a file: a word, and bytes in hex.
fn hex_lines(text: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = |hex: &str| {
        let pairs = hex.as_bytes().chunks(2);
        pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).expect("hex"), 16).expect("hex")).collect()
    };
    text.lines().filter_map(|line| line.split_once(' ')).map(|(word, hex)| (word.to_string(), bytes(hex))).collect()
}

/// What a database answers a newcomer.
fn answer(site: &Site) -> String {
    let (parts, vector) = site.answer(&Site::memory().vector());
    let mut out = String::new();
    for (word, bytes) in parts.iter().map(|(part, _)| ("part", part)).chain([("claim", &vector)]) {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(out, "{word} {hex}");
    }
    out
}

#[test]
fn changesets_of_every_format_are_understood_as_they_were() {
    for format in formats() {
        for name in ["rows", "merged"] {
            let dir = tempfile::tempdir().expect("a directory");
            let like = copied(&format.join(name).with_extension("db"), dir.path());
            let path = format.join(name).with_extension("changesets");
            if updating() && !path.exists() && format.ends_with(PRESENT) {
                std::fs::write(&path, answer(&like)).expect("it writes");
            }
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let site = fresh(&like);
            site.exec("BEGIN");
            for (word, bytes) in hex_lines(&text) {
                match word.as_str() {
                    "part" => drop(site.merge(&bytes).unwrap_or_else(|e| panic!("starling_merge: {e}"))),
                    _ => site.claim(&bytes),
                }
            }
            site.exec("COMMIT");
            for table in tables(&site, CRRS) {
                assert_eq!(rows_of(&site, &table), rows_of(&like, &table), "{table}");
            }
            assert_eq!(site.changes(), like.changes());
            assert_eq!(site.vector(), like.vector());
            ledger::check(&site);
        }
    }
}

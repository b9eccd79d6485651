//! A file that is opened may be a copy, or one that was set back: until it has its new name nothing in it gets a version.

use starling_crdt::Vector;
use starling_tests::site::{plain, Site};
use std::path::{Path, PathBuf};

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

/// A file with a portable table and two rows, the second of which waits in the inbox.
fn with_a_waiting_row(dir: &Path) -> (Site, PathBuf) {
    let path = dir.join("a.db");
    let a = Site::file(&path);
    a.exec(&format!("{T}; SELECT crsql_as_crr('t', 'portable'); INSERT INTO t VALUES(1, 'first')"));
    plain(&path).execute_batch("INSERT INTO t VALUES(2, 'waits')").expect("plain SQLite writes it");
    (a, path)
}

/// As plain SQLite copies a file: a connection with the extension would give what waits its version first.
fn vacuumed_into(path: &Path, to: &Path) {
    plain(path).execute_batch(&format!("VACUUM INTO '{}'", to.display())).expect("it is copied");
}

/// Both ways, until both have seen everything.
fn assert_equal_in_the_end(a: &Site, b: &Site) {
    for _ in 0..2 {
        a.pull(b);
        b.pull(a);
    }
    assert_eq!(a.rows("SELECT * FROM t"), b.rows("SELECT * FROM t"));
    assert_eq!(a.changes(), b.changes());
}

#[test]
fn a_copy_with_a_full_inbox_gives_nothing_a_version_before_it_has_a_name_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, path) = with_a_waiting_row(dir.path());
    let copy = dir.path().join("copy.db");
    vacuumed_into(&path, &copy);
    let c = Site::open(&copy);
    assert_eq!(c.one::<i64>("SELECT count(*) FROM crsql_inbox_1"), 1, "it waits until the file has its name");
    c.exec("SELECT starling_new_site()");
    assert_eq!(c.one::<i64>("SELECT count(*) FROM crsql_inbox_1"), 0);
    a.exec("INSERT INTO t VALUES(3, 'the original goes on')");
    assert_equal_in_the_end(&a, &c);
    assert_eq!(c.rows("SELECT id FROM t"), ["1", "2", "3"]);
}

#[test]
fn a_file_that_was_set_back_gives_nothing_a_version_before_its_new_epoch() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, path) = with_a_waiting_row(dir.path());
    let backup = dir.path().join("backup.db");
    vacuumed_into(&path, &backup);
    a.exec("INSERT INTO t VALUES(3, 'lost')");
    let b = Site::memory();
    b.exec(&format!("{T}; SELECT crsql_as_crr('t')"));
    b.pull(&a);
    drop(a);
    let set_back = Site::open(&backup);
    set_back.exec("SELECT starling_new_epoch()");
    assert_equal_in_the_end(&set_back, &b);
    assert_eq!(b.rows("SELECT id FROM t"), ["1", "2", "3"], "what was lost is back");
}

#[test]
fn a_copy_that_a_migration_changed_is_opened_as_it_is_and_announces_under_its_own_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let a = Site::file(&path);
    a.exec(&format!("{T}; SELECT crsql_as_crr('t'); INSERT INTO t VALUES(1, 'first')"));
    let copy = dir.path().join("copy.db");
    vacuumed_into(&path, &copy);
    plain(&copy)
        .execute_batch(&format!(
            "BEGIN; {}; INSERT INTO tn SELECT * FROM t; INSERT INTO tn VALUES(2, 'by the migration'); DROP TABLE t; ALTER TABLE tn RENAME TO t; COMMIT",
            T.replace("t(", "tn(")
        ))
        .expect("plain SQLite migrates it");
    let c = starling_extension::as_it_is(|| Site::open(&copy));
    assert_eq!(c.one::<i64>("SELECT crsql_db_version()"), 1);
    assert_eq!(c.rows("SELECT count(*) FROM crsql_changes"), ["1"], "the row of the migration has no version yet");
    c.exec("SELECT starling_new_site()");
    assert_eq!(c.rows("SELECT count(*) FROM crsql_changes"), ["2"]);
    a.exec("INSERT INTO t VALUES(3, 'the original goes on')");
    assert_equal_in_the_end(&a, &c);
    assert_eq!(a.rows("SELECT id FROM t"), ["1", "2", "3"]);
}

#[test]
fn a_file_that_is_opened_as_it_is_and_keeps_its_name_goes_on_with_the_first_merge_or_when_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let other = Site::memory();
    other.exec(&format!("{T}; SELECT crsql_as_crr('t'); INSERT INTO t VALUES(7, 'elsewhere')"));
    for told in [true, false] {
        let sub = dir.path().join(told.to_string());
        std::fs::create_dir(&sub).expect("a directory");
        let (a, path) = with_a_waiting_row(&sub);
        drop(a);
        let a = starling_extension::as_it_is(|| Site::open(&path));
        assert_eq!(a.changes().len(), 1);
        if told {
            a.exec("SELECT starling_resume()");
        } else {
            a.pull(&other);
        }
        assert_eq!(a.one::<i64>("SELECT count(*) FROM crsql_inbox_1"), 0);
        assert_equal_in_the_end(&a, &other);
    }
}

#[test]
fn a_table_that_is_armed_anew_in_a_file_left_as_it_is_keeps_what_waits_in_its_inbox() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, path) = with_a_waiting_row(dir.path());
    drop(a);
    let a = starling_extension::as_it_is(|| Site::open(&path));
    a.exec("SELECT crsql_as_crr('t', 'native')");
    assert_eq!(a.changes().len(), 2);
}

/// Another connection begins a new epoch and writes while this one is asked for its vector: whatever the moment, no version of
/// the new epoch is taken for one of the former.
#[test]
fn s1_a_vector_is_of_one_moment() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut torn, mut hit) = (Vec::new(), 0);
    for step in (1..400).step_by(7) {
        let path = dir.path().join(format!("{step}.db"));
        let mut a = Site::file(&path);
        a.exec(&format!("PRAGMA synchronous = OFF; {T}; SELECT crsql_as_crr('t'); INSERT INTO t VALUES(1, 1); SELECT starling_vector()"));
        let before = Vector::decode(&a.vector()).expect("a vector");
        let other = Site::file(&path);
        let (mut steps, mut done) = (0, false);
        let reached = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let tell = reached.clone();
        let intrude = move || {
            steps += 1;
            if steps >= step && !done {
                done = true;
                tell.store(true, std::sync::atomic::Ordering::Relaxed);
                other.exec("SELECT starling_new_epoch(); INSERT INTO t VALUES(11, 1); INSERT INTO t VALUES(12, 1)");
            }
            false
        };
        a.db.progress_handler(1, Some(intrude)).expect("a progress handler");
        let vector = Vector::decode(&a.vector()).expect("a vector");
        a.db.progress_handler(1, None::<fn() -> bool>).expect("none");
        hit += usize::from(reached.load(std::sync::atomic::Ordering::Relaxed));
        for (origin, state) in &before.origins {
            if vector.origins.get(origin).and_then(|now| now.claimed.max()) > state.claimed.max() {
                torn.push(step);
            }
        }
    }
    assert!(hit > 10, "the function takes more steps than that: {hit}");
    assert!(torn.is_empty(), "at these steps: {torn:?}");
}

#[test]
fn a_panic_while_a_file_is_opened_as_it_is_leaves_no_later_file_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    Site::open(&path).exec(&format!("{T}; SELECT crsql_as_crr('t')"));
    plain(&path).execute_batch("CREATE TABLE other(x)").expect("plain SQLite migrates it");
    let opened = std::panic::catch_unwind(|| starling_extension::as_it_is(|| panic!("on purpose")));
    assert!(opened.is_err());
    let s = Site::open(&path);
    plain(&path)
        .execute_batch(&format!(
            "BEGIN; {}; INSERT INTO tn VALUES(2, 'by the migration'); DROP TABLE t; ALTER TABLE tn RENAME TO t; COMMIT",
            T.replace("t(", "tn(")
        ))
        .expect("plain SQLite migrates it");
    drop(s);
    assert_eq!(Site::open(&path).rows("SELECT count(*) FROM crsql_changes"), ["1"]);
}

#[test]
fn a_program_can_choose_the_site_id_before_the_extension_is_loaded_and_after() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let put = "CREATE TABLE crsql_site_id(site_id BLOB NOT NULL, ordinal INTEGER PRIMARY KEY); INSERT INTO crsql_site_id VALUES";
    plain(&path).execute_batch(&format!("{put}(x'000102030405060708090a0b0c0d0e0f', 0)")).expect("it is put there");
    let a = Site::open(&path).with(&[("t", T)]);
    assert_eq!(
        a.rows("SELECT hex(crsql_site_id()), hex(site_id) FROM crsql_site_id"),
        ["'000102030405060708090A0B0C0D0E0F'|'000102030405060708090A0B0C0D0E0F'"]
    );
    a.exec("INSERT INTO t VALUES(1, 'first')");
    let b = Site::memory().with(&[("t", T)]);
    b.pull(&a);
    b.exec("UPDATE t SET v = 'of b'");
    a.pull(&b);
    // Brought back by the other one's file, it goes on as what it was, in another epoch.
    let own = a.one::<Vec<u8>>("SELECT crsql_site_id()");
    drop(a);
    let copy = dir.path().join("copy.db");
    b.exec(&format!("VACUUM INTO '{}'", copy.display()));
    let a = Site::open(&copy);
    assert_eq!(a.one::<Vec<u8>>("SELECT starling_new_site(x'000102030405060708090a0b0c0d0e0f')"), own);
    assert_eq!(a.rows("SELECT site_id = crsql_site_id() FROM crsql_changes"), ["0"]);
    a.exec("INSERT INTO t VALUES(2, 'again')");
    assert_eq!(a.rows("SELECT val FROM crsql_changes WHERE site_id = crsql_site_id()"), ["'again'"]);
    assert_equal_in_the_end(&a, &b);
    assert_eq!(b.rows("SELECT v FROM t"), ["'of b'", "'again'"]);
    assert!(a.refused("SELECT starling_new_site('short')").contains("16 bytes"));
    // What is no such table is the elder relative's.
    for (n, odd) in
        ["(x'0001', 0)", "(x'000102030405060708090a0b0c0d0e0f', 1)", "(zeroblob(16), 0), (x'0b', 1)"].iter().enumerate()
    {
        let path = dir.path().join(format!("{n}.db"));
        plain(&path).execute_batch(&format!("{put}{odd}; {T}")).expect("it is put there");
        assert!(Site::open(&path).refused("SELECT crsql_as_crr('t')").contains("cr-sqlite's own tables"), "{odd}");
    }
}

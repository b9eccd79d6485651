//! What must not grow with what is there already, counted in steps of SQLite's virtual machine, which do not depend on the
//! machine below it.

use starling_tests::site::Site;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

/// Steps that a site's connection takes for this.
fn steps(site: &mut Site, what: impl FnOnce(&Site)) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let step = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        false
    };
    site.db.progress_handler(1, Some(step)).expect("a handler can be set");
    what(site);
    site.db.progress_handler(0, None::<fn() -> bool>).expect("it can be taken away");
    count.load(Ordering::Relaxed)
}

/// Changesets of transactions that insert a row each.
fn changesets(rows: usize) -> Vec<Vec<u8>> {
    let a = Site::memory().with(&[("t", T)]);
    (0..rows).for_each(|i| a.exec(&format!("INSERT INTO t VALUES({i}, {i})")));
    let mut all = a.db.prepare("SELECT changeset FROM starling_changesets").expect("it compiles");
    let all = all.query_map([], |r| r.get(0)).expect("it runs").collect::<Result<_, _>>();
    all.expect("blobs")
}

/// Steps of merging the first of them and the last, with all between merged too.
fn first_and_last(site: &mut Site, parts: &[Vec<u8>]) -> (u64, u64) {
    let mut merge = |part: &[u8]| steps(site, |s| assert!(s.merge(part).is_ok(), "it is merged or kept aside"));
    // What is looked up once per connection belongs to neither.
    let all: Vec<u64> = parts.iter().map(|part| merge(part)).skip(5).collect();
    let of = |some: &[u64]| some.iter().sum::<u64>() / some.len() as u64;
    (of(&all[..10]), of(&all[all.len() - 10..]))
}

#[test]
fn a_refused_row_costs_the_same_however_many_were_refused_before() {
    let mut b = Site::memory().with(&[("t", "CREATE TABLE t(id INTEGER PRIMARY KEY, v CHECK(v < 0))")]);
    let (first, last) = first_and_last(&mut b, &changesets(600));
    assert_eq!(b.one::<i64>("SELECT starling_aside()"), 600);
    // Now and then what is overtaken is looked for.
    assert!(last < first * 2, "{first} steps, and {last} in the end");
}

#[test]
fn a_merge_costs_the_same_however_many_gaps_there_are_in_what_is_held() {
    let mut b = Site::memory().with(&[("t", T)]);
    let every_other: Vec<Vec<u8>> = changesets(1200).into_iter().step_by(2).collect();
    let (first, last) = first_and_last(&mut b, &every_other);
    assert_eq!(b.one::<i64>("SELECT count(*) FROM crsql_claim"), 600);
    assert!(last < first * 2, "{first} steps, and {last} in the end");
}

#[test]
fn a_sweep_looks_for_a_table_that_is_gone_once() {
    let swept = |gone: bool| {
        let mut s = Site::memory().with(&[("t", T), ("u", "CREATE TABLE u(id INTEGER PRIMARY KEY, v)")]);
        s.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO u SELECT i, i FROM n");
        s.exec("UPDATE u SET v = -v");
        (0..100).for_each(|i| s.exec(&format!("CREATE TABLE other_{i}(a, b, c)")));
        if gone {
            s.exec("DROP TABLE u");
        }
        steps(&mut s, |s| assert!(s.one::<i64>("SELECT starling_prune(100000)") >= 0))
    };
    let (there, gone) = (swept(false), swept(true));
    assert!(gone < there * 2, "{there} steps where it is there, {gone} where it is gone");
}

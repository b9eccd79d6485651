//! Whatever SQLite makes of a query over `crsql_changes`, its answer is that of a table with the same rows: terms that are pushed
//! down, several scans of one statement (OR, outer joins), the order by which a scan comes already.

use starling_tests::random::{each_seed, Random};
use starling_tests::site::Site;

/// Local and merged transactions, small and large, bulk and single, two of them with seqs that are there twice.
fn filled() -> Site {
    let s = Site::memory().with(&[("t", "CREATE TABLE t(a INTEGER NOT NULL PRIMARY KEY, b, c)")]);
    for i in 1..6 {
        s.exec(&format!("INSERT INTO t VALUES({i}, {i}, {i})"));
    }
    s.exec(
        "WITH n(i) AS (VALUES(100) UNION ALL SELECT i + 1 FROM n WHERE i < 1500) INSERT INTO t SELECT i, i, i FROM n",
    );
    s.exec(
        "UPDATE t SET b = -b WHERE a % 7 = 0; DELETE FROM t WHERE a = 3 OR a > 1480; UPDATE t SET a = 50 WHERE a = 4",
    );
    for (n, site) in [(0, "0a"), (1, "0b"), (2, "0a"), (3, "0b")] {
        let nine = |key: i64, seq| {
            format!(
                "INSERT INTO crsql_changes VALUES('t', crsql_pack_columns({key}), 'b', 1, 1, {}, x'{site}', 1, {seq});",
                5 + n
            )
        };
        s.exec(&format!("BEGIN; {}{}{}COMMIT", nine(2000 + n, 0), nine(3000 + n, 0), nine(4000 + n, 1)));
    }
    s.exec("CREATE TEMP TABLE copy AS SELECT *, origin_version, commit_ms FROM crsql_changes");
    s.exec("CREATE TEMP TABLE points(v); INSERT INTO points VALUES(3), (6), (99), (NULL)");
    s
}

/// A condition over the columns, nested to some depth.
fn condition(r: &mut Random, depth: u64) -> String {
    if depth > 0 && r.chance(60) {
        let (one, other) = (condition(r, depth - 1), condition(r, depth - 1));
        return format!("({one} {} {other})", r.pick(&["AND", "OR", "OR"]));
    }
    let op = *r.pick(&["=", "<", "<=", ">", ">=", "<>", "IS", "IS NOT"]);
    let version = format!("{}{}", r.below(14), r.pick(&["", "", ".5", ".0"]));
    match r.below(8) {
        0..=2 => format!("db_version {op} {version}"),
        3 => format!("db_version BETWEEN {} AND {version}", r.below(9)),
        4 => format!("db_version IN ({}, {}, NULL)", r.below(14), r.below(14)),
        5 => format!("site_id {op} {}", r.pick(&["x'0a'", "x'0b'", "crsql_site_id()", "x'0c'", "NULL", "'0a'"])),
        6 => format!("seq {op} {}", r.below(4)),
        _ => format!("{} {op} {}", r.pick(&["cl", "col_version"]), r.below(4)),
    }
}

fn query(r: &mut Random) -> String {
    let condition = condition(r, 3);
    let all = "db_version, seq, hex(pk), cid, quote(val), hex(site_id), cl";
    match r.below(6) {
        0 => format!("SELECT max(db_version), min(db_version), count(*), sum(seq) FROM $ WHERE {condition}"),
        1 => format!("SELECT max(db_version) FROM $ WHERE {condition}"),
        2 => format!(
            "SELECT db_version FROM $ WHERE {condition} ORDER BY db_version {}, seq LIMIT 9",
            r.pick(&["", "DESC"])
        ),
        3 => format!(
            "SELECT db_version FROM $ WHERE {condition} ORDER BY db_version {} LIMIT 5 OFFSET 2",
            r.pick(&["", "DESC"])
        ),
        4 => {
            let join = *r.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
            let (one, other) = *r.pick(&[("points", "$"), ("$", "points")]);
            format!(
                "SELECT v, {all} FROM {one} {join} {other} ON db_version {} v ORDER BY {}",
                r.pick(&["=", "=", "<"]),
                "1, 2, 3, 4, 5"
            )
        }
        _ => format!("SELECT {all} FROM $ WHERE {condition} ORDER BY 1, 2, 3, 4"),
    }
}

#[test]
fn any_query_answers_as_over_a_table_with_the_same_rows() {
    let s = filled();
    let seen = std::panic::AssertUnwindSafe(&s);
    each_seed("PLANS", 300, move |seed| {
        let query = query(&mut Random::new(seed));
        let over = |table: &str| seen.rows(&query.replace('$', table));
        assert!(over("crsql_changes") == over("copy"), "{query}");
    });
}

#[test]
fn the_newest_version_is_found_without_a_scan_of_all() {
    let s = filled();
    for query in ["SELECT max(db_version) FROM $", "SELECT db_version FROM $ ORDER BY db_version DESC LIMIT 1"] {
        let plan = s.rows(&format!("EXPLAIN QUERY PLAN {}", query.replace('$', "crsql_changes")));
        assert!(plan.iter().any(|line| line.contains("INDEX 0:d")), "{plan:?}");
        assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{plan:?}");
    }
}

//! Ordered lists: `crsql_fract_key_between`, `crsql_fract_as_ordered`, the view `t_fractindex`.

use starling_tests::random::Random;
use starling_tests::site::Site;

const LISTED: &str = "CREATE TABLE todo(id INTEGER PRIMARY KEY, list TEXT, ord TEXT, title TEXT)";

/// A CRR that is an ordered list.
fn ordered(sql: &str, call: &str) -> Site {
    let s = Site::memory();
    s.exec(sql);
    assert_eq!(s.one::<String>(&format!("SELECT crsql_fract_as_ordered({call})")), "OK");
    let table = call.split(',').next().expect("a table");
    assert_eq!(s.one::<String>(&format!("SELECT crsql_as_crr({table})")), "OK");
    s
}

fn todo() -> Site {
    ordered(LISTED, "'todo', 'ord', 'list'")
}

/// Ids in the order of the list, and whether all of its keys differ.
fn ids(s: &Site, list: &str) -> String {
    s.rows(&format!("SELECT id FROM todo WHERE list = '{list}' ORDER BY ord, id")).join(" ")
}

fn keys_differ(s: &Site) -> bool {
    s.one("SELECT count(DISTINCT coalesce(list, '') || '/' || ord) = count(*) FROM todo")
}

#[test]
fn a_key_between_two_is_between_and_what_is_no_key_is_refused_with_the_reason() {
    let s = Site::memory();
    let between = |args: &str| s.one::<String>(&format!("SELECT crsql_fract_key_between({args})"));
    assert_eq!(between("NULL, NULL"), "a0");
    assert_eq!(between("'a0', NULL"), "a1");
    assert_eq!(between("NULL, 'a0'"), "Zz");
    assert_eq!(between("'a0', 'a1'"), "a0V");
    for (args, why) in [
        ("'a1', 'a0'", "crsql_fract_key_between('a1', 'a0'): the first key must be below the second"),
        ("'a0', 'a0'", "below the second"),
        ("'', NULL", "the first key begins with no letter"),
        ("NULL, '-1'", "the second key begins with no letter"),
        ("1, NULL", "the first key must be text or NULL"),
        ("NULL, x'6130'", "the second key must be text or NULL"),
        ("'b1', NULL", "shorter than its first letter says"),
        ("'a0 ', NULL", "a character other than 0-9, A-Z, a-z"),
        ("'a00', NULL", "a fraction that ends in 0"),
        ("CAST(x'61ff' AS TEXT), NULL", "a character other than"),
    ] {
        let message = s.refused(&format!("SELECT crsql_fract_key_between({args})"));
        assert!(message.contains(why), "{args}: {message}");
    }
}

#[test]
fn minus_one_prepends_and_one_appends_within_the_list() {
    let s = todo();
    s.exec("INSERT INTO todo VALUES(1, 'a', 1, 'x'), (2, 'a', 1, 'x'), (3, 'b', 1, 'x'), (4, 'a', -1, 'x'), (5, 'a', '1', 'x')");
    s.exec("INSERT INTO todo VALUES(6, NULL, 1, 'x'), (7, NULL, 1, 'x')");
    assert_eq!(
        s.rows("SELECT id, ord FROM todo ORDER BY list, ord"),
        ["6|'a0'", "7|'a1'", "4|'Zz'", "1|'a0'", "2|'a1'", "5|'a2'", "3|'a0'"]
    );
    s.exec("UPDATE todo SET ord = -1 WHERE id = 5; UPDATE todo SET ord = 1 WHERE id = 4");
    assert_eq!(ids(&s, "a"), "5 1 2 4");
    // Alone in its list, and moved to another list's end.
    s.exec("UPDATE todo SET ord = 1 WHERE id = 3; UPDATE todo SET list = 'b', ord = -1 WHERE id = 1");
    assert_eq!((ids(&s, "a"), ids(&s, "b")), ("5 2 4".into(), "1 3".into()));
    s.exec("UPDATE todo SET ord = 1");
    assert!(keys_differ(&s));
}

#[test]
fn crsql_changes_shows_final_keys_only_and_replicas_agree() {
    let (a, b) = (todo(), todo());
    a.exec("INSERT INTO todo VALUES(1, 'a', 1, 'x'); INSERT INTO todo VALUES(2, 'a', 1, 'y')");
    a.exec("INSERT INTO todo_fractindex(id, list, title, after_id) VALUES(3, 'a', 'z', 1)");
    assert_eq!(a.rows("SELECT val FROM crsql_changes WHERE cid = 'ord' ORDER BY pk"), ["'a0'", "'a1'", "'a0V'"]);
    b.pull(&a);
    b.exec("UPDATE todo SET ord = -1 WHERE id = 2; INSERT INTO todo VALUES(4, 'a', 1, 'w')");
    a.exec("UPDATE todo_fractindex SET after_id = 2 WHERE id = 1");
    a.exec("INSERT OR REPLACE INTO todo VALUES(2, 'a', 1, 'again'); DELETE FROM todo WHERE id = 3; INSERT INTO todo VALUES(3, 'a', -1, 'back')");
    for _ in 0..2 {
        a.pull(&b);
        b.pull(&a);
    }
    assert_eq!(a.changes(), b.changes());
    assert_eq!(a.rows("SELECT * FROM todo ORDER BY ord, id"), b.rows("SELECT * FROM todo ORDER BY ord, id"));
    let c = todo();
    c.pull_nine(&a, |_| {});
    assert_eq!(c.changes(), a.changes());
}

#[test]
fn a_row_goes_directly_after_the_row_named() {
    let s = todo();
    let insert = |id: i64, after: &str| {
        s.exec(&format!("INSERT INTO todo_fractindex(id, list, title, after_id) VALUES({id}, 'a', 'x', {after})"));
    };
    for (id, after) in [(1, "NULL"), (2, "1"), (3, "1"), (4, "NULL"), (5, "2")] {
        insert(id, after);
    }
    assert_eq!(ids(&s, "a"), "4 1 3 2 5");
    assert_eq!(s.rows("SELECT id, after_id FROM todo_fractindex ORDER BY ord"), ["4|NULL", "1|4", "3|1", "2|3", "5|2"]);
    let to = |id: i64, after: &str| s.exec(&format!("UPDATE todo_fractindex SET after_id = {after} WHERE id = {id}"));
    to(4, "5");
    assert_eq!(ids(&s, "a"), "1 3 2 5 4");
    to(2, "NULL");
    assert_eq!(ids(&s, "a"), "2 1 3 5 4");
    to(1, "3");
    assert_eq!(ids(&s, "a"), "2 3 1 5 4");
    let before = s.changes();
    to(1, "3");
    to(2, "NULL");
    assert_eq!(s.changes(), before, "where a row is already, nothing is written");
    // An explicit place is taken too, and other columns are written through the view without a move.
    s.exec("INSERT INTO todo_fractindex(id, list, ord, title) VALUES(6, 'a', 1, 'x'); UPDATE todo_fractindex SET title = 'new' WHERE id = 3");
    assert_eq!(ids(&s, "a"), "2 3 1 5 4 6");
    assert_eq!(s.one::<String>("SELECT title FROM todo WHERE id = 3"), "new");
    // To another list, to a place in it or keeping its key.
    s.exec("UPDATE todo_fractindex SET list = 'b', after_id = NULL WHERE id = 2; UPDATE todo_fractindex SET list = 'b', title = 't', after_id = 2 WHERE id = 6");
    s.exec("UPDATE todo_fractindex SET list = 'b' WHERE id = 3");
    assert_eq!((ids(&s, "a"), ids(&s, "b").split(' ').count()), ("1 5 4".into(), 3));
    assert_eq!(s.rows("SELECT title FROM todo WHERE id = 6"), ["'t'"]);
}

#[test]
fn what_cannot_be_placed_is_refused_and_nothing_is_written() {
    let s = todo();
    s.exec("INSERT INTO todo VALUES(1, 'a', 1, 'x'), (2, 'a', 1, 'x'), (3, 'b', 1, 'x')");
    let before = s.changes();
    for (sql, why) in [
        (
            "INSERT INTO todo_fractindex(id, list, after_id) VALUES(9, 'a', 77)",
            "no row with that after_id in this list",
        ),
        ("INSERT INTO todo_fractindex(id, list, after_id) VALUES(9, 'a', 3)", "in this list"),
        ("UPDATE todo_fractindex SET after_id = 3 WHERE id = 1", "in this list"),
        ("UPDATE todo_fractindex SET after_id = 1 WHERE id = 1", "after itself"),
        ("UPDATE todo_fractindex SET after_id = 2, id = 5 WHERE id = 1", "an UPDATE each"),
        ("UPDATE todo_fractindex SET after_id = 2, ord = 1 WHERE id = 1", "an UPDATE each"),
    ] {
        let message = s.refused(sql);
        assert!(message.contains(why), "{sql}: {message}");
        assert_eq!(s.changes(), before, "{sql}");
    }
}

#[test]
fn rows_that_share_a_key_after_a_merge_are_told_apart_when_one_comes_between() {
    for after in 1..=5 {
        let sites: Vec<Site> = (0..5).map(|_| todo()).collect();
        for (i, site) in sites.iter().enumerate() {
            site.exec(&format!("INSERT INTO todo VALUES({}, 'a', 1, 'x')", i + 1));
        }
        let s = &sites[0];
        sites[1..].iter().for_each(|other| s.pull(other));
        assert_eq!(s.rows("SELECT DISTINCT ord FROM todo"), ["'a0'"], "five appended at once, to an empty list");
        s.exec("INSERT INTO todo VALUES(8, 'a', -1, 'first'), (9, 'a', 1, 'last'), (7, 'b', 1, 'elsewhere')");
        let expected = |moved: &str| {
            let mut list: Vec<&str> =
                ["8", "1", "2", "3", "4", "5", "9"].into_iter().filter(|id| *id != moved).collect();
            let at = list.iter().position(|id| *id == after.to_string()).expect("it is there") + 1;
            list.insert(at, moved);
            list.join(" ")
        };
        s.exec(&format!("BEGIN; INSERT INTO todo_fractindex(id, list, after_id) VALUES(6, 'a', {after})"));
        assert_eq!(ids(s, "a"), expected("6"), "inserted after {after}");
        s.exec("ROLLBACK; BEGIN");
        s.exec(&format!("UPDATE todo_fractindex SET after_id = {after} WHERE id = 9"));
        assert_eq!(ids(s, "a"), expected("9"), "the last one moved after {after}");
        s.exec("ROLLBACK");
        for moved in ["1", "3", "5"].into_iter().filter(|id| *id != after.to_string()) {
            s.exec(&format!("BEGIN; UPDATE todo_fractindex SET after_id = {after} WHERE id = {moved}"));
            assert_eq!(ids(s, "a"), expected(moved), "{moved} moved after {after}");
            s.exec("ROLLBACK");
        }
    }
}

#[test]
fn random_moves_agree_with_a_list_in_memory_and_replicas_end_alike() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let sites = [todo(), todo()];
        let mut list: Vec<i64> = Vec::new();
        let s = &sites[0];
        for id in 1..60 {
            let known = (!list.is_empty()).then(|| list[random.below(list.len() as u64) as usize]);
            match (random.below(5), known) {
                (0, _) | (_, None) => {
                    s.exec(&format!("INSERT INTO todo VALUES({id}, 'a', 1, 'x')"));
                    list.push(id);
                }
                (1, _) => {
                    s.exec(&format!("INSERT INTO todo VALUES({id}, 'a', -1, 'x')"));
                    list.insert(0, id);
                }
                (2 | 3, Some(after)) => {
                    s.exec(&format!("INSERT INTO todo_fractindex(id, list, after_id) VALUES({id}, 'a', {after})"));
                    let at = list.iter().position(|i| *i == after).expect("it is there");
                    list.insert(at + 1, id);
                }
                (_, Some(after)) => {
                    let moved = list[random.below(list.len() as u64) as usize];
                    if moved != after {
                        s.exec(&format!("UPDATE todo_fractindex SET after_id = {after} WHERE id = {moved}"));
                        list.retain(|i| *i != moved);
                        let at = list.iter().position(|i| *i == after).expect("it is there");
                        list.insert(at + 1, moved);
                    }
                }
            }
            let expected: Vec<String> = list.iter().map(ToString::to_string).collect();
            assert_eq!(ids(s, "a"), expected.join(" "), "seed {seed}");
            assert!(keys_differ(s), "seed {seed}");
        }
        sites[1].exec("INSERT INTO todo VALUES(100, 'a', 1, 'x'), (101, 'a', -1, 'x'); INSERT INTO todo_fractindex(id, list, after_id) VALUES(102, 'a', 101)");
        sites[1].pull(s);
        s.pull(&sites[1]);
        assert_eq!(ids(s, "a"), ids(&sites[1], "a"), "seed {seed}");
        assert_eq!(s.changes(), sites[1].changes(), "seed {seed}");
    }
}

#[test]
fn appending_and_prepending_make_short_keys() {
    let s = todo();
    s.exec("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO todo SELECT i, 'a', 1 - 2 * (i % 2), 'x' FROM n");
    assert_eq!(s.rows("SELECT min(length(ord)), max(length(ord)), count(DISTINCT ord) FROM todo"), ["2|3|5000"]);
}

#[test]
fn a_table_that_has_rows_keeps_their_order() {
    let s = Site::memory();
    s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, list, pos); INSERT INTO t VALUES(1, 'a', 30), (2, 'a', 10), (3, 'a', 20), (4, 'b', 1), (5, 'a', NULL), (6, 'a', 'a5')");
    s.exec("SELECT crsql_fract_as_ordered('t', 'pos', 'list'), crsql_as_crr('t')");
    assert_eq!(s.rows("SELECT id FROM t WHERE list = 'a' ORDER BY pos"), ["5", "6", "2", "3", "1"]);
    assert_eq!(s.rows("SELECT id, pos FROM t WHERE id IN (4, 5)"), ["4|'a0'", "5|NULL"]);
    assert_eq!(s.rows("SELECT DISTINCT col_version FROM crsql_changes"), ["1"]);
    s.exec("INSERT INTO t_fractindex(id, list) VALUES(7, 'a')");
    assert_eq!(s.rows("SELECT id FROM t WHERE list = 'a' ORDER BY pos"), ["5", "7", "6", "2", "3", "1"]);
}

#[test]
fn composite_keys_odd_names_and_quoted_columns_work() {
    let s = Site::memory();
    s.exec("CREATE TABLE \"o'dd \"\"t\"\" {view}\"(\"a'a\" TEXT NOT NULL, \"group\" INT NOT NULL, \"or\"\"der\" TEXT, \"li st\", n TEXT NOT NULL DEFAULT 'd''x', m INT DEFAULT 4, g AS (n || '!'), PRIMARY KEY(\"a'a\", \"group\"))");
    s.db.query_row("SELECT crsql_fract_as_ordered(?1, 'OR\"DER', 'Li St')", ["o'dd \"t\" {view}"], |_| Ok(()))
        .expect("it can be ordered");
    s.db.query_row("SELECT crsql_as_crr(?1)", ["o'dd \"t\" {view}"], |_| Ok(())).expect("it can be a CRR");
    let view = "\"o'dd \"\"t\"\" {view}_fractindex\"";
    s.exec(&format!("INSERT INTO {view}(\"a'a\", \"group\", \"li st\") VALUES('x', 1, 7), ('x', 2, 7)"));
    s.exec(&format!(
        "INSERT INTO {view}(\"a'a\", \"group\", \"li st\", \"after_a'a\", after_group) VALUES('y', 1, 7, 'x', 2)"
    ));
    let list =
        format!("SELECT \"a'a\", \"group\", n, m, g, \"after_a'a\", after_group FROM {view} ORDER BY \"or\"\"der\"");
    assert_eq!(
        s.rows(&list),
        ["'x'|2|'d''x'|NULL|'d''x!'|NULL|NULL", "'y'|1|'d''x'|NULL|'d''x!'|'x'|2", "'x'|1|'d''x'|NULL|'d''x!'|'y'|1"]
            .map(|row| row.replace("d''x", "d'x"))
    );
    s.exec(&format!("UPDATE {view} SET \"after_a'a\" = 'x', after_group = 1, m = 5 WHERE \"group\" = 2"));
    assert_eq!(
        s.rows(&format!("SELECT \"a'a\", \"group\", m FROM {view} ORDER BY \"or\"\"der\"")),
        ["'y'|1|NULL", "'x'|1|NULL", "'x'|2|5"]
    );
    assert!(s
        .refused(&format!("UPDATE {view} SET \"after_a'a\" = NULL WHERE \"group\" = 2"))
        .contains("no row with that after_a'a, after_group"));
}

#[test]
fn it_works_where_the_schema_is_not_trusted_and_where_triggers_recurse() {
    for pragma in ["trusted_schema = OFF", "recursive_triggers = ON"] {
        let s = todo();
        s.exec(&format!("PRAGMA {pragma}"));
        s.exec("INSERT INTO todo VALUES(1, 'a', 1, 'x'), (2, 'a', -1, 'x'); UPDATE todo SET ord = 1 WHERE id = 2");
        s.exec("INSERT INTO todo_fractindex(id, list, after_id) VALUES(3, 'a', 1); UPDATE todo_fractindex SET after_id = 2 WHERE id = 1");
        assert_eq!(ids(&s, "a"), "3 2 1", "{pragma}");
    }
}

#[test]
fn what_cannot_be_an_ordered_list_is_refused_with_the_reason_and_left_untouched() {
    let table = "CREATE TABLE t(id INTEGER PRIMARY KEY, o, l, g AS (l))";
    for (sql, call, why) in [
        (table, "'missing', 'o'", "no such table: missing"),
        (table, "'t'", "give at least the first two"),
        (table, "'t', NULL", "must be text"),
        (table, "'t', 'x'", "table \"t\": it has no stored column \"x\""),
        (table, "'t', 'g'", "no stored column \"g\""),
        (table, "'t', 'o', 'x'", "no stored column \"x\""),
        (table, "'t', 'id'", "part of the primary key"),
        (table, "'t', 'o', 'o'", "named twice"),
        (table, "'t', 'o', 'l', 'L'", "named twice"),
        ("CREATE TABLE t(o, l)", "'t', 'o'", "no primary key"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, o TEXT COLLATE NOCASE)", "'t', 'o'", "ignores case"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, o INTEGER) STRICT", "'t', 'o'", "STRICT column of type INTEGER"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, o, After_Id)", "'t', 'o'", "neighbour"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, o); CREATE TABLE t_fractindex(a)", "'t', 'o'", "already"),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, o); CREATE VIEW t_fractindex AS SELECT 1", "'t', 'o'", "already"),
    ] {
        let s = Site::memory();
        s.exec(sql);
        let schema = s.rows("SELECT name, sql FROM sqlite_master ORDER BY rowid");
        let message = s.refused(&format!("SELECT crsql_fract_as_ordered({call})"));
        assert!(message.contains(why), "{sql}, {call}: {message}");
        assert_eq!(s.rows("SELECT name, sql FROM sqlite_master ORDER BY rowid"), schema, "{sql}: something was left");
    }
    ordered("CREATE TABLE t(id INTEGER PRIMARY KEY, o TEXT NOT NULL) STRICT", "'t', 'o'")
        .exec("INSERT INTO t VALUES(1, 1), (2, -1)");
    ordered("CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, o INTEGER) WITHOUT ROWID", "'t', 'o'")
        .exec("INSERT INTO t VALUES(1, 1), (2, -1)");
}

#[test]
fn a_plain_table_is_a_list_too_and_stays_one_when_it_becomes_a_crr() {
    let s = Site::memory();
    s.exec("CREATE TABLE todo(id PRIMARY KEY, list, ord); INSERT INTO todo VALUES('a', 'l', 2), ('b', 'l', 1)");
    s.exec(
        "SELECT crsql_fract_as_ordered('todo', 'ord', 'list'); INSERT INTO todo VALUES('c', 'l', 1), ('d', 'l', -1)",
    );
    s.exec("INSERT INTO todo_fractindex(id, list, after_id) VALUES('e', 'l', 'b'); UPDATE todo_fractindex SET after_id = 'c' WHERE id = 'd'");
    assert_eq!(ids(&s, "l"), "'b' 'e' 'a' 'c' 'd'");
    assert_eq!(s.one::<i64>("SELECT count(*) FROM crsql_changes"), 0);
    assert!(s.refused("SELECT crsql_as_crr('todo')").contains("may be NULL"), "it can be no CRR");
    // One that can be is the list that it was, also in an alter window, which knows the list by its columns' ids.
    let s = Site::memory();
    s.exec(&format!("{LISTED}; SELECT crsql_fract_as_ordered('todo', 'ord', 'list'); INSERT INTO todo VALUES(1, 'l', 1, 'x'), (2, 'l', -1, 'x')"));
    s.exec("SELECT crsql_as_crr('ToDo'), crsql_begin_alter('todo'); ALTER TABLE todo RENAME COLUMN ord TO place; SELECT crsql_commit_alter('todo')");
    s.exec(
        "INSERT INTO todo VALUES(3, 'l', -1, 'x'); INSERT INTO todo_fractindex(id, list, after_id) VALUES(4, 'l', 2)",
    );
    assert_eq!(s.rows("SELECT id FROM todo ORDER BY place"), ["3", "2", "4", "1"]);
    let other = Site::memory().with(&[("todo", &LISTED.replace("ord", "place"))]);
    other.pull(&s);
    assert_eq!((other.changes(), other.rows("SELECT * FROM todo")), (s.changes(), s.rows("SELECT * FROM todo")));
    // A table of that name which is another one is no list, whatever was noted.
    s.exec("CREATE TABLE p(id INTEGER PRIMARY KEY, o); SELECT crsql_fract_as_ordered('p', 'o'); DROP VIEW p_fractindex; DROP TABLE p");
    s.exec("CREATE TABLE p(id INTEGER PRIMARY KEY, o); SELECT crsql_as_crr('p'); INSERT INTO p VALUES(1, -1)");
    assert_eq!(s.rows("SELECT o FROM p"), ["-1"]);
}

#[test]
fn doing_it_again_is_harmless_and_another_order_takes_the_place() {
    let s = todo();
    s.exec("INSERT INTO todo VALUES(1, 'a', 1, 'x'), (2, 'a', 1, 'x')");
    let (schema, changes) = (s.rows("SELECT name, sql FROM sqlite_master ORDER BY rowid"), s.changes());
    s.exec("SELECT crsql_fract_as_ordered('ToDo', 'ORD', 'LIST')");
    assert_eq!(s.rows("SELECT name, sql FROM sqlite_master ORDER BY rowid"), schema);
    assert_eq!(s.changes(), changes);
    s.exec("SELECT crsql_fract_as_ordered('todo', 'title'); INSERT INTO todo VALUES(3, 'b', NULL, 1); UPDATE todo SET ord = 1 WHERE id = 1");
    assert_eq!(s.rows("SELECT id, ord, title FROM todo ORDER BY title"), ["1|'1'|'a0'", "2|'a1'|'a1'", "3|NULL|'a2'"]);
    // A new column is shown after another call.
    s.exec("ALTER TABLE todo ADD COLUMN more; SELECT starling_resume(), crsql_fract_as_ordered('todo', 'ord', 'list')");
    s.exec("INSERT INTO todo_fractindex(id, list, more) VALUES(9, 'a', 'm')");
    assert_eq!(s.rows("SELECT more FROM todo WHERE id = 9"), ["'m'"]);
    // Capture's triggers were made anew and fire first now; what comes out is the same.
    s.exec("INSERT INTO todo VALUES(10, 'a', 1, 'x', 'n'); UPDATE todo SET ord = -1 WHERE id = 10");
    let other = ordered(&LISTED.replace("title TEXT", "title TEXT, more"), "'todo', 'ord', 'list'");
    other.pull(&s);
    assert_eq!((other.changes(), ids(&other, "a")), (s.changes(), ids(&s, "a")));
}

#[test]
fn a_key_that_is_none_is_no_neighbour() {
    let s = todo();
    s.exec("INSERT INTO todo VALUES(1, 'a', 1, 'x'), (2, 'a', 'zzz', 'x'), (3, 'a', '', 'x'), (4, 'a', 1, 'x'), (5, 'a', -1, 'x')");
    assert_eq!(ids(&s, "a"), "3 5 1 4 2");
    s.exec("SELECT crsql_fract_as_ordered('todo', 'ord', 'list')");
    assert_eq!(ids(&s, "a"), "5 1 4 3 2");
}

#[test]
fn neighbours_are_found_by_an_index_and_one_that_is_there_is_used() {
    let plan = |s: &Site| s.rows("EXPLAIN QUERY PLAN SELECT max(ord) FROM todo WHERE list = 'a'").join(" ");
    let s = todo();
    assert!(plan(&s).contains("todo__fractindex_order"), "{}", plan(&s));
    let s = ordered(&format!("{LISTED}; CREATE INDEX own ON todo(list, ord, title)"), "'todo', 'ord', 'list'");
    assert!(plan(&s).contains("own"), "{}", plan(&s));
    assert_eq!(s.one::<i64>("SELECT count(*) FROM sqlite_master WHERE name = 'todo__fractindex_order'"), 0);
}

#[test]
fn a_renamed_table_is_ordered_under_its_new_name_alone() {
    let s = todo();
    s.exec("ALTER TABLE todo RENAME TO jobs; SELECT starling_resume(), crsql_fract_as_ordered('jobs', 'ord', 'list')");
    s.exec("INSERT INTO jobs VALUES(1, 'a', 1, 'x'), (2, 'a', 1, 'x'); INSERT INTO jobs_fractindex(id, list, after_id) VALUES(3, 'a', 1)");
    assert_eq!(s.rows("SELECT id, ord FROM jobs ORDER BY ord"), ["1|'a0'", "3|'a0V'", "2|'a1'"]);
    assert_eq!(s.one::<i64>("SELECT count(*) FROM sqlite_master WHERE name LIKE 'todo%'"), 0);
}

#[test]
fn three_replicas_that_reorder_at_once_end_with_one_order() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let sites = [todo(), todo(), todo()];
        for step in 0..60 {
            let (s, id) = (&sites[random.below(3) as usize], random.below(12));
            let any = format!("SELECT (SELECT id FROM todo WHERE list = 'a' ORDER BY (id * 7 + {step}) % 13 LIMIT 1)");
            let known = s.one::<Option<i64>>(&any);
            let place = if random.chance(50) { 1 } else { -1 };
            match (random.below(6), known) {
                (0, _) => s.exec(&format!("INSERT OR REPLACE INTO todo VALUES({id}, 'a', {place}, {step})")),
                (1, _) => s.exec(&format!("UPDATE todo SET ord = {place} WHERE id = {id}")),
                (2, _) if random.chance(30) => s.exec(&format!("DELETE FROM todo WHERE id = {id}")),
                (3, Some(after)) if after != id as i64 => {
                    s.exec(&format!("UPDATE todo_fractindex SET after_id = {after} WHERE id = {id}"));
                    let moved = s.rows(&format!("SELECT after_id FROM todo_fractindex WHERE id = {id}"));
                    assert!(moved.is_empty() || moved == [after.to_string()], "seed {seed}: {moved:?}");
                }
                (4, Some(after)) => {
                    let new = 100 + step;
                    s.exec(&format!("INSERT INTO todo_fractindex(id, list, after_id) VALUES({new}, 'a', {after})"));
                    assert_eq!(
                        s.one::<i64>(&format!("SELECT after_id FROM todo_fractindex WHERE id = {new}")),
                        after,
                        "seed {seed}"
                    );
                }
                _ => s.pull(&sites[random.below(3) as usize]),
            }
        }
        for (to, from) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            sites[to].pull(&sites[from]);
        }
        for other in &sites[1..] {
            assert_eq!(sites[0].changes(), other.changes(), "seed {seed}");
            let view = "SELECT * FROM todo_fractindex ORDER BY ord, id";
            assert_eq!(sites[0].rows(view), other.rows(view), "seed {seed}");
        }
    }
}

#[test]
fn a_merged_key_is_final() {
    let (a, b) = (Site::memory().with(&[("todo", LISTED)]), todo());
    a.exec("INSERT INTO todo VALUES(1, 'a', 1, 'x')");
    b.pull(&a);
    assert_eq!(b.rows("SELECT ord FROM todo"), ["'1'"], "a table that is not ordered there says 1");
    assert_eq!(a.changes(), b.changes());
    b.exec("SELECT crsql_fract_as_ordered('todo', 'ord', 'list')");
    assert_eq!(b.rows("SELECT ord FROM todo"), ["'a0'"]);
}

#[test]
fn a_table_that_is_no_crr_any_more_or_gone_leaves_no_broken_view() {
    let s = todo();
    let made = || s.rows("SELECT name FROM sqlite_master WHERE name LIKE '%fractindex%'");
    assert_eq!(made().len(), 7);
    s.one::<String>("SELECT crsql_as_table('todo')");
    assert_eq!(made(), [] as [&str; 0]);
    s.exec("INSERT INTO todo VALUES(1, 'a', 1, 'plain again'); SELECT crsql_as_crr('todo')");
    assert_eq!(made().len(), 0, "a CRR again is not an ordered list by itself");
    s.exec("SELECT crsql_fract_as_ordered('todo', 'ord', 'list')");
    s.exec("DROP TABLE todo; SELECT starling_resume()");
    assert_eq!(made(), [] as [&str; 0]);
    s.exec("CREATE TABLE other(a); ALTER TABLE other RENAME TO another");
}

#[test]
fn a_table_rebuilt_outside_gets_its_order_back() {
    let s = todo();
    s.exec("INSERT INTO todo VALUES(1, 'a', 1, 'x')");
    s.exec("BEGIN; DROP VIEW todo_fractindex; CREATE TABLE new(id INTEGER PRIMARY KEY, list TEXT, ord TEXT, title TEXT, more)");
    s.exec("INSERT INTO new SELECT *, NULL FROM todo; DROP TABLE todo; ALTER TABLE new RENAME TO todo; COMMIT; SELECT starling_resume()");
    s.exec("INSERT INTO todo VALUES(2, 'a', -1, 'x', 'm'); INSERT INTO todo_fractindex(id, list, more, after_id) VALUES(3, 'a', 'n', 2)");
    assert_eq!(ids(&s, "a"), "2 3 1");
    // Without its order column it is no list any more.
    s.exec("BEGIN; DROP VIEW todo_fractindex; CREATE TABLE new(id INTEGER PRIMARY KEY, list TEXT); INSERT INTO new SELECT id, list FROM todo");
    s.exec("DROP TABLE todo; ALTER TABLE new RENAME TO todo; COMMIT; SELECT starling_resume(); INSERT INTO todo VALUES(4, 'a')");
    assert_eq!(s.one::<i64>("SELECT count(*) FROM sqlite_master WHERE name LIKE '%fractindex%'"), 0);
}

#[test]
fn a_column_of_an_ordered_table_is_dropped_and_renamed_in_a_window_and_the_order_stays() {
    let s = Site::memory();
    s.exec("CREATE TABLE todo(id INTEGER NOT NULL PRIMARY KEY, list, pos, note)");
    s.exec("SELECT crsql_as_crr('todo'), crsql_fract_as_ordered('todo', 'pos', 'list')");
    s.exec("INSERT INTO todo VALUES(1, 'l', 1, 'n'), (2, 'l', 1, 'n'), (3, 'l', -1, 'n')");
    s.one::<String>("SELECT crsql_begin_alter('todo')");
    s.exec("ALTER TABLE todo DROP COLUMN note; ALTER TABLE todo RENAME COLUMN pos TO place");
    s.one::<String>("SELECT crsql_commit_alter('todo')");
    s.exec("INSERT INTO todo_fractindex(id, list, after_id) VALUES(4, 'l', 1)");
    assert_eq!(s.rows("SELECT id FROM todo ORDER BY place"), ["3", "1", "4", "2"]);
}

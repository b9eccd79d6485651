//! Three real processes on loopback: one is killed, restarted and cut off, a stranger knocks, and in the end tables and
//! changes are the same. Needs the binary that `make` builds (STARLING_BIN); without it the tests say so and pass.

#[path = "cluster/node.rs"]
mod node;
#[path = "cluster/proxy.rs"]
mod proxy;

use node::{Cluster, Node};
use starling_tests::site::Site;
use starling_tests::wait::until;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

macro_rules! cluster_or_skip {
    () => {
        match Cluster::new() {
            Some(cluster) => cluster,
            None => {
                println!("skipped: STARLING_BIN names no binary (make test builds it)");
                return;
            }
        }
    };
}

fn converged(nodes: &[&Node]) -> bool {
    let first = nodes[0].state();
    nodes.iter().all(|n| n.state() == first)
}

#[test]
fn three_nodes_survive_a_kill_a_restart_and_a_cut_and_end_equal() {
    let cluster = cluster_or_skip!();
    let mut a = cluster.node("a", &[]);
    let b = cluster.node("b", &[&a]);
    let mut c = cluster.node("c", &[&a]);
    a.site.exec("INSERT INTO m VALUES('one', 'from a', 1)");
    c.site.exec("INSERT INTO m VALUES('two', 'from c', 2)");
    until("first writes everywhere", SOON, || {
        converged(&[&a, &b, &c]) && b.site.one::<i64>("SELECT count(*) FROM m") == 2
    });

    // Killed without warning, and written to meanwhile, also by an application on the dead node's own file.
    c.kill();
    a.site.exec("UPDATE m SET name = 'while c is dead' WHERE id = 'one'; INSERT INTO m VALUES('three', 'x', 3)");
    b.site.exec("DELETE FROM m WHERE id = 'two'");
    c.site.exec("UPDATE m SET n = 22 WHERE id = 'two'; INSERT INTO m VALUES('four', 'on a dead node', 4)");
    c.start(&[&a, &b]);
    until("c has caught up", SOON, || {
        converged(&[&a, &b, &c]) && a.site.one::<i64>("SELECT count(*) FROM m WHERE id = 'four'") == 1
    });

    // Cut off: packets from and to C are dropped, both sides go on writing.
    cluster.cut(&c, true);
    a.site.exec("UPDATE m SET name = 'a, cut' WHERE id = 'one'; INSERT INTO m VALUES('five', 'a', 5)");
    b.site.exec("INSERT INTO m VALUES('six', 'b', 6)");
    c.site.exec("UPDATE m SET name = 'c, cut', n = 7 WHERE id = 'one'; DELETE FROM m WHERE id = 'three'");
    until("a and b agree meanwhile", SOON, || converged(&[&a, &b]));
    assert!(!converged(&[&a, &c]), "the cut does not cut");
    cluster.cut(&c, false);
    until("the cut has healed", Duration::from_secs(60), || converged(&[&a, &b, &c]));

    // One that was restarted keeps its name and goes on where it was.
    a.kill();
    a.start(&[&b]);
    b.site.exec("INSERT INTO m VALUES('seven', 'b', 7)");
    until("a is back", SOON, || converged(&[&a, &b, &c]));
}

#[test]
fn a_hundred_thousand_rows_arrive_at_two_peers_at_once_and_never_in_part() {
    let cluster = cluster_or_skip!();
    let a = cluster.node("a", &[]);
    let b = cluster.node("b", &[&a]);
    let c = cluster.node("c", &[&a]);
    a.site.exec("INSERT INTO m VALUES('hello', 'x', 0)");
    until("they know each other", SOON, || converged(&[&a, &b, &c]));
    a.site.exec(
        "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t WHERE i < 100000) \
         INSERT INTO m SELECT 'k' || i, 'bulk', i FROM t",
    );
    for node in [&b, &c] {
        until("all rows", Duration::from_secs(60), || {
            let n = node.site.one::<i64>("SELECT count(*) FROM m");
            assert!(n == 1 || n == 100_001, "{n} rows are visible: a transaction in part");
            n == 100_001
        });
    }
    assert!(converged(&[&a, &b, &c]));
}

#[test]
fn a_node_that_is_told_to_stop_ships_what_was_committed_to_the_last() {
    let cluster = cluster_or_skip!();
    let mut a = cluster.node("a", &[]);
    let b = cluster.node("b", &[&a]);
    for round in 1..=5 {
        b.site.exec("REPLACE INTO m VALUES('hello', 'x', 0)");
        until("they know each other", SOON, || converged(&[&a, &b]));
        a.site.exec(&format!("INSERT INTO m VALUES('last {round}', 'x', {round})"));
        assert_eq!(a.terminate(), Some(0), "{}", a.log());
        // Nobody else has it, and whoever had it is gone.
        until("the last commit", SOON, || b.site.one::<i64>("SELECT max(n) FROM m") == round);
        a.start(&[&b]);
    }
}

/// Runs SQL in the stock shell, which knows nothing of the extension; in an embedded SQLite without it where there is none.
fn stock(db: &std::path::Path, sql: &str) {
    let shell = std::process::Command::new("sqlite3").arg("-cmd").arg(".timeout 20000").arg(db).arg(sql).output();
    match shell {
        Ok(out) => assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr)),
        Err(_) => starling_tests::site::plain(db).execute_batch(sql).expect("it runs"),
    }
}

#[test]
fn a_program_that_never_loads_the_extension_writes_and_its_peers_have_it() {
    let cluster = cluster_or_skip!();
    let mut a = cluster.node("a", &[]);
    let b = cluster.node("b", &[&a]);
    for node in [&a, &b] {
        node.site.exec("CREATE TABLE p(id TEXT NOT NULL PRIMARY KEY, v, w)");
        node.site.one::<String>("SELECT crsql_as_crr('p', 'portable')");
    }
    let rows = |node: &Node| node.site.rows("SELECT * FROM p ORDER BY id");
    stock(&a.db(), "INSERT INTO p VALUES('k', 1, 1), ('l', 2, 2); UPDATE p SET v = 'a' WHERE id = 'k'");
    until("the first rows", SOON, || rows(&b) == ["'k'|'a'|1", "'l'|2|2"]);
    stock(
        &b.db(),
        "UPDATE p SET w = 'b' WHERE id = 'k'; DELETE FROM p WHERE id = 'l'; REPLACE INTO p VALUES('m', 3, 3)",
    );
    until("the answer", SOON, || rows(&a) == ["'k'|'a'|'b'", "'m'|3|3"]);
    // Both at once, many times, beside a writer that has the extension.
    for i in 0..20 {
        stock(&a.db(), &format!("REPLACE INTO p VALUES('a{i}', {i}, 0); UPDATE p SET v = {i} WHERE id = 'k'"));
        stock(&b.db(), &format!("INSERT INTO p VALUES('b{i}', {i}, 0); UPDATE p SET v = -{i} WHERE id = 'k'"));
        a.site.exec(&format!("UPDATE p SET w = {i} WHERE id = 'm'"));
    }
    let state = |node: &Node| (rows(node), node.site.changes(), node.site.vector());
    until("the end", SOON, || rows(&a).len() == 42 && state(&a) == state(&b));
    let versions = || [&a, &b].map(|n| n.site.one::<i64>("SELECT crsql_db_version()"));
    let before = versions();
    for (from, to) in [(&a, &b), (&b, &a)] {
        let id = format!("from {}", from.db().display());
        from.site.db.execute("INSERT INTO m VALUES(?1, 'x', 1)", [&id]).expect("it writes");
        until("a last row", SOON, || {
            to.site.db.query_row("SELECT count(*) FROM m WHERE id = ?1", [&id], |r| r.get::<_, i64>(0)) == Ok(1)
        });
    }
    assert_eq!(versions(), before.map(|v| v + 2), "nothing but the two last rows: merges do not echo");

    // What is written while no sidecar runs waits for the next one.
    a.kill();
    stock(&a.db(), "UPDATE p SET v = 'while it was dead' WHERE id = 'm'; DELETE FROM p WHERE id = 'k'");
    assert_eq!(a.site.one::<i64>("SELECT count(*) FROM crsql_inbox_2"), 2);
    a.start(&[&b]);
    until("what waited", SOON, || {
        rows(&b).len() == 41 && b.site.one::<String>("SELECT v FROM p WHERE id = 'm'") == "while it was dead"
    });
}

#[test]
fn a_machine_set_back_to_a_backup_uses_numbers_twice_and_loses_nothing() {
    let cluster = cluster_or_skip!();
    let mut a = cluster.node("a", &[]);
    let b = cluster.node("b", &[&a]);
    let c = cluster.node("c", &[&a]);
    a.site.exec("INSERT INTO m VALUES('common', 'x', 1)");
    until("the first row", SOON, || converged(&[&a, &b, &c]));
    let backup = cluster.dir.path().join("backup.db");
    a.site.exec(&format!("VACUUM INTO '{}'", backup.display()));
    // Its number is that of what is written anew, so that this belongs to nothing in the history of the others.
    b.site.exec("INSERT INTO m VALUES('of b', 'x', 0)");
    until("what b wrote", SOON, || converged(&[&a, &b, &c]));
    for i in 0..3 {
        a.site.exec(&format!("INSERT INTO m VALUES('lost {i}', 'x', {i}); UPDATE m SET n = {i} WHERE id = 'common'"));
    }
    until("what will be lost", SOON, || converged(&[&a, &b, &c]));
    a.kill();
    a.site = Site::memory();
    // The whole machine goes back, with all that the sidecar remembers beside the database.
    for suffix in ["-wal", "-shm", "-starling.state"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", a.db().display()));
    }
    std::fs::copy(&backup, a.db()).expect("it is restored");
    a.site = Site::file(&a.db());
    a.site.exec("INSERT INTO m VALUES('anew', 'x', 1); UPDATE m SET name = 'anew' WHERE id = 'common'");
    a.start(&[&b]);
    let all =
        ["'anew'|'x'|1", "'common'|'anew'|2", "'lost 0'|'x'|0", "'lost 1'|'x'|1", "'lost 2'|'x'|2", "'of b'|'x'|0"];
    // Before the others lose patience with it.
    until("both histories everywhere", Duration::from_secs(25), || {
        converged(&[&a, &b, &c]) && c.site.rows("SELECT * FROM m ORDER BY id") == all
    });
    a.site.exec("INSERT INTO m VALUES('on', 'x', 1)");
    until("it goes on", SOON, || {
        converged(&[&a, &b, &c])
            && a.site.vector() == c.site.vector()
            && c.site.one::<i64>("SELECT count(*) FROM m") == 7
    });
    assert!(a.log().contains("a name of their own"), "{}", a.log());
}

#[test]
fn a_node_of_another_cluster_is_refused_and_disturbs_nothing() {
    let cluster = cluster_or_skip!();
    let a = cluster.node("a", &[]);
    let b = cluster.node("b", &[&a]);
    let Some(other) = Cluster::new() else { return };
    let stranger = other.node("stranger", &[&a]);
    stranger.site.exec("INSERT INTO m VALUES('evil', 'x', 0)");
    until("both sides log the refusal", SOON, || {
        let refused = |log: String| log.to_lowercase().contains("refus") || log.to_lowercase().contains("certificate");
        refused(a.log()) && refused(stranger.log())
    });
    a.site.exec("INSERT INTO m VALUES('good', 'x', 1)");
    until("the cluster works on", SOON, || b.site.one::<i64>("SELECT count(*) FROM m") == 1);
    assert_eq!(a.site.one::<i64>("SELECT count(*) FROM m WHERE id = 'evil'"), 0);
    assert_eq!(stranger.site.one::<i64>("SELECT count(*) FROM m WHERE id = 'good'"), 0);
}

#[test]
fn garbage_on_the_port_disturbs_nothing() {
    let cluster = cluster_or_skip!();
    let a = cluster.node("a", &[]);
    let b = cluster.node("b", &[&a]);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut random = starling_tests::random::Random::new(7);
    for size in [0usize, 1, 20, 1200, 1400] {
        for _ in 0..50 {
            let bytes: Vec<u8> = (0..size).map(|_| random.below(256) as u8).collect();
            socket.send_to(&bytes, a.listen).expect("it sends");
        }
    }
    a.site.exec("INSERT INTO m VALUES('still', 'here', 1)");
    until("the cluster works on", SOON, || b.site.one::<i64>("SELECT count(*) FROM m") == 1);
}

#[test]
fn a_table_made_later_gets_what_arrived_for_it_before() {
    let cluster = cluster_or_skip!();
    let a = cluster.node("a", &[]);
    let b = cluster.node("b", &[&a]);
    a.site.exec("CREATE TABLE late(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO late VALUES(1, 'early bird')");
    a.site.one::<String>("SELECT crsql_as_crr('late')");
    a.site.exec("INSERT INTO late VALUES(2, 'second'); UPDATE late SET v = 'changed' WHERE id = 1");
    until("it is kept aside", SOON, || b.site.one::<i64>("SELECT starling_aside()") > 0);
    b.site.exec("CREATE TABLE late(id INTEGER PRIMARY KEY, v TEXT)");
    b.site.one::<String>("SELECT crsql_as_crr('late')");
    until("it is applied", SOON, || b.site.rows("SELECT * FROM late ORDER BY id") == ["1|'changed'", "2|'second'"]);
}

#[test]
fn what_a_check_refused_is_taken_as_soon_as_it_fits_whoever_made_it_fit() {
    let cluster = cluster_or_skip!();
    let a = cluster.node("a", &[]);
    let mut b = cluster.node("b", &[&a]);
    for node in [&a, &b] {
        node.site
            .exec("CREATE TABLE span(id TEXT NOT NULL PRIMARY KEY, low INTEGER, high INTEGER, CHECK(low <= high))");
        node.site.one::<String>("SELECT crsql_as_crr('span')");
    }
    a.site.exec("INSERT INTO span VALUES('local', 5, 10), ('merged', 5, 10)");
    let holds = |node: &Node, rows: [&str; 2]| node.site.rows("SELECT * FROM span ORDER BY id") == rows;
    until("b has it", SOON, || holds(&b, ["'local'|5|10", "'merged'|5|10"]));
    // Each writes what does not fit to what the other one writes.
    b.kill();
    a.site.exec("UPDATE span SET low = 9");
    b.site.exec("UPDATE span SET high = 6");
    b.start(&[&a]);
    until("both keep something aside", SOON, || {
        [&a, &b].iter().all(|node| node.site.one::<i64>("SELECT count(*) FROM crsql_pending") > 0)
    });
    a.site.exec("UPDATE span SET high = 12 WHERE id = 'merged'");
    until("a merge made one fit", SOON, || holds(&b, ["'local'|5|6", "'merged'|9|12"]));
    b.site.exec("UPDATE span SET high = 20 WHERE id = 'local'");
    let settled = ["'local'|9|20", "'merged'|9|12"];
    until("a write made the other one fit", SOON, || holds(&a, settled) && holds(&b, settled));
    until("they end equal", SOON, || converged(&[&a, &b]));
}

/// One statement over HTTP: the status line and the body.
fn post(address: SocketAddr, sql: &str) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = sql.len();
    write!(stream, "POST /sql HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/sql\r\nContent-Length: {length}\r\n\r\n{sql}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn while_the_database_is_away_whoever_asks_is_told_so() {
    let cluster = cluster_or_skip!();
    let a = cluster.node("a", &[]);
    let http = a.http.expect("it answers HTTP");
    assert!(post(http, "SELECT 1").expect("it answers").starts_with("HTTP/1.1 200"));
    let away = a.dir().join("away");
    std::fs::create_dir(&away).expect("a directory");
    let files: Vec<_> = ["a.db", "a.db-wal", "a.db-shm"].into_iter().filter(|f| a.dir().join(f).exists()).collect();
    let carry = |from: &std::path::Path, to: &std::path::Path| {
        files.iter().for_each(|f| std::fs::rename(from.join(f), to.join(f)).expect("it is moved"));
    };
    carry(a.dir(), &away);
    until("whoever asks is told", SOON, || {
        post(http, "SELECT 1").is_ok_and(|answer| answer.starts_with("HTTP/1.1 503") && answer.contains("waits for it"))
    });
    until("its status says so", SOON, || {
        let status = Command::new(&cluster.bin).args(["status", "--db"]).arg(a.db()).output().expect("it runs");
        !status.status.success() && String::from_utf8_lossy(&status.stderr).contains("waits for its database")
    });
    carry(&away, a.dir());
    until("it goes on", SOON, || post(http, "SELECT 1").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
}

#[test]
fn files_that_are_no_databases_are_refused_in_one_line_with_code_one() {
    let cluster = cluster_or_skip!();
    let garbage = cluster.dir.path().join("garbage.db");
    std::fs::write(&garbage, vec![0x5a; 8192]).expect("it writes");
    let out = cluster.run(&garbage).output().expect("it runs");
    assert_eq!(out.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(errors.lines().any(|l| l.to_lowercase().contains("database")), "{errors}");
    let out = std::process::Command::new(&cluster.bin).arg("run").output().expect("it runs");
    assert_eq!(out.status.code(), Some(2), "wrong use has code 2");
}

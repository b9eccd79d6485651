//! A dot that was used twice (S1, X8): a database goes back in time, writes on before anybody notices, and gives the
//! numbers of commits that others hold to other transactions. Nothing of either history may be lost.

use starling_crdt::changeset::{DotHeader, PartReader};
use starling_crdt::{Origin, SiteId, Vector};
use starling_tests::random::Random;
use starling_tests::site::Site;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const T: (&str, &str) = ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)");

/// A replica whose file can be set back.
struct Node {
    dir: PathBuf,
    site: Option<Site>,
    /// Contradictions seen once with the origin's own site.
    seen: BTreeSet<Origin>,
}

impl Node {
    fn new(dir: &Path, n: usize) -> Self {
        let dir = dir.join(n.to_string());
        std::fs::create_dir(&dir).expect("a directory");
        let site = Site::open(&dir.join("now.db")).with(&[T]);
        site.exec("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY");
        Self { dir, site: Some(site), seen: BTreeSet::new() }
    }

    fn db(&self) -> &Site {
        self.site.as_ref().expect("it is open")
    }

    fn copy(&mut self, from: &str, to: &str) {
        self.site = None;
        let (from, to) = (self.dir.join(from), self.dir.join(to));
        if from.exists() {
            std::fs::copy(from, to).expect("files can be copied");
        }
        let site = Site::open(&self.dir.join("now.db"));
        site.exec("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY");
        self.site = Some(site);
    }

    fn back_up(&mut self) {
        self.copy("now.db", "backup.db");
    }

    fn set_back(&mut self) {
        self.copy("backup.db", "now.db");
    }

    fn id(&self) -> SiteId {
        SiteId::from_slice(&self.db().one::<Vec<u8>>("SELECT crsql_site_id()")).expect("16 bytes")
    }

    fn vector(&self) -> Vector {
        Vector::decode(&self.db().vector()).expect("a vector")
    }

    fn forks(&self, theirs: &Vector, speaker: SiteId) -> Vector {
        let ask = "SELECT starling_forks(?1, ?2)";
        let forks = self.db().db.query_row(ask, (theirs.encode(), speaker.0.as_slice()), |r| r.get(0));
        forks
            .map(|b: Option<Vec<u8>>| b.map_or_else(Vector::default, |b| Vector::decode(&b).expect("a vector")))
            .expect("it runs")
    }

    fn rehome(&self, theirs: &Vector) -> i64 {
        self.db().db.query_row("SELECT starling_rehome(?1)", [theirs.encode()], |r| r.get(0)).expect("it runs")
    }
}

fn only(vector: &Vector, origin: Origin) -> Vector {
    Vector { origins: vector.origins.iter().filter(|(o, _)| **o == origin).map(|(o, s)| (*o, s.clone())).collect() }
}

/// `x` hears `y`'s vector, and what is contradictory in it is settled as the sidecar does it.
fn hear(nodes: &mut [Node], x: usize, y: usize) {
    let theirs = nodes[y].vector();
    compare(nodes, x, y, &theirs);
}

fn compare(nodes: &mut [Node], x: usize, y: usize, theirs: &Vector) {
    let speaker = nodes[y].id();
    let forks = nodes[x].forks(theirs, speaker);
    for origin in forks.origins.keys().copied() {
        let evidence = only(&forks, origin);
        if origin.site == nodes[x].id() {
            nodes[x].rehome(&only(theirs, origin));
            told_by_owner(&mut nodes[y], origin, &evidence);
        } else if origin.site == speaker {
            told_by_owner(&mut nodes[x], origin, &only(theirs, origin));
            nodes[y].rehome(&evidence);
        } else if let Some(owner) = nodes.iter().find(|n| n.id() == origin.site) {
            owner.rehome(&evidence);
        }
    }
}

/// The origin's own site contradicts: once it may be that it has not settled the matter itself yet.
fn told_by_owner(node: &mut Node, origin: Origin, evidence: &Vector) {
    if !node.seen.insert(origin) {
        node.rehome(evidence);
    }
}

/// `x` takes from `y` what it misses; a forked history is refused, and comes again when it is settled.
fn pull(nodes: &mut [Node], x: usize, y: usize) {
    hear(nodes, x, y);
    hear(nodes, y, x);
    let (to, from) = (nodes[x].db(), nodes[y].db());
    let (parts, vector) = from.answer(&to.vector());
    for (part, _) in parts {
        if let Err(e) = to.merge(&part) {
            assert!(e.to_string().contains("forked history"), "{e}");
            // What its predecessor is tells the same as a vector.
            let header = *PartReader::new(&part).expect("a changeset").header();
            let mut theirs = Vector::default();
            let DotHeader { dot, prev, prev_token, .. } = header.dot;
            theirs.claim(dot.origin, prev, prev, prev_token);
            return compare(nodes, x, y, &theirs);
        }
    }
    to.claim(&vector);
}

/// Exchanges until all are equal, which must come about.
fn settle(nodes: &mut [Node]) {
    for _ in 0..8 {
        for x in 0..nodes.len() {
            for y in (0..nodes.len()).filter(|y| *y != x) {
                pull(nodes, x, y);
            }
        }
        let first = nodes[0].db().vector();
        if nodes.iter().all(|n| n.db().vector() == first) {
            break;
        }
    }
    nodes.iter().for_each(|n| println!("{:#?}", n.vector()));
    for pair in nodes.windows(2) {
        let (a, b) = (pair[0].db(), pair[1].db());
        assert_eq!(a.rows("SELECT * FROM t ORDER BY id"), b.rows("SELECT * FROM t ORDER BY id"), "tables differ");
        assert_eq!(a.changes(), b.changes(), "changes differ");
        assert_eq!(a.vector(), b.vector(), "vectors differ");
    }
    nodes.iter().for_each(|n| check(n.db()));
}

/// The file is whole, no cell belongs to two entries, each row has all its cells.
fn check(site: &Site) {
    assert_eq!(site.one::<String>("PRAGMA integrity_check"), "ok");
    let changes = site.changes();
    let cells: BTreeSet<_> = changes.iter().map(|c| (&c.1, &c.2)).collect();
    assert_eq!(cells.len(), changes.len(), "a cell belongs to two log entries");
    let named = changes.iter().filter(|c| c.2 != "-1").count() as i64;
    assert_eq!(named, site.one::<i64>("SELECT count(*) * 2 FROM t"), "cells without an entry, or the reverse");
}

fn ids(site: &Site) -> Vec<String> {
    site.rows("SELECT id FROM t ORDER BY id")
}

/// A writes one, two; goes back to one; `lost` more were shipped before, `anew` are written after.
fn forked(dir: &Path, lost: usize, anew: usize) -> Vec<Node> {
    let mut nodes: Vec<Node> = (0..2).map(|n| Node::new(dir, n)).collect();
    nodes[0].db().exec("INSERT INTO t VALUES('common', 1, 1)");
    nodes[0].back_up();
    for n in 0..lost {
        nodes[0].db().exec(&format!(
            "INSERT INTO t VALUES('lost {n}', {n}, 1); UPDATE t SET a = 'lost {n}' WHERE id = 'common'"
        ));
    }
    pull(&mut nodes, 1, 0);
    nodes[0].set_back();
    for n in 0..anew {
        nodes[0].db().exec(&format!(
            "INSERT INTO t VALUES('anew {n}', {n}, 1); UPDATE t SET b = 'anew {n}' WHERE id = 'common'"
        ));
    }
    nodes
}

#[test]
fn both_histories_survive_whichever_is_the_longer_one() {
    for (lost, anew) in [(1, 1), (1, 3), (3, 1), (2, 2)] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut nodes = forked(dir.path(), lost, anew);
        settle(&mut nodes);
        assert_eq!(ids(nodes[1].db()).len(), 1 + lost + anew, "{lost} lost, {anew} anew");
        let common = format!("'lost {}'|'anew {}'", lost - 1, anew - 1);
        assert_eq!(nodes[0].db().rows("SELECT a, b FROM t WHERE id = 'common'"), [common]);
        assert_eq!(nodes[0].id(), nodes[0].id(), "the site stays who it is");
    }
}

#[test]
fn a_number_that_belongs_to_none_elsewhere_is_told_to_its_site_which_settles_it_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes: Vec<Node> = (0..2).map(|n| Node::new(dir.path(), n)).collect();
    nodes[0].db().exec("INSERT INTO t VALUES('common', 1, 1)");
    pull(&mut nodes, 1, 0);
    nodes[0].back_up();
    // A peer's write takes the number that comes next, so that the lost one has the number after it.
    nodes[1].db().exec("INSERT INTO t VALUES('of the peer', 1, 1)");
    pull(&mut nodes, 0, 1);
    nodes[0].db().exec("INSERT INTO t VALUES('lost', 1, 1)");
    pull(&mut nodes, 1, 0);
    nodes[0].set_back();
    nodes[0].db().exec("INSERT INTO t VALUES('anew', 1, 1)");
    let (theirs, speaker) = (nodes[0].vector(), nodes[0].id());
    let told = nodes[1].forks(&theirs, speaker);
    let numbers: Vec<_> = told.origins.values().flat_map(|state| state.claimed.ranges().to_vec()).collect();
    assert_eq!(numbers, [(2, 3)]);
    assert_eq!(nodes[0].rehome(&told), 1);
    settle(&mut nodes);
    assert_eq!(ids(nodes[0].db()), ["'anew'", "'common'", "'lost'", "'of the peer'"]);
}

#[test]
fn a_fork_is_settled_also_after_the_site_went_on_in_a_new_epoch() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes = forked(dir.path(), 2, 1);
    nodes[0].db().one::<String>("SELECT starling_new_epoch()");
    nodes[0].db().exec("INSERT INTO t VALUES('later', 1, 1)");
    settle(&mut nodes);
    assert_eq!(ids(nodes[0].db()), ["'anew 0'", "'common'", "'later'", "'lost 0'", "'lost 1'"]);
}

#[test]
fn whoever_took_the_second_history_first_gets_the_first_one_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes = forked(dir.path(), 2, 3);
    nodes.push(Node::new(dir.path(), 2));
    // The newcomer meets the forked node before anybody else does, and writes on top of what it got.
    pull(&mut nodes, 2, 0);
    nodes[2].db().exec("UPDATE t SET a = 'newcomer' WHERE id = 'anew 1'; DELETE FROM t WHERE id = 'anew 0'");
    settle(&mut nodes);
    assert_eq!(ids(nodes[1].db()), ["'anew 1'", "'anew 2'", "'common'", "'lost 0'", "'lost 1'"]);
}

#[test]
fn a_name_is_given_up_once_and_a_vector_that_agrees_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = forked(dir.path(), 1, 1);
    let theirs = nodes[1].vector();
    assert_eq!(nodes[0].rehome(&nodes[0].vector()), 0);
    assert_eq!(nodes[0].rehome(&theirs), 1);
    assert_eq!(nodes[0].rehome(&theirs), 0, "nothing is held under the name any more");
    let Some((origin, _)) = theirs.origins.first_key_value() else { panic!("B holds A's dots") };
    assert!(!nodes[0].vector().origins.contains_key(origin));
    nodes[0].db().exec("INSERT INTO t VALUES('on', 1, 1)");
    // Whoever holds anything under it hears that it is forsaken, and gives it up too.
    let told = nodes[0].forks(&theirs, nodes[1].id());
    assert_eq!(told.origins.keys().collect::<Vec<_>>(), [origin]);
    assert_eq!(nodes[1].rehome(&told), 1);
    assert_eq!(nodes[1].rehome(&told), 0);
    assert!(!nodes[1].vector().origins.contains_key(origin));
    assert_eq!(nodes[0].forks(&nodes[1].vector(), nodes[1].id()), Vector::default());
}

/// While nodes are cut off from each other one holds the first history and one the second. The site itself has given the name up
/// and takes what lives of the second one from its holder, then the first one's holder from it: that must not claim, without their
/// transactions, numbers that it has given to others.
#[test]
fn two_histories_that_met_at_a_third_node_which_knows_neither_well_both_survive() {
    for late in [1, 3] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut nodes: Vec<Node> = (0..4).map(|n| Node::new(dir.path(), n)).collect();
        let write = |node: &Node, what: &str| {
            node.db().exec(&format!("INSERT INTO t VALUES('{what}', 1, 1)"));
            node.db().exec("INSERT INTO t VALUES('hot', 1, 1) ON CONFLICT DO UPDATE SET a = a + 1");
        };
        write(&nodes[0], "common");
        (1..3).for_each(|x| pull(&mut nodes, x, 0));
        nodes[0].back_up();
        (0..2).for_each(|n| write(&nodes[0], &format!("first {n}")));
        pull(&mut nodes, 1, 0);
        nodes[0].set_back();
        (0..2 + late).for_each(|n| write(&nodes[0], &format!("second {n}")));
        pull(&mut nodes, 2, 0);
        // The fourth has only what lives of the second history.
        pull(&mut nodes, 3, 2);
        let first = nodes[1].vector();
        assert_eq!(nodes[0].rehome(&first), 1);
        for (x, y) in [(0, 2), (0, 3), (1, 0), (1, 3), (3, 1)] {
            pull(&mut nodes, x, y);
        }
        settle(&mut nodes);
        assert_eq!(ids(nodes[3].db()).len(), 2 + 2 + 2 + late);
    }
}

/// As many tokens of an origin are kept as this, without a record.
const KEPT: i64 = 16 * 1024;

/// Transactions of which nothing is left but the last one, and their tokens.
fn beat(node: &Node, times: i64) {
    for n in 0..times {
        node.db().exec(&format!("UPDATE t SET a = {n} WHERE id = 'common'"));
    }
    node.db().one::<i64>("SELECT starling_prune(1000000)");
}

#[test]
fn tokens_of_transactions_of_which_nothing_is_left_do_not_grow_without_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::new(dir.path(), 0);
    node.db().exec("INSERT INTO t VALUES('common', 1, 1)");
    let tokens = || node.db().one::<i64>("SELECT count(*) FROM crsql_token");
    let mut most = 0;
    for n in 0..2 * KEPT + 8000 {
        node.db().exec(&format!("UPDATE t SET a = {n} WHERE id = 'common'"));
        if n % 1000 == 0 {
            most = most.max(tokens());
        }
    }
    assert!(most > KEPT && tokens() < KEPT + 12_000, "{most}, {}", tokens());
    node.db().one::<i64>("SELECT starling_prune(1000000)");
    assert_eq!(tokens(), KEPT);
}

#[test]
fn who_was_away_for_longer_than_tokens_are_kept_is_not_taken_for_one_that_went_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes: Vec<Node> = (0..2).map(|n| Node::new(dir.path(), n)).collect();
    nodes[0].db().exec("INSERT INTO t VALUES('common', 1, 1)");
    beat(&nodes[0], 4000);
    pull(&mut nodes, 1, 0);
    beat(&nodes[0], KEPT + 1000);
    assert_eq!(nodes[0].db().one::<i64>("SELECT count(*) FROM crsql_token"), KEPT);
    let away = nodes[1].vector();
    assert_eq!(nodes[0].forks(&away, nodes[1].id()), Vector::default());
    assert_eq!(nodes[0].rehome(&away), 0);
    settle(&mut nodes);
}

#[test]
fn who_went_back_further_than_tokens_are_kept_is_found_out_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes: Vec<Node> = (0..2).map(|n| Node::new(dir.path(), n)).collect();
    nodes[0].db().exec("INSERT INTO t VALUES('common', 1, 1)");
    nodes[0].back_up();
    beat(&nodes[0], 3000);
    nodes[0].db().exec("INSERT INTO t VALUES('lost', 1, 1)");
    beat(&nodes[0], KEPT + 1000);
    pull(&mut nodes, 1, 0);
    assert!(nodes[1].db().one::<i64>("SELECT count(*) FROM crsql_token") <= KEPT);
    nodes[0].set_back();
    beat(&nodes[0], 300);
    nodes[0].db().exec("INSERT INTO t VALUES('anew', 1, 1)");
    settle(&mut nodes);
    assert_eq!(ids(nodes[1].db()), ["'anew'", "'common'", "'lost'"]);
}

#[test]
fn random_histories_of_nodes_that_go_back_in_time_lose_nothing() {
    let runs = std::env::var("STARLING_LAWS_RUNS").ok().and_then(|r| r.parse().ok()).map_or(30, |r: u64| r.div_ceil(4));
    let first = std::env::var("STARLING_LAWS_SEED").ok().and_then(|s| s.parse().ok());
    for seed in first.map_or(0..runs, |s: u64| s..s + 1) {
        let outcome = std::panic::catch_unwind(|| history(seed));
        assert!(outcome.is_ok(), "STARLING_LAWS_SEED={seed} replays it");
    }
}

fn history(seed: u64) {
    let mut r = Random::new(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes: Vec<Node> = (0..3).map(|n| Node::new(dir.path(), n)).collect();
    for step in 0..6 + r.below(34) {
        let (x, y) = (r.below(3) as usize, r.below(3) as usize);
        let what = r.below(12);
        println!("{step}: {what} {x} {y}");
        match what {
            0..=2 => nodes[x].db().exec(&format!("INSERT INTO t VALUES('only {step}', 1, 1)")),
            3 => nodes[x].db().exec(&format!("UPDATE t SET a = {step} WHERE rowid % 2 = {}", step % 2)),
            4 => nodes[x].db().exec(&format!("REPLACE INTO t VALUES('shared {y}', {step}, {x})")),
            5 => nodes[x].db().exec(&format!("DELETE FROM t WHERE id = 'shared {y}'")),
            6 => nodes[x].back_up(),
            7 => nodes[x].set_back(),
            _ if x != y => pull(&mut nodes, x, y),
            _ => {}
        }
    }
    let held: BTreeSet<String> =
        nodes.iter().flat_map(|n| n.db().rows("SELECT id FROM t WHERE id LIKE 'only %'")).collect();
    settle(&mut nodes);
    let kept: BTreeSet<String> = nodes[0].db().rows("SELECT id FROM t WHERE id LIKE 'only %'").into_iter().collect();
    assert_eq!(held, kept, "rows that some node held");
}

#[test]
fn what_waits_in_the_inbox_of_a_copy_gets_its_version_under_the_copy_s_own_name() {
    for rename in ["starling_new_site()", "starling_new_epoch()"] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let peer = Site::memory().with(&[T]);
        let a = Site::file(&path("a.db")).with(&[T]);
        a.exec("SELECT crsql_as_crr('t', 'portable'); INSERT INTO t VALUES('1', 1, 1); SELECT starling_drain()");
        peer.pull(&a);
        drop(a);
        let write = |sql: &str| starling_tests::site::plain(&path("a.db")).execute_batch(sql).expect("it writes");
        write("INSERT INTO t VALUES('2', 2, 2)");
        std::fs::copy(path("a.db"), path("b.db")).expect("it can be copied");
        write("INSERT INTO t VALUES('3', 3, 3)");
        let (a, b) = (Site::open(&path("a.db")), Site::open(&path("b.db")));
        a.exec("SELECT starling_drain()");
        b.exec(&format!("SELECT {rename}"));
        for s in [&a, &b] {
            peer.pull(s);
        }
        for s in [&a, &b] {
            s.pull(&peer);
            assert_eq!(s.rows("SELECT id FROM t ORDER BY id"), ["'1'", "'2'", "'3'"], "{rename}");
        }
        assert_eq!(b.vector(), peer.vector(), "{rename}");
    }
}

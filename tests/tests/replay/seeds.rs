//! Seeds made from what the code itself writes, so that a fuzzer starts inside the formats and not at their doors.

use rusqlite::Connection;
use starling_crdt::{Dot, Origin, SiteId, Vector};
use starling_proto::frames::{self, Frame, Hello};
use starling_tests::fuzz::feed::put_run;
use starling_tests::random::Random;
use starling_tests::records;
use starling_tests::site::Site;
use std::fs;
use std::path::Path;

/// Writes the seeds under `root`, when UPDATE_SEEDS says so.
pub fn update_if_asked(root: &Path) {
    if std::env::var_os("UPDATE_SEEDS").is_none() {
        return;
    }
    let site = history();
    let other = Site::memory();
    let parts: Vec<Vec<u8>> = site.answer(&other.vector()).0.into_iter().map(|p| p.0).collect();
    let vector = site.vector();
    let write = |target: &str, name: &str, data: &[u8]| {
        let folder = root.join(target);
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::write(folder.join(name), data).expect("a seed can be written");
    };
    for (i, part) in parts.iter().enumerate() {
        write("changeset", &format!("part_{i}"), part);
    }
    write("vector", "of_two_sites", &vector);
    write("vector", "empty", &Vector::default().encode());
    stored(&site.db, &write);
    for (name, data) in wire(&parts, &vector) {
        write("wire", &name, &data);
    }
    for (i, data) in nodes(&parts, &vector).iter().enumerate() {
        write("node", &format!("talk_{i}"), data);
    }
    for (target, count, len) in [("ranges", 3, 90), ("schema", 12, 400), ("sql", 12, 400)] {
        for i in 0..count {
            let mut r = Random::new(i);
            let data: Vec<u8> = (0..len).map(|_| r.below(256) as u8).collect();
            write(target, &format!("random_{i}"), &data);
        }
    }
}

/// A replica with every kind of entry in its log: inserts, updates, deletes, re-creations, key updates, foreign cells.
fn history() -> Site {
    let s = Site::memory().with(&[
        ("t", "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b)"),
        ("k", "CREATE TABLE k(x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY(x, y))"),
    ]);
    s.exec(
        "INSERT INTO t VALUES('k', 1, -7.5), ('l', NULL, x'00ff'), ('0190b5a0-0000-7000-8000-000000000001', 'long', 3)",
    );
    s.exec("UPDATE t SET a = 7 WHERE id = 'k'; DELETE FROM t WHERE id = 'l'; INSERT INTO t VALUES('l', 'again', 1)");
    s.exec("UPDATE t SET id = 'm' WHERE id = 'k'; INSERT INTO k VALUES(1, x''), (-300, x'01'), (9223372036854775807, x'02')");
    s.exec("DELETE FROM k WHERE x = 1; UPDATE t SET b = b + 1");
    s.exec("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('n'), 'a', 'far', 3, 20, x'aabb', 1, 4)");
    s
}

/// Log chunks, clock blocks, row clocks and keys as they stand in the file.
fn stored(db: &Connection, write: &dyn Fn(&str, &str, &[u8])) {
    let blobs = |sql: &str| -> Vec<Vec<u8>> {
        let mut stmt = db.prepare(sql).expect("it prepares");
        let all = stmt.query_map([], |r| r.get(0)).expect("it runs");
        all.collect::<Result<_, _>>().expect("blobs")
    };
    for (i, record) in blobs("SELECT record FROM crsql_record").iter().enumerate() {
        write("record", &format!("record_{i}"), record);
    }
    for (i, chunk) in records::chunks(db).iter().enumerate() {
        write("log_chunk", &format!("chunk_{i}"), chunk);
    }
    for (i, block) in blobs("SELECT block FROM crsql_rows_1").iter().enumerate() {
        write("clock_block", &format!("block_{i}"), block);
        let block = starling_crdt::clock_block::ClockBlock::decode(block).expect("it is whole");
        for (j, (key, clock)) in block.iter().enumerate() {
            write("row_clock", &format!("clock_{i}_{j}"), clock);
            write("key", &format!("internal_{i}_{j}"), &[&[1], key].concat());
        }
    }
    for (i, slots) in records::all(db).iter().filter_map(|record| record.young.as_ref()).enumerate() {
        write("young", &format!("slots_{i}"), slots);
    }
    for (i, key) in blobs("SELECT DISTINCT pk FROM crsql_changes").iter().enumerate() {
        write("key", &format!("packed_{i}"), &[&[0], key.as_slice()].concat());
    }
}

fn hello(site: u8) -> Frame {
    let addr = std::net::SocketAddr::from(([10, 0, 0, site], 8787));
    let site = SiteId([site; 16]);
    Frame::Hello(Hello { cluster_id: *b"0123456789abcdef", site, incarnation: 5, advertise: addr, observed: addr })
}

fn dot(site: u8, version: u64) -> Dot {
    Dot { origin: Origin { site: SiteId([site; 16]), epoch: 9 }, version }
}

/// Frames by the byte that the `wire` target reads first.
fn wire(parts: &[Vec<u8>], vector: &[u8]) -> Vec<(String, Vec<u8>)> {
    let whole = Vector::decode(vector).expect("it is whole");
    let addr = std::net::SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1));
    let mut all = vec![
        ("hello", 0, hello(1).encode()),
        ("payload", 0, frames::encode_payload(1, &[parts[0].clone().into()])),
        ("ihave", 0, Frame::IHave(vec![dot(1, 3), dot(2, 70_000)]).encode()),
        ("link", 0, Frame::Link { eager: true }.encode()),
        ("digest", 0, Frame::Digest(77).encode()),
        ("vector", 0, Frame::Vector { answer: true, vector: whole }.encode()),
        ("pull", 0, Frame::Pull(dot(1, 9)).encode()),
        ("outdated", 0, Frame::Outdated { incarnation: 9, addr, alive: true }.encode()),
        ("part", 1, frames::answer_part(&parts[1])),
        ("done", 1, frames::answer_done(vector)),
        ("refused", 1, frames::answer_refused("no room\u{85}here")),
    ];
    all.push(("request", 2, frames::sync_request(vector)));
    all.into_iter().map(|(name, kind, bytes)| (name.to_string(), [&[kind], bytes.as_ref()].concat())).collect()
}

/// Conversations of the `node` target: one input is the peer, the kind, and what the kind takes, then the time that passes.
fn nodes(parts: &[Vec<u8>], vector: &[u8]) -> Vec<Vec<u8>> {
    let frame = |out: &mut Vec<u8>, peer: u8, bytes: &[u8]| {
        out.extend_from_slice(&[peer, 0, 2]);
        put_run(out, bytes);
        out.push(3);
    };
    let mut start = 42u64.to_le_bytes().to_vec();
    frame(&mut start, 0, &hello(1).encode());
    frame(&mut start, 1, &hello(2).encode());
    let mut pushes = start.clone();
    for part in parts.iter().take(4) {
        frame(&mut pushes, 0, &frames::encode_payload(0, &[part.clone().into()]));
        pushes.extend_from_slice(&[0, 0, 11, 0, 1, 9]);
    }
    let mut doubts = start.clone();
    frame(&mut doubts, 0, &Frame::Digest(1).encode());
    frame(&mut doubts, 1, &frames::encode_vector(false, vector));
    frame(&mut doubts, 0, &Frame::Differ.encode());
    doubts.extend_from_slice(&[0, 0, 8]);
    put_run(&mut doubts, &frames::answer_part(&parts[0]));
    doubts.extend_from_slice(&[9, 0, 0, 8]);
    put_run(&mut doubts, &frames::answer_done(vector));
    doubts.push(9);
    let mut tree = start.clone();
    frame(&mut tree, 0, &Frame::Link { eager: true }.encode());
    frame(&mut tree, 1, &Frame::IHave(vec![dot(2, 1), dot(2, 2)]).encode());
    frame(&mut tree, 0, &Frame::Graft(vec![dot(1, 1)]).encode());
    frame(&mut tree, 0, &Frame::Prune.encode());
    frame(&mut tree, 1, &Frame::Leave.encode());
    tree.extend_from_slice(&[0, 0, 7]);
    put_run(&mut tree, &frames::sync_request(vector));
    tree.extend_from_slice(&[200, 0, 0, 5]);
    put_run(&mut tree, &swim_ping());
    tree.push(255);
    vec![start, pushes, doubts, tree]
}

/// A SWIM packet as docs/PROTOCOL.md describes it: a ping of site 1 to site 0.
fn swim_ping() -> Vec<u8> {
    let ident = |site: u8| {
        let mut out = vec![site; 16];
        out.extend_from_slice(&[5, 4, 10, 0, 0, site]);
        out.extend_from_slice(&8787u16.to_be_bytes());
        out
    };
    [&[1][..], b"01234567", &ident(1), &[0, 0], &ident(0), &[1, 7]].concat()
}

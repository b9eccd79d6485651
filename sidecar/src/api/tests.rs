//! Bodies of SQL against a database with the extension, and requests against the server.

use super::exec::Executor;
use super::*;
use crate::gate::WriteGate;
use rusqlite::functions::FunctionFlags;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

fn executor() -> (tempfile::TempDir, Executor) {
    crate::db::register::register().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let conn = rusqlite::Connection::open(dir.path().join("api.db")).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.execute_batch(
        "CREATE TABLE machines(id TEXT PRIMARY KEY NOT NULL, status TEXT, load REAL, image BLOB);
         CREATE TABLE plain(a INTEGER PRIMARY KEY, b TEXT UNIQUE);",
    )
    .unwrap();
    conn.query_row("SELECT crsql_as_crr('machines')", [], |_| Ok(())).unwrap();
    (dir, Executor::new(conn).unwrap())
}

fn execute(executor: &mut Executor, sql: &str) -> Result<Outcome, Refusal> {
    let here = Arc::new(());
    executor.execute(sql, guard::Asker::from(&here), &WriteGate::default())
}

fn ok(executor: &mut Executor, sql: &str) -> Value {
    let outcome = execute(executor, sql).unwrap_or_else(|r| panic!("{sql}: {}", r.message));
    let json: Value = serde_json::from_str(&outcome.json).unwrap_or_else(|e| panic!("{e}: {}", outcome.json));
    assert!(json["time"].as_f64().is_some_and(|t| t >= 0.0));
    json
}

fn refused(executor: &mut Executor, sql: &str) -> (u16, String) {
    match execute(executor, sql) {
        Ok(outcome) => panic!("{sql}: {}", outcome.json),
        Err(refusal) => (refusal.status.as_u16(), refusal.message),
    }
}

#[test]
fn a_write_tells_rows_and_version_and_a_read_tells_columns_and_rows() {
    let (_dir, mut e) = executor();
    let json = ok(&mut e, "INSERT INTO machines(id, status) VALUES ('machine-123', 'new')");
    assert_eq!((&json["rows_affected"], &json["version"]), (&1.into(), &1.into()));
    let json = ok(&mut e, "UPDATE machines SET status = 'healthy' WHERE id = 'machine-123';");
    assert_eq!((&json["rows_affected"], &json["version"]), (&1.into(), &2.into()));
    let json = ok(&mut e, "UPDATE machines SET status = 'healthy' WHERE id = 'machine-123'");
    assert_eq!((&json["rows_affected"], &json["version"]), (&1.into(), &Value::Null), "nothing changed");
    let json = ok(&mut e, "INSERT INTO plain VALUES (1, 'x')");
    assert_eq!((&json["rows_affected"], &json["version"]), (&1.into(), &Value::Null), "not a CRR");
    ok(&mut e, "CREATE TABLE portable(id INTEGER PRIMARY KEY, v); SELECT crsql_as_crr('portable', 'portable')");
    let json = ok(&mut e, "INSERT INTO portable VALUES (1, 'x')");
    assert_eq!((&json["rows_affected"], &json["version"]), (&1.into(), &3.into()), "in its own transaction too");
    let json = ok(&mut e, "UPDATE portable SET v = 'x'");
    assert_eq!((&json["rows_affected"], &json["version"]), (&1.into(), &Value::Null), "nothing changed");
    let json = ok(&mut e, "SELECT id, status FROM machines");
    assert_eq!(json["columns"], serde_json::json!(["id", "status"]));
    assert_eq!(json["rows"], serde_json::json!([["machine-123", "healthy"]]));
    assert!(json.get("version").is_none());
}

#[test]
fn every_kind_of_value_has_its_json() {
    let (_dir, mut e) = executor();
    let json = ok(&mut e, "SELECT NULL, 1, -9223372036854775808, 2.0, 1e999, 'a\"\u{1f426}', x'00ff', x'', 0.1");
    let expected = serde_json::json!([[null, 1, i64::MIN, 2.0, null, "a\"\u{1f426}", [0, 255], [], 0.1]]);
    assert_eq!(json["rows"], expected);
}

#[test]
fn several_statements_are_one_transaction() {
    let (_dir, mut e) = executor();
    let json = ok(
        &mut e,
        "-- two rows\nINSERT INTO machines(id) VALUES ('a'), ('b'); DELETE FROM machines WHERE id = 'a';\n
         SELECT count(*) AS n FROM machines; -- and a look\n",
    );
    assert_eq!((&json["rows_affected"], &json["version"]), (&3.into(), &1.into()));
    assert_eq!((&json["columns"], &json["rows"]), (&serde_json::json!(["n"]), &serde_json::json!([[1]])));

    let (status, message) =
        refused(&mut e, "DELETE FROM machines; INSERT INTO plain VALUES (1, 'x'); INSERT INTO plain VALUES (1, 'y')");
    assert_eq!(status, 409);
    assert!(message.contains("UNIQUE constraint failed"), "{message}");
    let json = ok(&mut e, "SELECT (SELECT count(*) FROM machines), (SELECT count(*) FROM plain)");
    assert_eq!(json["rows"], serde_json::json!([[1, 0]]), "nothing of the body was done");
}

#[test]
fn a_table_can_be_made_filled_and_read_in_one_body() {
    let (_dir, mut e) = executor();
    let json = ok(
        &mut e,
        "CREATE TABLE s(id INTEGER PRIMARY KEY NOT NULL, v TEXT); SELECT crsql_as_crr('s');
         INSERT INTO s VALUES (1, 'x') RETURNING v;",
    );
    assert_eq!((&json["rows_affected"], &json["version"]), (&1.into(), &1.into()));
    assert_eq!(json["rows"], serde_json::json!([["x"]]));
    let json = ok(&mut e, "CREATE TABLE later(id INTEGER PRIMARY KEY NOT NULL)");
    assert_eq!((&json["rows_affected"], &json["version"]), (&0.into(), &Value::Null));
    let json = ok(&mut e, "SELECT crsql_as_crr('later')");
    assert_eq!(json["rows"], serde_json::json!([["OK"]]));
}

#[test]
fn an_ordered_list_is_made_and_written_through_its_view() {
    let (_dir, mut e) = executor();
    ok(
        &mut e,
        "CREATE TABLE todo(id INTEGER PRIMARY KEY, ord TEXT); SELECT crsql_as_crr('todo'), crsql_fract_as_ordered('todo', 'ord');
         INSERT INTO todo VALUES (1, 1), (2, 1); INSERT INTO todo_fractindex(id, after_id) VALUES (3, 1);
         UPDATE todo_fractindex SET after_id = 3 WHERE id = 1;",
    );
    let json = ok(&mut e, "SELECT id FROM todo ORDER BY ord");
    assert_eq!(json["rows"], serde_json::json!([[3], [1], [2]]));
    let json = ok(&mut e, "SELECT crsql_pending(), (SELECT count(*) FROM crsql_pending)");
    assert_eq!(json["rows"], serde_json::json!([[0, 0]]));
}

#[test]
fn bad_sql_is_refused_with_its_place() {
    let (_dir, mut e) = executor();
    let refusal = execute(&mut e, "SELECT 1;\nSELECT * FRM t").unwrap_err();
    assert_eq!(refusal.status.as_u16(), 400);
    assert!(refusal.message.contains("FRM") || refusal.message.contains("syntax error"), "{}", refusal.message);
    let place = refusal.place.expect("a place");
    assert_eq!((place.line, place.offset), (2, 10 + place.column - 1));
    for (sql, says) in [
        ("SELECT * FROM missing", "no such table: missing"),
        ("", "no statement"),
        ("-- nothing\n ; ", "no statement"),
        ("SELECT ?1", "parameters"),
        ("SELECT 'a", "unrecognized token"),
    ] {
        let (status, message) = refused(&mut e, sql);
        assert_eq!(status, 400, "{sql}");
        assert!(message.contains(says), "{sql}: {message}");
    }
}

#[test]
fn what_reaches_beyond_the_tables_is_refused() {
    let (_dir, mut e) = executor();
    for sql in [
        "ATTACH '/tmp/x.db' AS x",
        "DETACH main",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT a",
        "SELECT 1; COMMIT; SELECT 2",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT fts3_tokenizer('x')",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = ON",
        "PRAGMA foreign_keys = ON",
        "PRAGMA wal_checkpoint",
        "PRAGMA page_size = 512",
        "CREATE TEMP TABLE x(y)",
        "CREATE TABLE temp.machines(id)",
        "CREATE VIEW temp.machines AS SELECT 1 AS id",
        "CREATE TRIGGER temp.x AFTER INSERT ON machines BEGIN DELETE FROM machines; END",
        "SELECT starling_new_epoch()",
        "SELECT starling_extension_is_not_loaded__load_starling_so__format_1(0, 0, 1)",
        "SELECT starling_merge(x'00')",
        "SELECT crsql_config_set('merge-equal-values', 1)",
        "DELETE FROM crsql_record",
        "UPDATE crsql_master SET value = 1",
        "DROP TABLE crsql_site",
        "DROP TRIGGER machines__crsql_insert",
    ] {
        let (status, message) = refused(&mut e, sql);
        assert_eq!(status, 403, "{sql}: {message}");
        assert!(message.contains("not allowed over HTTP"), "{sql}: {message}");
    }
    for sql in
        ["PRAGMA table_info(machines)", "PRAGMA user_version = 3", "PRAGMA journal_mode", "SELECT crsql_db_version()"]
    {
        ok(&mut e, sql);
    }
    assert_eq!(ok(&mut e, "PRAGMA user_version")["rows"], serde_json::json!([[3]]));
}

#[test]
fn a_schema_can_be_altered_in_every_way() {
    let (_dir, mut e) = executor();
    for sql in [
        "CREATE TABLE p(id INTEGER PRIMARY KEY, a, b)",
        "ALTER TABLE p RENAME COLUMN a TO c",
        "ALTER TABLE p DROP COLUMN c",
        "ALTER TABLE p ADD COLUMN d",
        "ALTER TABLE p RENAME TO q",
        "SELECT crsql_begin_alter('machines'); ALTER TABLE machines ADD COLUMN x; ALTER TABLE machines RENAME COLUMN x TO y; \
         ALTER TABLE machines DROP COLUMN y; SELECT crsql_commit_alter('machines')",
        "INSERT INTO q(b, d) VALUES(1, 2)",
    ] {
        ok(&mut e, sql);
    }
}

#[test]
fn a_statement_cannot_take_all_memory() {
    let (_dir, mut e) = executor();
    let start = Instant::now();
    let (status, message) = refused(&mut e, "SELECT hex(zeroblob(4e8))");
    assert_eq!(status, 400, "{message}");
    let sql = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT hex(zeroblob(1000000)) FROM n";
    let (status, message) = refused(&mut e, sql);
    assert_eq!(status, 400);
    assert!(message.contains("LIMIT"), "{message}");
    for (columns, expected) in [(20, 400), (500, 500)] {
        let columns = vec!["zeroblob(60000000)"; columns].join(", ");
        let (status, message) = refused(&mut e, &format!("SELECT {columns}"));
        assert_eq!(status, expected, "one row can be too much: {message}");
    }
    assert!(start.elapsed() < STATEMENT_LIMIT, "{:?}", start.elapsed());
}

const STATEMENT_LIMIT: std::time::Duration = crate::limits::STATEMENT_TIMEOUT;

struct Server {
    addr: SocketAddr,
    _dir: tempfile::TempDir,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
    /// How often the SQL function of this name was called.
    started: Arc<AtomicUsize>,
}

async fn server() -> Server {
    server_with(Room::default()).await
}

async fn server_with(unread: Room) -> Server {
    let (dir, _) = executor();
    let path = dir.path().join("api.db");
    let started = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&started);
    let open: OpenConnection = Arc::new(move || {
        let conn = rusqlite::Connection::open(&path)?;
        let counter = Arc::clone(&counter);
        conn.create_scalar_function(c"started", 0, FunctionFlags::SQLITE_UTF8, move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(1)
        })?;
        Ok(conn)
    });
    let pool = Arc::new(Pool::start(&open, &Arc::default()).unwrap());
    let listener = TcpListener::from_std(bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let requests = Semaphore::new(MAX_REQUESTS);
    let api = Api { pool, access: Access::default(), requests, unread, patience: Duration::from_secs(1) };
    let patience = Patience { head: Duration::from_secs(1), answer: Duration::from_secs(1) };
    let served = tokio::spawn(serve_api(listener, api, stopped, patience));
    Server { addr, _dir: dir, stop, served, started }
}

/// One request over a plain socket; the status line and the body.
async fn ask(addr: SocketAddr, head: &str, body: &[u8]) -> (String, Value) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let head = format!("{head}\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
    (head.lines().next().unwrap().to_owned(), serde_json::from_str(body).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_gets_an_answer_in_json() {
    let server = server().await;
    let post = "POST /sql HTTP/1.1\r\nContent-Type: application/sql";
    let (status, json) = ask(server.addr, post, b"SELECT 1 AS one").await;
    assert!(status.contains("200"), "{status}");
    assert_eq!(json["rows"], serde_json::json!([[1]]));
    let utf8 = "POST /sql HTTP/1.1\r\nContent-Type: Application/SQL; charset=UTF-8";
    assert!(ask(server.addr, utf8, b"SELECT 1").await.0.contains("200"));
    let large = vec![b' '; crate::limits::MAX_BODY + 1];
    for (head, body, expected) in [
        ("POST /sql HTTP/1.1\r\nContent-Type: text/plain", &b"SELECT 1"[..], "415"),
        ("POST /sql HTTP/1.1", b"SELECT 1", "415"),
        (post, b"SELEC 1", "400"),
        (post, b"SELECT '\xff'", "400"),
        (post, b"INSERT INTO plain VALUES (1, 'x');\0 INSERT INTO plain VALUES (2, 'y')", "400"),
        (post, &large, "413"),
        ("GET /sql HTTP/1.1", b"", "405"),
        ("GET /v1/health HTTP/1.1", b"", "404"),
        ("POST /sql HTTP/1.1\r\nContent-Type: application/sql\r\nOrigin: http://evil.example", b"SELECT 1", "403"),
    ] {
        let (status, json) = ask(server.addr, head, body).await;
        assert!(status.contains(expected), "{head}: {status}");
        assert!(json["error"].is_string(), "{json}");
    }
    let _ = server.stop.send(true);
    server.served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_a_body_too_slowly_does_not_keep_others_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = server().await;
    let head = "POST /sql HTTP/1.1\r\nContent-Type: application/sql";
    let mut slow = Vec::new();
    for _ in 0..MAX_REQUESTS {
        let mut stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        let begun = format!("{head}\r\nHost: {}\r\nContent-Length: 100\r\n\r\nSEL", server.addr);
        stream.write_all(begun.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ask(server.addr, head, b"SELECT 1").await.0.contains("200") {
        assert!(Instant::now() < deadline, "the slow ones hold all requests that may be under way");
    }
    let mut answer = vec![0; 12];
    slow[0].read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    drop(slow);
    let _ = server.stop.send(true);
    server.served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_its_answer_is_cut_off_and_takes_no_room_from_others() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // Room for one answer of twenty million bytes, which is more than the system keeps for whoever does not read.
    let server = server_with(Room::of(30_000_000)).await;
    let head = "POST /sql HTTP/1.1\r\nContent-Type: application/sql";
    let large = b"SELECT hex(zeroblob(10000000)) AS x";
    let mut idle = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let begun = format!("{head}\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", server.addr, large.len());
    idle.write_all(begun.as_bytes()).await.unwrap();
    idle.write_all(large).await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let (status, json) = ask(server.addr, head, large).await;
    assert!(status.contains("503") && json["error"].as_str().is_some_and(|e| e.contains("were run")), "{status}");
    assert!(ask(server.addr, head, b"SELECT 1").await.0.contains("200"), "a small answer needs no room");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ask(server.addr, head, large).await.0.contains("200") {
        assert!(Instant::now() < deadline, "who reads nothing keeps the room");
    }
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(rest.len() < 20_000_000, "it was not cut off");
    let _ = server.stop.send(true);
    server.served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_end_its_headers_is_cut_off_and_keeps_nobody_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = server().await;
    let mut slow = Vec::new();
    for _ in 0..crate::limits::MAX_CONNECTIONS {
        let mut stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"POST /sql HTTP/1.1\r\nX-Slow: ").await.unwrap();
        slow.push(stream);
    }
    let head = "POST /sql HTTP/1.1\r\nContent-Type: application/sql";
    let asked = tokio::time::timeout(Duration::from_secs(20), ask(server.addr, head, b"SELECT 1")).await;
    assert!(asked.expect("a place comes free").0.contains("200"));
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), slow[0].read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "it is still connected");
    let _ = server.stop.send(true);
    server.served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_kept_for_the_next_request_and_a_stop_ends_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = server().await;
    let mut stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    for _ in 0..3 {
        let request = format!(
            "POST /sql HTTP/1.1\r\nHost: {}\r\nContent-Type: application/sql\r\nContent-Length: 8\r\n\r\nSELECT 1",
            server.addr
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 200 OK");
        let mut rest = Vec::new();
        while !rest.ends_with(b"}") {
            rest.push(stream.read_u8().await.unwrap());
        }
    }
    let _ = server.stop.send(true);
    server.served.await.unwrap();
    assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0, "it was not closed");
}

/// What nobody waits for any more keeps no thread busy, of which there are few: else slow questions of clients that gave up would
/// keep everybody else waiting until they time out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_question_ends_when_its_client_hangs_up() {
    use tokio::io::AsyncWriteExt;
    let server = server().await;
    let slow = b"WITH RECURSIVE n(i) AS (SELECT started() UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let mut asking = Vec::new();
    for _ in 0..crate::limits::API_THREADS {
        let mut stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        let head = format!(
            "POST /sql HTTP/1.1\r\nHost: {}\r\nContent-Type: application/sql\r\nContent-Length: {}\r\n\r\n",
            server.addr,
            slow.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(slow).await.unwrap();
        asking.push(stream);
    }
    let deadline = Instant::now() + STATEMENT_LIMIT / 2;
    while server.started.load(Ordering::SeqCst) < crate::limits::API_THREADS {
        assert!(Instant::now() < deadline, "they are not running");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(asking);
    let start = Instant::now();
    let (status, _) = ask(server.addr, "POST /sql HTTP/1.1\r\nContent-Type: application/sql", b"SELECT 1").await;
    assert!(status.contains("200"), "{status}");
    assert!(start.elapsed() < STATEMENT_LIMIT / 2, "{:?}", start.elapsed());
    let _ = server.stop.send(true);
    server.served.await.unwrap();
}

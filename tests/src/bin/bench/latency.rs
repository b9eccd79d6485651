//! Two nodes on loopback: from the commit on A to the row being readable in B's file.

use crate::Figure;
use rusqlite::{params, Connection};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SAMPLES: usize = 300;
const BIG: i64 = 100_000;

struct Node {
    child: Child,
    listen: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(bin: &Path, dir: &Path, name: &str, join: Option<&str>) -> Result<Node> {
    let mut command = Command::new(bin);
    command.args(["run", "--db"]).arg(dir.join(name)).arg("--cluster-key").arg(dir.join("key"));
    command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    if let Some(peer) = join {
        command.args(["--join", peer]);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let out = child.stdout.take().ok_or("no stdout")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let listen = line.split_whitespace().find_map(|w| w.strip_prefix("listen=")).ok_or("no ready line")?.to_string();
    Ok(Node { child, listen })
}

#[allow(unsafe_code)]
fn open(dir: &Path, name: &str, so: &Path) -> Result<Connection> {
    let db = Connection::open(dir.join(name))?;
    db.busy_timeout(Duration::from_secs(10))?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "normal")?;
    // SAFETY: the extension is the one this repository builds.
    unsafe {
        db.load_extension_enable()?;
        db.load_extension(so, None::<&str>)?;
    }
    db.execute_batch("CREATE TABLE IF NOT EXISTS m(id INTEGER PRIMARY KEY, v TEXT)")?;
    db.query_row("SELECT crsql_as_crr('m')", [], |_| Ok(()))?;
    Ok(db)
}

/// Polls until a query says 1; returns how long that took.
fn wait_for(db: &Connection, sql: &str, id: i64, limit: Duration) -> Result<Duration> {
    let start = Instant::now();
    let mut stmt = db.prepare_cached(sql)?;
    loop {
        if stmt.query_row([id], |r| r.get::<_, bool>(0))? {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            return Err(format!("not there after {limit:?}: {sql}").into());
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Measures on an idle pair of nodes, then one large transaction.
pub fn run(bin: &Path, so: &Path) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let made = Command::new(bin).args(["cluster", "create", "--out"]).arg(dir.path().join("key")).output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
    }
    let (a, b) = (open(dir.path(), "a.db", so)?, open(dir.path(), "b.db", so)?);
    let first = start(bin, dir.path(), "a.db", None)?;
    let _second = start(bin, dir.path(), "b.db", Some(&first.listen))?;
    let there = "SELECT EXISTS(SELECT 1 FROM m WHERE id = ?1)";
    a.execute("INSERT INTO m VALUES(-1, 'first')", [])?;
    wait_for(&b, there, -1, Duration::from_secs(20))?;
    let mut times = Vec::with_capacity(SAMPLES);
    for i in 0..SAMPLES as i64 {
        std::thread::sleep(Duration::from_millis(10));
        a.execute("INSERT INTO m VALUES(?1, 'x')", params![i])?;
        times.push(wait_for(&b, there, i, Duration::from_secs(5))?.as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let at = |p: usize| times.get(times.len() * p / 100).copied().unwrap_or(f64::NAN);
    a.execute(
        "WITH RECURSIVE t(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM t WHERE i < 999 + ?1) INSERT INTO m SELECT i, 'big' FROM t",
        [BIG],
    )?;
    let big = wait_for(&b, "SELECT count(*) = ?1 FROM m WHERE id >= 1000", BIG, Duration::from_secs(60))?;
    let figure = |name, value, unit, runs, goal| Figure { name, value, unit, runs, goal };
    Ok(vec![
        figure("commit_to_readable_p50", at(50), "ms", SAMPLES, "<= 5"),
        figure("commit_to_readable_p99", at(99), "ms", SAMPLES, "<= 20"),
        figure("rows_100k_to_readable", big.as_secs_f64(), "s", 1, ""),
    ])
}

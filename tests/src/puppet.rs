//! A process that does what it is told: it has a connection to each of two files, runs each statement on both, and tells what
//! an application sees of it. The test that leads it compares the two.

use crate::seen::{observe, Seen};
use crate::site::Site;
use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

fn told(seen: &Seen) -> Value {
    json!({
        "prepared": seen.prepared,
        "error": seen.error,
        "changes": seen.changes,
        "rowid": seen.rowid,
        "autocommit": seen.autocommit,
        "columns": seen.columns,
        "rows": seen.rows,
    })
}

/// The process: a line of stdin is `[for the first file, for the second]`, each a statement or null; a line of stdout is what
/// was seen. It ends with its stdin.
pub fn obey(plain: &Path, crr: &Path) {
    let sites = [plain, crr].map(|path| {
        let site = Site::open(path);
        // Who waits would wait for ever: only one of the processes is doing anything.
        site.db.busy_timeout(Duration::ZERO).expect("a timeout can be set");
        site
    });
    let mut out = std::io::stdout();
    for line in std::io::stdin().lines() {
        let both: [Option<String>; 2] = serde_json::from_str(&line.expect("a line")).expect("two statements");
        let seen = [0, 1].map(|i| both[i].as_ref().map(|sql| told(&observe(&sites[i].db, sql))));
        writeln!(out, "{}", json!(seen)).and_then(|()| out.flush()).expect("somebody listens");
    }
}

/// Such a process, from the outside.
pub struct Puppet {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Puppet {
    /// Starts one; `binary` is the program that calls [`obey`] when its first argument is `puppet`.
    pub fn start(binary: &str, files: &[std::path::PathBuf; 2]) -> Self {
        let mut child = Command::new(binary)
            .arg("puppet")
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the puppet starts");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("stdout is piped"));
        let mut puppet = Self { child, stdin, stdout: BufReader::new(stdout) };
        // It has opened its files when it answers.
        puppet.tell(None, None);
        puppet
    }

    /// Has it run a statement on each file; null where there was none.
    pub fn tell(&mut self, plain: Option<&str>, crr: Option<&str>) -> [Value; 2] {
        let stdin = self.stdin.as_mut().expect("it lives");
        writeln!(stdin, "{}", json!([plain, crr])).expect("it listens");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("it said {line:?}: {e}"))
    }

    /// kill -9, wherever it is.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone");
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}

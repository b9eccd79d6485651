//! A node as a process, reached by the others through a proxy that can drop its packets.

use crate::proxy::Proxy;
use starling_tests::site::{Change, Site};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const TABLE: (&str, &str) =
    ("m", "CREATE TABLE IF NOT EXISTS m(id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, n INTEGER)");

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub bin: PathBuf,
    proxies: RefCell<BTreeMap<String, Proxy>>,
}

pub struct Node {
    pub site: Site,
    pub listen: SocketAddr,
    /// Where it answers HTTP, once it has started.
    pub http: Option<SocketAddr>,
    name: String,
    bin: PathBuf,
    dir: PathBuf,
    advertise: SocketAddr,
    child: Option<Child>,
}

impl Cluster {
    /// `None` where no binary was built.
    pub fn new() -> Option<Self> {
        let bin = PathBuf::from(std::env::var_os("STARLING_BIN")?);
        if !bin.exists() {
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let made = Command::new(&bin).args(["cluster", "create", "--out"]).arg(dir.path().join("key")).output();
        assert!(made.expect("it runs").status.success());
        Some(Self { dir, bin, proxies: RefCell::default() })
    }

    /// `starling run` on a file, with nothing else said.
    pub fn run(&self, db: &Path) -> Command {
        let mut command = Command::new(&self.bin);
        command.args(["run", "--db"]).arg(db).arg("--cluster-key").arg(self.dir.path().join("key"));
        command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command
    }

    pub fn node(&self, name: &str, join: &[&Node]) -> Node {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a free port");
        let proxy = Proxy::start(port);
        let mut node = Node {
            site: Site::file(&self.dir.path().join(format!("{name}.db"))).with(&[TABLE]),
            listen: port,
            http: None,
            name: name.to_string(),
            bin: self.bin.clone(),
            dir: self.dir.path().to_path_buf(),
            advertise: proxy.address,
            child: None,
        };
        self.proxies.borrow_mut().insert(name.to_string(), proxy);
        node.start(join);
        node
    }

    /// Drops all packets from and to a node, or lets them pass again.
    pub fn cut(&self, node: &Node, cut: bool) {
        for (name, proxy) in self.proxies.borrow().iter() {
            if *name == node.name {
                proxy.cut_all(cut);
            } else {
                proxy.cut_from(node.listen, cut);
            }
        }
    }
}

impl Node {
    pub fn start(&mut self, join: &[&Node]) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = Command::new(&self.bin);
        command.args(["run", "--db"]).arg(self.db());
        command.arg("--cluster-key").arg(self.dir.join("key"));
        command.args(["--listen", &self.listen.to_string(), "--advertise", &self.advertise.to_string()]);
        command.args(["--http", "127.0.0.1:0"]);
        for peer in join {
            command.args(["--join", &peer.advertise.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("stdout is piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready http="), "{}: {line:?} {}", self.name, self.log());
        let http = line.split_whitespace().find_map(|word| word.strip_prefix("http="));
        self.http = http.and_then(|address| address.parse().ok());
        self.child = Some(child);
    }

    /// kill -9
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// kill -TERM, and its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("it runs");
        assert!(told.success());
        child.wait().expect("it ends").code()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn db(&self) -> PathBuf {
        self.dir.join(format!("{}.db", self.name))
    }

    /// Table and changes.
    pub fn state(&self) -> (Vec<String>, Vec<Change>) {
        (self.site.rows("SELECT * FROM m ORDER BY id"), self.site.changes())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("--- {}: {:?}\n{}", self.name, self.site.rows("SELECT count(*) FROM m"), tail.join("\n"));
        }
        self.kill();
    }
}

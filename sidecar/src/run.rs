//! A node from its start to its end: open the database, bind the ports, run, leave; and begin anew when the database file
//! has become another one.

use crate::admin::{Admin, SocketPlace};
use crate::api::{self, Access, OpenConnection, Pool};
use crate::cluster::ClusterKey;
use crate::config::RunConfig;
use crate::db::check::{preflight, DbPath, FileIdentity};
use crate::db::open::{store_start, Opener, Role, StoreStart};
use crate::db::reader::{contradiction, Readers};
use crate::db::state::{reason_for_new_epoch, Remembered, StateFile};
use crate::db::watch::{Watch, WatchConfig};
use crate::db::writer::{Activity, MergeSql, Writer, WriterConfig};
use crate::db::{register, Figures};
use crate::driver::{Driver, Edges, Ended, Facts, Sources};
use crate::error::Error;
use crate::gate::WriteGate;
use crate::limits::{DRIVER_QUEUE, SHUTDOWN};
use crate::net::tls::{Identity, PeerId};
use crate::net::{self, Endpoint, NetConfig, Peers};
use crate::waiting::Waiting;
use rusqlite::Connection;
use rustix::fs::{flock, FlockOperation};
use starling_proto::{Input, Node, NodeConfig, Now, Timing};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// While the file is gone or not to be opened, it is looked for this often.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);
/// Files that may be open at once: a connection each, and SQLite's.
const OPEN_FILES: u64 = 65_536;

/// The sockets, bound once: a node that begins anew keeps its ports.
struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
    listen: SocketAddr,
    http: SocketAddr,
}

/// The database, opened and found fit.
struct Store {
    opener: Opener,
    conn: Connection,
    start: StoreStart,
    file: FileIdentity,
    remembered: Remembered,
    incarnation: u64,
}

/// Runs a node until a signal ends it.
///
/// # Errors
/// What kept it from starting.
pub async fn run(config: RunConfig) -> Result<(), Error> {
    raise_open_files();
    register::register().map_err(|code| Error::system("registering the extension", format!("SQLite error {code}")))?;
    let key = ClusterKey::read_file(&config.cluster_key)?;
    let db = DbPath::resolve(&config.db)?;
    preflight(&db)?;
    let _lock = lock(&db)?;
    let mut signals = Signals::install()?;
    let mut store = open_store(&db)?;
    let sockets = bind(&config)?;
    let mut announced = false;
    loop {
        let running = Running::start(&config, &key, &sockets, store)?;
        if !announced {
            announce(&running.facts);
            announced = true;
        }
        let ended = running.run(&mut signals).await;
        let renamed = matches!(ended, Ended::Renamed(_));
        match ended {
            Ended::Left => return Ok(()),
            Ended::Copy => become_own_site(&db)?,
            Ended::Renamed(why) => tracing::warn!(why, "this node begins anew"),
            Ended::Reopen(why) => {
                tracing::error!(why, path = %db.path().display(), "the database file changed under the sidecar; opening it anew");
            }
        }
        store = tokio::select! {
            store = reopen(&db, &sockets.tcp) => store,
            () = signals.wait() => return Ok(()),
        };
        if renamed {
            // What was shipped has another name: under the old one the peers' transactions are no contradiction.
            store.remembered = forget_shipped(store.remembered);
        }
    }
}

fn announce(facts: &Facts) {
    let Facts { http, listen, site, .. } = facts;
    let mut out = std::io::stdout().lock();
    // Whoever does not read the line does not need it.
    let _ = writeln!(out, "ready http={http} listen={listen} site_id={site}").and_then(|()| out.flush());
}

fn bind(config: &RunConfig) -> Result<Sockets, Error> {
    let quic = |source| Error::Bind { addr: config.listen.to_string(), purpose: "QUIC", flag: "--listen", source };
    let http = |source| Error::Bind { addr: config.http.to_string(), purpose: "HTTP", flag: "--http", source };
    let udp = net::bind(config.listen).map_err(quic)?;
    let tcp = api::bind(config.http).map_err(http)?;
    let (listen, http_addr) = (udp.local_addr().map_err(quic)?, tcp.local_addr().map_err(http)?);
    if !http_addr.ip().is_loopback() && config.http_token.is_none() {
        tracing::warn!(addr = %http_addr, "HTTP is open to other machines and asks for no token; give --http-token-file");
    }
    Ok(Sockets { udp, tcp, listen, http: http_addr })
}

/// One sidecar per database. The lock is on a file beside it: locking the database itself would meddle with SQLite's locks.
fn lock(db: &DbPath) -> Result<File, Error> {
    let path = db.beside("-starling.lock");
    let failed =
        |e: std::io::Error| Error::database(db.path(), format!("its lock {} cannot be made: {e}", path.display()));
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut pid);
            let problem = format!("another sidecar (pid {}) runs for it; stop that one first", pid.trim());
            return Err(Error::database(db.path(), problem));
        }
        Err(e) => return Err(failed(e.into())),
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(failed)?;
    Ok(file)
}

fn open_store(db: &DbPath) -> Result<Store, Error> {
    let opener = Opener::new(db.clone());
    // A restored file goes on in a new epoch before anything that is found in it gets a version.
    let conn = starling_extension::as_it_is(|| opener.first_open())?;
    let failed = |problem: String| Error::database(db.path(), problem);
    let remembered = StateFile::of(db).load();
    let start = store_start(&conn).map_err(failed)?;
    let file = db.identity().ok_or_else(|| failed("it was moved away just now".into()))?;
    let reason = match reason_for_new_epoch(&remembered, start.site, start.db_version, Some(file)) {
        None => contradicts_shipped(&conn, &start, &remembered).map_err(|e| failed(e.to_string()))?,
        reason => reason,
    };
    let remembered = match reason {
        None => remembered,
        Some(why) => {
            tracing::warn!(why, "this node goes on in a new epoch");
            conn.query_row("SELECT starling_new_epoch()", [], |_| Ok(())).map_err(|e| failed(e.to_string()))?;
            forget_shipped(remembered)
        }
    };
    drop(conn);
    let conn = opener.first_open()?;
    let start = store_start(&conn).map_err(failed)?;
    let incarnation = incarnation(&remembered, &start);
    Ok(Store { opener, conn, start, file, remembered, incarnation })
}

fn contradicts_shipped(
    conn: &Connection,
    start: &StoreStart,
    remembered: &Remembered,
) -> rusqlite::Result<Option<String>> {
    let Remembered::State(state) = remembered else { return Ok(None) };
    let shipped = state.shipped.filter(|_| *state.site_id.as_bytes() == start.site.0);
    shipped.map_or(Ok(None), |shipped| contradiction(conn, &shipped.as_vector(start.site)))
}

fn forget_shipped(remembered: Remembered) -> Remembered {
    match remembered {
        Remembered::State(mut state) => {
            state.shipped = None;
            Remembered::State(state)
        }
        other => other,
    }
}

/// The time, unless the clock went back since the last run.
fn incarnation(remembered: &Remembered, start: &StoreStart) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    match remembered {
        Remembered::State(state) if *state.site_id.as_bytes() == start.site.0 => {
            now.max(state.incarnation.saturating_add(1))
        }
        _ => now,
    }
}

/// This database is a copy of that of a node which is alive: it becomes a site of its own, and what it holds so far remains
/// the other's.
fn become_own_site(db: &DbPath) -> Result<(), Error> {
    let copy = "is a copy of the database of a node that is running";
    let advice =
        "stop this node, move its database away, and let it begin with an empty one: it gets all data from the others";
    let failed = |e: rusqlite::Error| Error::database(db.path(), format!("{copy}; {advice} ({e})"));
    let conn = starling_extension::as_it_is(|| Opener::new(db.clone()).open(Role::Api)).map_err(failed)?;
    conn.query_row("SELECT starling_new_site()", [], |_| Ok(())).map_err(failed)?;
    tracing::warn!(path = %db.path().display(), "it {copy}; it has taken a site id of its own");
    Ok(())
}

/// Tries until there is a database at the path again, and tells whoever asks meanwhile.
async fn reopen(db: &DbPath, tcp: &TcpListener) -> Store {
    let (mut told, mut waiting): (_, Option<Waiting>) = (None, None);
    loop {
        let path = db.clone();
        let attempt = tokio::task::spawn_blocking(move || {
            // Making a fresh database here would hide that the user's is gone.
            path.identity().ok_or_else(|| Error::database(path.path(), "is not there"))?;
            preflight(&path)?;
            open_store(&path)
        });
        match attempt.await {
            Ok(Ok(store)) => {
                if let Some(waiting) = waiting {
                    waiting.end().await;
                }
                return store;
            }
            Ok(Err(e)) => {
                let line = e.one_line();
                if told.as_ref() != Some(&line) {
                    tracing::error!("{line}; waiting for it");
                    told = Some(line);
                }
            }
            Err(e) => tracing::error!("opening the database failed: {e}"),
        }
        if waiting.is_none() {
            waiting = Waiting::start(tcp, db).inspect_err(|e| tracing::warn!("nobody can be told of it: {e}")).ok();
        }
        tokio::time::sleep(REOPEN_INTERVAL).await;
    }
}

/// A node that runs.
struct Running {
    driver: Driver,
    sources: Sources,
    admin: Admin,
    pool: Arc<Pool>,
    http: tokio::task::JoinHandle<()>,
    stop_http: watch::Sender<bool>,
    facts: Facts,
}

impl Running {
    fn start(config: &RunConfig, key: &ClusterKey, sockets: &Sockets, store: Store) -> Result<Self, Error> {
        let Store { opener, conn, start, file, remembered, incarnation } = store;
        let me = PeerId { site: start.site, incarnation };
        let (net_events, net) = mpsc::channel(DRIVER_QUEUE);
        let (answers, answer_events) = mpsc::channel(16);
        let (store_events, store) = mpsc::channel(DRIVER_QUEUE);
        let (status_requests, status) = mpsc::channel(16);
        let (seeds, resolved) = mpsc::channel(4);
        let (gate, activity) = (Arc::new(WriteGate::default()), Arc::new(Activity::default()));
        let system = |e: std::io::Error| Error::system("starting the node", e);

        let socket = sockets.udp.try_clone().map_err(system)?;
        let net_config = NetConfig { socket, identity: Identity::issue(key, me)?, events: net_events };
        let endpoint = Endpoint::start(net_config).map_err(system)?;
        let writer = Writer::start(
            conn,
            WriterConfig {
                opener: opener.clone(),
                gate: Arc::clone(&gate),
                activity: Arc::clone(&activity),
                events: store_events.clone(),
                sql: MergeSql::default(),
            },
        )?;
        let readers = Readers::start(&opener, &store_events, &Handle::current()).map_err(system)?;
        let watch = Watch::start(WatchConfig {
            opener: opener.clone(),
            site: me.site,
            db_version: start.db_version,
            file,
            incarnation,
            activity,
            events: store_events,
            shipped: match remembered {
                Remembered::State(state) if *state.site_id.as_bytes() == me.site.0 => state.shipped,
                _ => None,
            },
        })?;

        let (pool, http, stop_http) = serve_http(config, sockets, &opener, &gate).map_err(system)?;
        let admin = Admin::start(SocketPlace::of(opener.db().path()), status_requests)?;
        let facts = Facts {
            site: me.site,
            cluster_id: key.id,
            incarnation,
            listen: sockets.listen,
            http: sockets.http,
            advertise_given: config.advertise.is_some(),
            join: config.join.clone(),
        };
        let edges = Edges { endpoint, peers: Peers::new(me.site), writer, readers, watch, answers, seeds };
        let figures = Figures { db_version: start.db_version, aside: start.aside };
        let (node, clock) = node(config, key, &facts, incarnation, start)?;
        let driver = Driver::new(node, edges, facts.clone(), clock, figures);
        let sources = Sources { net, answers: answer_events, store, status, seeds: resolved };
        Ok(Self { driver, sources, admin, pool, http, stop_http, facts })
    }

    async fn run(self, signals: &mut Signals) -> Ended {
        let Self { driver, sources, admin, pool, http, stop_http, facts } = self;
        tracing::info!(site_id = %facts.site, listen = %facts.listen, http = %facts.http, "running");
        let mut serving = Some((http, pool));
        let stop = async {
            signals.wait().await;
            tracing::info!("stopping");
            exit_at_the_latest();
            let _ = stop_http.send(true);
            // What is answered until then is shipped like all else.
            if let Some((http, pool)) = serving.take() {
                end_http(http, pool).await;
            }
        };
        let (ended, edges) = driver.run(sources, stop).await;
        let _ = stop_http.send(true);
        drop(admin);
        if let Some((http, pool)) = serving.take() {
            end_http(http, pool).await;
        }
        let Edges { endpoint, writer, readers, watch, peers, .. } = edges;
        drop(peers);
        endpoint.close("the process ends").await;
        let joined = tokio::task::spawn_blocking(move || {
            watch.join();
            writer.join();
            readers.join();
        });
        let _ = joined.await;
        ended
    }
}

fn node(
    config: &RunConfig,
    key: &ClusterKey,
    facts: &Facts,
    incarnation: u64,
    start: StoreStart,
) -> Result<(Node, Instant), Error> {
    let seed = getrandom::u64().map_err(|e| Error::system("drawing random numbers", e))?;
    let (clock, now) = (Instant::now(), Now(0));
    let config = NodeConfig {
        cluster_id: *key.id.as_bytes(),
        site_id: facts.site,
        incarnation,
        advertise: config.advertise.unwrap_or(facts.listen),
        seed,
        timing: Timing::default(),
    };
    let mut node = Node::new(config, now);
    node.handle(now, Input::Started { vector: start.vector });
    Ok((node, clock))
}

type Http = (Arc<Pool>, tokio::task::JoinHandle<()>, watch::Sender<bool>);

fn serve_http(config: &RunConfig, sockets: &Sockets, opener: &Opener, gate: &Arc<WriteGate>) -> std::io::Result<Http> {
    let opener = opener.clone();
    let open: OpenConnection = Arc::new(move || opener.open(Role::Api));
    let pool = Arc::new(Pool::start(&open, gate)?);
    let listener = tokio::net::TcpListener::from_std(sockets.tcp.try_clone()?)?;
    let (stop, stopped) = watch::channel(false);
    let access = Access { hosts: config.http_hosts.clone(), token: config.http_token.clone() };
    let http = tokio::spawn(api::serve(listener, Arc::clone(&pool), access, stopped));
    Ok((pool, http, stop))
}

/// Requests under way are finished, within reason.
async fn end_http(http: tokio::task::JoinHandle<()>, pool: Arc<Pool>) {
    api::end(http, Duration::from_millis(1000)).await;
    let ended = tokio::task::spawn_blocking(move || pool.join());
    if tokio::time::timeout(Duration::from_millis(1000), ended).await.is_err() {
        tracing::warn!("a statement over HTTP did not end in time");
    }
}

/// Whatever hangs, the process ends in time.
fn exit_at_the_latest() {
    let spawned = std::thread::Builder::new().name("last-resort".into()).spawn(|| {
        std::thread::sleep(SHUTDOWN);
        tracing::warn!("the shutdown was cut short");
        std::process::exit(0);
    });
    if let Err(e) = spawned {
        tracing::warn!("the shutdown has no time limit: {e}");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    fn install() -> Result<Self, Error> {
        use tokio::signal::unix::{signal, SignalKind};
        let failed = |e: std::io::Error| Error::system("installing signal handlers", e);
        Ok(Self {
            term: signal(SignalKind::terminate()).map_err(failed)?,
            int: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

fn raise_open_files() {
    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |max| max.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

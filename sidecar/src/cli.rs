//! The command line.

use crate::cluster::ClusterKey;
use crate::config::{self, RunConfig};
use crate::db::check::DbPath;
use crate::error::Error;
use crate::{admin, run};
use clap::{Args, Parser, Subcommand};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// SQLite that replicates itself.
#[derive(Debug, Parser)]
#[command(name = "starling", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make and manage clusters.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Run one node beside the applications that use a database file.
    Run(RunArgs),
    /// Ask the running node how it is.
    Status(StatusArgs),
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Write a new cluster key. Copy it to each node; whoever holds it is in the cluster.
    Create {
        /// The file to write; it must not be there yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The database file. It is made if it is not there.
    #[arg(long, value_name = "FILE", env = "STARLING_DB")]
    db: PathBuf,
    /// The cluster key file.
    #[arg(long, value_name = "FILE", env = "STARLING_CLUSTER_KEY")]
    cluster_key: PathBuf,
    /// Where other nodes reach this one (QUIC, UDP). Port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", env = "STARLING_LISTEN", default_value = "[::]:8787")]
    listen: String,
    /// Where SQL over HTTP is answered. Port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", env = "STARLING_HTTP", default_value = "127.0.0.1:8080")]
    http: String,
    /// Another node of the cluster; may be given several times. One that does not answer yet is tried again for ever.
    #[arg(long, value_name = "HOST:PORT", env = "STARLING_JOIN", value_delimiter = ',')]
    join: Vec<String>,
    /// What other nodes are told to dial, where it is not the listen address.
    #[arg(long, value_name = "HOST:PORT", env = "STARLING_ADVERTISE")]
    advertise: Option<String>,
    /// A host name, besides localhost and IP addresses, under which HTTP may be asked; may be given several times.
    #[arg(long, value_name = "NAME", env = "STARLING_HTTP_HOST", value_delimiter = ',')]
    http_host: Vec<String>,
    /// A file with the bearer token that HTTP requests must bear.
    #[arg(long, value_name = "FILE", env = "STARLING_HTTP_TOKEN_FILE")]
    http_token_file: Option<PathBuf>,
    /// What is logged, for example info, debug, or starling_sidecar::net=trace.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// The database file of the node.
    #[arg(long, value_name = "FILE", env = "STARLING_DB")]
    db: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Cluster(ClusterCommand::Create { out }) => create(&out),
        Command::Run(args) => start(args),
        Command::Status(args) => status(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "starling: {}", e.one_line());
            ExitCode::from(e.exit_code())
        }
    }
}

fn create(out: &std::path::Path) -> Result<(), Error> {
    let key = ClusterKey::generate()?;
    key.create_file(out)?;
    let _ = writeln!(std::io::stderr(), "cluster {} made; its key is in {}", key.id, out.display());
    Ok(())
}

fn start(args: RunArgs) -> Result<(), Error> {
    init_log(&args.log)?;
    let config = checked(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("async")
        .enable_all()
        .build()
        .map_err(|e| Error::system("starting the async runtime", e))?;
    let done = runtime.block_on(run::run(config));
    runtime.shutdown_background();
    done
}

fn checked(args: RunArgs) -> Result<RunConfig, Error> {
    Ok(RunConfig {
        db: args.db,
        cluster_key: args.cluster_key,
        listen: config::socket_addr("--listen", &args.listen)?,
        http: config::socket_addr("--http", &args.http)?,
        join: config::items(args.join).iter().map(|join| config::seed("--join", join)).collect::<Result<_, _>>()?,
        advertise: args.advertise.map(|addr| config::dialled_addr("--advertise", &addr)).transpose()?,
        http_hosts: config::items(args.http_host),
        http_token: args.http_token_file.map(|path| config::token(&path)).transpose()?,
    })
}

fn init_log(filter: &str) -> Result<(), Error> {
    let filter = EnvFilter::try_new(filter).map_err(|e| Error::Usage(format!("--log {filter}: {e}")))?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    Ok(())
}

fn status(args: &StatusArgs) -> Result<(), Error> {
    let db = DbPath::resolve(&args.db)?;
    let status = admin::ask(db.path())?;
    let text = if args.json {
        let json = serde_json::to_string_pretty(&status).map_err(|e| Error::system("writing JSON", e))?;
        json + "\n"
    } else {
        admin::human(&status)
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

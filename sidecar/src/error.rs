//! Errors that end the process, each with what to do, and their exit codes.

use std::path::PathBuf;

/// Why the program ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong use or configuration.
    #[error("{0}")]
    Usage(String),
    /// The cluster key file.
    #[error("cluster key {}: {problem}", path.display())]
    ClusterKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
        /// Whether the user named a wrong file (and not: the disk failed).
        usage: bool,
    },
    /// The database cannot be replicated as it is.
    #[error("database {}: {problem}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// An address could not be bound.
    #[error("cannot listen on {addr} for {purpose}: {source}; give another address with {flag}")]
    Bind {
        /// The address.
        addr: String,
        /// What it is for.
        purpose: &'static str,
        /// The flag that changes it.
        flag: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The running node could not be asked.
    #[error("{0}")]
    Status(String),
    /// Something that should always work did not.
    #[error("{what}: {problem}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        problem: String,
    },
}

impl Error {
    /// The exit code: 2 for wrong use or configuration, 1 for what failed.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::ClusterKey { usage: true, .. } => 2,
            _ => 1,
        }
    }

    /// An error about a database file.
    pub fn database(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Database { path: path.into(), problem: problem.into() }
    }

    /// Something of the system failed.
    pub fn system(what: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::System { what, problem: problem.to_string() }
    }

    /// The message on one line, as stderr shows it.
    #[must_use]
    pub fn one_line(&self) -> String {
        self.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

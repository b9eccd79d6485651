//! The sidecar: it runs beside the applications that own a database file, notices their commits, ships them to the other
//! nodes of the cluster, merges what those send, and answers SQL over HTTP.
//!
//! The protocol itself is `starling_proto`, a state machine without I/O. Here are its edges: [`db`] (the file), [`net`] (QUIC),
//! [`api`] (HTTP), [`admin`] (the status socket). None of the four knows another; only [`driver`], which owns the state
//! machine, and [`run`], which starts and stops them, know them all.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod db;
pub mod driver;
pub mod error;
pub mod gate;
pub mod limits;
pub mod mailbox;
pub mod net;
pub mod run;
mod waiting;

//! The fence between SQLite's C interface and the rest of the extension.
//!
//! What it does: statements, values, functions and virtual tables as safe Rust values, and the entry points SQLite calls.
//! What it must never do: know what a CRDT is; let a raw pointer out; let a panic into C; hand SQLite memory that it did not allocate.
//! Invariant: every `unsafe` of the extension is in this directory, and every C callback is a guard (`error::guard`) around one typed
//! call whose `Result` becomes a code and a message in one place a kind of callback (`vtab::module::finish`, `function::run`).
//!
//! One rule is the caller's: a [`Db`] or [`Stmt`] is kept only inside what SQLite itself destroys with the connection, that is a virtual
//! table, a cursor or the aux of a function or module. Statements that a table caches are finalized in [`VTab::disconnect`].

mod api;
mod db;
mod entry;
mod error;
mod function;
mod output;
mod scratch;
mod stmt;
mod value;
mod vtab;

pub use db::Db;
pub use entry::{auto_extension_entry, EntryPoint};
pub use error::{codes, Error, Result};
pub use function::{create_function, Arity, FunctionFlags};
pub use output::{ColumnOut, Output};
pub use scratch::Scratch;
pub use stmt::Stmt;
pub use value::{Args, Conflict, ValueRef};
pub use vtab::{create_module, Change, Constraint, IndexInfo, Op, OrderBy, Risk, VTab, VTabCursor};

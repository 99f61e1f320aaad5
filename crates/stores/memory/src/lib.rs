//! A store in the memory of its process: the smallest one that keeps the whole contract, as the
//! example of CONTRIBUTING.md. It is a test: no program has this kind of store.
//!
//! Rows and bookkeeping of one place are behind one lock, and everything that can fail happens
//! before the first change, so that each change is one atomic step. Tables are shared with
//! snapshots and copied when they are changed.
//!
//! Bookkeeping: one entry per sink (log, position, epoch, plan, the tables of a rebuild under way)
//! and the owner of each table.

mod bookkeeping;
mod connection;
mod ddl;
mod decode;
mod encode;
mod error;
mod full_text;
mod kind;
mod reader;
mod rebuild;
mod store;
mod write;

pub use self::kind::{KIND, MemoryKind, MemoryTarget};
pub use self::store::MemoryStore;

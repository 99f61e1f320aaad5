//! Elasticsearch and OpenSearch as a store: exactly once for every document, but not atomic.
//!
//! These products have no transactions. What holds instead:
//! - **Each document once.** A document's version is its record's offset + 1 (`external` versions),
//!   and the product refuses a version that is not higher. A batch that is sent again, in part or
//!   whole, early or late, therefore changes nothing that is as new or newer. This also holds for a
//!   zombie: what it still sends are images that the log has at those offsets. Older ones than the
//!   store's are refused; one that the new owner has not reached yet is what the new owner is about
//!   to write, byte for byte, and its own is then refused as already there.
//! - **The position moves last**, when every item of the batch was acknowledged, in a document that
//!   is replaced only in the version in which it was read. A zombie fails there, and before it
//!   writes anything at all. A crash in between repeats the batch.
//! - **A deletion stays** as a document that is marked, hidden by the filter of the alias, with the
//!   version of its record: a put that comes late cannot bring the row back. Such documents are
//!   purged after an hour, which no request survives.
//! - **A document that another client wrote** has a version of the product's own making, which may
//!   be above those that are to come. Refused items are looked at, and where the document is of an
//!   earlier record, ours is written above its version.
//!
//! What does not hold: a reader may see some rows of a transaction before the others. At the
//! barrier, when nothing is being applied and the indexes were refreshed, the store equals the log
//! at the position; [`Store::reader`](onelog_store::Store::reader) opens its snapshot there.
//!
//! An exchange of indexes (see `rebuild`) is written into the ledger as an intention, carried out as
//! one step, then written as done. The aliases show a process that opens the store in between
//! whether it took place; a takeover completes it.

mod bookkeeping;
mod claims;
mod connection;
mod ddl;
mod decode;
mod encode;
mod error;
mod kind;
mod purge;
mod reader;
mod rebuild;
mod store;
mod write;

pub use self::connection::{http_tls, split_address};
pub use self::kind::{ElasticsearchKind, ElasticsearchTarget, KIND};
pub use self::store::ElasticsearchStore;

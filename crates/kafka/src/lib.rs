//! The Kafka door: tables as topics, for Kafka clients as they are.
//!
//! [`serve`] answers on a listener. A topic is a table, `service.table`, with one partition, and the
//! Kafka offset is the log's offset; the topic `onelog` is the whole log. Nothing is decided here:
//! what is produced becomes `CommitRequest`s of the node, what is fetched is read from its log.
//!
//! **Hostile bytes.** What a client sends is walked by the guard, over a table of the fields of every
//! request, before the library decodes it: no length is larger than what is left of the frame. So the
//! library never allocates more than a small multiple of the frame, whose size is bounded.
//!
//! **Bounds.** Connections, the bytes of requests and of answers in memory, and times: `options.rs`
//! names each.
//!
//! **Threads.** A task of the tokio runtime for each connection, which answers one request after the
//! other, as Kafka's own brokers do. Calls that read files go to the blocking pool.

mod answer;
mod apis;
mod batch;
#[cfg(test)]
mod conformity;
mod connection;
mod door;
mod guard;
mod handlers;
mod header;
mod lookup;
mod options;
mod producers;
mod refusals;
mod scan;
mod schema;
mod server;
mod topics;
mod writes;

pub use door::Advertised;
pub use options::KafkaOptions;
pub use server::serve;

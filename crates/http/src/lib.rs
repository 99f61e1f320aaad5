//! The HTTP door: JSON transactions, reads, the log as a stream.
//!
//! [`serve`] answers on a listener. Nothing here decides anything: requests become
//! `CommitRequest`s and reads of the node, and every refusal becomes one JSON object ([`errors`]
//! lists its forms).
//!
//! Routes: `POST /v1/transactions` · `GET /v1/tables/{table}/keys/{key}` ·
//! `GET /v1/tables/{table}/keys` · `GET /v1/log` · `/v1/tables` · `/v1/sinks` · `/v1/cluster` ·
//! `/v1/status` · `/healthz` · `/readyz` · `/metrics` · `/openapi.json`.
//!
//! **Bytes.** In JSON, keys and the values of tables of bytes are a string when they are UTF-8,
//! and `{"base64": "..."}` otherwise; requests may use either. In URLs a key is percent-encoded
//! UTF-8, or base64 (either alphabet) with `encoding=base64`. The values of tables of JSON travel
//! as themselves, byte for byte as they were written.
//!
//! **Bounds.** Connections, the time for a head and a body, a body's size and all bodies
//! together, readers of the log, calls that read files, and waits: `options.rs` names each, and
//! beyond it the answer is 503, 413, 408 or 504, never growth.
//!
//! **Threads.** Tasks of the tokio runtime. Reading one key and committing happen on them;
//! calls that may read many pages of files go to the blocking pool.

mod app;
mod body;
pub mod errors;
mod forwarding;
mod object;
mod openapi;
mod options;
mod query;
mod read_replica;
mod refusals;
mod router;
mod routes;
mod server;
mod starting;

use onelog_api as api;
pub use onelog_request::WAIT_TIMEOUT_MS_MAX;
pub use options::{Declared, HttpOptions};
pub use server::serve;
pub use starting::serve_starting;

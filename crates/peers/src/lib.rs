//! The connections between the nodes of a cluster: bytes in, bytes out. What the bytes mean is the
//! affair of those who use them; the bytes around them are in docs/peers.md.
//!
//! Each node calls each of its peers, with a connection for each [`Lane`]; see `dial`. A message may
//! be dropped, and the caller hears it when that happens at once; a request has an answer or an error
//! that says whether it may have been carried out.

mod connection;
mod dial;
mod error;
mod figures;
pub mod frame;
pub mod greeting;
mod handler;
mod lane;
pub mod limits;
mod link;
mod listen;
mod options;
mod peers;
mod request;
mod seen;
mod shared;
mod tls;
mod tls_advice;

pub use error::{AddressError, ConnectionError, RequestError, SendError, StartError, TlsError};
pub use figures::{Figures, IncomingFigures, LaneFigures, PeerFigures};
pub use greeting::{NO_LOG, Refusal};
pub use handler::Handler;
pub use lane::Lane;
pub use options::{PeersOptions, Timing};
pub use peers::Peers;
pub use request::{Pending, Reply};
pub use tls::{TlsFiles, name_of};

//! Bounds of everything that another process can send or hold. Figures of time are in `Timing`.

/// The most bytes of one message or request on [`crate::Lane::Control`]: what is behind it waits.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;
/// The most bytes of one message, request or answer on [`crate::Lane::Bulk`]: the largest entry of a
/// log, with what is around it.
pub const BULK_BYTES_MAX: usize = 36 << 20;
/// The most bytes of a greeting or of a refusal; before them nothing else is read.
pub const GREETING_BYTES_MAX: usize = 512;
/// The most bytes of the address where a node says that it can be reached.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// The most bytes of the text of a refusal.
pub const REFUSAL_BYTES_MAX: usize = 255;

/// What may wait to be sent on one connection of a lane; one frame is always taken.
pub const CONTROL_QUEUE_BYTES_MAX: usize = 1 << 20;
pub const CONTROL_QUEUE_FRAMES_MAX: usize = 1024;
pub const BULK_QUEUE_BYTES_MAX: usize = 64 << 20;
pub const BULK_QUEUE_FRAMES_MAX: usize = 4096;

/// The most requests of one connection without an answer, on the side that sends them.
pub const REQUESTS_SENT_MAX: usize = 1024;
/// The same on the side that answers; what is more is answered busy.
pub const REQUESTS_HELD_MAX: usize = 1024;
/// The most bytes of requests of one connection that are without an answer.
pub const REQUEST_BYTES_HELD_MAX: usize = 128 << 20;

/// The most nodes that this one connects to.
pub const PEERS_MAX: usize = 256;
/// The most connections of others that are open.
pub const INCOMING_MAX: usize = 1024;
/// The most connections of others that have not said yet who they are; more wait to be accepted.
pub const GREETINGS_MAX: usize = 256;

/// How much is read or written at once.
pub(crate) const PIECE_BYTES: usize = 64 << 10;
/// A body of more bytes is not copied beside others before it is written.
pub(crate) const COPIED_BYTES_MAX: usize = 16 << 10;
/// How many faults are remembered so that each is logged once.
pub(crate) const SEEN_MAX: usize = 256;

//! The connections to the servers behind an address, and commands as bytes.

mod link;
mod servers;
mod wire;

pub(crate) use self::link::{Link, SWAP_TIMEOUT};
pub(crate) use self::servers::Servers;
pub(crate) use self::wire::{Commands, Form, Many, command, script};

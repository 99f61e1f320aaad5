//! What the store keeps about the sink itself: position, epoch and plan of each partition, and who
//! owns which keys.

mod names;
mod owners;
mod record;

pub(crate) use self::names::{List, Names, check_mappings, owners_slot};
pub(crate) use self::record::{
    Record, advance_position, chain_text, followed_log, least, plan_id, read_command,
    read_position, read_records, take_over,
};

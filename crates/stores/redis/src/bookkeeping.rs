//! What the store keeps about the sink itself: position, epoch and plan of each partition, and who
//! owns which keys.

mod former;
mod names;
mod owners;
mod record;

pub(crate) use self::former::forget_former_records;
pub(crate) use self::names::{List, Names, check_mappings, owners_slot};
pub(crate) use self::record::{
    Record, TakeOver, advance_position, chain_text, followed, least, plan_id, read_command,
    read_position, read_records, take_over,
};

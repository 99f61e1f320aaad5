//! Records of a sink under another number of partitions than it has now.
//!
//! Of two numbers the first partition is the same, so its record says whose the sink is. A sink
//! without partitions has its record elsewhere: on one server either looks at the other's first
//! record, its *counterpart*. In a cluster every sink has partitions.

use std::ops::ControlFlow;

use onelog_store::StoreError;
use redis::Value;

use super::names::Names;
use super::record::{Record, read_command};
use crate::connection::{Servers, command};
use crate::error::lacks_right;
use crate::reader::scan_keys;
use crate::scripts::Scripts;

/// The counterpart's record. `None`: it cannot be there, or the user may not see it.
pub(crate) fn read_counterpart(
    servers: &mut Servers,
    names: &Names,
) -> Result<Option<Record>, StoreError> {
    if servers.is_cluster {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    read_command(&names.counterpart(), &mut bytes);
    let link = servers.link(0);
    link.send(&bytes)?;
    match link.receive()? {
        Value::ServerError(error) if lacks_right(&error) => Ok(None),
        value => Record::parse(link, value).map(Some),
    }
}

/// Deletes the records that the present partitions do not have, where no later epoch is in them.
pub(crate) fn forget_former_records(
    servers: &mut Servers,
    names: &Names,
    scripts: &Scripts,
    epoch: u64,
) -> Result<(), StoreError> {
    let what = "deleting former records from";
    let epoch = epoch.to_string();
    for link in &mut servers.links {
        let _all = scan_keys(link, &names.records(), |link, found| {
            let mut bytes = Vec::new();
            let former = found.iter().filter(|name| names.is_former_record(name));
            let mut sent = 0;
            for name in former {
                let parts: [&[u8]; 5] = [b"EVALSHA", &scripts.forget, b"1", name, epoch.as_bytes()];
                command(&parts, &mut bytes);
                sent += 1;
            }
            link.send(&bytes)?;
            for _ in 0..sent {
                match link.receive()? {
                    Value::ServerError(error) if lacks_right(&error) => {}
                    value => drop(link.good(what, value)?),
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

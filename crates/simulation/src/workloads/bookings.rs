//! Bookings: a client that books counts the bookings of the room first. A phantom lets two people take
//! the last place.

use bytes::Bytes;
use onelog_record::{KeyRange, Operation, TableDefinition, TableId, Write};
use rand::Rng;
use serde_json::json;

use super::{Act, Random, Reads, Workload, put, table, whole, write};
use crate::history::Seen;

const ROOMS: u32 = 2;
const PLACES: usize = 3;

#[derive(Debug)]
pub struct Bookings {
    pub table: TableId,
}

impl Bookings {
    fn room(&self, room: u32) -> KeyRange {
        KeyRange {
            table: self.table,
            from: format!("room-{room}/").into(),
            to: Some(format!("room-{room}0").into()),
        }
    }
}

impl Workload for Bookings {
    fn tables(&self) -> Vec<TableDefinition> {
        vec![table(self.table, "hotel.bookings")]
    }

    fn initial(&self) -> Vec<Write> {
        Vec::new()
    }

    fn reads(&self, seen: &Seen, random: &mut Random) -> Option<Reads> {
        seen.ranges.is_empty().then(|| Reads {
            points: Vec::new(),
            ranges: vec![self.room(random.random_range(0..ROOMS))],
        })
    }

    fn act(&self, seen: &Seen, random: &mut Random) -> Act {
        let room = &seen.ranges[0];
        let guest: u32 = random.random();
        let writes = if room.rows.len() < PLACES {
            let mut key = room.range.from.to_vec();
            key.extend_from_slice(format!("{guest:08x}").as_bytes());
            vec![put(self.table, key, &json!({"guest": guest}))]
        } else if random.random_ratio(2, 3) {
            Vec::new()
        } else {
            // A full room: now and then a guest leaves, sometimes two.
            let leaving = random.random_range(1..=2);
            room.rows
                .iter()
                .take(leaving)
                .map(|(key, _)| write(self.table, key.clone(), Operation::Delete))
                .collect()
        };
        Act {
            writes,
            guards: Vec::new(),
        }
    }

    fn audited(&self) -> Vec<KeyRange> {
        let mut all = vec![whole(self.table)];
        all.extend((0..ROOMS).map(|room| self.room(room)));
        all
    }

    fn invariant(&self, seen: &Seen) -> Result<(), String> {
        let count = |rows: &[(Bytes, crate::history::Found)]| rows.len();
        for room in &seen.ranges[1..] {
            if count(&room.rows) > PLACES {
                return Err(format!(
                    "{:?} has {} bookings for {PLACES} places",
                    room.range.from,
                    room.rows.len()
                ));
            }
        }
        let in_rooms: usize = seen.ranges[1..].iter().map(|room| count(&room.rows)).sum();
        if in_rooms != count(&seen.ranges[0].rows) {
            return Err(format!(
                "the rooms have {in_rooms} bookings, the table has {}",
                seen.ranges[0].rows.len()
            ));
        }
        Ok(())
    }
}

//! Edges of real time: what ended before something else began comes before it.
//!
//! An edge is left out where others imply it. Whatever ended before the newest answers' transactions
//! began is implied by these, so only transactions that overlap each other are kept: at most as many
//! as ran at once, and so many edges lead to a transaction.

use super::graph::{Edge, Why};
use super::writes::Writes;
use crate::history::Moment;

/// At one moment, what begins comes first: only what ended before is ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Begin,
    End,
}

pub(super) fn add(writes: &Writes<'_>, edges: &mut Vec<Edge>) {
    let mut events: Vec<(Moment, Happens, u32)> = Vec::new();
    for (number, transaction) in (0..).zip(writes.transactions) {
        if !transaction.is_timed || !writes.committed[number as usize] {
            continue;
        }
        events.push((transaction.begin, Happens::Begin, number));
        // Without an answer it may have happened at any later time.
        if let Some(end) = transaction.end.filter(|_| transaction.is_answered()) {
            events.push((end, Happens::End, number));
        }
    }
    events.sort_unstable();
    let mut ended: Vec<u32> = Vec::new();
    for (_, happens, number) in events {
        let transaction = &writes.transactions[number as usize];
        if happens == Happens::End {
            let overlaps = |earlier: &u32| {
                let earlier = writes.transactions[*earlier as usize].end;
                earlier.is_none_or(|end| end >= transaction.begin)
            };
            ended.retain(overlaps);
            ended.push(number);
            continue;
        }
        for earlier in &ended {
            let same_client = writes.transactions[*earlier as usize].client == transaction.client;
            let why = if same_client {
                Why::Session
            } else {
                Why::RealTime
            };
            edges.push(Edge {
                from: *earlier,
                to: number,
                why,
            });
        }
    }
}

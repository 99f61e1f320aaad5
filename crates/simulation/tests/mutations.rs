//! The checker on real histories that were tampered with: wherever the lie is, it is found.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::OnceLock;

use bytes::Bytes;
use onelog_record::{Offset, Position, Refusal, TableDefinition};
use onelog_simulation::machine::{MachineOptions, World};
use onelog_simulation::{Answer, History, Logged, Rule, check, workloads};
use proptest::prelude::*;
use proptest::sample::Index;

type Witness = (History, Vec<Logged>, Vec<TableDefinition>);

/// One honest history, proved.
fn honest() -> &'static Witness {
    static HONEST: OnceLock<Witness> = OnceLock::new();
    HONEST.get_or_init(|| {
        let mut world = World::new(3, MachineOptions::default(), workloads::all());
        world.run().unwrap();
        let report = world.prove();
        assert!(report.is_clean(), "{report}");
        world.into_witness()
    })
}

#[derive(Clone, Copy, Debug)]
enum Lie {
    /// A transaction is missing from the log.
    Missing,
    /// The last transactions are missing.
    CutTail,
    /// A transaction is there again at the end.
    Again,
    /// A transaction has a later timestamp than the one behind it.
    LaterTimestamp,
    /// A record has another value.
    OtherValue,
    /// Two transactions that wrote the same key have changed places.
    Swapped,
    /// An answer names another position.
    OtherPosition,
    /// A client saw another version of a key.
    OtherVersion,
    /// A client missed a row of a range.
    MissedRow,
    /// A conflict names a write below the read position.
    OldConflict,
}

const LIES: [Lie; 10] = [
    Lie::Missing,
    Lie::CutTail,
    Lie::Again,
    Lie::LaterTimestamp,
    Lie::OtherValue,
    Lie::Swapped,
    Lie::OtherPosition,
    Lie::OtherVersion,
    Lie::MissedRow,
    Lie::OldConflict,
];

/// Tells the lie somewhere; answers the rules of which one at least must be reported.
fn tell(lie: Lie, at: Index, (history, log, _): &mut Witness) -> &'static [Rule] {
    match lie {
        Lie::Missing => {
            log.remove(acknowledged(log, history, at));
            &[Rule::LogBroken, Rule::AcknowledgedLost]
        }
        Lie::CutTail => {
            log.truncate(acknowledged(log, history, at));
            &[Rule::AcknowledgedLost]
        }
        Lie::Again => {
            let again = log[at.index(log.len())].clone();
            let end = log.last().map_or(0, |last| last.end.0);
            log.push(moved(again, end));
            &[Rule::AppliedTwice]
        }
        Lie::LaterTimestamp => {
            let place = at.index(log.len() - 1);
            log[place].timestamp_ms = u64::MAX;
            &[Rule::TimestampFell]
        }
        Lie::OtherValue => {
            let mut puts: Vec<_> = log
                .iter_mut()
                .flat_map(|logged| &mut logged.records)
                .filter(|record| record.value.is_some())
                .collect();
            let place = at.index(puts.len());
            puts[place].value = Some(Bytes::from_static(b"\"a lie\""));
            &[Rule::WrongRecords, Rule::WrongRead, Rule::NotUnique]
        }
        Lie::Swapped => {
            let first = acknowledged(&log[..log.len() - 1], history, at);
            let start = log[first].first_offset.0;
            let later = moved(log[first + 1].clone(), start);
            let earlier = moved(log[first].clone(), later.end.0);
            (log[first], log[first + 1]) = (later, earlier);
            &[
                Rule::WrongAnswer,
                Rule::RealTime,
                Rule::WrongRead,
                Rule::WrongRecords,
            ]
        }
        Lie::OtherPosition => {
            let mut answered: Vec<_> = history
                .commits
                .iter_mut()
                .filter(|call| !call.request.writes.is_empty())
                .filter_map(|call| match &mut call.answer {
                    Answer::Committed(committed) => Some(committed),
                    Answer::Refused(_) | Answer::Unknown => None,
                })
                .collect();
            let place = at.index(answered.len());
            answered[place].position = Position(answered[place].position.0 + 1);
            &[Rule::WrongAnswer]
        }
        Lie::OtherVersion => {
            let mut found: Vec<_> = history
                .reads
                .iter_mut()
                .flat_map(|read| &mut read.seen.points)
                .filter_map(|point| point.found.as_mut())
                .collect();
            let place = at.index(found.len());
            found[place].version = Offset(found[place].version.0 + 1);
            &[Rule::WrongRead]
        }
        Lie::MissedRow => {
            let mut ranges: Vec<_> = history
                .reads
                .iter_mut()
                .flat_map(|read| &mut read.seen.ranges)
                .filter(|range| !range.rows.is_empty())
                .collect();
            let place = at.index(ranges.len());
            let row = at.index(ranges[place].rows.len());
            ranges[place].rows.remove(row);
            &[Rule::WrongRead]
        }
        Lie::OldConflict => old_conflict(at, history),
    }
}

fn old_conflict(at: Index, history: &mut History) -> &'static [Rule] {
    let mut conflicts: Vec<_> = history
        .commits
        .iter_mut()
        .filter_map(|call| {
            let position = call.request.read_position?;
            match &mut call.answer {
                Answer::Refused(Refusal::Conflict { version, .. }) => Some((position, version)),
                _ => None,
            }
        })
        .collect();
    let place = at.index(conflicts.len());
    let (position, version) = &mut conflicts[place];
    **version = Offset(position.0 - 1);
    &[Rule::WrongRefusal]
}

/// The place of a transaction that was acknowledged.
fn acknowledged(log: &[Logged], history: &History, at: Index) -> usize {
    let is_acknowledged = |logged: &Logged| {
        history
            .commits
            .iter()
            .any(|call| call.id == logged.id && matches!(call.answer, Answer::Committed(_)))
    };
    let places: Vec<usize> = (0..log.len())
        .filter(|place| is_acknowledged(&log[*place]))
        .collect();
    places[at.index(places.len())]
}

/// The same transaction at another place.
fn moved(mut logged: Logged, start: u64) -> Logged {
    for (record, offset) in logged.records.iter_mut().zip(start..) {
        record.offset = Offset(offset);
    }
    logged.first_offset = Offset(start);
    logged.end = Position(start + logged.records.len() as u64);
    logged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if onelog_simulation::is_full() { 5_000 } else { 300 }
    ))]
    #[test]
    fn every_lie_is_found(lie in prop::sample::select(&LIES[..]), at: Index) {
        let mut witness = honest().clone();
        let rules = tell(lie, at, &mut witness);
        let (history, log, tables) = &witness;
        let report = check(history, log, tables);
        prop_assert!(
            rules.iter().any(|rule| report.broke(*rule)),
            "{:?} should break one of {:?}:\n{}", lie, rules, report
        );
    }
}

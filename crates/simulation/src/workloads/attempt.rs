//! One attempt of a workload's transaction on a snapshot.

use bytes::Bytes;
use onelog_record::{CommitRequest, Header, KeyRange, PointRead, Position};
use onelog_state::{ReadError, Snapshot};
use rand::Rng;

use super::{Random, Workload};
use crate::history::{Found, PointSeen, RangeSeen, Seen};

/// A transaction that is ready to be sent.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub seen: Seen,
    /// The request, without an id.
    pub request: CommitRequest,
}

/// How many of a hundred transactions drop their writes: they are only validated.
const VALIDATED_PERCENT: u32 = 4;

/// Reads what the workload wants to see on a snapshot and lets it decide. The request may be
/// empty: then there is nothing to commit.
pub fn prepare(
    workload: &dyn Workload,
    snapshot: &Snapshot,
    random: &mut Random,
) -> Result<Attempt, ReadError> {
    let mut seen = Seen::default();
    let mut request = CommitRequest::default();
    while let Some(reads) = workload.reads(&seen, random) {
        read_into(&mut seen, snapshot, &reads.points, &reads.ranges)?;
        request.point_reads.extend(reads.points);
        request.range_reads.extend(reads.ranges);
    }
    let act = workload.act(&seen, random);
    if !workload.declares(&act) {
        request.point_reads.clear();
        request.range_reads.clear();
    }
    request.guards = act.guards;
    request.writes = act.writes;
    request.read_position = Some(snapshot.position());
    if request.has_reads() && random.random_ratio(VALIDATED_PERCENT, 100) {
        request.writes.clear();
    }
    Ok(Attempt { seen, request })
}

/// Reads keys and whole ranges and notes what is there.
pub fn read_into(
    seen: &mut Seen,
    snapshot: &Snapshot,
    points: &[PointRead],
    ranges: &[KeyRange],
) -> Result<(), ReadError> {
    for point in points {
        let found = snapshot.get(point.table, &point.key)?;
        seen.points.push(PointSeen {
            table: point.table,
            key: point.key.clone(),
            found: found.map(|found| Found {
                version: found.version,
                value: found.value,
            }),
        });
    }
    for range in ranges {
        let mut rows = Vec::new();
        for row in snapshot.scan(range, false)? {
            let row = row?;
            let found = Found {
                version: row.version,
                value: row.value,
            };
            rows.push((row.key, found));
        }
        seen.ranges.push(RangeSeen {
            range: range.clone(),
            rows,
        });
    }
    Ok(())
}

/// Reads what the invariant speaks of.
pub fn audit(workload: &dyn Workload, snapshot: &Snapshot) -> Result<Seen, ReadError> {
    let mut seen = Seen::default();
    read_into(&mut seen, snapshot, &[], &workload.audited())?;
    Ok(seen)
}

/// The transaction that makes everything that must be there at the beginning.
pub fn setup(workload: &dyn Workload) -> CommitRequest {
    CommitRequest {
        // Since the beginning: a retry that comes after the id is forgotten is refused.
        read_position: Some(Position::ZERO),
        writes: workload.initial(),
        ..CommitRequest::default()
    }
}

/// What a client sends that writes without having read and does not say since when its id is in
/// use: only a node that remembers every id may be sent such a request.
pub fn make_blind(request: &mut CommitRequest) {
    if !request.has_reads() {
        request.read_position = None;
    }
}

/// Makes another request of it that does the same: what a client sends that uses an id twice by
/// mistake.
pub fn mark_as_other(request: &mut CommitRequest) {
    if let Some(write) = request.writes.first_mut() {
        write.headers.push(Header {
            name: Bytes::from_static(b"other"),
            value: Bytes::new(),
        });
    }
}

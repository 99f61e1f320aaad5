//! Fetch: the log from an offset on, as soon as there is something of the topic, or when the client's
//! time is up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use onelog::{AHEAD_TIMEOUT, ReadLogError, WaitError};
use onelog_record::Position;
use tokio::time::Instant;
use uuid::Uuid;

use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::connection::Connection;
use crate::door::Door;
use crate::header::Header;
use crate::options::{FETCH_BYTES_MAX, FETCH_WAIT_MAX, SCANS_REMEMBERED_MAX};
use crate::scan::{Scan, ScanError};
use crate::topics::{Topic, Topics};

/// The first version that names topics by their ids.
const IDS_FROM: i16 = 13;
/// What remains of a fetch's memory for a batch that is larger than the fetch.
const ROOM_BEYOND: usize = 1 << 20;

/// How far a partition was looked at when nothing was found: by the topic's id, from which offset and
/// to where. The next fetch from the same offset goes on there.
#[derive(Debug, Default)]
pub struct Scanned(HashMap<Uuid, (u64, Position)>);

impl Scanned {
    fn next(&self, topic: Uuid, from: u64) -> Position {
        match self.0.get(&topic) {
            Some((known, next)) if *known == from => *next,
            _ => Position(from),
        }
    }

    fn remember(&mut self, topic: Uuid, from: u64, next: Position) {
        if self.0.len() >= SCANS_REMEMBERED_MAX && !self.0.contains_key(&topic) {
            self.0.clear();
        }
        self.0.insert(topic, (from, next));
    }
}

/// A partition of a fetch.
struct Part {
    index: i32,
    from: u64,
    /// How many bytes the client takes of it.
    max_bytes: usize,
    topic_id: Uuid,
    state: State,
}

enum State {
    Refused(ResponseError),
    Reading(Scan),
}

/// A topic as the client named it, and its partitions.
struct Group {
    name: TopicName,
    id: Uuid,
    parts: Vec<Part>,
}

pub async fn answer(
    connection: &mut Connection,
    api: &Api,
    header: &Header,
    request: FetchRequest,
) -> Result<Outcome, Fault> {
    let door = Arc::clone(connection.door());
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + wait.min(FETCH_WAIT_MAX);
    let wanted = usize::try_from(request.min_bytes).unwrap_or(0).max(1);
    let room = usize::try_from(request.max_bytes).unwrap_or(0);
    let room = room.min(FETCH_BYTES_MAX);
    catch_up(&door, &request.topics).await;
    let epoch = door.epoch();
    let topics = door.topics();
    let by_id = header.version >= IDS_FROM;
    let mut groups = Vec::new();
    for asked in request.topics {
        let group = begin(&door, connection.scanned(), &topics, epoch, by_id, asked);
        groups.push(group);
    }
    let memory = loop {
        let memory = door.fetch_memory(room + ROOM_BEYOND).await?;
        groups = read(&door, groups, room).await?;
        let found: usize = groups
            .iter()
            .flat_map(|group| &group.parts)
            .map(bytes)
            .sum();
        let is_done = groups.iter().flat_map(|group| &group.parts).any(is_done);
        if found >= wanted || is_done || Instant::now() >= deadline {
            break memory;
        }
        // What was found stays; memory that is only waited with is for others.
        drop(memory);
        if !wait_for_more(&door, &groups, deadline).await? {
            break door.fetch_memory(room + ROOM_BEYOND).await?;
        }
    };
    let mut responses = Vec::new();
    for group in groups {
        responses.push(finish(&door, connection.scanned(), group, by_id)?);
    }
    let response = FetchResponse::default().with_responses(responses);
    Ok(encode(api, header, &response)?.with_memory(memory))
}

/// Gives a node of several a moment to get to the offsets that are asked for: another one may have
/// served the client before.
async fn catch_up(door: &Door, topics: &[FetchTopic]) {
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let furthest = partitions.map(|partition| partition.fetch_offset).max();
    let furthest = furthest.and_then(|offset| u64::try_from(offset).ok());
    if let Some(furthest) = furthest.map(Position)
        && furthest > door.node.position()
        && door.is_one_of_several()
    {
        let _ = door.node.wait_for(furthest, AHEAD_TIMEOUT).await;
    }
}

fn bytes(part: &Part) -> usize {
    match &part.state {
        State::Refused(_) => 0,
        State::Reading(scan) => scan.bytes(),
    }
}

/// Whether waiting brings nothing more for this partition.
fn is_done(part: &Part) -> bool {
    match &part.state {
        State::Refused(_) => true,
        State::Reading(scan) => scan.is_full(),
    }
}

fn begin(
    door: &Door,
    scanned: &Scanned,
    topics: &Topics,
    epoch: i32,
    by_id: bool,
    asked: FetchTopic,
) -> Group {
    let topic = match by_id {
        true => topics.by_id(asked.topic_id),
        false => topics.by_name(&asked.topic),
    };
    let unknown = match by_id {
        true => ResponseError::UnknownTopicId,
        false => ResponseError::UnknownTopicOrPartition,
    };
    let topic_id = topic
        .as_ref()
        .map_or(asked.topic_id, |topic| topics.id(topic));
    let part = |asked: FetchPartition| {
        let from = u64::try_from(asked.fetch_offset);
        let state = match (&topic, from) {
            (None, _) => State::Refused(unknown),
            (Some(_), _) if asked.partition != 0 => {
                State::Refused(ResponseError::UnknownTopicOrPartition)
            }
            (Some(_), Err(_)) => State::Refused(ResponseError::OffsetOutOfRange),
            (Some(topic), Ok(from)) => begin_at(door, scanned, topic, topic_id, epoch, from),
        };
        Part {
            index: asked.partition,
            from: from.unwrap_or(0),
            max_bytes: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
            topic_id,
            state,
        }
    };
    Group {
        name: asked.topic,
        id: asked.topic_id,
        parts: asked.partitions.into_iter().map(part).collect(),
    }
}

fn begin_at(
    door: &Door,
    scanned: &Scanned,
    topic: &Topic,
    id: Uuid,
    epoch: i32,
    from: u64,
) -> State {
    let node = &door.node;
    if Position(from) > node.position() && door.is_one_of_several() {
        // The client asks again, and does not begin at an end.
        return State::Refused(ResponseError::OffsetNotAvailable);
    }
    if Position(from) < node.log_start() || Position(from) > node.position() {
        return State::Refused(ResponseError::OffsetOutOfRange);
    }
    let next = scanned.next(id, from).min(node.position());
    State::Reading(Scan::new(topic.clone(), epoch, from, next))
}

/// Reads every partition on, off the tasks that serve connections.
async fn read(door: &Arc<Door>, groups: Vec<Group>, room: usize) -> Result<Vec<Group>, Fault> {
    door.blocking(move |door| {
        let mut groups = groups;
        let parts = || groups.iter().flat_map(|group| &group.parts);
        let mut total: usize = parts().map(bytes).sum();
        for part in groups.iter_mut().flat_map(|group| &mut group.parts) {
            let State::Reading(scan) = &mut part.state else {
                continue;
            };
            let had = scan.bytes();
            let room = part.max_bytes.min(room.saturating_sub(total - had));
            match scan.read(&door.node, room, total == had) {
                Ok(()) => total += scan.bytes() - had,
                Err(error) => {
                    total -= had;
                    part.state = State::Refused(refusal(&error));
                }
            }
        }
        groups
    })
    .await
}

fn refusal(error: &ScanError) -> ResponseError {
    match error {
        ScanError::Log(ReadLogError::Cut { .. } | ReadLogError::InFuture { .. }) => {
            ResponseError::OffsetOutOfRange
        }
        ScanError::Log(ReadLogError::Stopped { .. }) => ResponseError::NotLeaderOrFollower,
        other => {
            tracing::error!("a Kafka client cannot be served: {other}");
            ResponseError::KafkaStorageError
        }
    }
}

/// Waits until the log has more than was looked at; whether it has.
async fn wait_for_more(door: &Door, groups: &[Group], deadline: Instant) -> Result<bool, Fault> {
    let parts = groups.iter().flat_map(|group| &group.parts);
    let scans = parts.filter_map(|part| match &part.state {
        State::Reading(scan) => Some(scan.next()),
        State::Refused(_) => None,
    });
    let left = deadline.saturating_duration_since(Instant::now());
    let Some(least) = scans.min() else {
        tokio::time::sleep(left).await;
        return Ok(false);
    };
    match door.node.wait_for(Position(least.get() + 1), left).await {
        Ok(()) => Ok(true),
        Err(WaitError::TimedOut { .. } | WaitError::Stopped) => Ok(false),
    }
}

fn finish(
    door: &Door,
    scanned: &mut Scanned,
    group: Group,
    by_id: bool,
) -> Result<FetchableTopicResponse, Fault> {
    let mut partitions = Vec::with_capacity(group.parts.len());
    for part in group.parts {
        let answer = PartitionData::default()
            .with_partition_index(part.index)
            .with_preferred_read_replica(BrokerId(-1))
            .with_log_start_offset(offset(door.node.log_start()));
        partitions.push(match part.state {
            State::Refused(error) => answer
                .with_error_code(error.code())
                .with_high_watermark(-1)
                .with_records(Some(Bytes::new())),
            State::Reading(scan) => {
                let end = door.node.position();
                if scan.bytes() == 0 {
                    scanned.remember(part.topic_id, part.from, scan.next());
                }
                let records = scan
                    .finish()
                    .map_err(|error| Fault::Scan(error.to_string()))?;
                answer
                    .with_high_watermark(offset(end))
                    .with_last_stable_offset(offset(end))
                    .with_records(Some(records))
            }
        });
    }
    let answer = FetchableTopicResponse::default().with_partitions(partitions);
    Ok(match by_id {
        true => answer.with_topic_id(group.id),
        false => answer.with_topic(group.name),
    })
}

pub fn offset(position: Position) -> i64 {
    position.get().cast_signed()
}

//! ListOffsets: where a topic begins and ends, and which offset has a time.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use onelog_record::Position;

use super::fetch::offset;
use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::door::Door;
use crate::header::Header;
use crate::lookup::{Found, at_time, last};
use crate::topics::Topic;

/// What clients ask for in the place of a time.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// The first version whose answers have the leader's epoch.
const EPOCH_FROM: i16 = 4;

pub async fn answer(
    door: &Arc<Door>,
    api: &Api,
    header: &Header,
    request: ListOffsetsRequest,
) -> Result<Outcome, Fault> {
    let topics = door.topics();
    let mut answers = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = topics.by_name(&asked.name);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let topic = topic.as_ref().filter(|_| partition.partition_index == 0);
            let found = match topic {
                Some(topic) => find(door, topic, partition.timestamp).await?,
                None => Err(ResponseError::UnknownTopicOrPartition),
            };
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index);
            partitions.push(match found {
                Ok(found) => answer
                    .with_offset(found.map_or(-1, |found| offset(found.offset)))
                    .with_timestamp(found.and_then(|found| found.timestamp).unwrap_or(-1))
                    .with_leader_epoch(match header.version >= EPOCH_FROM {
                        true => door.epoch(),
                        false => -1,
                    }),
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        let answer = ListOffsetsTopicResponse::default()
            .with_name(asked.name)
            .with_partitions(partitions);
        answers.push(answer);
    }
    let response = ListOffsetsResponse::default().with_topics(answers);
    encode(api, header, &response)
}

/// The offset of a time; `None` where the topic has nothing from then on.
async fn find(
    door: &Arc<Door>,
    topic: &Topic,
    time: i64,
) -> Result<Result<Option<Found>, ResponseError>, Fault> {
    let at = |offset: Position| {
        let timestamp = None;
        Ok(Ok(Some(Found { offset, timestamp })))
    };
    let topic = topic.clone();
    let looked = match time {
        LATEST => return at(door.node.position()),
        EARLIEST => return at(door.node.log_start()),
        MAX_TIMESTAMP => door.blocking(move |door| last(&door.node, &topic)).await?,
        time => match u64::try_from(time) {
            Ok(time) => {
                let look = move |door: &Door| at_time(&door.node, &topic, time);
                door.blocking(look).await?
            }
            Err(_) => return Ok(Err(ResponseError::UnsupportedVersion)),
        },
    };
    Ok(looked.map_err(|error| {
        tracing::error!("an offset was not found for a Kafka client: {error}");
        ResponseError::KafkaStorageError
    }))
}

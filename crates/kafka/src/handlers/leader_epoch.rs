//! OffsetForLeaderEpoch: how far the log of a term reached. What clients see is committed, and is never
//! taken back, so every term that was reaches to the end of the log.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::fetch::offset;
use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::door::Door;
use crate::header::Header;

pub fn answer(
    door: &Door,
    api: &Api,
    header: &Header,
    request: OffsetForLeaderEpochRequest,
) -> Result<Outcome, Fault> {
    let (topics, epoch) = (door.topics(), door.epoch());
    let end = offset(door.node.position());
    let topic = |asked: OffsetForLeaderTopic| {
        let is_there = topics.by_name(&asked.topic).is_some();
        let partitions = asked.partitions.into_iter().map(|asked| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            if !is_there || asked.partition != 0 {
                let unknown = ResponseError::UnknownTopicOrPartition;
                return answer.with_error_code(unknown.code());
            }
            if asked.leader_epoch > epoch {
                let unknown = ResponseError::UnknownLeaderEpoch;
                return answer.with_error_code(unknown.code());
            }
            answer
                .with_leader_epoch(asked.leader_epoch)
                .with_end_offset(end)
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(asked.topic)
    };
    let answers = request.topics.into_iter().map(topic).collect();
    let response = OffsetForLeaderEpochResponse::default().with_topics(answers);
    encode(api, header, &response)
}

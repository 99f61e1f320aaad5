//! DeleteTopics: tables, with the same guards as elsewhere: one that a sink follows, or that the
//! configuration declares, stays.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use onelog::TableError;
use onelog_sinks::DropTableError;

use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::door::Door;
use crate::header::Header;
use crate::refusals::{Refused, refused};
use crate::topics::Topic;

/// The first version that may name topics by their ids.
const IDS_FROM: i16 = 6;
/// The first version whose answers say why.
const MESSAGES_FROM: i16 = 5;

pub async fn answer(
    door: &Arc<Door>,
    api: &Api,
    header: &Header,
    request: DeleteTopicsRequest,
) -> Result<Outcome, Fault> {
    let named = |name: TopicName| DeleteTopicState::default().with_name(Some(name));
    let asked: Vec<DeleteTopicState> = match header.version >= IDS_FROM {
        true => request.topics,
        false => request.topic_names.into_iter().map(named).collect(),
    };
    let mut results = Vec::with_capacity(asked.len());
    for asked in asked {
        let topics = door.topics();
        let topic = match &asked.name {
            Some(name) => topics.by_name(name),
            None => topics.by_id(asked.topic_id),
        };
        let name = topic.as_ref().map(|topic| topic.name().to_owned());
        let deleted = match topic {
            Some(topic) => delete(door, topic).await?,
            None if asked.name.is_some() => Err(ResponseError::UnknownTopicOrPartition.into()),
            None => Err(ResponseError::UnknownTopicId.into()),
        };
        let name = name.map(|name| TopicName(StrBytes::from_string(name)));
        let result = DeletableTopicResult::default().with_name(asked.name.or(name));
        let result = match header.version >= IDS_FROM {
            true => result.with_topic_id(asked.topic_id),
            false => result,
        };
        results.push(match deleted {
            Ok(()) => result,
            Err(refused) => result
                .with_error_code(refused.error.code())
                .with_error_message(
                    (refused.message)
                        .filter(|_| header.version >= MESSAGES_FROM)
                        .map(StrBytes::from_string),
                ),
        });
    }
    encode(
        api,
        header,
        &DeleteTopicsResponse::default().with_responses(results),
    )
}

async fn delete(door: &Arc<Door>, topic: Topic) -> Result<Result<(), Refused>, Fault> {
    let Topic::Table(table) = topic else {
        let why = "the topic 'onelog' is the whole log";
        return Ok(Err(Refused::new(ResponseError::InvalidTopicException, why)));
    };
    if let Some(place) = door.options.declared.get(&table.name) {
        let why = format!(
            "table '{}' is declared in {place}, which would make it again: take it out there first",
            table.name
        );
        return Ok(Err(Refused::new(ResponseError::PolicyViolation, why)));
    }
    let dropped = door
        .blocking(move |door| door.sinks.drop_table(&table.name))
        .await?;
    Ok(dropped.map(drop).map_err(|error| match error {
        DropTableError::Followed { .. } => {
            Refused::new(ResponseError::PolicyViolation, error.to_string())
        }
        DropTableError::Table(TableError::Unknown { .. }) => {
            ResponseError::UnknownTopicOrPartition.into()
        }
        DropTableError::Table(TableError::Refused(refusal)) => refused(&refusal),
        other => Refused::new(ResponseError::UnknownServerError, other.to_string()),
    }))
}

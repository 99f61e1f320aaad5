//! CreateTopics: tables. A topic whose `cleanup.policy` is `compact` becomes a keyed table, any other one
//! a stream; the values are bytes, or JSON where `onelog.value` says so.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use kafka_protocol::protocol::StrBytes;
use onelog::{NewTable, TableDefinition, TableError, TableKind, ValueKind};

use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::door::Door;
use crate::header::Header;
use crate::options::TOPICS_CREATED_MAX;
use crate::refusals::{Refused, refused};
use crate::topics::{Topic, WHOLE_LOG};

use super::describe_configs::{CLEANUP_POLICY, VALUE, configs_of};

/// The first version whose answers describe the topic.
const DESCRIBED_FROM: i16 = 5;
/// The first version whose answers have the topic's id.
const ID_FROM: i16 = 7;
const UNSET: i32 = -1;

/// The table of a topic whose kind no client has said: a stream of bytes takes what any client sends.
pub fn default_table(name: &str) -> NewTable {
    NewTable {
        kind: TableKind::Stream,
        value: ValueKind::Bytes,
        ..NewTable::keyed(name)
    }
}

pub async fn answer(
    door: &Door,
    api: &Api,
    header: &Header,
    request: CreateTopicsRequest,
) -> Result<Outcome, Fault> {
    let mut results = Vec::with_capacity(request.topics.len());
    for (place, asked) in request.topics.into_iter().enumerate() {
        let made = match place < TOPICS_CREATED_MAX {
            true => create(door, &asked, request.validate_only).await,
            false => {
                let why = format!("one request makes {TOPICS_CREATED_MAX} topics at most");
                Err(Refused::new(ResponseError::PolicyViolation, why))
            }
        };
        results.push(result(door, header.version, asked, made));
    }
    let response = CreateTopicsResponse::default().with_topics(results);
    encode(api, header, &response)
}

async fn create(
    door: &Door,
    asked: &CreatableTopic,
    is_trial: bool,
) -> Result<TableDefinition, Refused> {
    let table = table_of(asked)?;
    if door.topics().by_name(&table.name).is_some() {
        let why = format!("topic '{}' is there already", table.name);
        return Err(Refused::new(ResponseError::TopicAlreadyExists, why));
    }
    let made = match is_trial {
        true => door.node.planned_table(&table),
        false => door.node.create_table(table).await.map(|(made, _)| made),
    };
    made.map_err(|error| match error {
        TableError::Exists { .. } => {
            Refused::new(ResponseError::TopicAlreadyExists, error.to_string())
        }
        TableError::Name(_) => {
            Refused::new(ResponseError::InvalidTopicException, error.to_string())
        }
        TableError::Refused(refusal) => refused(&refusal),
        other => Refused::new(ResponseError::InvalidRequest, other.to_string()),
    })
}

fn table_of(asked: &CreatableTopic) -> Result<NewTable, Refused> {
    if &*asked.name == WHOLE_LOG {
        let why = format!("topic '{WHOLE_LOG}' is the whole log");
        return Err(Refused::new(ResponseError::InvalidTopicException, why));
    }
    if !asked.assignments.is_empty() || !matches!(asked.num_partitions, UNSET | 1) {
        let why = "a topic has one partition, and its nodes are the cluster's";
        return Err(Refused::new(ResponseError::InvalidPartitions, why));
    }
    let mut table = default_table(&asked.name);
    for config in &asked.configs {
        let value = config.value.as_deref().unwrap_or_default();
        let wrong = |allowed: &str| {
            let why = format!("{} is '{value}'; it may be {allowed}", &*config.name);
            Err(Refused::new(ResponseError::InvalidConfig, why))
        };
        match (&*config.name, value) {
            (CLEANUP_POLICY, "compact") => table.kind = TableKind::Keyed,
            (CLEANUP_POLICY, "delete") => table.kind = TableKind::Stream,
            (CLEANUP_POLICY, _) => return wrong("compact or delete"),
            (VALUE, "json") => table.value = ValueKind::Json,
            (VALUE, "bytes") => table.value = ValueKind::Bytes,
            (VALUE, _) => return wrong("json or bytes"),
            // DescribeConfigs shows what is in force.
            _ => {}
        }
    }
    Ok(table)
}

fn result(
    door: &Door,
    version: i16,
    asked: CreatableTopic,
    made: Result<TableDefinition, Refused>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(asked.name);
    let made = match made {
        Ok(made) => Topic::Table(made.into()),
        Err(refused) => {
            return result
                .with_error_code(refused.error.code())
                .with_error_message(refused.message.map(StrBytes::from_string));
        }
    };
    let result = match version >= DESCRIBED_FROM {
        true => result
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(Some(configs_of(&made).map(Into::into).collect())),
        false => result,
    };
    match version >= ID_FROM {
        true => result.with_topic_id(door.topics().id(&made)),
        false => result,
    }
}

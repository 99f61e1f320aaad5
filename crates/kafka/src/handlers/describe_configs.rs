//! DescribeConfigs: what of Kafka's settings is in force. All of it is read only.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use onelog::{TableKind, ValueKind};
use onelog_record::TRANSACTION_BYTES_MAX;

use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::door::Door;
use crate::header::Header;
use crate::topics::Topic;

pub const CLEANUP_POLICY: &str = "cleanup.policy";
/// Kafka knows no such setting: what the values of a table are.
pub const VALUE: &str = "onelog.value";

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// That nobody has set it: it is so by default.
const BY_DEFAULT: i8 = 5;
/// That it was set for this topic.
const OF_TOPIC: i8 = 1;

/// A setting and its value.
#[derive(Debug)]
pub struct Config {
    name: &'static str,
    value: String,
    source: i8,
}

fn config(name: &'static str, value: impl ToString, source: i8) -> Config {
    Config {
        name,
        value: value.to_string(),
        source,
    }
}

/// The settings of a topic.
pub fn configs_of(topic: &Topic) -> impl Iterator<Item = Config> {
    let (policy, value) = match topic {
        Topic::WholeLog => ("delete", "json"),
        Topic::Table(table) => (
            match table.kind {
                TableKind::Keyed => "compact",
                TableKind::Stream => "delete",
            },
            match table.value {
                ValueKind::Json => "json",
                ValueKind::Bytes => "bytes",
            },
        ),
    };
    [
        config(CLEANUP_POLICY, policy, OF_TOPIC),
        config(VALUE, value, OF_TOPIC),
        config("compression.type", "uncompressed", BY_DEFAULT),
        config("max.message.bytes", TRANSACTION_BYTES_MAX, BY_DEFAULT),
        config("message.timestamp.type", "LogAppendTime", BY_DEFAULT),
    ]
    .into_iter()
}

fn configs_of_broker(door: &Door) -> impl Iterator<Item = Config> {
    [
        config(
            "auto.create.topics.enable",
            door.options.create_topics,
            BY_DEFAULT,
        ),
        config("default.replication.factor", 1, BY_DEFAULT),
        config("log.message.timestamp.type", "LogAppendTime", BY_DEFAULT),
        config("message.max.bytes", TRANSACTION_BYTES_MAX, BY_DEFAULT),
        config("num.partitions", 1, BY_DEFAULT),
    ]
    .into_iter()
}

impl From<Config> for CreatableTopicConfigs {
    fn from(config: Config) -> Self {
        Self::default()
            .with_name(StrBytes::from_static_str(config.name))
            .with_value(Some(StrBytes::from_string(config.value)))
            .with_read_only(true)
            .with_config_source(config.source)
    }
}

pub fn answer(
    door: &Door,
    api: &Api,
    header: &Header,
    request: DescribeConfigsRequest,
) -> Result<Outcome, Fault> {
    let resources = request.resources.into_iter();
    let results = resources.map(|asked| resource(door, asked)).collect();
    encode(
        api,
        header,
        &DescribeConfigsResponse::default().with_results(results),
    )
}

fn resource(door: &Door, asked: DescribeConfigsResource) -> DescribeConfigsResult {
    let configs: Result<Vec<Config>, ResponseError> = match asked.resource_type {
        TOPIC => match door.topics().by_name(&asked.resource_name) {
            Some(topic) => Ok(configs_of(&topic).collect()),
            None => Err(ResponseError::UnknownTopicOrPartition),
        },
        BROKER => Ok(configs_of_broker(door).collect()),
        _ => Err(ResponseError::InvalidRequest),
    };
    let result = DescribeConfigsResult::default()
        .with_resource_type(asked.resource_type)
        .with_resource_name(asked.resource_name);
    let configs = match configs {
        Ok(configs) => configs,
        Err(error) => return result.with_error_code(error.code()),
    };
    let wanted = asked.configuration_keys;
    let is_wanted = |config: &Config| {
        let names = wanted.as_ref();
        names.is_none_or(|names| names.iter().any(|name| &**name == config.name))
    };
    let configs = configs.into_iter().filter(is_wanted).map(|config| {
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(config.name))
            .with_value(Some(StrBytes::from_string(config.value)))
            .with_read_only(true)
            .with_config_source(config.source)
    });
    result.with_configs(configs.collect())
}

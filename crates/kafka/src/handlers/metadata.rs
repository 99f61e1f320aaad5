//! Metadata: the topics, and where they are served.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::create_topics::default_table;
use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::door::Door;
use crate::header::Header;
use crate::options::TOPICS_CREATED_MAX;
use crate::topics::{Topic, Topics};

/// The first version in which no list means all topics, and an empty one none.
const NULL_IS_ALL_FROM: i16 = 1;

pub async fn answer(
    door: &Door,
    api: &Api,
    header: &Header,
    request: MetadataRequest,
) -> Result<Outcome, Fault> {
    let topics = door.topics();
    let broker = BrokerId(door.broker());
    let may_make = request.allow_auto_topic_creation && door.options.create_topics;
    let topics = match &request.topics {
        Some(asked) if may_make => make_unknown(door, topics, asked).await,
        _ => topics,
    };
    let found = match request.topics {
        Some(asked) if !asked.is_empty() || header.version >= NULL_IS_ALL_FROM => asked
            .into_iter()
            .map(|asked| one(door, &topics, asked))
            .collect(),
        _ => topics
            .all()
            .map(|topic| known(door, &topics, &topic))
            .collect(),
    };
    let advertised = &door.advertised;
    let response = MetadataResponse::default()
        .with_brokers(vec![
            MetadataResponseBroker::default()
                .with_node_id(broker)
                .with_host(StrBytes::from_string(advertised.host.clone()))
                .with_port(i32::from(advertised.port)),
        ])
        .with_cluster_id((header.version >= 2).then(|| StrBytes::from_string(door.cluster_id())))
        .with_controller_id(match header.version {
            0 => BrokerId(-1),
            _ => broker,
        })
        .with_topics(found);
    encode(api, header, &response)
}

/// Makes tables of the topics that are asked for and that are not there. One that could not be made
/// is then answered as unknown.
async fn make_unknown(door: &Door, topics: Topics, asked: &[MetadataRequestTopic]) -> Topics {
    let names = asked.iter().filter_map(|asked| asked.name.as_ref());
    let unknown = names.filter(|name| topics.by_name(name).is_none());
    let mut made = false;
    for name in unknown.take(TOPICS_CREATED_MAX) {
        match door.node.create_table(default_table(name)).await {
            Ok(_) => made = true,
            Err(error) => tracing::debug!("the topic of a Kafka client was not made: {error}"),
        }
    }
    match made {
        true => door.topics(),
        false => topics,
    }
}

fn one(door: &Door, topics: &Topics, asked: MetadataRequestTopic) -> MetadataResponseTopic {
    let by_name = |name: &TopicName| topics.by_name(name);
    let found = match &asked.name {
        Some(name) => by_name(name),
        None => topics.by_id(asked.topic_id),
    };
    if let Some(topic) = found {
        return known(door, topics, &topic);
    }
    let error = match &asked.name {
        Some(_) => ResponseError::UnknownTopicOrPartition,
        None => ResponseError::UnknownTopicId,
    };
    unknown(asked.name, asked.topic_id, error)
}

fn unknown(name: Option<TopicName>, id: Uuid, error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(name)
        .with_topic_id(id)
}

fn known(door: &Door, topics: &Topics, topic: &Topic) -> MetadataResponseTopic {
    let broker = BrokerId(door.broker());
    let partition = MetadataResponsePartition::default()
        .with_partition_index(0)
        .with_leader_id(broker)
        .with_leader_epoch(door.epoch())
        .with_replica_nodes(vec![broker])
        .with_isr_nodes(vec![broker]);
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(
            topic.name().to_owned(),
        ))))
        .with_topic_id(topics.id(topic))
        .with_partitions(vec![partition])
}

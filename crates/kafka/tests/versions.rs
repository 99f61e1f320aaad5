//! Every request in every version that is reported: the library's client side reads the answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

mod rig;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest,
    DescribeConfigsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use onelog::NewTable;
use serde_json::json;

use rig::{Client, Rig};

const TOPIC: &str = "a.b";
const UNSUPPORTED_VERSION: i16 = 35;

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// A node with one record in one table, at the last offset.
fn rig() -> Rig {
    let rig = Rig::start();
    let node = &rig.node;
    node.create_table_blocking(NewTable::keyed(TOPIC)).unwrap();
    node.transact(|tx| tx.put_json(TOPIC, "k", &json!(1)))
        .unwrap();
    rig
}

fn topic_id(client: &mut Client) -> uuid::Uuid {
    let all = MetadataRequest::default().with_topics(None);
    let metadata: MetadataResponse = client.ask(3, 12, &all);
    let named = |topic: &&_| {
        let topic: &kafka_protocol::messages::metadata_response::MetadataResponseTopic = topic;
        topic.name == Some(name(TOPIC))
    };
    metadata.topics.iter().find(named).unwrap().topic_id
}

#[test]
fn fetch() {
    let rig = rig();
    let mut client = rig.connect();
    let id = topic_id(&mut client);
    for version in 4..=16 {
        let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_partitions(vec![partition]);
        let topic = match version {
            ..13 => topic.with_topic(name(TOPIC)),
            _ => topic.with_topic_id(id),
        };
        let request = FetchRequest::default()
            .with_max_bytes(1 << 20)
            .with_topics(vec![topic]);
        let answer: FetchResponse = client.ask(1, version, &request);
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0, "version {version}");
        assert!(partition.records.as_ref().unwrap().len() > 61);
    }
    let answer: FetchResponse = client.ask(1, 17, &FetchRequest::default());
    assert_eq!(answer.error_code, UNSUPPORTED_VERSION);
}

#[test]
fn produce() {
    let rig = rig();
    let mut client = rig.connect();
    for version in 3..=11 {
        let data = PartitionProduceData::default().with_records(Some("no batch".into()));
        let topic = TopicProduceData::default()
            .with_name(name(TOPIC))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(1)
            .with_topic_data(vec![topic]);
        let answer: ProduceResponse = client.ask(0, version, &request);
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(
            partition.error_code, 2,
            "a corrupt message, version {version}"
        );
        assert_eq!(partition.error_message.is_some(), version >= 8);
    }
}

#[test]
fn list_offsets_and_offset_for_leader_epoch() {
    let rig = rig();
    let mut client = rig.connect();
    let end = rig.node.position().get() as i64;
    for version in 1..=8 {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(name(TOPIC))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let answer: ListOffsetsResponse = client.ask(2, version, &request);
        assert_eq!(
            answer.topics[0].partitions[0].offset, end,
            "version {version}"
        );
    }
    for version in 2..=4 {
        let partition = OffsetForLeaderPartition::default().with_leader_epoch(0);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(name(TOPIC))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let answer: OffsetForLeaderEpochResponse = client.ask(23, version, &request);
        let found = &answer.topics[0].partitions[0];
        assert_eq!(
            (found.leader_epoch, found.end_offset),
            (0, end),
            "version {version}"
        );
    }
}

#[test]
fn topics_are_made_described_and_deleted() {
    let rig = rig();
    let mut client = rig.connect();
    for version in 2..=7 {
        let topic = format!("made.v{version}");
        let new = CreatableTopic::default()
            .with_name(name(&topic))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![new]);
        for error in [0, 36] {
            let answer: CreateTopicsResponse = client.ask(19, version, &request);
            assert_eq!(answer.topics[0].error_code, error, "version {version}");
        }
        assert!(rig.node.catalog().by_name(&topic).is_some());
    }
    for version in 1..=4 {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("made.v2"))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer: DescribeConfigsResponse = client.ask(32, version, &request);
        let policy = &answer.results[0].configs[0];
        assert_eq!(
            (&*policy.name, policy.value.as_deref()),
            ("cleanup.policy", Some("delete"))
        );
    }
    for version in 1..=6 {
        let topic = format!("made.v{}", version + 1);
        let request = match version {
            ..6 => DeleteTopicsRequest::default().with_topic_names(vec![name(&topic)]),
            _ => {
                let named = DeleteTopicState::default().with_name(Some(name(&topic)));
                DeleteTopicsRequest::default().with_topics(vec![named])
            }
        };
        for error in [0, 3] {
            let answer: DeleteTopicsResponse = client.ask(20, version, &request);
            assert_eq!(answer.responses[0].error_code, error, "version {version}");
        }
    }
}

#[test]
fn coordinators_producers_and_the_cluster() {
    let rig = rig();
    let mut client = rig.connect();
    let port = i32::from(rig.port());
    for version in 0..=4 {
        let request = match version {
            ..4 => FindCoordinatorRequest::default().with_key(text("group")),
            _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("group")]),
        };
        let answer: FindCoordinatorResponse = client.ask(10, version, &request);
        let found = match version {
            ..4 => answer.port,
            _ => answer.coordinators[0].port,
        };
        assert_eq!(found, port, "version {version}");
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer: InitProducerIdResponse = client.ask(22, version, &request);
        assert!(answer.producer_id.0 >= 0 && answer.error_code == 0);
    }
    for version in 0..=1 {
        let request = DescribeClusterRequest::default();
        let answer: DescribeClusterResponse = client.ask(60, version, &request);
        assert_eq!(answer.brokers[0].port, port, "version {version}");
    }
}

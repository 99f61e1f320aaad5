//! The door over real connections, with the library's own client side.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

mod rig;

use kafka_protocol::messages::{ApiVersionsResponse, MetadataRequest, MetadataResponse};
use onelog::NewTable;

use rig::{Rig, frame};

const API_VERSIONS: i16 = 18;
const METADATA: i16 = 3;
const UNSUPPORTED_VERSION: i16 = 35;

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_the_oldest_form() {
    let rig = Rig::start();
    let mut client = rig.connect();

    let body = client.call(API_VERSIONS, 99, b"\x00\x00\x00");

    let answer: ApiVersionsResponse = rig::decode(body, 0);
    assert_eq!(answer.error_code, UNSUPPORTED_VERSION);
    let keys: Vec<_> = (answer.api_keys.iter())
        .map(|api| (api.api_key, api.min_version, api.max_version))
        .collect();
    assert_eq!(keys, [(API_VERSIONS, 0, 5)]);
}

#[test]
fn every_version_of_api_versions_is_answered_with_all_ranges() {
    let rig = Rig::start();
    let mut client = rig.connect();
    for version in 0..=5 {
        let request: &[u8] = match version {
            0..=2 => b"",
            3..=4 => b"\x02a\x021\x00",
            _ => b"\x02a\x021\x00\x00\x00\x00\x01\x00",
        };
        let body = client.call(API_VERSIONS, version, request);
        let answer: ApiVersionsResponse = rig::decode(body, version.min(4));
        assert_eq!(answer.error_code, 0, "version {version}");
        let metadata = answer.api_keys.iter().find(|api| api.api_key == METADATA);
        assert_eq!(metadata.map(|api| api.max_version), Some(12));
    }
}

#[test]
fn metadata_lists_tables_and_the_whole_log_and_no_table_of_onelog_itself() {
    let rig = Rig::start();
    rig.node
        .create_table_blocking(NewTable::keyed("shop.orders"))
        .unwrap();
    let mut client = rig.connect();
    for version in 0..=12 {
        let all = match version {
            0 => MetadataRequest::default().with_topics(Some(Vec::new())),
            _ => MetadataRequest::default().with_topics(None),
        };
        let answer: MetadataResponse = client.ask(METADATA, version, &all);
        let names: Vec<_> = (answer.topics.iter())
            .map(|topic| topic.name.as_ref().unwrap().to_string())
            .collect();
        assert_eq!(names, ["onelog", "shop.orders"], "version {version}");
        assert_eq!(answer.topics[1].partitions[0].partition_index, 0);
        assert_eq!(answer.brokers[0].port, i32::from(rig.port()));
        if version >= 10 {
            assert!(!answer.topics[1].topic_id.is_nil());
        }
    }
}

#[test]
fn hostile_bytes_end_their_connection_and_nothing_else() {
    let rig = Rig::start();
    for hostile in [
        &b"\x00\x00\x00\x12\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xff\x00\x00\x00\x00"[..],
        b"\x7f\xff\xff\xff\x00\x03\x00\x01\x00\x00\x00\x01",
        b"\xff\xff\xff\xff\x00\x03\x00\x01\x00\x00\x00\x01",
        b"\x00\x00\x00\x00\x00\x03\x00\x01\x00\x00\x00\x01",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = rig.connect();
        client.send(hostile);
        assert!(client.is_closed());
    }
    let mut client = rig.connect();
    client.send(&frame(API_VERSIONS, 0, b""));
    assert!(!client.receive().is_empty());
}

//! Records written and read by the library's own client side: what a topic is, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

mod rig;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use onelog::{FieldPath, NewTable, Node, TableKind, ValueKind};
use serde_json::json;

use rig::{Client, Rig};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const INIT_PRODUCER_ID: i16 = 22;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC: i16 = 3;
const OUT_OF_ORDER_SEQUENCE: i16 = 45;
const INVALID_RECORD: i16 = 87;

fn table(name: &str) -> NewTable {
    NewTable::keyed(name)
}

fn stream(name: &str) -> NewTable {
    NewTable {
        kind: TableKind::Stream,
        value: ValueKind::Bytes,
        ..NewTable::keyed(name)
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn put(node: &Node, table: &str, key: &str) -> u64 {
    let done = node.transact(|tx| tx.put_json(table, key, &json!({"n": 1})));
    done.unwrap().position.get()
}

/// Which producer a batch is of: its number, epoch and first sequence.
type Numbers = (i64, i16, i32);
const NO_PRODUCER: Numbers = (-1, -1, -1);

fn batch(records: &[(Option<&str>, Option<&str>)], (producer, epoch, base): Numbers) -> Bytes {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let record = |(place, (key, value)): (usize, &(Option<&str>, Option<&str>))| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: producer,
        producer_epoch: epoch,
        timestamp_type: TimestampType::Creation,
        offset: place as i64,
        sequence: base + place as i32,
        timestamp: 1,
        key: key.map(bytes),
        value: value.map(bytes),
        headers: [(StrBytes::from_static_str("h"), Some(bytes("1")))]
            .into_iter()
            .collect(),
    };
    let records: Vec<Record> = records.iter().enumerate().map(record).collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.freeze()
}

fn produce(client: &mut Client, topic: &str, records: Bytes) -> PartitionProduceResponse {
    let data = PartitionProduceData::default().with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    let mut answer: ProduceResponse = client.ask(PRODUCE, 9, &request);
    answer.responses.remove(0).partition_responses.remove(0)
}

fn fetch_within(client: &mut Client, topic: &str, from: u64, wait_ms: i32) -> PartitionData {
    let partition = FetchPartition::default()
        .with_fetch_offset(from as i64)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    let mut answer: FetchResponse = client.ask(FETCH, 12, &request);
    answer.responses.remove(0).partitions.remove(0)
}

fn fetch(client: &mut Client, topic: &str, from: u64) -> Vec<Record> {
    let data = fetch_within(client, topic, from, 0);
    assert_eq!(data.error_code, 0);
    decoded(data)
}

fn decoded(data: PartitionData) -> Vec<Record> {
    let mut bytes = data.records.unwrap();
    let sets = RecordBatchDecoder::decode_all(&mut bytes).unwrap();
    sets.into_iter().flat_map(|set| set.records).collect()
}

/// Those that a client would show.
fn shown(records: &[Record]) -> Vec<(i64, Option<String>, Option<String>)> {
    let text = |bytes: &Option<Bytes>| {
        let bytes = bytes.as_ref()?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    };
    (records.iter().filter(|record| !record.control))
        .map(|record| (record.offset, text(&record.key), text(&record.value)))
        .collect()
}

fn header(record: &Record, name: &str) -> Option<String> {
    let name = StrBytes::from_string(name.to_owned());
    let value = record.headers.get(&name)?.clone()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_transactions_records_of_one_table_are_one_batch_at_their_offsets_in_the_log() {
    let rig = Rig::start();
    let node = &rig.node;
    node.create_table_blocking(table("shop.orders")).unwrap();
    node.create_table_blocking(table("shop.stock")).unwrap();
    let done = node
        .transact(|tx| {
            tx.put_json("shop.stock", "apple", &json!(1))?;
            tx.put_json("shop.orders", "1", &json!(2))?;
            tx.put_json("shop.stock", "pear", &json!(3))
        })
        .unwrap();
    let end = done.position.get();
    let mut client = rig.connect();

    let records = fetch(&mut client, "shop.stock", 0);

    let first = end as i64 - 3;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        shown(&records),
        [
            (first, text("apple"), text("1")),
            (first + 2, text("pear"), text("3"))
        ]
    );
    let headers = |record: &Record| {
        let of = |name| header(record, name).unwrap();
        (of("onelog-index"), of("onelog-count"))
    };
    assert_eq!(headers(&records[0]), ("0".to_owned(), "2".to_owned()));
    assert_eq!(headers(&records[1]), ("1".to_owned(), "2".to_owned()));
    assert!(header(&records[0], "onelog-tx").is_some());
    assert_eq!(records.len(), 2, "nothing is behind them, so no marker");

    let inside = fetch(&mut client, "shop.stock", end - 1);
    assert_eq!(shown(&inside), shown(&records), "the whole batch");
}

#[test]
fn a_reader_of_a_table_at_rest_is_led_over_the_records_of_others() {
    let rig = Rig::start();
    rig.node.create_table_blocking(table("a.busy")).unwrap();
    rig.node.create_table_blocking(table("a.quiet")).unwrap();
    let from = put(&rig.node, "a.quiet", "k");
    let end = put(&rig.node, "a.busy", "k");
    let mut client = rig.connect();
    for _ in 0..2 {
        let records = fetch(&mut client, "a.quiet", from);
        assert_eq!(records.len(), 1);
        assert!(records[0].control);
        assert_eq!(records[0].offset, end as i64 - 1);
    }
    let end_of_table = fetch_within(&mut client, "a.quiet", end, 0);
    assert_eq!(end_of_table.high_watermark, end as i64);
    assert!(decoded(end_of_table).is_empty());
}

#[test]
fn a_fetch_waits_for_records_of_its_table() {
    let rig = Rig::start();
    rig.node.create_table_blocking(table("a.other")).unwrap();
    rig.node.create_table_blocking(table("a.wanted")).unwrap();
    let from = rig.node.position().get();
    let node = rig.node.clone();
    let writer = std::thread::spawn(move || {
        put(&node, "a.other", "k");
        put(&node, "a.wanted", "k")
    });
    let mut client = rig.connect();

    let data = fetch_within(&mut client, "a.wanted", from, 30_000);

    let end = writer.join().unwrap();
    let offsets: Vec<i64> = shown(&decoded(data)).iter().map(|shown| shown.0).collect();
    assert_eq!(offsets, [end as i64 - 1]);
}

#[test]
fn the_whole_log_is_a_topic_with_a_record_for_each_transaction() {
    let rig = Rig::start();
    rig.node.create_table_blocking(table("a.b")).unwrap();
    rig.node.create_table_blocking(table("a.c")).unwrap();
    let done = rig.node.transact(|tx| {
        tx.put_json("a.b", "k", &json!({"n": 1}))?;
        tx.delete("a.c", "l")
    });
    let end = done.unwrap().position.get();
    let mut client = rig.connect();

    let records = fetch(&mut client, "onelog", 0);

    let shown = shown(&records);
    assert_eq!(shown.len(), 1, "onelog's own tables are left out");
    assert_eq!(shown[0].0, end as i64 - 1);
    let document: serde_json::Value = serde_json::from_str(shown[0].2.as_deref().unwrap()).unwrap();
    assert_eq!(document["position"], end);
    assert_eq!(document["records"][0]["value"]["n"], 1);
    assert_eq!(document["records"][1]["op"], "delete");
}

#[test]
fn offsets_outside_of_the_log_and_unknown_topics_are_refused() {
    let rig = Rig::start();
    rig.node.create_table_blocking(table("a.b")).unwrap();
    let mut client = rig.connect();
    let behind = rig.node.position().get() + 1;
    let mut error = |topic, from| fetch_within(&mut client, topic, from, 0).error_code;
    assert_eq!(error("a.b", behind), OFFSET_OUT_OF_RANGE);
    assert_eq!(error("a.c", 0), UNKNOWN_TOPIC);
    assert_eq!(error("onelog.tables", 0), UNKNOWN_TOPIC);
}

#[test]
fn what_is_produced_is_one_transaction() {
    let rig = Rig::start();
    rig.node.create_table_blocking(table("a.b")).unwrap();
    let mut client = rig.connect();
    let records = [
        (Some("k"), Some("{\"n\": 1}")),
        (Some("l"), Some("2")),
        (Some("k"), None),
    ];

    let answer = produce(&mut client, "a.b", batch(&records, NO_PRODUCER));

    assert_eq!(answer.error_code, 0);
    assert_eq!(answer.base_offset as u64 + 3, rig.node.position().get());
    let tx = rig.node.begin();
    assert_eq!(tx.get_json("a.b", "k").unwrap(), None);
    assert_eq!(tx.get_json("a.b", "l").unwrap(), Some(json!(2)));
    let read = fetch(&mut client, "a.b", answer.base_offset as u64);
    let counts: Vec<_> = read
        .iter()
        .map(|read| header(read, "onelog-count"))
        .collect();
    assert_eq!(counts, vec![Some("3".to_owned()); 3]);
    assert_eq!(header(&read[0], "h"), Some("1".to_owned()));
    assert_eq!(shown(&read)[2].2, None, "a deletion has no value");
}

#[test]
fn a_record_that_the_table_refuses_is_named() {
    let rig = Rig::start();
    let mut emails = table("a.users");
    emails.unique = vec![FieldPath::parse("/email").unwrap()];
    emails.schema = Some(json!({"type": "object"}));
    rig.node.create_table_blocking(emails).unwrap();
    rig.node.create_table_blocking(stream("a.events")).unwrap();
    let mut client = rig.connect();
    let mut refused = |topic, records: &[(Option<&str>, Option<&str>)]| {
        let answer = produce(&mut client, topic, batch(records, NO_PRODUCER));
        assert_eq!(answer.error_code, INVALID_RECORD, "{answer:?}");
        let first = &answer.record_errors[0];
        let why = first.batch_index_error_message.as_deref().unwrap();
        (first.batch_index, why.to_owned())
    };
    let good = (Some("1"), Some("{\"email\": \"a\"}"));

    let (record, why) = refused("a.users", &[good, (None, Some("{}"))]);
    assert_eq!(record, 1);
    assert!(why.contains("needs a key"), "{why}");
    let (record, why) = refused("a.users", &[good, (Some("2"), Some("{"))]);
    assert_eq!(record, 1);
    assert!(why.contains("holds JSON"), "{why}");
    let (record, why) = refused("a.users", &[good, (Some("2"), Some("3"))]);
    assert_eq!(record, 1);
    assert!(why.contains("schema"), "{why}");
    let (record, why) = refused("a.users", &[good, (Some("2"), good.1)]);
    assert_eq!(record, 1);
    assert!(why.contains("must be unique"), "{why}");
    let (record, why) = refused("a.events", &[(None, None)]);
    assert_eq!(record, 0);
    assert!(why.contains("is a stream"), "{why}");
    assert!(
        fetch(&mut client, "a.users", 0)
            .iter()
            .all(|record| record.control)
    );
}

#[test]
fn a_repeated_batch_of_an_idempotent_producer_is_answered_with_its_first_offset() {
    let rig = Rig::start();
    rig.node.create_table_blocking(stream("a.b")).unwrap();
    let mut client = rig.connect();
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let init: InitProducerIdResponse = client.ask(INIT_PRODUCER_ID, 4, &request);
    assert_eq!(init.error_code, 0);
    let of = |sequence| batch(&[(None, Some("v"))], (init.producer_id.0, 0, sequence));
    let first = produce(&mut client, "a.b", of(0));
    let second = produce(&mut client, "a.b", of(1));

    let repeated = produce(&mut client, "a.b", of(0));

    assert_eq!(
        (repeated.error_code, repeated.base_offset),
        (0, first.base_offset)
    );
    assert_eq!(second.base_offset, first.base_offset + 1);
    assert_eq!(
        produce(&mut client, "a.b", of(3)).error_code,
        OUT_OF_ORDER_SEQUENCE
    );
    assert_eq!(rig.node.position().get(), second.base_offset as u64 + 1);

    let second = rig.second_door();
    let mut client = second.connect();
    let repeated = produce(&mut client, "a.b", of(0));
    assert_eq!(
        (repeated.error_code, repeated.base_offset),
        (0, first.base_offset),
        "a door that has not seen the producer knows the batch by the log"
    );
}

#[test]
fn offsets_are_found_by_time() {
    let rig = Rig::start();
    rig.node.create_table_blocking(table("a.b")).unwrap();
    rig.node.create_table_blocking(table("a.c")).unwrap();
    let end = put(&rig.node, "a.b", "k");
    let behind = put(&rig.node, "a.c", "k");
    let mut client = rig.connect();
    let mut offset = |topic: &str, time: i64| {
        let partition = ListOffsetsPartition::default().with_timestamp(time);
        let topic = ListOffsetsTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let mut answer: ListOffsetsResponse = client.ask(LIST_OFFSETS, 8, &request);
        let answer = answer.topics.remove(0).partitions.remove(0);
        assert_eq!(answer.error_code, 0);
        (answer.offset, answer.timestamp)
    };
    let last = end as i64 - 1;
    assert_eq!(offset("a.b", -1), (behind as i64, -1), "latest");
    assert_eq!(offset("a.b", -2), (0, -1), "earliest");
    let (found, timestamp) = offset("a.b", -3);
    assert_eq!(found, last, "the highest time");
    assert_eq!(offset("a.b", 0), (last, timestamp), "the first record");
    assert_eq!(offset("a.b", i64::MAX), (-1, -1), "no record is so late");
}

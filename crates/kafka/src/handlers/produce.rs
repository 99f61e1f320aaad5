//! Produce: each batch is one transaction. All that a client may ask for by `acks` is the same here:
//! an answer comes when the transaction is durable, by a majority where there are several nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;
use onelog::Ticket;
use onelog_record::TableId;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::fetch::offset;
use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::batch::{self, Batch, BatchError, LIMITS};
use crate::door::Door;
use crate::header::Header;
use crate::options::{LARGE_REQUEST_BYTES, PRODUCE_WAIT_MAX};
use crate::producers::{Sequence, Verdict};
use crate::refusals::{Refused, refused};
use crate::topics::{Topic, Topics};
use crate::writes::request;

const ACKS: std::ops::RangeInclusive<i16> = -1..=1;
/// The first version whose answers have errors of single records.
const RECORD_ERRORS_FROM: i16 = 8;
/// The first version whose answers say where the log begins.
const LOG_START_FROM: i16 = 5;

/// A batch on its way.
enum Begun {
    Submitted {
        ticket: Ticket,
        table: TableId,
        sequence: Option<Sequence>,
    },
    /// It was committed before.
    Known(i64),
    Refused(Refused),
}

pub async fn answer(
    door: &Arc<Door>,
    api: &Api,
    header: &Header,
    request: ProduceRequest,
) -> Result<Outcome, Fault> {
    let topics = door.topics();
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let wait = wait.min(PRODUCE_WAIT_MAX);
    let unusual = match (&request.transactional_id, ACKS.contains(&request.acks)) {
        (_, false) => Some(ResponseError::InvalidRequiredAcks),
        (Some(_), _) => Some(ResponseError::TransactionalIdAuthorizationFailed),
        (None, true) => None,
    };
    let mut responses = Vec::with_capacity(request.topic_data.len());
    let mut failed = None;
    for asked in request.topic_data {
        // All are on their way before the first is waited for.
        let begun: Vec<(i32, Begun)> = asked
            .partition_data
            .into_iter()
            .map(|data| {
                (
                    data.index,
                    match unusual {
                        Some(error) => Begun::Refused(error.into()),
                        None => off_this_thread(&data, || begin(door, &topics, &asked.name, &data)),
                    },
                )
            })
            .collect();
        let mut partitions = Vec::with_capacity(begun.len());
        for (index, begun) in begun {
            let done = end(door, begun, wait).await;
            failed = failed.or(done.as_ref().err().map(|refused| refused.error));
            partitions.push(partition(door, header.version, index, done));
        }
        let response = TopicProduceResponse::default()
            .with_name(asked.name)
            .with_partition_responses(partitions);
        responses.push(response);
    }
    match (request.acks, failed) {
        (0, None) => Ok(Outcome::Silence),
        // Nobody reads an answer: the end of the connection is what a client notices.
        (0, Some(error)) => Err(Fault::Unanswered(error)),
        _ => encode(
            api,
            header,
            &ProduceResponse::default().with_responses(responses),
        ),
    }
}

/// Unpacking and checking a large batch may take long: the other tasks of this thread go on by another
/// one, as far as there is one.
fn off_this_thread(data: &PartitionProduceData, work: impl FnOnce() -> Begun) -> Begun {
    let is_large = (data.records.as_ref()).is_some_and(|bytes| bytes.len() > LARGE_REQUEST_BYTES);
    match is_large && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        true => tokio::task::block_in_place(work),
        false => work(),
    }
}

fn begin(door: &Door, topics: &Topics, name: &str, data: &PartitionProduceData) -> Begun {
    let table = match topics.by_name(name) {
        Some(Topic::Table(table)) if data.index == 0 => table,
        Some(Topic::WholeLog) => {
            let why = "the topic 'onelog' is the whole log, which is written by its tables";
            return Begun::Refused(Refused::new(ResponseError::InvalidTopicException, why));
        }
        _ => return Begun::Refused(ResponseError::UnknownTopicOrPartition.into()),
    };
    let batch = match read(data.records.clone()) {
        Ok(batch) => batch,
        Err(refused) => return Begun::Refused(refused),
    };
    let mut request = match request(&table, &batch) {
        Ok(request) => request,
        Err(refused) => return Begun::Refused(refused),
    };
    let sequence = sequence_of(&batch);
    if let Some(sequence) = sequence {
        let judged = (door.producers()).judge(door.node.log_id(), table.id, sequence);
        let error = match judged {
            Verdict::Commit(id) => {
                request.id = Some(id);
                None
            }
            Verdict::Repeated(at) => return Begun::Known(at.get().cast_signed()),
            Verdict::TooOld => Some(ResponseError::DuplicateSequenceNumber),
            Verdict::OutOfOrder => Some(ResponseError::OutOfOrderSequenceNumber),
            Verdict::Fenced => Some(ResponseError::InvalidProducerEpoch),
        };
        if let Some(error) = error {
            return Begun::Refused(error.into());
        }
    }
    Begun::Submitted {
        ticket: door.node.submit(request),
        table: table.id,
        sequence,
    }
}

/// Reads the one batch of a partition.
fn read(records: Option<Bytes>) -> Result<Batch, Refused> {
    let records = records.unwrap_or_default();
    let batch = batch::read(&records, LIMITS).map_err(|error| {
        let code = match &error {
            BatchError::Magic(_) => ResponseError::UnsupportedForMessageFormat,
            BatchError::TooLarge { .. } | BatchError::Records { .. } => {
                ResponseError::MessageTooLarge
            }
            BatchError::Compression(_) => ResponseError::UnsupportedCompressionType,
            BatchError::Checksum { .. } | BatchError::Short => ResponseError::CorruptMessage,
            _ => ResponseError::InvalidRecord,
        };
        Refused::new(code, format!("the batch is refused: {error}"))
    })?;
    if batch.is_control || batch.is_transactional {
        let why = "onelog takes no batch of a Kafka transaction";
        return Err(Refused::new(ResponseError::InvalidTxnState, why));
    }
    match batch.records.is_empty() {
        true => Err(Refused::new(
            ResponseError::InvalidRecord,
            "a batch without records",
        )),
        false => Ok(batch),
    }
}

/// Which batch of its producer it is; `None` where the producer is not idempotent.
fn sequence_of(batch: &Batch) -> Option<Sequence> {
    let is_idempotent = batch.producer_id >= 0 && batch.base_sequence >= 0;
    is_idempotent.then_some(Sequence {
        producer: batch.producer_id,
        epoch: batch.producer_epoch,
        base: batch.base_sequence,
        // Bounded by the number of records of a transaction.
        records: batch.records.len() as i32,
    })
}

/// Waits for a batch; the offset of its first record.
async fn end(door: &Door, begun: Begun, wait: Duration) -> Result<i64, Refused> {
    let (ticket, table, sequence) = match begun {
        Begun::Known(at) => return Ok(at),
        Begun::Refused(refused) => return Err(refused),
        Begun::Submitted {
            ticket,
            table,
            sequence,
        } => (ticket, table, sequence),
    };
    let Ok(answer) = tokio::time::timeout(wait, ticket).await else {
        return Err(ResponseError::RequestTimedOut.into());
    };
    let committed = answer.map_err(|refusal| refused(&refusal))?;
    let first = committed.first_offset;
    if let Some(sequence) = sequence {
        door.producers().committed(table, sequence, first);
    }
    Ok(first.get().cast_signed())
}

fn partition(
    door: &Door,
    version: i16,
    index: i32,
    done: Result<i64, Refused>,
) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default().with_index(index);
    let refused = match done {
        Ok(base_offset) => {
            return answer.with_base_offset(base_offset).with_log_start_offset(
                match version >= LOG_START_FROM {
                    true => offset(door.node.log_start()),
                    false => -1,
                },
            );
        }
        Err(refused) => refused,
    };
    let answer = answer
        .with_error_code(refused.error.code())
        .with_base_offset(-1);
    if version < RECORD_ERRORS_FROM {
        return answer;
    }
    let text = |message: String| Some(StrBytes::from_string(message));
    let record_errors = match (refused.record, &refused.message) {
        (Some(record), Some(message)) => vec![
            BatchIndexAndErrorMessage::default()
                .with_batch_index(i32::try_from(record).unwrap_or(i32::MAX))
                .with_batch_index_error_message(text(message.clone())),
        ],
        _ => Vec::new(),
    };
    answer
        .with_record_errors(record_errors)
        .with_error_message(refused.message.and_then(text))
}

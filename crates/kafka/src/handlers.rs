//! From a request to its answer, by its key.

mod api_versions;
mod create_topics;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod fetch;
mod find_coordinator;
mod init_producer_id;
mod leader_epoch;
mod list_offsets;
mod metadata;
mod produce;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::Decodable;

use crate::answer::{Fault, Outcome, encode};
use crate::apis::{self, Api};
use crate::connection::Connection;
use crate::guard;
use crate::header::Header;

pub use fetch::Scanned;

/// Answers a request, once the guard has walked its body.
pub async fn handle(
    connection: &mut Connection,
    header: &Header,
    body: Bytes,
) -> Result<Outcome, Fault> {
    let (key, version) = (header.key, header.version);
    let unknown = Fault::Unknown { key, version };
    let api = Api::of(key).ok_or(unknown)?;
    if !api.serves(version) {
        return unserved(api, header);
    }
    guard::check(api.fields, version, api.is_flexible(version), &body)?;
    if key == apis::FETCH {
        return fetch::answer(connection, api, header, decode(api, header, body)?).await;
    }
    let door = connection.door();
    macro_rules! decoded {
        () => {
            decode(api, header, body)?
        };
    }
    match key {
        apis::API_VERSIONS => api_versions::answer(api, header, &body),
        apis::METADATA => metadata::answer(door, api, header, decoded!()).await,
        apis::PRODUCE => produce::answer(door, api, header, decoded!()).await,
        apis::LIST_OFFSETS => list_offsets::answer(door, api, header, decoded!()).await,
        apis::FIND_COORDINATOR => find_coordinator::answer(door, api, header, decoded!()),
        apis::INIT_PRODUCER_ID => init_producer_id::answer(api, header, &decoded!()),
        apis::OFFSET_FOR_LEADER_EPOCH => leader_epoch::answer(door, api, header, decoded!()),
        apis::CREATE_TOPICS => create_topics::answer(door, api, header, decoded!()).await,
        apis::DELETE_TOPICS => delete_topics::answer(door, api, header, decoded!()).await,
        apis::DESCRIBE_CONFIGS => describe_configs::answer(door, api, header, decoded!()),
        apis::DESCRIBE_CLUSTER => describe_cluster::answer(door, api, header, &decoded!()),
        _ => Err(Fault::Unknown { key, version }),
    }
}

/// The answer to a version that is not served. Where the library knows its form, and that has a place
/// for an error, the client learns it; else the connection ends, as of Kafka's own brokers.
fn unserved(api: &'static Api, header: &Header) -> Result<Outcome, Fault> {
    use kafka_protocol::messages as m;
    let error = ResponseError::UnsupportedVersion.code();
    macro_rules! with_error {
        ($response:ty) => {
            encode(api, header, &<$response>::default().with_error_code(error))
        };
    }
    match api.key {
        apis::API_VERSIONS => api_versions::unserved(api, header),
        apis::FETCH => with_error!(m::FetchResponse),
        apis::METADATA => with_error!(m::MetadataResponse),
        apis::INIT_PRODUCER_ID => with_error!(m::InitProducerIdResponse),
        apis::DESCRIBE_CLUSTER => with_error!(m::DescribeClusterResponse),
        key => Err(Fault::Unknown {
            key,
            version: header.version,
        }),
    }
}

/// Reads a body that the guard has walked.
fn decode<R: Decodable>(api: &Api, header: &Header, mut body: Bytes) -> Result<R, Fault> {
    R::decode(&mut body, header.version).map_err(|cause| Fault::Message {
        what: api.name,
        version: header.version,
        done: "read",
        cause: cause.to_string(),
    })
}

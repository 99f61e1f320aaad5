//! From a request to its answer, by its key.

mod api_versions;
mod metadata;

use bytes::Bytes;
use kafka_protocol::protocol::Decodable;

use crate::answer::{Fault, Outcome};
use crate::apis::{self, Api};
use crate::connection::Connection;
use crate::guard;
use crate::header::Header;

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
    let door = connection.door();
    match key {
        apis::API_VERSIONS => api_versions::answer(api, header, &body),
        apis::METADATA => metadata::answer(door, api, header, decode(api, header, body)?).await,
        _ => Err(Fault::Unknown { key, version }),
    }
}

/// The answer to a version that is not served.
fn unserved(api: &'static Api, header: &Header) -> Result<Outcome, Fault> {
    match api.key {
        apis::API_VERSIONS => api_versions::unserved(api, header),
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

/// Walks and decodes any frame, as a connection does with what it reads; whether it was taken.
pub fn decode_any(frame: &[u8]) -> bool {
    let Ok((header, body)) = crate::header::parse(Bytes::copy_from_slice(frame)) else {
        return false;
    };
    let Some(api) = Api::of(header.key).filter(|api| api.serves(header.version)) else {
        return false;
    };
    let flexible = api.is_flexible(header.version);
    guard::check(api.fields, header.version, flexible, &body).is_ok() && decoded(api, &header, body)
}

fn decoded(api: &Api, header: &Header, body: Bytes) -> bool {
    use kafka_protocol::messages as m;
    match header.key {
        apis::API_VERSIONS => api_versions::answer(api, header, &body).is_ok(),
        apis::METADATA => decode::<m::MetadataRequest>(api, header, body).is_ok(),
        _ => false,
    }
}

//! ApiVersions: what is served, before anything else is spoken.
//!
//! Read here and not by the library, which does not know version 5. Its fields beyond version 4 name a
//! cluster and a node for a client that was moved to another one; onelog's clients find that out from
//! Metadata.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use crate::answer::{Fault, Outcome, encode_as};
use crate::apis::{APIS, Api};
use crate::guard::Walk;
use crate::header::Header;

/// The last version that the library can write; later ones have the same answer.
const WRITTEN_MAX: i16 = 4;

pub fn answer(api: &Api, header: &Header, body: &[u8]) -> Result<Outcome, Fault> {
    let version = header.version.min(WRITTEN_MAX);
    if !names_a_client(api, header.version, body)? {
        let refused = with_error(ResponseError::InvalidRequest, Vec::new());
        return encode_as(api, header, version, &refused);
    }
    let served = APIS.iter().map(reported).collect();
    let response = ApiVersionsResponse::default().with_api_keys(served);
    encode_as(api, header, version, &response)
}

/// A version that is not known is answered in the oldest form, with the versions that are: the client
/// begins again with one of them.
pub fn unserved(api: &Api, header: &Header) -> Result<Outcome, Fault> {
    let response = with_error(ResponseError::UnsupportedVersion, vec![reported(api)]);
    encode_as(api, header, 0, &response)
}

fn with_error(error: ResponseError, keys: Vec<ApiVersion>) -> ApiVersionsResponse {
    ApiVersionsResponse::default()
        .with_error_code(error.code())
        .with_api_keys(keys)
}

fn reported(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key)
        .with_min_version(api.min)
        .with_max_version(api.max)
}

/// Whether name and version of the client's software have the form that Kafka's brokers demand.
fn names_a_client(api: &Api, version: i16, body: &[u8]) -> Result<bool, Fault> {
    if !api.is_flexible(version) {
        return Ok(true);
    }
    let mut walk = Walk {
        bytes: body,
        version,
        flexible: true,
    };
    let (name, version) = (walk.text()?, walk.text()?);
    Ok(name.is_some_and(is_word) && version.is_some_and(is_word))
}

fn is_word(text: &[u8]) -> bool {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    outer(text.first()) && outer(text.last()) && text.iter().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_software_of_a_client_has_a_name_of_letters_digits_hyphens_and_dots() {
        for good in ["librdkafka", "apache-kafka-java", "2.16.0", "a"] {
            assert!(is_word(good.as_bytes()), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "ü"] {
            assert!(!is_word(bad.as_bytes()), "{bad}");
        }
    }
}

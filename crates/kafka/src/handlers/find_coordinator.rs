//! FindCoordinator: which server looks after a consumer group. Every one is answered with this server,
//! as Metadata does.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::door::Door;
use crate::header::Header;

const GROUP: i8 = 0;
/// The first version that asks for several at once.
const SEVERAL_FROM: i16 = 4;

pub fn answer(
    door: &Door,
    api: &Api,
    header: &Header,
    request: FindCoordinatorRequest,
) -> Result<Outcome, Fault> {
    let node = BrokerId(door.broker());
    let host = StrBytes::from_string(door.advertised.host.clone());
    let port = i32::from(door.advertised.port);
    // Of Kafka's transactions nobody is the coordinator: they are not served.
    let is_group = request.key_type == GROUP;
    let error = ResponseError::InvalidRequest.code();
    let why = StrBytes::from_static_str("onelog serves no Kafka transactions");
    let response = FindCoordinatorResponse::default();
    if header.version < SEVERAL_FROM {
        let response = match is_group {
            true => response.with_node_id(node).with_host(host).with_port(port),
            false => response
                .with_error_code(error)
                .with_error_message((header.version >= 1).then_some(why))
                .with_node_id(BrokerId(-1))
                .with_port(-1),
        };
        return encode(api, header, &response);
    }
    let one = |key: StrBytes| {
        let coordinator = Coordinator::default().with_key(key);
        match is_group {
            true => (coordinator.with_node_id(node))
                .with_host(host.clone())
                .with_port(port),
            false => (coordinator.with_node_id(BrokerId(-1)))
                .with_port(-1)
                .with_error_code(error)
                .with_error_message(Some(why.clone())),
        }
    };
    let found = request.coordinator_keys.into_iter().map(one).collect();
    encode(api, header, &response.with_coordinators(found))
}

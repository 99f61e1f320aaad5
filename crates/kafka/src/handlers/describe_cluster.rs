//! DescribeCluster: this server, under the log's id.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::door::Door;
use crate::header::Header;

/// Of the two kinds of servers that Kafka has, the one that clients speak with.
const BROKERS: i8 = 1;

pub fn answer(
    door: &Door,
    api: &Api,
    header: &Header,
    request: &DescribeClusterRequest,
) -> Result<Outcome, Fault> {
    let response = DescribeClusterResponse::default();
    let response = if request.endpoint_type == BROKERS {
        let broker = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(door.broker()))
            .with_host(StrBytes::from_string(door.advertised.host.clone()))
            .with_port(i32::from(door.advertised.port));
        response
            .with_cluster_id(StrBytes::from_string(door.cluster_id()))
            .with_controller_id(BrokerId(door.broker()))
            .with_brokers(vec![broker])
    } else {
        response
            .with_error_code(ResponseError::MismatchedEndpointType.code())
            .with_error_message(Some(StrBytes::from_static_str(
                "onelog has no controllers beside its brokers",
            )))
    };
    encode(api, header, &response)
}

//! InitProducerId: the number of an idempotent producer. It is random, with 62 bits, so that it needs
//! no place in the log and is good on every node.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use uuid::Uuid;

use crate::answer::{Fault, Outcome, encode};
use crate::apis::Api;
use crate::header::Header;

const PRODUCER_MASK: u64 = (1 << 62) - 1;

pub fn answer(
    api: &Api,
    header: &Header,
    request: &InitProducerIdRequest,
) -> Result<Outcome, Fault> {
    let response = InitProducerIdResponse::default();
    let response = if request.transactional_id.is_some() {
        response
            .with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    } else {
        let (producer, epoch) = number(request.producer_id.0, request.producer_epoch);
        response
            .with_producer_id(ProducerId(producer))
            .with_producer_epoch(epoch)
    };
    encode(api, header, &response)
}

/// A producer that has a number and begins its count anew keeps it, in the next epoch.
fn number(producer: i64, epoch: i16) -> (i64, i16) {
    match epoch.checked_add(1) {
        Some(next) if producer >= 0 && epoch >= 0 && next < i16::MAX => (producer, next),
        _ => {
            let (_, random) = Uuid::now_v7().as_u64_pair();
            ((random & PRODUCER_MASK).cast_signed(), 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_gets_a_number_of_its_own_and_keeps_it_in_the_next_epoch() {
        let (producer, epoch) = number(-1, -1);
        assert!(producer >= 0 && epoch == 0);
        assert_ne!(number(-1, -1).0, producer);
        assert_eq!(number(producer, epoch), (producer, 1));
        let (other, epoch) = number(producer, i16::MAX - 1);
        assert!(other != producer && epoch == 0, "the epochs are used up");
    }
}

//! The requests that the door answers, and in which versions: what ApiVersions reports.
//!
//! The ranges are onelog's own, not the library's: of some requests it knows more versions than it can
//! read, and of others more than onelog answers.

use crate::schema::{self, Field};

/// A kind of request, with the versions of it.
#[derive(Debug)]
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// The versions that are reported.
    pub min: i16,
    pub max: i16,
    /// The first version that is answered: of Produce clients want lower ones to be reported, or they
    /// send less than they can.
    pub served_from: i16,
    /// The first version with compact lengths and tagged fields.
    pub flexible_from: i16,
    pub fields: &'static [Field],
}

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const FIND_COORDINATOR: i16 = 10;
pub const API_VERSIONS: i16 = 18;
pub const CREATE_TOPICS: i16 = 19;
pub const DELETE_TOPICS: i16 = 20;
pub const INIT_PRODUCER_ID: i16 = 22;
pub const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
pub const DESCRIBE_CONFIGS: i16 = 32;
pub const DESCRIBE_CLUSTER: i16 = 60;

/// All of them, by key.
pub const APIS: &[Api] = &[
    Api {
        served_from: 3,
        ..api(PRODUCE, "Produce", (0, 11), 9, schema::PRODUCE)
    },
    api(FETCH, "Fetch", (4, 16), 12, schema::FETCH),
    api(LIST_OFFSETS, "ListOffsets", (1, 8), 6, schema::LIST_OFFSETS),
    api(METADATA, "Metadata", (0, 12), 9, schema::METADATA),
    api(
        FIND_COORDINATOR,
        "FindCoordinator",
        (0, 4),
        3,
        schema::FIND_COORDINATOR,
    ),
    api(API_VERSIONS, "ApiVersions", (0, 5), 3, schema::API_VERSIONS),
    api(
        CREATE_TOPICS,
        "CreateTopics",
        (2, 7),
        5,
        schema::CREATE_TOPICS,
    ),
    api(
        DELETE_TOPICS,
        "DeleteTopics",
        (1, 6),
        4,
        schema::DELETE_TOPICS,
    ),
    api(
        INIT_PRODUCER_ID,
        "InitProducerId",
        (0, 4),
        2,
        schema::INIT_PRODUCER_ID,
    ),
    api(
        OFFSET_FOR_LEADER_EPOCH,
        "OffsetForLeaderEpoch",
        (2, 4),
        4,
        schema::OFFSET_FOR_LEADER_EPOCH,
    ),
    api(
        DESCRIBE_CONFIGS,
        "DescribeConfigs",
        (1, 4),
        4,
        schema::DESCRIBE_CONFIGS,
    ),
    api(
        DESCRIBE_CLUSTER,
        "DescribeCluster",
        (0, 1),
        0,
        schema::DESCRIBE_CLUSTER,
    ),
];

const fn api(
    key: i16,
    name: &'static str,
    (min, max): (i16, i16),
    flexible_from: i16,
    fields: &'static [Field],
) -> Api {
    Api {
        key,
        name,
        min,
        max,
        served_from: min,
        flexible_from,
        fields,
    }
}

impl Api {
    pub fn of(key: i16) -> Option<&'static Self> {
        APIS.iter().find(|api| api.key == key)
    }

    pub const fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    pub const fn serves(&self, version: i16) -> bool {
        self.served_from <= version && version <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_there_once_in_the_order_of_the_keys() {
        assert!(APIS.is_sorted_by_key(|api| api.key));
        for pair in APIS.windows(2) {
            assert_ne!(pair[0].key, pair[1].key);
        }
        for api in APIS {
            assert!(api.min <= api.served_from && api.served_from <= api.max);
        }
    }
}

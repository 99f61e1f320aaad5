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
pub const METADATA: i16 = 3;
pub const API_VERSIONS: i16 = 18;

/// All of them, by key.
pub const APIS: &[Api] = &[
    api(METADATA, "Metadata", (0, 12), 9, schema::METADATA),
    api(API_VERSIONS, "ApiVersions", (0, 5), 3, schema::API_VERSIONS),
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

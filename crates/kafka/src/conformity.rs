//! The guard's table of fields, held against the library: random requests made of the table are read
//! by the library, written again by its client side as the same bytes, and walked by the guard.

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::apis::{self, APIS, Api};
use crate::guard;
use crate::schema::{Field, Type};

/// How many elements a random list has at most.
const ELEMENTS_MAX: u32 = 3;
/// The last version that the library knows of ApiVersions.
const API_VERSIONS_MAX: i16 = 4;

struct Maker {
    rng: TestRng,
    out: BytesMut,
    version: i16,
    flexible: bool,
}

impl Maker {
    fn below(&mut self, end: u32) -> u32 {
        self.rng.next_u32() % end
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    fn long_length(&mut self, length: u32) {
        match self.flexible {
            true => self.varint(length + 1),
            false => self.out.put_u32(length),
        }
    }

    fn value(&mut self, kind: &Type) {
        match kind {
            Type::Fixed(bytes) => {
                for _ in 0..*bytes {
                    let byte = self.below(256) as u8;
                    self.out.put_u8(byte);
                }
            }
            Type::Bool => {
                let byte = self.below(2) as u8;
                self.out.put_u8(byte);
            }
            Type::Text => {
                let length = self.below(5);
                match self.flexible {
                    true => self.varint(length + 1),
                    false => self.out.put_u16(length as u16),
                }
                self.out.put_bytes(b'x', length as usize);
            }
            Type::Bytes => {
                let length = self.below(200);
                self.long_length(length);
                self.out.put_bytes(7, length as usize);
            }
            Type::List(of) => {
                let count = self.below(ELEMENTS_MAX + 1);
                self.long_length(count);
                for _ in 0..count {
                    self.value(of);
                }
            }
            Type::Struct(fields) => self.structure(fields),
        }
    }

    fn structure(&mut self, fields: &[Field]) {
        let version = self.version;
        let present = || fields.iter().filter(|field| field.is_in(version));
        for field in present().filter(|field| field.tag.is_none()) {
            self.value(&field.kind);
        }
        if !self.flexible {
            return;
        }
        let tagged: Vec<_> = present().filter(|field| field.tag.is_some()).collect();
        let has_unknown = self.below(2);
        self.varint(tagged.len() as u32 + has_unknown);
        for field in tagged {
            self.tagged(field.tag.unwrap(), |maker| maker.value(&field.kind));
        }
        if has_unknown > 0 {
            self.tagged(99, |maker| maker.out.put_slice(b"unknown"));
        }
    }

    fn tagged(&mut self, tag: u32, content: impl FnOnce(&mut Self)) {
        let before = std::mem::take(&mut self.out);
        content(self);
        let content = std::mem::replace(&mut self.out, before);
        self.varint(tag);
        self.varint(content.len() as u32);
        self.out.put_slice(&content);
    }
}

fn random(api: &Api, version: i16, seed: [u8; 32]) -> Bytes {
    let mut maker = Maker {
        rng: TestRng::from_seed(RngAlgorithm::ChaCha, &seed),
        out: BytesMut::new(),
        version,
        flexible: api.is_flexible(version),
    };
    maker.structure(api.fields);
    maker.out.freeze()
}

fn walk(api: &Api, version: i16, body: &[u8]) -> Result<usize, guard::GuardError> {
    guard::check(api.fields, version, api.is_flexible(version), body)
}

/// Reads a request with the library and writes it again.
fn again<R: Decodable + Encodable>(body: &Bytes, version: i16) -> Result<Bytes, String> {
    let mut left = body.clone();
    let request = R::decode(&mut left, version).map_err(|error| error.to_string())?;
    if !left.is_empty() {
        return Err(format!("{} bytes are left", left.len()));
    }
    let mut out = BytesMut::new();
    request
        .encode(&mut out, version)
        .map_err(|error| error.to_string())?;
    Ok(out.freeze())
}

fn by_library(key: i16, body: &Bytes, version: i16) -> Result<Bytes, String> {
    match key {
        apis::PRODUCE => again::<m::ProduceRequest>(body, version),
        apis::FETCH => again::<m::FetchRequest>(body, version),
        apis::LIST_OFFSETS => again::<m::ListOffsetsRequest>(body, version),
        apis::METADATA => again::<m::MetadataRequest>(body, version),
        apis::FIND_COORDINATOR => again::<m::FindCoordinatorRequest>(body, version),
        apis::API_VERSIONS => again::<m::ApiVersionsRequest>(body, version),
        apis::CREATE_TOPICS => again::<m::CreateTopicsRequest>(body, version),
        apis::DELETE_TOPICS => again::<m::DeleteTopicsRequest>(body, version),
        apis::INIT_PRODUCER_ID => again::<m::InitProducerIdRequest>(body, version),
        apis::OFFSET_FOR_LEADER_EPOCH => again::<m::OffsetForLeaderEpochRequest>(body, version),
        apis::DESCRIBE_CONFIGS => again::<m::DescribeConfigsRequest>(body, version),
        apis::DESCRIBE_CLUSTER => again::<m::DescribeClusterRequest>(body, version),
        key => Err(format!("request {key} is not held against the library")),
    }
}

fn versions() -> impl Iterator<Item = (&'static Api, i16)> {
    APIS.iter().flat_map(|api| {
        let last = match api.key {
            apis::API_VERSIONS => API_VERSIONS_MAX,
            _ => api.max,
        };
        (api.served_from..=last).map(move |version| (api, version))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_request_of_every_version_is_to_the_guard_what_it_is_to_the_library(
        seed in any::<[u8; 32]>(),
    ) {
        for (api, version) in versions() {
            let body = random(api, version, seed);
            let what = format!("{} in version {version}", api.name);
            prop_assert_eq!(walk(api, version, &body), Ok(0), "{}", what);
            let written = by_library(api.key, &body, version);
            prop_assert_eq!(written, Ok(body), "{}", what);
        }
    }

    #[test]
    fn changed_bytes_that_the_guard_lets_pass_are_harmless_to_the_library(
        seed in any::<[u8; 32]>(),
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
    ) {
        for (api, version) in versions() {
            let mut body = random(api, version, seed).to_vec();
            for (at, byte) in &changes {
                let length = body.len().max(1);
                if let Some(changed) = body.get_mut(usize::from(*at) % length) {
                    *changed = *byte;
                }
            }
            let body = Bytes::from(body);
            if walk(api, version, &body).is_ok() {
                let _ = by_library(api.key, &body, version);
            }
        }
    }
}

//! Arbitrary keys: they keep their order in the memtable and in the tree, and come back.

pub mod transfer;

use bytes::Bytes;
use onelog_record::{Offset, TableId};

use crate::key::{VersionKey, base_key, split_base_key, with_base_key};

/// One version of a row.
#[derive(Clone, Debug)]
pub struct Version {
    pub table: TableId,
    pub key: Vec<u8>,
    pub offset: Offset,
}

impl Version {
    fn encode(&self) -> VersionKey {
        VersionKey::of_record(self.table, &Bytes::from(self.key.clone()), self.offset)
    }
}

/// Panics where two versions compare otherwise than their parts do, or one does not come back.
pub fn check_keys(versions: &[Version]) {
    for a in versions {
        comes_back(a);
        for b in versions {
            keep_their_order(a, b);
        }
    }
}

fn comes_back(version: &Version) {
    let (table, key) = (version.table, &version.key[..]);
    let made = version.encode();
    assert_eq!(made.key(), key);
    assert_eq!((made.table(), made.offset()), (table, version.offset));
    assert_eq!(VersionKey::probe(table, key, version.offset), made);
    assert!(VersionKey::before(table, key) <= made);
    assert!(VersionKey::end_of(table).is_none_or(|end| made < end));
    let row = base_key(table, key);
    assert_eq!(split_base_key(&row), Some((table, key)));
    with_base_key(table, key, |again| assert_eq!(again, row));
}

fn keep_their_order(a: &Version, b: &Version) {
    let keys = (a.table, &a.key).cmp(&(b.table, &b.key));
    let order = keys.then(b.offset.cmp(&a.offset));
    assert_eq!(a.encode().cmp(&b.encode()), order);
    assert_eq!(a.encode().is_same_key(&b.encode()), keys.is_eq());
    let at = Version {
        offset: b.offset,
        ..a.clone()
    };
    assert_eq!(a.encode().at(b.offset), at.encode());
    let rows = base_key(a.table, &a.key).cmp(&base_key(b.table, &b.key));
    assert_eq!(rows, keys);
}

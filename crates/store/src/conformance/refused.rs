//! What a store refuses, as tests look at it.

use crate::StoreError;

/// The keys of the records that are refused: the first one speaks for the others, which follow it.
pub fn refused_keys(error: &StoreError) -> Vec<&[u8]> {
    let StoreError::Refused(refused) = error else {
        panic!("no record is refused: {error:?}");
    };
    let keys = refused.all().map(|refused| &refused.key_bytes[..]);
    keys.collect()
}

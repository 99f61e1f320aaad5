//! Unsigned LEB128: seven bits a byte, least significant first, the high bit says "more".
//! Only the shortest form is accepted, so every number has one encoding.

pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number at `*at` and moves `*at` behind it; `None` when the bytes end early, overflow
/// 64 bits or are not the shortest form.
#[must_use]
pub fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    let mut shift = 0u32;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || shift == 0;
            return shortest.then_some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_is_read_back(value: u64, before in 0usize..4) {
            let mut out = vec![0xff; before];
            write_varint(&mut out, value);
            let mut at = before;
            prop_assert_eq!(read_varint(&out, &mut at), Some(value));
            prop_assert_eq!(at, out.len());
        }

        #[test]
        fn arbitrary_bytes_have_at_most_one_meaning(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut at = 0;
            if let Some(value) = read_varint(&bytes, &mut at) {
                let mut again = Vec::new();
                write_varint(&mut again, value);
                prop_assert_eq!(&bytes[..at], &again[..]);
            }
        }
    }
}

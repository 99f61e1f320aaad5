//! Zigzag varints, as records have them.

use bytes::BufMut;

use super::BatchError;

/// Reads one of at most 64 bits from the front.
pub fn read(bytes: &mut &[u8]) -> Result<i64, BatchError> {
    let mut value: u64 = 0;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first().ok_or(BatchError::Short)?;
        *bytes = rest;
        // The tenth byte has one bit left.
        if place == 9 && *byte > 1 {
            return Err(BatchError::Number);
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(BatchError::Number)
}

pub fn write(out: &mut impl BufMut, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.put_u8(left as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
}

/// How many bytes `write` takes.
pub const fn size(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    let bits = 64 - (zigzag | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_take_the_bytes_that_were_said() {
        for value in [
            0,
            -1,
            1,
            63,
            -64,
            64,
            300,
            i64::from(i32::MIN),
            i64::MAX,
            i64::MIN,
        ] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!(out.len(), size(value), "{value}");
            assert_eq!(read(&mut &out[..]), Ok(value));
        }
        assert_eq!(read(&mut &[0xff; 10][..]), Err(BatchError::Number));
        assert_eq!(read(&mut &[0x80][..]), Err(BatchError::Short));
    }
}

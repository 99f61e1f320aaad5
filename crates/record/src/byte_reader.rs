//! Bytes that are read from the front. Numbers are little-endian; what is read refers to the memory
//! that the bytes came in.

use bytes::{Buf, Bytes};

/// There are fewer bytes than are read of them, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    #[error("it ends early, at byte {0}")]
    Short(usize),
    #[error("it has {0} bytes too many")]
    Long(usize),
}

#[derive(Debug)]
pub struct ByteReader {
    rest: Bytes,
    len: usize,
}

impl ByteReader {
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self {
            len: bytes.len(),
            rest: bytes,
        }
    }

    /// How many bytes were read.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.len - self.rest.len()
    }

    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails where something is left.
    pub const fn end(&self) -> Result<(), LengthError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(LengthError::Long(more)),
        }
    }

    #[must_use]
    pub const fn short(&self) -> LengthError {
        LengthError::Short(self.at())
    }

    pub fn u8(&mut self) -> Result<u8, LengthError> {
        self.rest.try_get_u8().map_err(|_| self.short())
    }

    pub fn u32(&mut self) -> Result<u32, LengthError> {
        self.rest.try_get_u32_le().map_err(|_| self.short())
    }

    pub fn u64(&mut self) -> Result<u64, LengthError> {
        self.rest.try_get_u64_le().map_err(|_| self.short())
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], LengthError> {
        let mut out = [0; N];
        let read = self.rest.try_copy_to_slice(&mut out);
        read.map_err(|_| self.short())?;
        Ok(out)
    }

    /// The next bytes, without a copy.
    pub fn take(&mut self, len: usize) -> Result<Bytes, LengthError> {
        if len > self.rest.len() {
            return Err(self.short());
        }
        Ok(self.rest.split_to(len))
    }

    /// Bytes behind their length.
    pub fn piece(&mut self) -> Result<Bytes, LengthError> {
        let len = usize::try_from(self.u64()?).map_err(|_| self.short())?;
        self.take(len)
    }
}

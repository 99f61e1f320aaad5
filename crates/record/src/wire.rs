//! Requests and their answers as they travel between the nodes of a cluster. The bytes are drawn in
//! `docs/format.md`; what is read refers to the memory that it came in.

mod answer;
mod request;

use bytes::{Buf, Bytes};

pub use answer::{decode_answer, encode_answer};

use crate::{FieldPathError, JsonFault, NotANumber};

/// Bytes that are no request, or no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("it ends early, at byte {0}")]
    Short(usize),
    #[error("it has {0} bytes too many")]
    Long(usize),
    #[error("byte {at} says {is}, which is no {what}")]
    Unknown {
        what: &'static str,
        is: u8,
        at: usize,
    },
    #[error("the part that ends at byte {0} is not in its place, or not as long as it must be")]
    Part(usize),
    #[error("the text that ends at byte {0} is not UTF-8")]
    Text(usize),
    #[error(transparent)]
    Path(#[from] FieldPathError),
    #[error("a value of the request is no JSON: {0}")]
    Json(#[from] JsonFault),
    #[error(transparent)]
    Number(#[from] NotANumber),
}

/// What is left to be read.
struct Reader {
    rest: Bytes,
    len: usize,
}

impl Reader {
    fn new(bytes: Bytes) -> Self {
        Self {
            len: bytes.len(),
            rest: bytes,
        }
    }

    fn at(&self) -> usize {
        self.len - self.rest.len()
    }

    fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn end(&self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(WireError::Long(more)),
        }
    }

    fn short(&self) -> WireError {
        WireError::Short(self.at())
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.rest.try_get_u8().map_err(|_| self.short())
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.rest.try_get_u32_le().map_err(|_| self.short())
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.rest.try_get_u64_le().map_err(|_| self.short())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        let read = self.rest.try_copy_to_slice(&mut out);
        read.map_err(|_| self.short())?;
        Ok(out)
    }

    /// Bytes behind their length.
    fn piece(&mut self) -> Result<Bytes, WireError> {
        let len = usize::try_from(self.u64()?).map_err(|_| self.short())?;
        if len > self.rest.len() {
            return Err(self.short());
        }
        Ok(self.rest.split_to(len))
    }

    fn text(&mut self) -> Result<String, WireError> {
        let piece = self.piece()?;
        match std::str::from_utf8(&piece) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(WireError::Text(self.at())),
        }
    }
}

//! Requests and their answers as they travel between the nodes of a cluster. The bytes are drawn in
//! `docs/format.md`; what is read refers to the memory that it came in.

mod answer;
mod request;

pub use answer::{decode_answer, encode_answer};

use crate::{ByteReader, FieldPathError, JsonFault, LengthError, NotANumber};

/// Bytes that are no request, or no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Length(#[from] LengthError),
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

impl ByteReader {
    fn text(&mut self) -> Result<String, WireError> {
        let piece = self.piece()?;
        match std::str::from_utf8(&piece) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(WireError::Text(self.at())),
        }
    }

    /// The last byte that was read means nothing.
    fn unknown(&self, what: &'static str, is: u8) -> WireError {
        WireError::Unknown {
            what,
            is,
            at: self.at().saturating_sub(1),
        }
    }
}

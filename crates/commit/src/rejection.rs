//! Why a decision ends early.

use onelog_record::{OperationFault, Position, Refusal};

use crate::planted::{self, Bug};
use crate::view::ViewError;

/// A refusal and when it may be answered, or a state that cannot be read.
#[derive(Debug)]
pub enum Rejection {
    Refused(Box<(Refusal, Position)>),
    View(ViewError),
}

impl Rejection {
    /// A refusal that is true whatever becomes of the transactions in flight.
    pub fn now(refusal: Refusal) -> Self {
        Self::after(refusal, Position::ZERO)
    }

    /// A refusal that is true once everything below `after` is committed.
    pub fn after(refusal: Refusal, after: Position) -> Self {
        let after = if planted::is(Bug::RefusalAnsweredTooEarly) {
            Position::ZERO
        } else {
            after
        };
        Self::Refused(Box::new((refusal, after)))
    }

    pub fn malformed(text: String) -> Self {
        Self::now(Refusal::Malformed(text))
    }

    pub fn bad_operation(index: usize, fault: OperationFault, after: Position) -> Self {
        Self::after(Refusal::BadOperation { index, fault }, after)
    }
}

impl From<ViewError> for Rejection {
    fn from(error: ViewError) -> Self {
        Self::View(error)
    }
}

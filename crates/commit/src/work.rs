//! How much one decision may cost the thread that decides, counted in steps and never in time.
//!
//! Every look at what is stored is counted before it is paid for by those who wait behind it. The
//! count rests on how this node keeps its state (memtables, blocks), which is not the same on
//! another node: a decision is made once, by the node that leads, and the log has its outcome alone.

use std::cell::Cell;

use onelog_record::{Json, Refusal, TRANSACTION_BYTES_MAX, TooLarge};

use crate::newest::Now;
use crate::rejection::Rejection;
use crate::view::{Schema, SchemaFault};

/// The most steps that the decision of one transaction may take. One that uses every other limit
/// up, with 16 unique fields, stays below.
pub const DECISION_STEPS_MAX: usize = 1 << 20;

/// The most bytes of JSON that the guards, operations and unique fields of one transaction may have
/// read, so that no request holds the deciding thread for long. Values of which a tree is made count
/// `TREE_COST` times.
pub const JSON_BYTES_READ_MAX: usize = 4 * TRANSACTION_BYTES_MAX;

/// The most steps that the schemas of its tables may take to check the documents of one
/// transaction: about one for each field. The largest transaction of numbers in lists stays below.
pub const SCHEMA_STEPS_MAX: usize = 1 << 23;

/// A search costs about as much as so many versions that are walked over.
const SEARCH_STEPS: usize = 4;
/// So many bytes are copied in about the time of one step.
const BYTES_PER_STEP: usize = 256;

/// So many bytes are passed over in the time that making a tree of one of them and comparing it takes.
const TREE_COST: usize = 8;

/// What one decision has cost so far.
#[derive(Debug, Default)]
pub struct Work {
    steps: Cell<usize>,
    json_bytes: Cell<usize>,
    schema_steps: Cell<usize>,
}

impl Work {
    /// The steps that were counted.
    pub fn steps(&self) -> usize {
        self.steps.get()
    }

    /// The steps that are left.
    pub fn left(&self) -> usize {
        DECISION_STEPS_MAX.saturating_sub(self.steps.get())
    }

    /// Counts a search for one key, or one place.
    pub fn search(&self, now: &Now<'_>) -> Result<(), Rejection> {
        self.count(now, SEARCH_STEPS)
    }

    /// Counts bytes that were copied or written.
    pub fn copy(&self, now: &Now<'_>, bytes: usize) -> Result<(), Rejection> {
        self.count(now, bytes / BYTES_PER_STEP)
    }

    pub fn count(&self, now: &Now<'_>, steps: usize) -> Result<(), Rejection> {
        let spent = self.steps.get().saturating_add(steps);
        self.steps.set(spent);
        if spent <= DECISION_STEPS_MAX {
            return Ok(());
        }
        Err(Rejection::after(
            too_large(
                "the work of deciding the transaction (fewer and narrower reads, smaller values under its guards, or several transactions take less)",
                "DECISION_STEPS_MAX",
                spent,
                DECISION_STEPS_MAX,
                "steps",
            ),
            now.everything(),
        ))
    }

    /// Checks a value against a schema, with the steps that are left for that.
    pub fn check_schema(
        &self,
        now: &Now<'_>,
        schema: &dyn Schema,
        value: &Json<'_>,
    ) -> Result<Result<(), String>, Rejection> {
        let mut left = SCHEMA_STEPS_MAX.saturating_sub(self.schema_steps.get());
        let checked = schema.check(value, &mut left);
        self.schema_steps.set(SCHEMA_STEPS_MAX - left);
        match checked {
            Ok(()) => Ok(Ok(())),
            Err(SchemaFault::Breaks(text)) => Ok(Err(text)),
            Err(SchemaFault::OutOfSteps) => Err(out_of_schema_steps(now)),
        }
    }

    /// Counts the steps of a schema that looked at a value before.
    pub fn schema(&self, now: &Now<'_>, steps: usize) -> Result<(), Rejection> {
        let spent = self.schema_steps.get().saturating_add(steps);
        self.schema_steps.set(spent.min(SCHEMA_STEPS_MAX));
        match spent <= SCHEMA_STEPS_MAX {
            true => Ok(()),
            false => Err(out_of_schema_steps(now)),
        }
    }

    /// Counts a value that was found in a document and is about to be compared.
    pub fn value(&self, now: &Now<'_>, text: &str) -> Result<(), Rejection> {
        match Json::kind_of(text) {
            "an array" | "an object" => self.parse(now, text.len().saturating_mul(TREE_COST)),
            "a string" if !text.contains('\\') => self.copy(now, text.len()),
            _ if text.len() < BYTES_PER_STEP => Ok(()),
            _ => self.parse(now, text.len()),
        }
    }

    /// Counts bytes of JSON that are about to be read.
    pub fn parse(&self, now: &Now<'_>, bytes: usize) -> Result<(), Rejection> {
        let spent = self.json_bytes.get().saturating_add(bytes);
        self.json_bytes.set(spent);
        if spent <= JSON_BYTES_READ_MAX {
            return Ok(());
        }
        Err(Rejection::after(
            too_large(
                "the JSON that the guards and writes of the transaction read",
                "JSON_BYTES_READ_MAX",
                spent,
                JSON_BYTES_READ_MAX,
                "bytes",
            ),
            now.everything(),
        ))
    }
}

fn out_of_schema_steps(now: &Now<'_>) -> Rejection {
    Rejection::after(
        too_large(
            "the work of checking the values of the transaction against the schemas of their tables",
            "SCHEMA_STEPS_MAX",
            SCHEMA_STEPS_MAX.saturating_add(1),
            SCHEMA_STEPS_MAX,
            "steps or more",
        ),
        now.everything(),
    )
}

fn too_large(
    what: &str,
    limit: &'static str,
    is: usize,
    max: usize,
    unit: &'static str,
) -> Refusal {
    Refusal::TooLarge(TooLarge {
        what: what.into(),
        limit: limit.into(),
        is,
        max,
        unit: unit.into(),
    })
}

//! Programs in jq that filter and transform records on their way into a store.
//!
//! A program is pure: its result depends on the record alone (value, `$key`, `$version`), so that
//! `verify` and `rebuild` compute the same rows again. It is bounded: every run ends within fixed
//! limits of steps, memory, stack and size, whatever the program and the record are; see
//! `meter`. Numbers that a program leaves alone pass unchanged, however long they are.
//!
//! Programs may call the functions in [`FUNCTIONS`] and nothing else. Differences from jq 1.7:
//! regular expressions, paths as values, modules and definitions that call themselves are
//! refused; integers of any length calculate exactly; `limit`, updates and `reduce` follow jaq
//! where it differs.
//!
//! A [`Program`] can be shared between threads and runs on the caller's, which must have about
//! a megabyte of stack to spare.

mod access;
mod arithmetic;
mod compile;
mod json;
mod library;
mod meter;
mod moment;
mod order;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jaq_core::{Ctx, Filter, Vars};
use jaq_json::Num;

use self::access::cut;
use self::arithmetic::Error;
pub use self::compile::PROGRAM_BYTES_MAX;
use self::json::{NotFinite, Unwritable};
pub use self::library::FUNCTIONS;
use self::library::{Kind, Terms};
use self::meter::Stopped;
pub use self::meter::{Limit, MEMORY_BYTES_MAX, STEPS_MAX, Used, used};
pub use self::moment::{
    date_of_days, day_text, days_of_date, moment_text, parse_day, parse_moment,
};
use self::value::Value;

/// The version of the language: raised whenever a program could make another result of the same
/// record than before, by a change here or an upgrade of jaq. Stores keep it in the fingerprint of
/// what their rows were made by, so that rows of two versions are never side by side.
pub const LANGUAGE_VERSION: u32 = 4;
/// How long the result of a transform may be: as long as a value in the log.
pub const RESULT_BYTES_MAX: usize = 1 << 20;

/// A program was refused, or failed on a record.
#[derive(Debug, thiserror::Error)]
pub enum JqError {
    #[error("line {line}, column {column}: {what}")]
    Program {
        /// The line of the text, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
        what: String,
    },
    #[error("the program has {bytes} bytes; at most {max} are allowed")]
    ProgramTooLong { bytes: usize, max: usize },
    /// No thread could be made to read the program.
    #[error("starting a thread to read the program: {0}")]
    Thread(#[source] std::io::Error),
    /// The record's value cannot be read.
    #[error("the value is not JSON that a program can read: {0}")]
    Value(String),
    /// The program raised an error.
    #[error("the program failed: {0}")]
    Failed(String),
    /// The program wants too much.
    #[error("the program needs more than {0} for this record; simplify it")]
    Limit(Limit),
    /// A filter must say true or false once.
    #[error("a filter must give true or false once; this one gave {0}")]
    NotBoolean(String),
    /// A transform must give one row or none.
    #[error("a transform must give one value or none; this one gave {0} and more")]
    MoreThanOne(String),
    #[error("the result holds a number that is infinite or none at all, which JSON cannot hold")]
    NotFinite,
    #[error("the result is longer than {max} bytes")]
    ResultTooLong { max: usize },
    /// The interpreter has a defect.
    #[error("the interpreter failed, which is a defect in it: {0}")]
    Defect(String),
}

/// A compiled jq program; pure, deterministic, bounded.
pub struct Program {
    text: String,
    filter: Filter<Kind>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.text).finish()
    }
}

impl Program {
    /// Compiles a program.
    ///
    /// # Errors
    /// Names the place and the word, and what to write instead.
    pub fn compile(text: &str) -> Result<Self, JqError> {
        Ok(Self {
            filter: compile::compile(text)?,
            text: text.to_owned(),
        })
    }

    /// The program as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the filter takes the record: its one output, which must be true or false.
    ///
    /// `key` becomes `$key` (a string; base64 where it is not UTF-8), `version` the number
    /// `$version`, and `value` must be JSON.
    ///
    /// # Errors
    /// Any other output or number of outputs, an error of the program, and a passed limit.
    pub fn test(&self, key: &[u8], version: u64, value: &[u8]) -> Result<bool, JqError> {
        self.run(key, version, value, |outputs| {
            let answer = match outputs.next().transpose()? {
                Some(Value::Bool(answer)) => answer,
                Some(other) => return Err(JqError::NotBoolean(other.to_string())),
                None => return Err(JqError::NotBoolean("nothing".to_owned())),
            };
            match outputs.next().transpose()? {
                None => Ok(answer),
                Some(_) => Err(JqError::NotBoolean(format!("{answer} and more"))),
            }
        })
    }

    /// Writes the program's one output to `out` as compact JSON, instead of what `out` held;
    /// `false` and nothing where there is no output.
    ///
    /// # Errors
    /// More than one output, an error of the program, and a passed limit.
    pub fn transform(
        &self,
        key: &[u8],
        version: u64,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, JqError> {
        out.clear();
        self.run(key, version, value, |outputs| {
            let Some(output) = outputs.next().transpose()? else {
                return Ok(false);
            };
            if outputs.next().transpose()?.is_some() {
                return Err(JqError::MoreThanOne(output.to_string()));
            }
            json::write(&output, out, RESULT_BYTES_MAX, NotFinite::Refuse).map_err(|problem| {
                match problem {
                    Unwritable::NotFinite => JqError::NotFinite,
                    Unwritable::TooLong => JqError::ResultTooLong {
                        max: RESULT_BYTES_MAX,
                    },
                }
            })?;
            Ok(true)
        })
    }

    fn run<T>(
        &self,
        key: &[u8],
        version: u64,
        value: &[u8],
        take: impl FnOnce(&mut dyn Iterator<Item = Result<Value, JqError>>) -> Result<T, JqError>,
    ) -> Result<T, JqError> {
        let run = || {
            let value = json::read(value).map_err(|problem| JqError::Value(problem.to_string()))?;
            let variables = Vars::new([
                Value::text(key_text(key)),
                Value::Number(Num::from_integral(version)),
            ]);
            let context = Ctx::<Kind>::new(Terms(&self.filter.lut), variables);
            let mut outputs = self.filter.id.run((context, value)).map(|output| {
                output.map_err(|raised| match raised.get_err() {
                    Ok(error) => JqError::Failed(message(error)),
                    Err(_) => JqError::Defect("a jump left the program".to_owned()),
                })
            });
            take(&mut outputs)
        };
        meter::run(run).unwrap_or_else(|stopped| {
            Err(match stopped {
                Stopped::Limit(limit) => JqError::Limit(limit),
                Stopped::Panic(message) => JqError::Defect(cut(&message)),
            })
        })
    }
}

fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(_) => STANDARD.encode(key),
    }
}

fn message(error: Error) -> String {
    match error.into_val() {
        Value::Text(text) => cut(&text),
        other => other.to_string(),
    }
}

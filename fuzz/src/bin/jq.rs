//! Programs in jq: arbitrary text, and programs that are made of what the language has, through
//! reading, checking and running, on arbitrary documents.
//!
//! Whatever the program is, it is refused with a place, or runs within its limits, gives the same
//! again, and what it gives is JSON. The limits are checked against the meter's own counters and,
//! since a meter proves nothing about what it does not see, against what was really allocated.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{Result as Taken, Unstructured};
use libfuzzer_sys::fuzz_target;
use onelog_fuzz::programs;
use onelog_fuzz::seeds::hand_out;
use serde_json::value::RawValue;

use onelog_jq::{
    FUNCTIONS, JqError, MEMORY_BYTES_MAX, PROGRAM_BYTES_MAX, Program, RESULT_BYTES_MAX, STEPS_MAX,
    Used, used,
};

const KEY: &[u8] = b"order-1";
const VERSION: u64 = 7;

/// What a run allocates beside values: its iterators, the text of an error.
const BASE_BYTES: u64 = 1 << 20;
/// Growing containers hold old and new place at once, and up to twice what they need.
const BYTES_PER_COUNTED: u64 = 4;
/// Small things that are not counted as memory cost a step each.
const BYTES_PER_STEP: u64 = 16;
/// What a step may do, in allocations.
const ALLOCATIONS_PER_STEP: u64 = 16;
const BASE_ALLOCATIONS: u64 = 10_000;
/// Beyond this a second run takes too long to be worth it.
const STEPS_REPEATED_MAX: u64 = 1_000_000;

fuzz_target!(init: hand_out(make_seeds), |data: &[u8]| {
    let Some((way, bytes)) = data.split_first() else {
        return;
    };
    if way % 2 == 0 {
        let mut parts = bytes.splitn(2, |byte| *byte == 0);
        let program = parts.next().unwrap_or_default();
        if let Ok(text) = std::str::from_utf8(program) {
            check(text, parts.next().unwrap_or(b"null"));
        }
    } else {
        let _too_short = made(&mut Unstructured::new(bytes));
    }
});

fn made(input: &mut Unstructured<'_>) -> Taken<()> {
    let document = programs::document(input)?;
    let text = programs::program(input, FUNCTIONS)?;
    check(&text, document.to_string().as_bytes());
    Ok(())
}

fn check(text: &str, document: &[u8]) {
    let program = match Program::compile(text) {
        Ok(program) => program,
        Err(error) => return assert_refused(text, &error),
    };
    let run = Run::of(&program, document);
    run.assert_within_limits();
    if let Ok(Some(result)) = &run.outcome {
        assert_is_json(result);
    }
    if run.used.steps > STEPS_REPEATED_MAX {
        return;
    }
    assert_eq!(Run::of(&program, document), run, "the second run");
    let compiled_again = Program::compile(text).expect("it was accepted before");
    assert_eq!(Run::of(&compiled_again, document), run, "compiled again");
    let answer = program.test(KEY, VERSION, document).ok();
    let expected = match run.outcome.as_ref().map(Option::as_deref) {
        Ok(Some(b"true")) => Some(true),
        Ok(Some(b"false")) => Some(false),
        _ => None,
    };
    assert_eq!(answer, expected, "as a filter");
}

fn assert_refused(text: &str, error: &JqError) {
    match error {
        JqError::Program { line, column, what } => {
            let line = text
                .split('\n')
                .nth(line.checked_sub(1).expect("lines count from 1"))
                .expect("the line is in the text");
            assert!((1..=line.chars().count() + 1).contains(column), "{error}");
            assert!(!what.is_empty());
        }
        JqError::ProgramTooLong { .. } => assert!(text.len() > PROGRAM_BYTES_MAX),
        other => panic!("{other}"),
    }
}

fn assert_is_json(result: &[u8]) {
    static IDENTITY: OnceLock<Program> = OnceLock::new();
    assert!(result.len() <= RESULT_BYTES_MAX);
    serde_json::from_slice::<&RawValue>(result).expect("the result is JSON");
    let identity = IDENTITY.get_or_init(|| Program::compile(".").expect("the identity"));
    let again = Run::of(identity, result);
    assert_eq!(
        again.outcome.expect("it can be read").as_deref(),
        Some(result)
    );
}

/// A run and what it took.
#[derive(Debug)]
struct Run {
    outcome: Result<Option<Vec<u8>>, String>,
    used: Used,
    allocations: u64,
    bytes: u64,
}

/// What was allocated may differ: buffers are kept.
impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        (&self.outcome, self.used) == (&other.outcome, other.used)
    }
}

impl Run {
    fn of(program: &Program, document: &[u8]) -> Self {
        let mut out = Vec::new();
        let mut found = Ok(false);
        let info = allocation_counter::measure(|| {
            found = program.transform(KEY, VERSION, document, &mut out);
        });
        if let Err(error @ JqError::Defect(_)) = &found {
            panic!("{error}");
        }
        Self {
            outcome: found
                .map(|found| found.then_some(out))
                .map_err(|error| error.to_string()),
            used: used(),
            allocations: info.count_total,
            bytes: info.bytes_max,
        }
    }

    fn assert_within_limits(&self) {
        let Used {
            steps,
            memory_bytes,
        } = self.used;
        assert!(steps <= STEPS_MAX && memory_bytes <= MEMORY_BYTES_MAX);
        let bytes_max = BASE_BYTES + BYTES_PER_COUNTED * memory_bytes + BYTES_PER_STEP * steps;
        assert!(
            self.bytes <= bytes_max,
            "more than {bytes_max} bytes: {self}"
        );
        let allocations_max = BASE_ALLOCATIONS + ALLOCATIONS_PER_STEP * steps;
        assert!(
            self.allocations <= allocations_max,
            "more than {allocations_max} allocations: {self}"
        );
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            used,
            allocations,
            bytes,
            ..
        } = self;
        write!(
            f,
            "{allocations} allocations, {bytes} bytes, counted {used:?}"
        )
    }
}

/// The programs that show the language, those of the docs, and some bytes of which programs are
/// made.
fn make_seeds() -> Vec<Vec<u8>> {
    const PROGRAMS: &str = include_str!("../../../crates/jq/programs.tsv");
    const DOCS: &str = include_str!("../../../docs/sinks/programs.md");
    let lines = PROGRAMS.lines().filter(|line| !line.starts_with('#'));
    let mut seeds: Vec<Vec<u8>> = lines
        .filter_map(|line| {
            let mut parts = line.split('\t');
            Some(seed(parts.next()?, parts.next()?))
        })
        .collect();
    seeds.extend(literals(DOCS).iter().map(|program| seed(program, "{}")));
    // What a long number costs is counted wherever it is used.
    let digits = "9".repeat(6000);
    for text in ["-.", ". + 1", "tostring", "[., 1] | sort"] {
        seeds.push(seed(
            &format!("[range(1000) as $i | {text}] | length"),
            &digits,
        ));
    }
    // Of many loops that keep an iterator of each round, the one that was measured to keep most.
    seeds.push(seed(
        "[range(300000)] | reduce (.,.,.,.,.,.,.,.|.[]) as $i (false; ..)",
        "null",
    ));
    // Numbers of a program that JSON would not have.
    seeds.push(seed(". + 01.2", "null"));
    for step in [1u8, 7, 29, 113] {
        let bytes = (0..600u32).map(|n| (n * n) as u8 ^ step.wrapping_mul(n as u8));
        seeds.push(std::iter::once(1).chain(bytes).collect());
    }
    seeds
}

fn seed(program: &str, document: &str) -> Vec<u8> {
    format!("\0{program}\0{document}").into_bytes()
}

/// What is in quotes in a text; an escaped character is itself.
fn literals(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut characters = text.chars();
    while characters.any(|character| character == '"') {
        let mut literal = String::new();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => literal.extend(characters.next()),
                plain => literal.push(plain),
            }
        }
        found.push(literal);
    }
    found
}

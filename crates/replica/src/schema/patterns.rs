//! What the patterns of a schema cost: to be compiled, and to be matched with a text.
//!
//! A pattern without look-around and references is matched in one pass by an automaton whose states
//! are made as they are met. One with few states costs a look at each byte. One that may have very
//! many is matched state by state, each byte with all of those that it may be in: that is what it is
//! counted as unless all its states were found in few steps.

use std::collections::{HashMap, HashSet};

use jsonschema_regex::to_rust_regex;
use regex_automata::Input;
use regex_automata::hybrid::dfa::DFA;
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use serde_json::{Map, Value};

use super::steps::DATA;

/// The most bytes that the patterns of one schema may take together, compiled.
pub(super) const PATTERN_BYTES_MAX: usize = 4 << 20;
/// The most steps back that one match of a pattern with look-around or references may take. Other
/// patterns never go back.
pub(super) const BACKTRACK_MAX: usize = 10_000;
/// What each match costs besides the bytes of its text.
const MATCH_STEPS: usize = 3;
/// What a match that may go back costs at least, and for each byte of its text at most.
const BACKTRACKING_STEPS: usize = 500;
const BACKTRACKING_STEPS_PER_BYTE_MAX: usize = 200;
/// So many bytes are matched in the time of one step.
const BYTES_PER_STEP: usize = 8;
/// A byte that is looked at in so many states costs one step.
const STATES_PER_STEP: usize = 2;
/// The most that is tried to find all states of the patterns of one schema, and of one pattern.
const TRANSITIONS_MAX: usize = 1 << 18;
const PATTERN_TRANSITIONS_MAX: usize = 1 << 16;
/// The most bytes that these states take: half of what the library keeps of them.
const STATES_BYTES_MAX: usize = 1 << 20;
/// About so many bytes of a pattern that may go back are compiled for each character it asks for,
/// and so many characters are the ones of a class of Unicode.
const ATOM_BYTES: usize = 64;
const UNICODE_CLASS_ATOMS: usize = 64;

/// What matching a text, or the name of a field, costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Matching {
    /// Steps for each text.
    each: usize,
    /// Steps for each [`BYTES_PER_STEP`] bytes of it.
    bytes: usize,
    /// How many of the patterns may go back.
    backtracking: usize,
}

impl Matching {
    pub(super) const fn to_numbers(self) -> [usize; 3] {
        [self.each, self.bytes, self.backtracking]
    }

    pub(super) const fn from_numbers([each, bytes, backtracking]: [usize; 3]) -> Self {
        Self {
            each,
            bytes,
            backtracking,
        }
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            each: self.each.saturating_add(other.each),
            bytes: self.bytes.saturating_add(other.bytes),
            backtracking: self.backtracking.saturating_add(other.backtracking),
        }
    }

    pub(super) const fn is_nothing(self) -> bool {
        self.each == 0
    }

    /// The steps for a text of this length.
    pub(super) fn steps(self, text_bytes: usize) -> usize {
        // Each way back may lead over the whole text again.
        let per_byte = text_bytes.min(BACKTRACKING_STEPS_PER_BYTE_MAX);
        let back = BACKTRACKING_STEPS + text_bytes.saturating_mul(per_byte);
        self.each
            .saturating_add(self.bytes.saturating_mul(text_bytes) / BYTES_PER_STEP)
            .saturating_add(self.backtracking.saturating_mul(back))
    }
}

/// The patterns of one schema.
#[derive(Debug)]
pub(super) struct Patterns {
    known: HashMap<String, Matching>,
    /// How many there are, equal ones counted each.
    pub(super) count: usize,
    /// The bytes that they take, compiled; where that is more than the limit, at least so many.
    pub(super) bytes: usize,
    transitions: usize,
}

impl Patterns {
    pub(super) fn of(schema: &Value) -> Self {
        let mut patterns = Self {
            known: HashMap::new(),
            count: 0,
            bytes: 0,
            transitions: TRANSITIONS_MAX,
        };
        patterns.look_through(schema);
        patterns
    }

    /// What the `pattern` of a subschema costs for a text.
    pub(super) fn text(&self, schema: &Map<String, Value>) -> Matching {
        let pattern = schema.get("pattern").and_then(Value::as_str);
        pattern.map_or(Matching::default(), |pattern| self.matching(pattern))
    }

    /// What its `patternProperties` cost for the name of a field.
    pub(super) fn names(&self, schema: &Map<String, Value>) -> Matching {
        let map = schema.get("patternProperties").and_then(Value::as_object);
        let patterns = map.into_iter().flat_map(Map::keys);
        patterns.fold(Matching::default(), |all, one| all.and(self.matching(one)))
    }

    fn matching(&self, pattern: &str) -> Matching {
        self.known.get(pattern).copied().unwrap_or_default()
    }

    fn look_through(&mut self, schema: &Value) {
        match schema {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (name.as_str(), value) {
                        ("pattern", Value::String(pattern)) => self.add(pattern),
                        ("patternProperties", Value::Object(map)) => {
                            map.keys().for_each(|pattern| self.add(pattern));
                        }
                        _ => {}
                    }
                    if !DATA.contains(&name.as_str()) {
                        self.look_through(value);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.look_through(item)),
            _ => {}
        }
    }

    fn add(&mut self, pattern: &str) {
        self.count += 1;
        if !self.known.contains_key(pattern) {
            let matching = self.measure(pattern);
            self.known.insert(pattern.to_owned(), matching);
        }
    }

    fn measure(&mut self, pattern: &str) -> Matching {
        let one = |bytes, backtracking| Matching {
            each: MATCH_STEPS,
            bytes,
            backtracking,
        };
        // What cannot be translated is refused by the library.
        let Ok(translated) = to_rust_regex(pattern) else {
            return Matching::default();
        };
        let left = PATTERN_BYTES_MAX.saturating_sub(self.bytes);
        match automaton(&translated, left) {
            Ok(nfa) => {
                self.bytes = self.bytes.saturating_add(nfa.memory_usage());
                let states = nfa.states().len();
                match self.has_few_states(nfa) {
                    true => one(1, 0),
                    false => one((states / STATES_PER_STEP + 1) * BYTES_PER_STEP, 0),
                }
            }
            Err(error) if error.size_limit().is_some() => {
                self.bytes = PATTERN_BYTES_MAX + 1;
                one(PATTERN_BYTES_MAX / ATOM_BYTES, 0)
            }
            Err(_) => {
                let bytes = atoms(&translated).saturating_mul(ATOM_BYTES);
                self.bytes = self.bytes.saturating_add(bytes);
                one(1, 1)
            }
        }
    }

    /// Whether all states that a pattern may be in were found.
    fn has_few_states(&mut self, nfa: NFA) -> bool {
        let mut left = self.transitions.min(PATTERN_TRANSITIONS_MAX);
        let given = left;
        let found = finds_all_states(nfa, &mut left);
        self.transitions -= given - left;
        found.is_some()
    }
}

fn automaton(pattern: &str, bytes_max: usize) -> Result<NFA, thompson::BuildError> {
    let config = NFA::config()
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(bytes_max));
    NFA::compiler().configure(config).build(pattern)
}

/// `None` when they are too many, or a text may leave them.
fn finds_all_states(nfa: NFA, transitions: &mut usize) -> Option<()> {
    let config = DFA::config()
        .cache_capacity(STATES_BYTES_MAX)
        .skip_cache_capacity_check(true)
        .minimum_cache_clear_count(Some(0));
    let dfa = DFA::builder().configure(config).build_from_nfa(nfa).ok()?;
    let mut cache = dfa.create_cache();
    let start = dfa.start_state_forward(&mut cache, &Input::new("")).ok()?;
    let (mut seen, mut open) = (HashSet::from([start]), vec![start]);
    while let Some(state) = open.pop() {
        for class in dfa.byte_classes().representatives(..) {
            *transitions = transitions.checked_sub(1)?;
            let next = match class.as_u8() {
                Some(byte) => dfa.next_state(&mut cache, state, byte).ok()?,
                None => dfa.next_eoi_state(&mut cache, state).ok()?,
            };
            if next.is_quit() {
                return None;
            }
            if !next.is_dead() && seen.insert(next) {
                open.push(next);
            }
        }
    }
    Some(())
}

/// How many characters a pattern asks for, those that are repeated counted each. It is for patterns
/// that no automaton can match.
fn atoms(pattern: &str) -> usize {
    let bytes = pattern.as_bytes();
    let mut groups: Vec<usize> = Vec::new();
    let (mut sum, mut last, mut at) = (0_usize, 0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'(' => {
                groups.push(sum.saturating_add(last));
                (sum, last) = (0, 0);
            }
            b')' => {
                last = sum.saturating_add(last).saturating_add(1);
                sum = groups.pop().unwrap_or_default();
            }
            b'{' => {
                let end = bytes[at..].iter().position(|byte| *byte == b'}');
                let inner = end.map_or("", |end| pattern.get(at..at + end).unwrap_or_default());
                let most = inner.split(',').filter_map(|number| number.parse().ok());
                last = last.saturating_mul(most.max().unwrap_or(1).max(1));
                at += end.filter(|_| !inner.is_empty()).map_or(0, |end| end + 1);
            }
            b'\\' => {
                sum = sum.saturating_add(last);
                last = match bytes.get(at) {
                    Some(b'p' | b'P') => UNICODE_CLASS_ATOMS,
                    _ => 1,
                };
                at += 1;
            }
            _ => {
                sum = sum.saturating_add(last);
                last = 1;
            }
        }
    }
    groups.iter().fold(sum.saturating_add(last), |all, group| {
        all.saturating_add(*group)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(pattern: &str) -> Matching {
        let patterns = Patterns::of(&json!({"items": {"pattern": pattern}}));
        assert_eq!(patterns.count, 1);
        patterns.matching(pattern)
    }

    #[test]
    fn a_pattern_with_few_states_costs_a_look_at_each_byte() {
        for pattern in [
            "^(?:[a-y]|[b-z])*a?$",
            "^[^@]{1,64}@[a-z0-9.-]{1,255}$",
            r"^[\w.+-]+@[\w-]+\.[A-Za-z]{2,}$",
            "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
            "[a-z]{1,100}[0-9]",
            r"^\S*$",
            "^[A-Za-z ,.]{0,1000}$",
        ] {
            let matching = of(pattern);
            assert_eq!((matching.bytes, matching.backtracking), (1, 0), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_with_very_many_states_costs_them_for_each_byte() {
        for pattern in ["[ab]*a[ab]{40}c", "(?:a|b)*a(?:a|b){30}$"] {
            let matching = of(pattern);
            assert!(matching.steps(1_000) > 10_000, "{pattern}: {matching:?}");
        }
    }

    #[test]
    fn a_match_that_may_go_back_costs_more_the_longer_its_text_is() {
        for pattern in ["^(?!.*<script>)", r"^(?:(a)\1?)+$"] {
            let matching = of(pattern);
            assert_eq!(matching.backtracking, 1, "{pattern}");
            assert!(matching.steps(30) < 2_000, "{}", matching.steps(30));
            assert!(matching.steps(100_000) > 1 << 23);
        }
    }

    #[test]
    fn what_is_repeated_is_counted_each_time() {
        for (pattern, expected) in [
            ("abc", 3),
            ("(?=a{3,5})b", 5 + 3 + 1),
            ("(?!(?:ab){10}){20}", (2 + 1 + 2) * 10),
            (r"(?=\p{L}{2})", 2 * UNICODE_CLASS_ATOMS),
            ("x{2", 2),
        ] {
            let found = atoms(pattern);
            assert!(found >= expected, "{pattern}: {found}");
        }
        assert!(atoms("(?=(?:a{1000}){1000}){1000}") > 1_000_000_000);
    }
}

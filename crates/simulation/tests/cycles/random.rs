//! Random histories of a serial execution, with random overlaps: accepted. Random changes of what was
//! read: found exactly when no order of the transactions explains the reads.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use onelog_simulation::cycles::{Key, Operation, Outcome, Transaction, Value, find};
use onelog_simulation::{Moment, is_full};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::history::{append, assert_good, print, read, replace};

type Lists = BTreeMap<Key, Vec<Value>>;

/// How a history is made.
#[derive(Clone, Copy)]
struct Shape {
    transactions: usize,
    keys: u32,
    clients: u32,
    /// How far a transaction's begin and end lie from the moment of its effect.
    spread: u64,
}

const STEP: u64 = 10;

/// Runs random transactions one after the other, and lets the clients see them overlap.
fn serial(random: &mut StdRng, shape: Shape) -> Vec<Transaction> {
    let mut states: Vec<Lists> = vec![Lists::new()];
    let mut history: Vec<Transaction> = Vec::new();
    for number in 0..shape.transactions {
        let moment = (number as u64 + 1) * STEP + shape.spread;
        let is_old = random.random_ratio(1, 12);
        let outcome = match random.random_range(0..10) {
            _ if is_old => Outcome::Committed,
            0 => Outcome::Refused,
            1 => Outcome::Unknown,
            _ => Outcome::Committed,
        };
        let from = match is_old {
            true => random.random_range(0..states.len()),
            false => states.len() - 1,
        };
        let mut state = states[from].clone();
        let operations = operations(random, (number, is_old), &mut state, shape.keys);
        let has_happened = match outcome {
            Outcome::Committed => !is_old,
            Outcome::Refused => false,
            Outcome::Unknown => random.random_ratio(1, 2),
        };
        if has_happened {
            states.push(state);
            let kept = if shape.transactions > 100 {
                2
            } else {
                usize::MAX
            };
            if states.len() > kept {
                states.remove(0);
            }
        }
        let end = moment + random.random_range(0..=shape.spread);
        history.push(Transaction {
            name: format!("T{number}"),
            note: String::new(),
            client: random.random_range(0..shape.clients),
            begin: Moment(moment - random.random_range(0..=shape.spread)),
            end: (outcome != Outcome::Unknown).then_some(Moment(end)),
            is_timed: !is_old,
            outcome,
            operations,
        });
    }
    history
}

fn operations(
    random: &mut StdRng,
    (number, is_old): (usize, bool),
    state: &mut Lists,
    keys: u32,
) -> Vec<Operation> {
    let mut done = Vec::new();
    for n in 0..random.random_range(1..=3) {
        let key = format!("k{}", random.random_range(0..keys));
        let value = (number * 10 + n) as u64;
        let list = state.entry(Key::from(key.as_str())).or_default();
        let shown = |list: &[Value]| {
            let plain: Vec<u64> = list.iter().map(|value| value.0).collect();
            read(&key, &plain)
        };
        if is_old || random.random_ratio(1, 2) {
            done.push(shown(list));
        } else if list.len() > 6 || random.random_ratio(1, 8) {
            done.push(shown(list));
            done.push(replace(&key, value));
            *list = vec![Value(value)];
        } else {
            done.push(append(&key, value));
            list.push(Value(value));
        }
    }
    done
}

/// Changes one read of a list.
fn lie(random: &mut StdRng, history: &mut [Transaction]) {
    let values: Vec<Value> = history
        .iter()
        .flat_map(|transaction| &transaction.operations)
        .filter_map(|operation| match operation {
            Operation::Append { value, .. } | Operation::Replace { value, .. } => Some(*value),
            Operation::Read { .. } => None,
        })
        .collect();
    let mut reads: Vec<&mut Vec<Value>> = history
        .iter_mut()
        .flat_map(|transaction| &mut transaction.operations)
        .filter_map(|operation| match operation {
            Operation::Read { list, .. } => Some(list),
            _ => None,
        })
        .collect();
    if reads.is_empty() {
        return;
    }
    let place = random.random_range(0..reads.len());
    let other = reads[random.random_range(0..reads.len())].clone();
    let list = &mut *reads[place];
    let at = random.random_range(0..=list.len());
    match random.random_range(0..6) {
        0 => list.truncate(at),
        1 if at < list.len() => drop(list.remove(at)),
        2 if !values.is_empty() => list.insert(at, values[random.random_range(0..values.len())]),
        3 if at + 1 < list.len() => list.swap(at, at + 1),
        4 => *list = other,
        _ => drop(list.pop()),
    }
}

/// Whether some order of the transactions explains everything, by trying them all.
fn is_explained(history: &[Transaction]) -> bool {
    let candidates: Vec<usize> = (0..history.len())
        .filter(|at| history[*at].outcome != Outcome::Refused)
        .collect();
    let committed = candidates
        .iter()
        .filter(|at| history[**at].outcome == Outcome::Committed);
    let mut search = Orders {
        history,
        left: committed.copied().collect(),
        open: candidates
            .iter()
            .filter(|at| history[**at].outcome == Outcome::Unknown)
            .copied()
            .collect(),
        refuted: HashSet::new(),
        taken: Vec::new(),
    };
    search.go_on(&Lists::new())
}

struct Orders<'h> {
    history: &'h [Transaction],
    left: Vec<usize>,
    open: Vec<usize>,
    /// Sets of transactions with the state behind them that lead nowhere.
    refuted: HashSet<(Vec<usize>, Lists)>,
    taken: Vec<usize>,
}

impl Orders<'_> {
    fn go_on(&mut self, state: &Lists) -> bool {
        if self.left.is_empty() {
            return true;
        }
        let mut set = self.taken.clone();
        set.sort_unstable();
        let lists = state.iter().filter(|(_, list)| !list.is_empty());
        let lists: Lists = lists.map(|(k, l)| (k.clone(), l.clone())).collect();
        let here = (set, lists);
        if self.refuted.contains(&here) {
            return false;
        }
        for at in self
            .left
            .iter()
            .chain(&self.open)
            .copied()
            .collect::<Vec<_>>()
        {
            if !self.may_be_next(at) {
                continue;
            }
            let Some(next) = replay(&self.history[at], state) else {
                continue;
            };
            let before = (self.left.clone(), self.open.clone());
            self.left.retain(|left| *left != at);
            self.open.retain(|open| *open != at);
            self.taken.push(at);
            if self.go_on(&next) {
                return true;
            }
            self.taken.pop();
            (self.left, self.open) = before;
        }
        self.refuted.insert(here);
        false
    }

    /// Nothing that is left ended before it began.
    fn may_be_next(&self, at: usize) -> bool {
        let next = &self.history[at];
        !next.is_timed
            || self.left.iter().all(|left| {
                let left = &self.history[*left];
                !left.is_timed || left.end.is_none_or(|end| end >= next.begin)
            })
    }
}

fn replay(transaction: &Transaction, state: &Lists) -> Option<Lists> {
    let mut state = state.clone();
    for operation in &transaction.operations {
        match operation {
            Operation::Append { key, value } => {
                state.entry(key.clone()).or_default().push(*value);
            }
            Operation::Replace { key, value } => {
                state.insert(key.clone(), vec![*value]);
            }
            Operation::Read { key, list } => {
                let found = state.get(key).map_or(&[][..], Vec::as_slice);
                if found != list.as_slice() {
                    return None;
                }
            }
        }
    }
    Some(state)
}

const SMALL: Shape = Shape {
    transactions: 7,
    keys: 2,
    clients: 3,
    spread: 25,
};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if is_full() { 200_000 } else { 4_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn serial_histories_are_accepted(seed: u64, spread in 0_u64..80) {
        let shape = Shape { transactions: 60, keys: 4, clients: 5, spread };
        assert_good(&serial(&mut StdRng::seed_from_u64(seed), shape));
    }

    #[test]
    fn a_changed_read_is_found_exactly_when_nothing_explains_it(seed: u64, lies in 1_usize..3) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut history = serial(&mut random, SMALL);
        prop_assert!(is_explained(&history), "the search rejects the truth: {history:#?}");
        for _ in 0..lies {
            lie(&mut random, &mut history);
        }
        let found = find(&history).unwrap();
        let lines: Vec<String> = history.iter().map(ToString::to_string).collect();
        prop_assert_eq!(
            found.is_empty(), is_explained(&history), "{}\n{}", lines.join("\n"), print(&found)
        );
    }
}

#[test]
fn a_long_history_is_checked_in_one_go() {
    let shape = Shape {
        transactions: if is_full() { 1_000_000 } else { 100_000 },
        keys: 50,
        clients: 20,
        spread: 100,
    };
    let history = serial(&mut StdRng::seed_from_u64(1), shape);
    let begin = Instant::now();
    assert_good(&history);
    println!("{} transactions in {:?}", history.len(), begin.elapsed());
}

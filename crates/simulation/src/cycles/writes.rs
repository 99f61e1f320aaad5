//! Who wrote which value, and which transactions committed: those that were answered so, and those
//! without an answer whose values were read by one that committed.

use std::collections::HashMap;

use super::transaction::{
    HistoryError, Key, Operation, Outcome, TRANSACTIONS_MAX, Transaction, Value,
};

/// A key by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct KeyId(pub u32);

/// Where a value was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub transaction: u32,
    pub replaces: bool,
    /// What the same transaction wrote into the same list before.
    pub previous: Option<Value>,
    /// Whether the transaction wrote the same list again later.
    pub is_intermediate: bool,
}

/// The history with its writes found.
#[derive(Debug)]
pub(super) struct Writes<'h> {
    pub transactions: &'h [Transaction],
    pub keys: Vec<&'h Key>,
    numbers: HashMap<&'h Key, KeyId>,
    written: HashMap<(KeyId, Value), Written>,
    /// Which transactions have effects.
    pub committed: Vec<bool>,
}

impl<'h> Writes<'h> {
    pub(super) fn of(transactions: &'h [Transaction]) -> Result<Self, HistoryError> {
        if transactions.len() > TRANSACTIONS_MAX {
            let count = transactions.len();
            return Err(HistoryError::TooManyTransactions { count });
        }
        let mut writes = Self {
            transactions,
            keys: Vec::new(),
            numbers: HashMap::new(),
            written: HashMap::new(),
            committed: Vec::new(),
        };
        for (number, transaction) in (0..).zip(transactions) {
            check_moments(transaction)?;
            writes.add(number, transaction)?;
        }
        writes.find_committed();
        Ok(writes)
    }

    fn add(&mut self, number: u32, transaction: &'h Transaction) -> Result<(), HistoryError> {
        let mut last: HashMap<KeyId, Value> = HashMap::new();
        for operation in &transaction.operations {
            let key = self.number_of(operation.key());
            let (value, replaces) = match operation {
                Operation::Append { value, .. } => (*value, false),
                Operation::Replace { value, .. } => (*value, true),
                Operation::Read { .. } => continue,
            };
            let written = Written {
                transaction: number,
                replaces,
                previous: last.insert(key, value),
                is_intermediate: false,
            };
            if let Some(before) = self.written.insert((key, value), written) {
                return Err(HistoryError::WrittenTwice {
                    key: operation.key().clone(),
                    value,
                    first: self.name(before.transaction).to_owned(),
                    second: transaction.name.clone(),
                });
            }
            if let Some(before) = written.previous
                && let Some(before) = self.written.get_mut(&(key, before))
            {
                before.is_intermediate = true;
            }
        }
        Ok(())
    }

    fn number_of(&mut self, key: &'h Key) -> KeyId {
        let next = KeyId(self.keys.len() as u32);
        let known = *self.numbers.entry(key).or_insert(next);
        if known == next {
            self.keys.push(key);
        }
        known
    }

    fn find_committed(&mut self) {
        let is_committed = |t: &Transaction| t.outcome == Outcome::Committed;
        self.committed = self.transactions.iter().map(is_committed).collect();
        let mut to_follow: Vec<u32> = (0..self.transactions.len() as u32)
            .filter(|at| self.committed[*at as usize])
            .collect();
        while let Some(reader) = to_follow.pop() {
            for operation in &self.transactions[reader as usize].operations {
                let Operation::Read { key, list } = operation else {
                    continue;
                };
                for value in list {
                    let Some(written) = self.written(self.key(key), *value) else {
                        continue;
                    };
                    let writer = written.transaction as usize;
                    let outcome = self.transactions[writer].outcome;
                    if outcome == Outcome::Unknown && !self.committed[writer] {
                        self.committed[writer] = true;
                        to_follow.push(written.transaction);
                    }
                }
            }
        }
    }

    pub(super) fn key(&self, key: &Key) -> KeyId {
        self.numbers[key]
    }

    pub(super) fn key_name(&self, key: KeyId) -> &'h Key {
        self.keys[key.0 as usize]
    }

    pub(super) fn name(&self, transaction: u32) -> &'h str {
        &self.transactions[transaction as usize].name
    }

    pub(super) fn written(&self, key: KeyId, value: Value) -> Option<Written> {
        self.written.get(&(key, value)).copied()
    }

    /// The transaction that wrote a value, when it committed.
    pub(super) fn writer(&self, key: KeyId, value: Value) -> Option<u32> {
        let writer = self.written(key, value)?.transaction;
        self.committed[writer as usize].then_some(writer)
    }

    pub(super) fn describe(&self, transaction: u32) -> String {
        self.transactions[transaction as usize].to_string()
    }
}

fn check_moments(transaction: &Transaction) -> Result<(), HistoryError> {
    let name = || transaction.name.clone();
    match transaction.end {
        Some(end) if end < transaction.begin => Err(HistoryError::EndBeforeBegin {
            transaction: name(),
        }),
        None if transaction.outcome == Outcome::Committed => {
            Err(HistoryError::AnsweredWithoutEnd {
                transaction: name(),
            })
        }
        _ => Ok(()),
    }
}

//! Sets the validator against the oracle: one seeded episode after another, in which entries are
//! sealed, applied, lost and replayed, floors rise and the node restarts.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use onelog_commit::{Decision, Prepared, Remembered, Validator, ValidatorOptions};
use onelog_record::{
    BodyWriter, CommitRequest, Committed, Offset, Op, OperationFault, Position, Refusal,
    TABLE_UNIQUE, Transactions, TxnId,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::generate;
use super::oracle::{Answer, Change, Expected, Oracle, Transaction};
use super::world::{AppliedState, Tables};

pub const TRANSACTIONS_PER_EPISODE: usize = 400;

/// How often each kind of answer was given.
pub type Counts = BTreeMap<&'static str, usize>;

#[derive(Debug)]
struct Entry {
    base: u64,
    body: Vec<u8>,
    end: u64,
}

struct Episode {
    rng: StdRng,
    oracle: Oracle,
    validator: Validator,
    options: ValidatorOptions,
    tables: Tables,
    floor: u64,
    keeps_deletes: bool,
    depth_max: usize,
    open: Entry,
    sealed: VecDeque<Entry>,
    sent: Vec<(CommitRequest, TxnId)>,
    ids: u128,
    counts: Counts,
}

/// Runs one episode. The error says what went wrong, and with which seed.
pub fn run_episode(seed: u64) -> Result<Counts, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let options = ValidatorOptions {
        window_writes_max: [1, 4, 16, 64, 10_000][rng.random_range(0..5)],
        ids_max: [1, 8, 50, 10_000][rng.random_range(0..4)],
    };
    let mut episode = Episode {
        oracle: Oracle::new(options.ids_max),
        validator: Validator::new(options, Position::ZERO, std::iter::empty()),
        options,
        tables: Tables::new(),
        floor: 0,
        keeps_deletes: rng.random(),
        depth_max: rng.random_range(0..9),
        open: Entry {
            base: 0,
            body: Vec::new(),
            end: 0,
        },
        sealed: VecDeque::new(),
        sent: Vec::new(),
        ids: 0,
        counts: Counts::new(),
        rng,
    };
    for step in 0..TRANSACTIONS_PER_EPISODE {
        episode
            .step()
            .map_err(|text| format!("seed {seed}, step {step}: {text}"))?;
    }
    Ok(episode.counts)
}

impl Episode {
    fn step(&mut self) -> Result<(), String> {
        self.submit()?;
        if self.depth_max == 0 || self.rng.random_ratio(1, 3) {
            self.seal();
        }
        while self.sealed.len() > self.depth_max
            || (!self.sealed.is_empty() && self.rng.random_ratio(1, 3))
        {
            self.apply();
        }
        if self.rng.random_ratio(1, 25) {
            self.floor = self.rng.random_range(self.floor..=self.oracle.applied);
        }
        match self.rng.random_range(0..200) {
            0..2 => self.change_term(),
            2 => self.restart(),
            _ => {}
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<(), String> {
        let (request, id) = self.next_request();
        let fingerprint = request.fingerprint();
        let expected = self
            .oracle
            .decide(&request, id, fingerprint, &self.tables, self.floor);
        let mut body = BodyWriter::default();
        let view = AppliedState {
            oracle: &self.oracle,
            floor: self.floor,
            keeps_deletes: self.keeps_deletes,
        };
        // Whether anything was found out before makes no difference.
        let prepared = match self.oracle.next % 2 {
            0 => Prepared::default(),
            _ => Prepared::of(&request, &self.tables),
        };
        let decision = self
            .validator
            .decide_prepared(
                &request,
                &prepared,
                id,
                fingerprint,
                Offset(self.oracle.next),
                &view,
                &self.tables,
                &mut body,
            )
            .map_err(|error| error.to_string())?;
        let body = body.finish();
        let at = (self.oracle.applied, self.oracle.next);
        self.judge(&request, (id, fingerprint), &expected, &decision, &body)
            .map_err(|text| {
                format!(
                    "{text}\nrequest {request:?}\nexpected {expected:?}\ndecided {decision:?}\napplied, next: {at:?}, floor {}",
                    self.floor
                )
            })?;
        self.sent.push((request, id));
        Ok(())
    }

    fn next_request(&mut self) -> (CommitRequest, TxnId) {
        let recent = self.sent.len().min(60);
        match self.rng.random_range(0..100) {
            // A retry, or another request under a used id.
            0..14 if recent > 0 => {
                let back = self.rng.random_range(1..=recent);
                let (request, id) = self.sent[self.sent.len() - back].clone();
                if self.rng.random_ratio(3, 4) {
                    return (request, id);
                }
                let other = generate::request(&mut self.rng, &self.oracle, self.floor, id);
                (other, id)
            }
            _ => {
                self.ids += 1;
                let id = TxnId(self.ids);
                let request = generate::request(&mut self.rng, &self.oracle, self.floor, id);
                (request, id)
            }
        }
    }

    fn judge(
        &mut self,
        request: &CommitRequest,
        (id, fingerprint): (TxnId, u64),
        expected: &Expected,
        decision: &Decision,
        body: &[u8],
    ) -> Result<(), String> {
        let next = self.oracle.next;
        let is_accepted = matches!(decision, Decision::Accepted(_));
        if body.is_empty() == is_accepted {
            return Err("exactly an accepted transaction leaves bytes in the body".into());
        }
        match (&expected.answer, decision) {
            (Answer::Accepted(changes), Decision::Accepted(committed)) => {
                let transaction = self.read_back(id, fingerprint, changes, *committed, body)?;
                self.oracle.accept(transaction);
                self.open.body.extend_from_slice(body);
                self.open.end = self.oracle.next;
                self.count("accepted");
                self.oracle.check_unique_rows()
            }
            (Answer::Validated, Decision::Validated(committed)) => {
                self.count("validated");
                same(
                    *committed,
                    Committed {
                        id,
                        position: Position(next),
                        first_offset: Offset(next),
                        records: 0,
                        repeated: false,
                    },
                )
            }
            (Answer::Repeated { first, end }, Decision::Repeated(committed)) => {
                self.count("repeated");
                same(
                    *committed,
                    Committed {
                        id,
                        position: Position(*end),
                        first_offset: Offset(*first),
                        records: (end - first) as u32,
                        repeated: true,
                    },
                )
            }
            (
                _,
                Decision::Refused {
                    refusal:
                        Refusal::SnapshotTooOld {
                            read_position,
                            floor,
                        },
                    after: Position::ZERO,
                },
            ) if expected.may_be_too_old => {
                self.count("too old");
                same(
                    (Some(*read_position), *floor),
                    (request.read_position, Position(self.floor)),
                )
            }
            (Answer::Refused(wanted, after_wanted), Decision::Refused { refusal, after }) => {
                let name = self.same_refusal(request, wanted, *after_wanted, refusal, after.0)?;
                self.count(name);
                Ok(())
            }
            _ => Err("another kind of answer".into()),
        }
    }

    fn same_refusal(
        &self,
        request: &CommitRequest,
        wanted: &Refusal,
        after_wanted: u64,
        refusal: &Refusal,
        after: u64,
    ) -> Result<&'static str, String> {
        use Refusal::{BadOperation, Conflict, Malformed};
        match (wanted, refusal) {
            (Malformed(_), Malformed(_)) => same(after, 0).map(|()| "malformed"),
            (
                BadOperation {
                    index: wanted,
                    fault: OperationFault::WrongTable(_),
                },
                BadOperation {
                    index,
                    fault: OperationFault::WrongTable(_),
                },
            ) => same((index, after), (wanted, 0)).map(|()| "wrong table"),
            // Any key of the range that was written since may be named, if all else fits it.
            (
                Conflict {
                    subject: onelog_record::Subject::RangeRead(n),
                    ..
                },
                Conflict { table, key, .. },
            ) => {
                let range = &request.range_reads[*n];
                if !self.oracle.keys_in(range).contains(&key.to_vec()) {
                    return Err("the key named lies outside the range".into());
                }
                let since = request.read_position.map_or(0, Position::get);
                let subject = onelog_record::Subject::RangeRead(*n);
                let named = self
                    .oracle
                    .unchanged(*table, key, since, subject)
                    .err()
                    .ok_or("the key named was not written since")?;
                same((refusal, after), (&named.0, named.1)).map(|()| "range conflict")
            }
            _ => same((refusal, after), (wanted, after_wanted)).map(|()| name_of(refusal)),
        }
    }

    /// The accepted transaction as it is in the body.
    fn read_back(
        &self,
        id: TxnId,
        fingerprint: u64,
        changes: &[Change],
        committed: Committed,
        body: &[u8],
    ) -> Result<Transaction, String> {
        let first = self.oracle.next;
        let body = Bytes::copy_from_slice(body);
        let mut read = Transactions::new(body, Offset(first));
        let found = read
            .next()
            .and_then(Result::ok)
            .ok_or("the body holds no transaction")?;
        same(read.count(), 0)?;
        same((found.id, found.fingerprint), (id, fingerprint))?;
        let all: Vec<Change> = found
            .records()
            .map(|record| {
                let record = record.unwrap();
                Change {
                    op: record.op,
                    table: record.table,
                    key: record.key.to_vec(),
                    value: record.value.map(|value| value.to_vec()),
                    headers: record.headers,
                }
            })
            .collect();
        let (own, unique) = all
            .split_at_checked(changes.len())
            .ok_or("too few records")?;
        same(own, changes)?;
        let rows_only = unique.iter().all(|change| change.table == TABLE_UNIQUE);
        let deletes_first = unique.is_sorted_by_key(|change| change.op != Op::Delete);
        same((rows_only, deletes_first), (true, true))?;
        let transaction = Transaction {
            id,
            fingerprint,
            first,
            changes: all,
        };
        same(
            committed,
            Committed {
                id,
                position: Position(transaction.end()),
                first_offset: Offset(first),
                records: transaction.changes.len() as u32,
                repeated: false,
            },
        )?;
        Ok(transaction)
    }

    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    fn seal(&mut self) {
        if self.open.body.is_empty() {
            return;
        }
        let next = Entry {
            base: self.open.end,
            body: Vec::new(),
            end: self.open.end,
        };
        self.sealed
            .push_back(std::mem::replace(&mut self.open, next));
    }

    fn apply(&mut self) {
        if let Some(entry) = self.sealed.pop_front() {
            self.oracle.applied = entry.end;
            self.validator.applied(Position(entry.end));
        }
    }

    /// Only the first so many sealed entries survive a loss of what is in flight.
    fn lose_some(&mut self) {
        let survivors = self.rng.random_range(0..=self.sealed.len());
        self.sealed.truncate(survivors);
        let end = self
            .sealed
            .back()
            .map_or(self.oracle.applied, |entry| entry.end);
        self.oracle.lose(end);
        self.open = Entry {
            base: end,
            body: Vec::new(),
            end,
        };
    }

    /// The validator learns of entries that survived; some are applied at once.
    fn replay(&mut self) {
        let mut applying = true;
        for entry in &self.sealed {
            self.validator
                .replay(&Bytes::from(entry.body.clone()), Offset(entry.base))
                .unwrap();
            applying &= self.rng.random_ratio(1, 2);
            if applying {
                self.oracle.applied = entry.end;
                self.validator.applied(Position(entry.end));
            }
        }
        let applied = self.oracle.applied;
        self.sealed.retain(|entry| entry.end > applied);
    }

    fn change_term(&mut self) {
        self.count("term changes");
        self.validator.reset(Position(self.oracle.applied));
        self.lose_some();
        self.replay();
    }

    fn restart(&mut self) {
        self.count("restarts");
        self.lose_some();
        let applied = self.oracle.applied;
        let known: Vec<Remembered> = self
            .oracle
            .log
            .iter()
            .filter(|transaction| transaction.end() <= applied)
            .map(|transaction| Remembered {
                id: transaction.id,
                fingerprint: transaction.fingerprint,
                position: Position(transaction.end()),
                records: transaction.changes.len() as u32,
            })
            .collect();
        let forgotten = known.len().saturating_sub(self.options.ids_max);
        self.oracle.remember_all_that_fit();
        let remembered = known.into_iter().skip(forgotten);
        self.validator = Validator::new(self.options, Position(applied), remembered);
        self.replay();
    }
}

fn same<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("found {found:?}\nwanted {wanted:?}"))
}

fn name_of(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Conflict { .. } => "point conflict",
        Refusal::SnapshotTooOld { .. } => "too old",
        Refusal::SnapshotInFuture { .. } => "future",
        Refusal::GuardFailed { .. } => "guard failed",
        Refusal::NotUnique { .. } => "not unique",
        Refusal::BadOperation { .. } => "bad operation",
        Refusal::IdMismatch { .. } => "id mismatch",
        Refusal::IdExpired { .. } => "id expired",
        Refusal::UnknownTable { .. } => "unknown table",
        _ => "other",
    }
}

//! Changes one by one in one transaction, to find every one that the server refuses.
//!
//! They go in windows, each behind a savepoint; how large the next one is, `pace` says. Where the
//! server checks a row when it is written (`by_row`), a window is one statement, which fails for
//! the first row that is refused, and is taken apart until that row alone fails. Elsewhere a rule
//! can look at all rows of a statement, and each goes alone; where one fails, what came before it
//! in the window goes again, many rows in a statement. Either way some refusals in a large batch
//! cost little more than the batch.
//!
//! A rule that is checked at the end of a transaction (`DEFERRABLE INITIALLY DEFERRED`) names no
//! change. Where one objects, all goes again with the rules checked at once:
//!
//! ```text
//!  each change alone ─ again and again, in both orders, until no more pass
//!      │ left: what misses something, and what needs each other
//!      ▼
//!  together those of one transaction of the log ─ and without one of them
//! ```
//! A child before its parent passes in the first part, two rows that name each other in the second.

mod by_row;
mod pace;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;

use onelog_store::{Batch, REFUSALS_MAX, failpoint};

use self::by_row::ByRow;
use self::pace::Pace;
use super::{Step, WINDOW, key_of};
use crate::connection::Pipeline;
use crate::error::Fault;
use crate::store::Scope;

/// How often changes that something was missing for are tried again.
const ROUNDS_MAX: u32 = 16;
/// From how many changes that need each other one is looked for that spoils it for the others.
const GROUP_MAX: usize = 32;

/// A change that is refused, by its place among the steps.
pub(super) type Refusal = (usize, Fault);

/// What is found out about the steps of one transaction that is under way.
pub(super) struct Probe<'p, 'a, 'b> {
    pub(super) scope: &'p mut Scope<'a>,
    pub(super) batch: &'b Batch,
    steps: &'p [Step<'b>],
    /// In so many of the first ones rows let go of their unique values.
    frees: usize,
    /// The last step of each row, which decides.
    last: HashMap<(usize, &'b [u8]), usize>,
    by_row: ByRow,
}

/// How many rows are in one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    One,
    /// Neighbours that go into one table whose rows are checked one by one.
    Checked,
    /// Neighbours that go into one table: for those that pass.
    Many,
}

/// What became of the steps of a window.
enum Window {
    Passed,
    /// The transaction is as it was before the window.
    Refused(Failed),
}

struct Failed {
    /// The places in the window of the statement that failed.
    places: Range<usize>,
    /// How many rows it had written, as far as that is known.
    written: usize,
    fault: Fault,
}

impl<'p, 'a, 'b> Probe<'p, 'a, 'b> {
    pub(super) async fn new(
        scope: &'p mut Scope<'a>,
        batch: &'b Batch,
        steps: &'p [Step<'b>],
        frees: usize,
    ) -> Result<Self, Fault> {
        let mut mappings: Vec<usize> = steps.iter().map(|(mapping, _)| *mapping).collect();
        mappings.sort_unstable();
        mappings.dedup();
        let by_row = ByRow::look(scope, &mappings).await?;
        let last = steps.iter().enumerate().map(|(n, step)| (key_of(*step), n));
        Ok(Self {
            scope,
            batch,
            steps,
            frees,
            last: last.collect(),
            by_row,
        })
    }

    /// Makes all changes but those that are refused, and answers these. A rule that is checked at the
    /// end and for which no change can be named comes as the error.
    pub(super) async fn run(&mut self) -> Result<Vec<Refusal>, Fault> {
        self.say("SAVEPOINT onelog_probe").await?;
        let all: Vec<usize> = (0..self.steps.len()).collect();
        let mut refused = self.one_by_one(&all, REFUSALS_MAX).await?;
        if refused.len() >= REFUSALS_MAX {
            // What was not tried may be what the others need.
            return Ok(refused);
        }
        let Some(objection) = self.objection().await? else {
            return Ok(refused);
        };
        self.say("ROLLBACK TO SAVEPOINT onelog_probe").await?;
        refused.extend(self.checked_at_once(&refused).await?);
        match refused.is_empty() {
            true => Err(objection),
            false => Ok(refused),
        }
    }

    fn key(&self, step: usize) -> (usize, &'b [u8]) {
        key_of(self.steps[step])
    }

    async fn say(&self, sql: &str) -> Result<(), Fault> {
        Ok(self.scope.client.batch_execute(sql).await?)
    }

    /// Makes these changes in their order and answers those that fail. A later image of the row
    /// decides, whatever became of an earlier one.
    async fn one_by_one(&mut self, steps: &[usize], most: usize) -> Result<Vec<Refusal>, Fault> {
        let mut left: VecDeque<usize> = steps.iter().copied().collect();
        let mut refused = Vec::new();
        let mut pace = Pace::default();
        while !left.is_empty() && refused.len() < most {
            let window: Vec<usize> = left.iter().take(pace.size()).copied().collect();
            let rows = match pace.is_one_by_one() {
                true => Rows::One,
                false => Rows::Checked,
            };
            let Failed {
                places,
                written,
                fault,
            } = match self.window(&window, rows).await? {
                Window::Passed => {
                    left.drain(..window.len());
                    pace.passed(window.len());
                    continue;
                }
                Window::Refused(failed) => failed,
            };
            if places.start > 0 {
                let Window::Passed = self.window(&window[..places.start], Rows::Many).await? else {
                    pace.narrow(places.start);
                    continue;
                };
                left.drain(..places.start);
                pace.passed(places.start);
            }
            if places.len() > 1 {
                pace.failed(places.len(), written);
                continue;
            }
            left.pop_front();
            pace.refused();
            let step = window[places.start];
            if self.last.get(&self.key(step)) == Some(&step) {
                refused.push((step, fault));
            }
        }
        Ok(refused)
    }

    async fn window(&mut self, window: &[usize], rows: Rows) -> Result<Window, Fault> {
        if window.is_empty() {
            return Ok(Window::Passed);
        }
        failpoint::hit(&self.scope.identity.sink, "window");
        let client = self.scope.client;
        let mut pipeline = Pipeline::default();
        let savepoint = client.batch_execute("SAVEPOINT onelog_window");
        pipeline.send(async move { savepoint.await.map(|()| 0) });
        // Which place each statement belongs to; a delete can need none.
        let mut sent = vec![None];
        let mut failed = None;
        let mut run = HashSet::new();
        let mut first = 0;
        for (place, step) in window.iter().enumerate() {
            let (mapping, change) = self.steps[*step];
            let pushed = match change.value {
                None => self.scope.push_key(mapping, change),
                Some(_) => self.scope.push_row(mapping, change),
            };
            let is_full = match pushed {
                Ok(is_full) => is_full,
                Err(error) => {
                    self.scope.clear(mapping);
                    failed = Some((Some(place..place + 1), Fault::Store(error)));
                    break;
                }
            };
            run.insert(&change.key);
            // One statement cannot change a row twice.
            let goes_on = !is_full
                && window.get(place + 1).is_some_and(|next| {
                    self.joins(rows, *step, *next) && !run.contains(&self.steps[*next].1.key)
                });
            if !goes_on {
                failpoint::hit(&self.scope.identity.sink, "probe_statement");
                self.scope.writer(mapping).is_freeing = *step < self.frees;
                self.scope.send_gathered(&mut pipeline, mapping);
                sent.resize(pipeline.len(), Some(first..place + 1));
                first = place + 1;
                run.clear();
            }
        }
        if failed.is_none() {
            let release = client.batch_execute("RELEASE SAVEPOINT onelog_window");
            pipeline.send(async move { release.await.map(|()| 0) });
        }
        if let Err((statement, error)) = pipeline.answers().await {
            failed = Some((sent.get(statement).cloned().flatten(), error.into()));
        }
        match failed {
            None => {
                self.wrote(window);
                Ok(Window::Passed)
            }
            Some((Some(places), fault)) if fault.is_rejected_row() => {
                self.wrote(&window[..places.start]);
                let written = self.undo_statement(&window[places.clone()], &fault).await?;
                Ok(Window::Refused(Failed {
                    places,
                    written,
                    fault,
                }))
            }
            Some((_, fault)) => Err(fault),
        }
    }

    /// Whether a step can go into the statement of the one before it.
    fn joins(&self, rows: Rows, step: usize, next: usize) -> bool {
        let ((mapping, change), other) = (self.steps[step], self.steps[next]);
        let is_alike = other.0 == mapping
            && other.1.value.is_none() == change.value.is_none()
            && (step < self.frees) == (next < self.frees);
        is_alike
            && match rows {
                Rows::One => false,
                Rows::Checked => self.by_row.covers(mapping),
                Rows::Many => true,
            }
    }

    /// Undoes a window, and answers how many rows the statement that failed had written.
    async fn undo_statement(&mut self, failed: &[usize], fault: &Fault) -> Result<usize, Fault> {
        let undo = undoing("onelog_window");
        match failed {
            [step] => {
                // Unique keys are looked at when the row is there already.
                if fault.is_exchange() {
                    self.wrote(&[*step]);
                }
                self.say(&undo).await?;
                Ok(0)
            }
            _ => {
                let mapping = failed.first().map_or(0, |step| self.steps[*step].0);
                self.by_row.undo(self.scope, &undo, mapping).await
            }
        }
    }

    /// Counts rows that were written, as the server does, even if they are undone.
    fn wrote(&mut self, steps: &[usize]) {
        for step in steps {
            let (mapping, change) = self.steps[*step];
            if change.value.is_some() {
                self.by_row.wrote(mapping);
            }
        }
    }

    async fn undo(&self, savepoint: &str) -> Result<(), Fault> {
        self.say(&undoing(savepoint)).await
    }

    /// What the rules that are checked at the end would object to now.
    async fn objection(&self) -> Result<Option<Fault>, Fault> {
        let checked = self
            .say("SAVEPOINT onelog_check; SET CONSTRAINTS ALL IMMEDIATE")
            .await;
        match checked {
            Err(fault) if !fault.is_rejected_row() => Err(fault),
            checked => {
                // Also brings back what is checked when.
                self.undo("onelog_check").await?;
                Ok(checked.err())
            }
        }
    }

    /// All changes but the refused ones, with every rule checked at once.
    async fn checked_at_once(&mut self, refused: &[Refusal]) -> Result<Vec<Refusal>, Fault> {
        let gone: HashSet<_> = refused.iter().map(|(step, _)| self.key(*step)).collect();
        let all: Vec<usize> = (0..self.steps.len())
            .filter(|step| !gone.contains(&self.key(*step)))
            .collect();
        self.say("SET CONSTRAINTS ALL IMMEDIATE").await?;
        let mut left = self.one_by_one(&all, usize::MAX).await?;
        loop {
            left = self.again_and_again(left).await?;
            let before = left.len();
            left = self.together(left).await?;
            if left.is_empty() || left.len() == before {
                return Ok(left);
            }
        }
    }

    /// Tries changes alone until no more pass: something that was missing may be there by now. In
    /// both orders, so that a long chain takes two rounds.
    async fn again_and_again(&mut self, mut left: Vec<Refusal>) -> Result<Vec<Refusal>, Fault> {
        let mut in_vain = 0;
        for _ in 0..ROUNDS_MAX {
            if left.is_empty() || in_vain == 2 {
                break;
            }
            let order: Vec<usize> = left.iter().rev().map(|(step, _)| *step).collect();
            left = self.one_by_one(&order, usize::MAX).await?;
            in_vain = match left.len() == order.len() {
                true => in_vain + 1,
                false => 0,
            };
        }
        Ok(left)
    }

    /// Tries changes that came in one transaction together, or all but one of them.
    async fn together(&mut self, left: Vec<Refusal>) -> Result<Vec<Refusal>, Fault> {
        let mut groups: BTreeMap<usize, Vec<Refusal>> = BTreeMap::new();
        for refusal in left {
            let offset = self.steps[refusal.0].1.offset;
            let group = groups.entry(self.batch.transaction_of(offset));
            group.or_default().push(refusal);
        }
        let mut refused = Vec::new();
        for mut group in groups.into_values() {
            if group.len() == 1 || self.pass(&group, None).await? {
                // Alone it was tried before.
                refused.extend((group.len() == 1).then_some(group).into_iter().flatten());
                continue;
            }
            let mut spoiler = None;
            for without in (0..group.len()).filter(|_| group.len() <= GROUP_MAX) {
                if self.pass(&group, Some(without)).await? {
                    spoiler = Some(without);
                    break;
                }
            }
            match spoiler {
                Some(spoiler) => refused.push(group.swap_remove(spoiler)),
                None => refused.extend(group),
            }
        }
        Ok(refused)
    }

    /// Whether these changes pass together; then they are made.
    async fn pass(&mut self, group: &[Refusal], without: Option<usize>) -> Result<bool, Fault> {
        let members = group.iter().enumerate();
        let mut steps: Vec<usize> = members
            .filter(|(n, _)| Some(*n) != without)
            .map(|(_, (step, _))| *step)
            .collect();
        steps.sort_unstable();
        self.say("SAVEPOINT onelog_group; SET CONSTRAINTS ALL DEFERRED")
            .await?;
        for window in steps.chunks(WINDOW) {
            if let Window::Refused(_) = self.window(window, Rows::One).await? {
                self.undo("onelog_group").await?;
                return Ok(false);
            }
        }
        match self.say("SET CONSTRAINTS ALL IMMEDIATE").await {
            Ok(()) => {
                self.say("RELEASE SAVEPOINT onelog_group").await?;
                Ok(true)
            }
            Err(fault) if fault.is_rejected_row() => {
                self.undo("onelog_group").await?;
                Ok(false)
            }
            Err(fault) => Err(fault),
        }
    }
}

fn undoing(savepoint: &str) -> String {
    format!("ROLLBACK TO SAVEPOINT {savepoint}; RELEASE SAVEPOINT {savepoint}")
}

//! Changes one by one in one transaction, to find every one that the server refuses.
//!
//! They go in windows, each behind a savepoint. Where one fails, what came before it in the window
//! goes again, many rows in a statement, and the next windows are small until they pass: some
//! refusals in a large batch cost little more than the batch.
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

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use onelog_store::{Batch, REFUSALS_MAX, failpoint};

use super::{Step, WINDOW};
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
    pub(super) steps: &'p [Step<'b>],
}

/// How many rows are in one statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    One,
    /// Neighbours that go into one table: for those that pass.
    Many,
}

/// What became of the steps of a window.
enum Window {
    Passed,
    /// The place in the window; the transaction is as it was before it.
    Refused(usize, Fault),
}

impl<'b> Probe<'_, '_, 'b> {
    /// Makes all changes but those that are refused, and answers these. A rule that is checked at the
    /// end and for which no change can be named comes as the error.
    pub(super) async fn run(&mut self) -> Result<Vec<Refusal>, Fault> {
        self.say("SAVEPOINT onelog_probe").await?;
        let all: Vec<usize> = (0..self.steps.len()).collect();
        let mut refused = self.one_by_one(&all, true, REFUSALS_MAX).await?;
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
        let (mapping, change) = self.steps[step];
        (mapping, &change.key)
    }

    async fn say(&self, sql: &str) -> Result<(), Fault> {
        Ok(self.scope.client.batch_execute(sql).await?)
    }

    /// Makes these changes in their order and answers those that fail; `is_final`: what comes behind
    /// a failed one of its key is left out.
    async fn one_by_one(
        &mut self,
        steps: &[usize],
        is_final: bool,
        most: usize,
    ) -> Result<Vec<Refusal>, Fault> {
        let mut left: VecDeque<usize> = steps.iter().copied().collect();
        let mut refused = Vec::new();
        let mut size = WINDOW;
        while !left.is_empty() && refused.len() < most {
            let window: Vec<usize> = left.iter().take(size).copied().collect();
            match self.window(&window, Rows::One).await? {
                Window::Passed => {
                    left.drain(..window.len());
                    size = (size * 2).min(WINDOW);
                }
                Window::Refused(place, fault) => {
                    left.remove(place);
                    size = place.max(1);
                    if let Window::Passed = self.window(&window[..place], Rows::Many).await? {
                        left.drain(..place);
                        size = (size * 2).min(WINDOW);
                    }
                    let step = window[place];
                    if is_final {
                        let gone = self.key(step);
                        left.retain(|other| self.key(*other) != gone);
                    }
                    refused.push((step, fault));
                }
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
                    failed = Some((Some(place), Fault::Store(error)));
                    break;
                }
            };
            run.insert(&change.key);
            let goes_on = window.get(place + 1).is_some_and(|next| {
                let (of, next) = self.steps[*next];
                let is_alike = of == mapping && next.value.is_none() == change.value.is_none();
                // One statement cannot change a row twice.
                rows == Rows::Many && is_alike && !is_full && !run.contains(&next.key)
            });
            if !goes_on {
                self.scope.send_gathered(&mut pipeline, mapping);
                sent.resize(pipeline.len(), Some(place));
                run.clear();
            }
        }
        if failed.is_none() {
            let release = client.batch_execute("RELEASE SAVEPOINT onelog_window");
            pipeline.send(async move { release.await.map(|()| 0) });
        }
        if let Err((statement, error)) = pipeline.answers().await {
            failed = Some((sent.get(statement).copied().flatten(), error.into()));
        }
        match failed {
            None => Ok(Window::Passed),
            Some((Some(place), fault)) if fault.is_rejected_row() => {
                self.undo("onelog_window").await?;
                Ok(Window::Refused(place, fault))
            }
            Some((_, fault)) => Err(fault),
        }
    }

    async fn undo(&self, savepoint: &str) -> Result<(), Fault> {
        self.say(&format!(
            "ROLLBACK TO SAVEPOINT {savepoint}; RELEASE SAVEPOINT {savepoint}"
        ))
        .await
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
        let last: HashMap<_, usize> = all.iter().map(|step| (self.key(*step), *step)).collect();
        self.say("SET CONSTRAINTS ALL IMMEDIATE").await?;
        let mut left = self.one_by_one(&all, false, usize::MAX).await?;
        // A later image of the key decides, whatever became of an earlier one.
        left.retain(|(step, _)| last.get(&self.key(*step)) == Some(step));
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
            left = self.one_by_one(&order, false, usize::MAX).await?;
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
            if let Window::Refused(..) = self.window(window, Rows::One).await? {
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

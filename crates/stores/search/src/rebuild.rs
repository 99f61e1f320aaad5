//! A rebuild: new indexes beside the old ones, then an exchange of what the aliases lead to.
//!
//! The exchange is written into the ledger as an intention, carried out as one step, then written
//! as done.

use onelog_mapping::MappingPlan;
use onelog_store::{Change, LogPlace, StoreError, failpoint};
use serde_json::{Value, json};

use crate::bookkeeping::{Ledger, Swap};
use crate::claims;
use crate::connection::{Body, Client, LONG_TIMEOUT, Method, escape};
use crate::ddl::{
    self, AUTO_REPLICAS, DURABILITY, REFRESH, REPLICAS, find_indexes, settings, staged_alias,
    visible,
};
use crate::store::ElasticsearchStore;

impl ElasticsearchStore {
    /// The ledger as it is once an exchange that took place is written as done.
    pub(crate) fn resolved(&self, ledger: Ledger) -> Result<Ledger, StoreError> {
        let Some(swap) = &ledger.swap else {
            return Ok(ledger);
        };
        match swap_state(&self.client, swap)? {
            SwapState::Done => Ok(ledger.swapped(swap)),
            SwapState::Waiting | SwapState::Lost => Ok(ledger),
        }
    }

    /// Carries an exchange out that was intended, unless its indexes are gone.
    pub(crate) fn complete(&self, ledger: Ledger) -> Result<Ledger, StoreError> {
        let Some(swap) = &ledger.swap else {
            return Ok(ledger);
        };
        if swap_state(&self.client, swap)? == SwapState::Waiting {
            exchange_aliases(&self.client, swap)?;
        }
        match swap_state(&self.client, swap)? {
            SwapState::Done => Ok(ledger.swapped(swap)),
            SwapState::Lost => Ok(Ledger {
                swap: None,
                ..ledger
            }),
            SwapState::Waiting => Err(StoreError::Unavailable {
                what: format!("completing an exchange of indexes in {}", self.client.shown),
                cause: "the aliases changed meanwhile".into(),
            }),
        }
    }

    pub(crate) fn begin(&mut self) -> Result<(), StoreError> {
        let page = self.owned_page()?;
        let ledger = self.complete(page.ledger.clone())?;
        self.discard(&[ledger.generation.unwrap_or(0)])?;
        let mut newest = ledger.newest_generation;
        for mapping in &self.plan.mappings {
            ddl::check_mapping(mapping)?;
            ddl::check_owner(&self.client, &self.sink, &mapping.into)?;
            for (generation, _, _) in ddl::generations(&self.client, &mapping.into)? {
                newest = newest.max(generation);
            }
        }
        let generation = newest + 1;
        let mut names = ledger.names.clone();
        for mapping in &self.plan.mappings {
            if !names.contains(&mapping.into) {
                names.push(mapping.into.clone());
            }
        }
        let ledger = Ledger {
            newest_generation: generation,
            names,
            ..ledger
        };
        self.replace(&page, ledger)?;
        for mapping in &self.plan.mappings {
            claims::claim(&self.client, &self.sink, &mapping.into)?;
        }
        let indexes = self.indexes(generation);
        for (mapping, name) in self.plan.mappings.iter().zip(&indexes) {
            ddl::create_index(&self.client, mapping, &self.sink, name)?;
        }
        self.rebuilding = Some(generation);
        Ok(())
    }

    pub(crate) fn stage(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        self.owned_page()?;
        let generation = self.staged_generation()?;
        let changes = rows.iter().map(|change| (mapping, change));
        self.write(generation, changes, false)
    }

    pub(crate) fn finish(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let page = self.owned_page()?;
        let generation = self.staged_generation()?;
        let indexes = self.indexes(generation);
        for (mapping, index) in self.plan.mappings.iter().zip(&indexes) {
            // An index that another version of onelog made may have this name by now; it keeps it.
            ddl::check_owner(&self.client, &self.sink, &mapping.into)?;
            settle(&self.client, mapping, index)?;
        }
        let names = self.plan.mappings.iter().map(|m| m.into.clone());
        let swap = Swap {
            generation,
            indexes: names.zip(indexes).collect(),
            position: place.position.get(),
            chain: place.chain,
            log_id: self.log_id.clone(),
            plan: self.fingerprint.clone(),
        };
        let intended = Ledger {
            swap: Some(swap.clone()),
            ..page.ledger.clone()
        };
        let page = self.replace(&page, intended)?;
        failpoint::hit(&self.sink, "before_swap");
        let done = self.complete(page.ledger.clone())?;
        if done.generation != Some(generation) {
            self.owned_page()?;
            return Err(StoreError::PositionMismatch {
                expected: Some(place.position),
                found: done.position_under(&self.fingerprint),
            });
        }
        failpoint::hit(&self.sink, "after_swap");
        let is_kept = |name: &String| self.plan.mappings.iter().any(|m| m.into == *name);
        let (names, former): (Vec<_>, Vec<_>) = done.names.iter().cloned().partition(is_kept);
        for name in former {
            for (index, found) in ddl::find_indexes(&self.client, &name)? {
                if found.owner() == ddl::Owner::Sink(&self.sink) {
                    ddl::forget_owner(&self.client, &index)?;
                }
            }
            claims::release(&self.client, &self.sink, &name)?;
        }
        self.replace(&page, Ledger { names, ..done })?;
        self.rebuilding = None;
        self.unpublished.clear();
        self.discard(&[generation])
    }

    /// Deletes this sink's indexes that are neither in use nor read by a snapshot.
    pub(crate) fn discard(&mut self, keep: &[u64]) -> Result<(), StoreError> {
        self.retired.clear();
        for mapping in &self.plan.mappings {
            for (generation, name, found) in ddl::generations(&self.client, &mapping.into)? {
                let is_ours = found.owner() == ddl::Owner::Sink(&self.sink);
                let is_live = found.aliases.contains_key(&mapping.into);
                if is_ours && !is_live && !keep.contains(&generation) {
                    self.retired.push(name);
                }
            }
        }
        self.delete_retired()
    }

    fn staged_generation(&self) -> Result<u64, StoreError> {
        self.rebuilding.ok_or_else(|| StoreError::PositionMismatch {
            expected: None,
            found: None,
        })
    }
}

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum SwapState {
    /// The new indexes wait for it.
    Waiting,
    Done,
    /// The new indexes are gone, so it cannot take place any more.
    Lost,
}

/// Reads from the indexes how far an exchange has come. All aliases move together, so one of them
/// is enough.
fn swap_state(client: &Client, swap: &Swap) -> Result<SwapState, StoreError> {
    let Some((into, index)) = swap.indexes.first() else {
        return Ok(SwapState::Lost);
    };
    let found = find_indexes(client, index)?;
    let Some(found) = found.get(index) else {
        return Ok(SwapState::Lost);
    };
    if found.aliases.contains_key(&staged_alias(index)) {
        return Ok(SwapState::Waiting);
    }
    Ok(match found.aliases.contains_key(into) {
        true => SwapState::Done,
        false => SwapState::Lost,
    })
}

/// Puts the new indexes behind their aliases in one step, and answers the old ones. `None`: the
/// indexes do not wait for it any more.
fn exchange_aliases(client: &Client, swap: &Swap) -> Result<Option<Vec<String>>, StoreError> {
    const DOING: &str = "exchanging aliases in";
    let mut actions = Vec::with_capacity(swap.indexes.len() * 3);
    let mut old = Vec::new();
    for (into, index) in &swap.indexes {
        actions.push(json!({"remove": {
            "index": index, "alias": staged_alias(index), "must_exist": true}}));
        for name in find_indexes(client, into)?
            .into_keys()
            .filter(|name| name != index)
        {
            actions.push(json!({"remove": {"index": name, "alias": into}}));
            old.push(name);
        }
        actions.push(json!({"add": {"index": index, "alias": into, "filter": visible()}}));
    }
    let body = Body::Json(json!({ "actions": actions }));
    let answer = client.call(DOING, Method::POST, "/_aliases", body, LONG_TIMEOUT)?;
    if answer.status == 404 {
        return Ok(None);
    }
    answer.success(client, DOING)?;
    Ok(Some(old))
}

/// Makes a backfilled index durable and gives it the settings that it has from now on.
fn settle(client: &Client, mapping: &MappingPlan, index: &str) -> Result<(), StoreError> {
    let wanted = settings(mapping);
    let or_default = |name: &str| wanted.get(name).cloned().unwrap_or(Value::Null);
    let body = json!({
        REFRESH: or_default(REFRESH),
        REPLICAS: or_default(REPLICAS),
        AUTO_REPLICAS: or_default(AUTO_REPLICAS),
        DURABILITY: "request",
    });
    let index = escape(index);
    for (doing, method, path, body) in [
        (
            "setting up an index in",
            Method::PUT,
            format!("/{index}/_settings"),
            Body::Json(body),
        ),
        (
            "flushing an index in",
            Method::POST,
            format!("/{index}/_flush"),
            Body::Nothing,
        ),
        (
            "refreshing an index in",
            Method::POST,
            format!("/{index}/_refresh"),
            Body::Nothing,
        ),
    ] {
        client
            .call(doing, method, &path, body, LONG_TIMEOUT)?
            .success(client, doing)?;
    }
    Ok(())
}

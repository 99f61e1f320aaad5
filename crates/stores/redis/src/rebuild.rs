//! A rebuild: rows are written under other names, then put in place.
//!
//! On one server a script does that in one step, as long as no more than `SWAP_KEYS_MAX` keys are
//! put in place and taken away; it keeps the server busy for some seconds a million keys. More
//! keys go in parts, and readers see old and new rows side by side until the last part is done.
//! With partitions each partition is put in place in one step of its own. Where there is more than
//! one step, the positions of all partitions are taken away before the first, so a crash between
//! two steps leads to another rebuild, whatever records an earlier number of partitions has left.
//! Keys of templates that the plan has no longer are among the gone, see `retired`.
//!
//! ```text
//!   begin: filling = 1, old leftovers away ── load: onelog:new:… ── finish: which rows must go
//!     ── more than one step: positions away
//!     ── script: UNLINK the gone, RENAME the new, position = P, filling away
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;

use onelog_mapping::{KeyTemplate, TTL_SECONDS};
use onelog_store::{LogPlace, StoreError, failpoint};
use redis::Value;

use crate::bookkeeping::{List, chain_text, read_records};
use crate::connection::{Link, SWAP_TIMEOUT, command};
use crate::fence::Fence;
use crate::reader::{receive_keys, scan_command, scan_keys};
use crate::store::{RedisStore, no_rows};

/// The most keys that are put in place and taken away in one step.
const SWAP_KEYS_MAX: u64 = if cfg!(test) { 500 } else { 1_000_000 };
/// The keys of one part where there are more.
const SWAP_PART: u64 = if cfg!(test) { 150 } else { 100_000 };
/// How many names are read from a list at once.
const NAMES: usize = 1000;

/// A key in Redis that has no place in any partition, and the link that has it.
pub(crate) type Stray = (usize, Vec<u8>);

impl RedisStore {
    /// Fails when another process took the sink over.
    pub(crate) fn check_epoch(&mut self) -> Result<(), StoreError> {
        let records = read_records(&mut self.servers, &self.names)?;
        let fence = Fence {
            sink: &self.sink,
            log: &self.log_id,
            plan: &self.fingerprint,
            epoch: self.epoch(),
            step: None,
        };
        fence.check_epochs(&records)
    }

    /// Whether an earlier rebuild was begun and not finished.
    pub(crate) fn has_unfinished_rebuild(&mut self) -> Result<bool, StoreError> {
        let what = "looking for an unfinished rebuild in";
        let mut any = false;
        for (link, partitions) in self.servers.by_link() {
            let mut bytes = Vec::new();
            for partition in &partitions {
                let name = self.names.position(*partition);
                command(&[b"HEXISTS", &name, b"filling"], &mut bytes);
            }
            link.send(&bytes)?;
            for _ in partitions {
                any |= link.receive_good(what)? == Value::Int(1);
            }
        }
        Ok(any)
    }

    pub(crate) fn begin(&mut self) -> Result<(), StoreError> {
        let gate = Arc::clone(&self.gate);
        let _entered = gate.enter();
        self.check_epoch()?;
        self.check_owners()?;
        let mut steps = self.no_steps();
        for (partition, step) in steps.iter_mut().enumerate() {
            let name = self.names.position(partition);
            step.then.push(&[b"HSET", &name, b"filling", b"1"]);
        }
        self.commit(None, steps)?;
        self.claim_keys()?;
        self.clear_leftovers()?;
        self.loaded = no_rows(&self.names, &self.plan);
        Ok(())
    }

    /// Deletes the staged keys and lists of an unfinished rebuild.
    pub(crate) fn clear_leftovers(&mut self) -> Result<(), StoreError> {
        for pattern in self.names.leftovers() {
            for link in &mut self.servers.links {
                let _all = scan_keys(link, &pattern, |link, keys| {
                    unlink(link, &keys)?;
                    Ok(ControlFlow::Continue(()))
                })?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self, place: LogPlace) -> Result<(), StoreError> {
        let gate = Arc::clone(&self.gate);
        let _entered = gate.enter();
        self.check_epoch()?;
        // Another sink may have taken these keys since the rebuild began; it keeps them.
        self.check_owners()?;
        let mut strays = Vec::new();
        for mapping in 0..self.plan.mappings.len() {
            for link in 0..self.servers.links.len() {
                self.find_gone(mapping, link, &mut strays)?;
            }
        }
        let retired = self.retired()?;
        let has_retired = self.note_retired(&retired, &mut strays)?;
        let sizes = self.check_lists(self.list_of(retired.len()))?;
        self.preserve_swap(has_retired || !strays.is_empty())?;
        failpoint::hit(&self.sink, "before_swap");
        if sizes.len() > 1 || sizes.iter().any(|size| *size > SWAP_KEYS_MAX) {
            self.forget_positions()?;
        }
        for (partition, size) in sizes.into_iter().enumerate() {
            if partition > 0 {
                failpoint::hit(&self.sink, "between_parts");
            }
            self.swap(partition, size, place, &retired)?;
        }
        failpoint::hit(&self.sink, "before_strays");
        self.unlink_strays(&strays)?;
        failpoint::hit(&self.sink, "after_swap");
        let names: Vec<String> = retired.iter().map(KeyTemplate::to_string).collect();
        self.forget_templates(&names)?;
        self.forget_former()?;
        self.loaded = no_rows(&self.names, &self.plan);
        self.watched = None;
        Ok(())
    }

    /// Deletes keys that have no place in any partition, in steps of partitions that are on their
    /// servers. A server of a cluster that has none has no record that such a step could look at.
    fn unlink_strays(&mut self, strays: &[Stray]) -> Result<(), StoreError> {
        let by_link = self.servers.by_link();
        let fences = by_link.into_iter().map(|(_, all)| all.first().copied());
        let fences: Vec<Option<usize>> = fences.collect();
        for some in strays.chunks(NAMES) {
            let mut steps = self.no_steps();
            for (link, name) in some {
                if let Some(partition) = fences[*link] {
                    steps[partition].then.push(&[b"UNLINK", name]);
                }
            }
            self.commit(None, steps)?;
            for (link, name) in some.iter().filter(|(link, _)| fences[*link].is_none()) {
                unlink(&mut self.servers.links[*link], std::slice::from_ref(name))?;
            }
        }
        Ok(())
    }

    /// Notes the rows of one server that the new rows do not replace.
    fn find_gone(
        &mut self,
        mapping: usize,
        link: usize,
        strays: &mut Vec<Stray>,
    ) -> Result<(), StoreError> {
        let template = self.plan.mappings[mapping].key_template.clone();
        let pattern = self.names.pattern(&template);
        let mut cursor = b"0".to_vec();
        loop {
            let connection = &mut self.servers.links[link];
            let mut bytes = Vec::new();
            scan_command(&cursor, &pattern, &mut bytes);
            connection.send(&bytes)?;
            let (next, found) = receive_keys(connection)?;
            let mut placed = Vec::with_capacity(found.len());
            for name in found {
                let Some(key) = self.names.strip(&template, &name) else {
                    continue;
                };
                let partition = self.names.partition_of(key);
                let mut right = Vec::new();
                self.names.row(&template, partition, key, &mut right);
                match right == name {
                    true => placed.push((partition, key.to_vec())),
                    false => strays.push((link, name)),
                }
            }
            self.note_gone(mapping, link, placed)?;
            if next == b"0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    fn note_gone(
        &mut self,
        mapping: usize,
        link: usize,
        placed: Vec<(usize, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for (partition, key) in &placed {
            let mut name = self.names.staging(*partition, mapping);
            name.extend_from_slice(key);
            command(&[b"EXISTS", &name], &mut bytes);
        }
        let connection = &mut self.servers.links[link];
        connection.send(&bytes)?;
        let mut steps = self.no_steps();
        let mut any = false;
        for (partition, key) in placed {
            let connection = &mut self.servers.links[link];
            if connection.receive_good("looking for new rows in")? == Value::Int(0) {
                let list = self.names.list(List::Gone, partition, mapping);
                steps[partition].then.push(&[b"RPUSH", &list, &key]);
                any = true;
            }
        }
        match any {
            true => self.commit(None, steps),
            false => Ok(()),
        }
    }

    /// How many keys each partition puts in place and takes away. The lists must hold what was
    /// loaded: another client may have deleted some.
    fn check_lists(&mut self, mappings: usize) -> Result<Vec<u64>, StoreError> {
        let what = "counting the new rows in";
        let mut sizes = vec![0; self.names.partitions()];
        let mut lost = false;
        for (link, partitions) in self.servers.by_link() {
            let mut bytes = Vec::new();
            for partition in &partitions {
                for mapping in 0..mappings {
                    for list in [List::New, List::Gone] {
                        let name = self.names.list(list, *partition, mapping);
                        command(&[b"LLEN", &name], &mut bytes);
                    }
                }
            }
            link.send(&bytes)?;
            let mut length = || match link.receive_good(what)? {
                Value::Int(length) => Ok(length.cast_unsigned()),
                other => Err(link.unexpected(what, &other)),
            };
            for partition in partitions {
                for mapping in 0..mappings {
                    let (new, gone) = (length()?, length()?);
                    sizes[partition] += new + gone;
                    let loaded = self.loaded[partition].get(mapping).copied();
                    lost |= new != loaded.unwrap_or(0);
                }
            }
        }
        match lost {
            true => Err(self.rows_lost()),
            false => Ok(sizes),
        }
    }

    fn rows_lost(&self) -> StoreError {
        StoreError::Unavailable {
            what: format!("putting new rows in place in Redis at {}", self.place),
            cause: "another client deleted keys 'onelog:…' of the rebuild; it has to begin again"
                .into(),
        }
    }

    /// Gives open snapshots every row that is about to change; those of other plans cannot be kept.
    fn preserve_swap(&mut self, abandon: bool) -> Result<(), StoreError> {
        let snapshots = self.gate.snapshots();
        if snapshots.is_empty() {
            return Ok(());
        }
        if abandon {
            snapshots.iter().for_each(|snapshot| snapshot.abandon());
        }
        let what = "reading the names of new rows in";
        for partition in 0..self.names.partitions() {
            for mapping in 0..self.plan.mappings.len() {
                for list in [List::New, List::Gone] {
                    let name = self.names.list(list, partition, mapping);
                    for from in (0..).step_by(NAMES) {
                        let (first, last) = (from.to_string(), (from + NAMES - 1).to_string());
                        let arguments: [&[u8]; 4] =
                            [b"LRANGE", &name, first.as_bytes(), last.as_bytes()];
                        let link = self.servers.link(partition);
                        let answer = link.request(what, &arguments)?;
                        let Value::Array(keys) = answer else {
                            return Err(link.unexpected(what, &answer));
                        };
                        if keys.is_empty() {
                            break;
                        }
                        self.preserve_keys(mapping, partition, keys)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn preserve_keys(
        &mut self,
        mapping: usize,
        partition: usize,
        keys: Vec<Value>,
    ) -> Result<(), StoreError> {
        let template = &self.plan.mappings[mapping].key_template;
        let mut wanted = Vec::with_capacity(keys.len());
        for key in keys {
            if let Value::BulkString(key) = key {
                let mut name = Vec::new();
                self.names.row(template, partition, &key, &mut name);
                wanted.push((mapping, partition, name));
            }
        }
        self.preserve(&wanted)
    }

    /// Until every partition is put in place, the store has no position.
    fn forget_positions(&mut self) -> Result<(), StoreError> {
        let mut steps = self.no_steps();
        for (partition, step) in steps.iter_mut().enumerate() {
            let name = self.names.position(partition);
            step.then.push(&[b"HDEL", &name, b"position"]);
        }
        self.commit(None, steps)
    }

    /// Puts one partition's rows in place.
    fn swap(
        &mut self,
        partition: usize,
        size: u64,
        place: LogPlace,
        retired: &[KeyTemplate],
    ) -> Result<(), StoreError> {
        // One more than there is: then the script knows that it has done everything.
        let budget = match size > SWAP_KEYS_MAX {
            true => SWAP_PART,
            false => size + 1,
        };
        loop {
            match self.run_swap(partition, budget, place, retired)? {
                0 => failpoint::hit(&self.sink, "between_parts"),
                -1 => {
                    self.check_epoch()?;
                    return Err(self.rows_lost());
                }
                -2 => return Err(self.rows_lost()),
                _ => return Ok(()),
            }
        }
    }

    fn run_swap(
        &mut self,
        partition: usize,
        budget: u64,
        place: LogPlace,
        retired: &[KeyTemplate],
    ) -> Result<i64, StoreError> {
        let what = "putting new rows in place in";
        let mut arguments: Vec<Vec<u8>> = vec![
            b"EVALSHA".to_vec(),
            self.scripts.swap.clone(),
            b"1".to_vec(),
            self.names.position(partition),
            self.epoch().to_string().into_bytes(),
            budget.to_string().into_bytes(),
            self.log_id.clone().into_bytes(),
            place.position.to_string().into_bytes(),
            self.fingerprint.clone().into_bytes(),
            chain_text(place).into_bytes(),
        ];
        let mappings = self.plan.mappings.iter().map(|mapping| {
            let life = mapping.options.count(TTL_SECONDS).unwrap_or(0);
            (&mapping.key_template, life)
        });
        // A retired template has no new rows.
        let all = mappings.chain(retired.iter().map(|template| (template, 0)));
        for (number, (template, life)) in all.enumerate() {
            let mut before = self.names.tag(partition).as_bytes().to_vec();
            before.extend_from_slice(template.prefix.as_bytes());
            arguments.extend([
                life.to_string().into_bytes(),
                self.names.staging(partition, number),
                before,
                template.suffix.clone().into_bytes(),
                self.names.list(List::New, partition, number),
                self.names.list(List::Gone, partition, number),
            ]);
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let link = self.servers.link(partition);
        match link.with_timeout(SWAP_TIMEOUT, |link| link.request(what, &arguments))? {
            Value::Int(left) => Ok(left),
            other => Err(link.unexpected(what, &other)),
        }
    }
}

fn unlink(link: &mut Link, names: &[Vec<u8>]) -> Result<(), StoreError> {
    let mut bytes = Vec::new();
    for name in names {
        command(&[b"UNLINK", name], &mut bytes);
    }
    link.send(&bytes)?;
    for _ in names {
        link.receive_good("deleting leftovers in")?;
    }
    Ok(())
}

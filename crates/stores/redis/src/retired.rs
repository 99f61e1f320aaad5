//! The keys of templates that the sink's definition has no longer.
//!
//! `onelog:owners` says which templates the sink wrote by. Those that its plan does not have are
//! *retired*: a changed template, a mapping that was taken out. Nothing else says that their keys are
//! stale, so a rebuild takes them away in the step that puts the new rows in place (`rebuild`), and
//! forgets the templates behind it. A crash before that step leaves all as it was; one behind it
//! leaves a template without keys, which the next look forgets.
//!
//! A key that fits a template of the plan as well is a row of that one, and left to it.

use onelog_mapping::KeyTemplate;
use onelog_store::{Leftover, StoreError};

use crate::bookkeeping::List;
use crate::reader::{Seen, receive_keys, scan_command};
use crate::rebuild::Stray;
use crate::store::RedisStore;

const SCAN_START: &[u8] = b"0";

impl RedisStore {
    /// How many keys each retired template has.
    pub(crate) fn count_retired(&mut self) -> Result<Vec<Leftover>, StoreError> {
        let mut counted = Vec::new();
        for template in self.retired()? {
            let (mut seen, mut rows) = (Seen::default(), 0);
            for link in 0..self.servers.links.len() {
                let mut cursor = SCAN_START.to_vec();
                loop {
                    let (next, names) = self.retired_page(link, &template, &cursor)?;
                    rows += names.iter().filter(|name| seen.is_new(name)).count() as u64;
                    cursor = next;
                    if cursor == SCAN_START {
                        break;
                    }
                }
            }
            if rows > 0 {
                let name = template.to_string();
                counted.push(Leftover { name, rows });
            }
        }
        Ok(counted)
    }

    /// Notes the keys of retired templates among the rows that are gone, a page of them in each step,
    /// which checks the epoch. Answers whether there are any.
    pub(crate) fn note_retired(
        &mut self,
        retired: &[KeyTemplate],
        strays: &mut Vec<Stray>,
    ) -> Result<bool, StoreError> {
        let mut any = false;
        for (n, template) in retired.iter().enumerate() {
            for link in 0..self.servers.links.len() {
                let mut cursor = SCAN_START.to_vec();
                loop {
                    let (next, names) = self.retired_page(link, template, &cursor)?;
                    any |= !names.is_empty();
                    self.note_page(link, n, template, names, strays)?;
                    cursor = next;
                    if cursor == SCAN_START {
                        break;
                    }
                }
            }
        }
        Ok(any)
    }

    fn note_page(
        &mut self,
        link: usize,
        number: usize,
        template: &KeyTemplate,
        names: Vec<Vec<u8>>,
        strays: &mut Vec<Stray>,
    ) -> Result<(), StoreError> {
        let mut steps = self.no_steps();
        let mut any = false;
        for name in names {
            let Some(key) = self.names.strip(template, &name) else {
                continue;
            };
            let partition = self.names.partition_of(key);
            let mut right = Vec::new();
            self.names.row(template, partition, key, &mut right);
            if right != name {
                strays.push((link, name));
                continue;
            }
            let list = self.names.list(List::Gone, partition, self.list_of(number));
            steps[partition].then.push(&[b"RPUSH", &list, key]);
            any = true;
        }
        match any {
            true => self.commit(None, steps),
            false => Ok(()),
        }
    }

    /// The number of a retired template's lists: behind those of the mappings.
    pub(crate) fn list_of(&self, retired: usize) -> usize {
        self.plan.mappings.len() + retired
    }

    /// Forgets the retired templates that have no keys; names the others, which only a rebuild may
    /// take away, once a session.
    pub(crate) fn look_at_retired(&mut self) -> Result<(), StoreError> {
        if self.has_named_retired {
            return Ok(());
        }
        let retired = self.retired()?;
        let kept = self.count_retired()?;
        let is_kept = |template: &String| kept.iter().any(|left| left.name == *template);
        let names = retired.iter().map(KeyTemplate::to_string);
        let empty: Vec<String> = names.filter(|name| !is_kept(name)).collect();
        self.forget_templates(&empty)?;
        for left in kept {
            tracing::warn!(
                sink = self.sink,
                template = left.name,
                keys = left.rows,
                "keys of a template that the sink's definition has no longer are still there; a rebuild of the sink deletes them"
            );
        }
        self.has_named_retired = true;
        Ok(())
    }

    /// The next keys of one server that fit a retired template and no mapping's, and the cursor
    /// behind them.
    fn retired_page(
        &mut self,
        link: usize,
        template: &KeyTemplate,
        cursor: &[u8],
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>), StoreError> {
        let mut bytes = Vec::new();
        scan_command(cursor, &self.names.pattern(template), &mut bytes);
        let link = &mut self.servers.links[link];
        link.send(&bytes)?;
        let (next, mut names) = receive_keys(link)?;
        let fits = |template: &KeyTemplate, name: &[u8]| self.names.strip(template, name).is_some();
        let mappings = &self.plan.mappings;
        names.retain(|name| {
            fits(template, name) && !mappings.iter().any(|m| fits(&m.key_template, name))
        });
        Ok((next, names))
    }
}

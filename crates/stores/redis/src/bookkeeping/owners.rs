//! Which sink owns which keys: `onelog:owners` says so, because a key itself cannot.

use std::collections::HashMap;
use std::ops::ControlFlow;

use onelog_mapping::{KeyTemplate, Plan};
use onelog_store::{Remedy, StoreError};
use redis::Value;

use super::names::{OWNERS, overlap};
use crate::reader::scan_keys;
use crate::store::RedisStore;

const WHAT: &str = "looking at the owners of keys in";

impl RedisStore {
    /// Owners by template; empty: its sink was removed.
    fn owners(&mut self) -> Result<HashMap<String, String>, StoreError> {
        let link = &mut self.servers.links[self.servers.of_owners];
        let answer = link.request(WHAT, &[b"HGETALL", OWNERS])?;
        let Value::Array(items) = &answer else {
            return Err(link.unexpected(WHAT, &answer));
        };
        let text = |value: &Value| match value {
            Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        let pairs = items.chunks_exact(2);
        Ok(pairs
            .filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?)))
            .collect())
    }

    /// The templates that this sink wrote by and its plan does not have.
    pub(crate) fn retired(&mut self) -> Result<Vec<KeyTemplate>, StoreError> {
        let owners = self.owners()?;
        Ok(retired_of(&owners, &self.sink, &self.plan))
    }

    /// Takes templates out of the hash of owners, where they are this sink's.
    pub(crate) fn forget_templates(&mut self, templates: &[String]) -> Result<(), StoreError> {
        if templates.is_empty() {
            return Ok(());
        }
        let mut arguments: Vec<&[u8]> = vec![b"HDEL", OWNERS];
        arguments.extend(templates.iter().map(|template| template.as_bytes()));
        let link = &mut self.servers.links[self.servers.of_owners];
        link.request("writing the owners of keys to", &arguments)?;
        Ok(())
    }

    /// Refuses keys that another sink owns, and keys that onelog did not make.
    pub(crate) fn check_owners(&mut self) -> Result<(), StoreError> {
        let owners = self.owners()?;
        let retired = retired_of(&owners, &self.sink, &self.plan);
        for mapping in 0..self.plan.mappings.len() {
            let template = self.plan.mappings[mapping].key_template.clone();
            check_others(&owners, &self.sink, &template)?;
            if owners.contains_key(&template.to_string()) {
                continue;
            }
            if let Some(name) = self.find_row(mapping, &retired)? {
                return Err(StoreError::NotOwner {
                    into: template.to_string(),
                    owner: None,
                    what: format!(
                        "the key '{}' is there and onelog has not made it (or 'onelog:owners' was deleted); choose another template, delete such keys, or let this sink replace all of them: HSET onelog:owners '{template}' '{}'",
                        String::from_utf8_lossy(&name),
                        self.sink
                    ),
                });
            }
        }
        Ok(())
    }

    /// Says whether the keys still are this sink's.
    pub(crate) fn check_owned(&mut self) -> Result<(), StoreError> {
        let owners = self.owners()?;
        for mapping in &self.plan.mappings {
            let template = &mapping.key_template;
            check_others(&owners, &self.sink, template)?;
            if owners.get(&template.to_string()) != Some(&self.sink) {
                return Err(StoreError::SchemaMismatch {
                    into: template.to_string(),
                    what: "'onelog:owners' no longer says that the keys are this sink's".into(),
                    remedy: Remedy::Rebuild,
                });
            }
        }
        Ok(())
    }

    /// Makes the keys of this plan this sink's, unless some are another sink's by now. One step: of sinks
    /// that do so at the same moment one is first.
    pub(crate) fn claim_keys(&mut self) -> Result<(), StoreError> {
        let mut arguments: Vec<&[u8]> = vec![
            b"EVALSHA",
            &self.scripts.claim,
            b"1",
            OWNERS,
            self.sink.as_bytes(),
        ];
        for mapping in &self.plan.mappings {
            let KeyTemplate { prefix, suffix } = &mapping.key_template;
            arguments.extend([prefix.as_bytes(), suffix.as_bytes()]);
        }
        let link = &mut self.servers.links[self.servers.of_owners];
        let answer = link.request("writing the owners of keys to", &arguments)?;
        let Value::Array(items) = &answer else {
            return Err(link.unexpected(WHAT, &answer));
        };
        let text = |item: &Value| match item {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        };
        match &items[..] {
            [] => Ok(()),
            [template, owner, ours] => Err(owned(&text(template), &text(owner), &text(ours))),
            _ => Err(link.unexpected(WHAT, &answer)),
        }
    }

    /// Leaves the keys without an owner, until another sink takes them.
    pub(crate) fn forget_owners(&mut self) -> Result<(), StoreError> {
        let owners = self.owners()?;
        let ours = owners.into_iter().filter(|(_, owner)| *owner == self.sink);
        let ours: Vec<String> = ours.map(|(template, _)| template).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let mut arguments: Vec<&[u8]> = vec![b"HSET", OWNERS];
        for template in &ours {
            arguments.extend([template.as_bytes(), b""]);
        }
        let link = &mut self.servers.links[self.servers.of_owners];
        link.request("writing the owners of keys to", &arguments)?;
        Ok(())
    }

    /// Some key that a mapping's template names, and that none of these other ones does.
    fn find_row(
        &mut self,
        mapping: usize,
        others: &[KeyTemplate],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let template = &self.plan.mappings[mapping].key_template;
        let pattern = self.names.pattern(template);
        let mut found = None;
        for link in &mut self.servers.links {
            let names = &self.names;
            let flow = scan_keys(link, &pattern, |_, keys| {
                let fits =
                    |template: &KeyTemplate, key: &[u8]| names.strip(template, key).is_some();
                found = keys.into_iter().find(|key| {
                    fits(template, key) && !others.iter().any(|other| fits(other, key))
                });
                Ok(match found {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                })
            })?;
            if flow == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(found)
    }
}

fn retired_of(owners: &HashMap<String, String>, sink: &str, plan: &Plan) -> Vec<KeyTemplate> {
    let ours = owners.iter().filter(|(_, owner)| *owner == sink);
    let templates = ours.filter_map(|(text, _)| template_of(text));
    let is_used = |template: &KeyTemplate| {
        let mut mappings = plan.mappings.iter();
        mappings.any(|mapping| mapping.key_template == *template)
    };
    let mut retired: Vec<KeyTemplate> = templates.filter(|t| !is_used(t)).collect();
    // The lists of a rebuild are numbered by it.
    retired.sort_by_key(KeyTemplate::to_string);
    retired
}

fn template_of(text: &str) -> Option<KeyTemplate> {
    let (prefix, suffix) = text.split_once("{$key}")?;
    Some(KeyTemplate {
        prefix: prefix.to_owned(),
        suffix: suffix.to_owned(),
    })
}

fn check_others(
    owners: &HashMap<String, String>,
    sink: &str,
    template: &KeyTemplate,
) -> Result<(), StoreError> {
    let others = owners
        .iter()
        .filter(|(_, owner)| !owner.is_empty() && *owner != sink);
    for (text, owner) in others {
        let Some(other) = template_of(text) else {
            continue;
        };
        if overlap(&other, template) {
            return Err(owned(text, owner, &template.to_string()));
        }
    }
    Ok(())
}

fn owned(template: &str, owner: &str, ours: &str) -> StoreError {
    let fact = format!("keys that could be the same, '{template}', belong to the sink '{owner}'");
    StoreError::owned(ours, owner, fact)
}

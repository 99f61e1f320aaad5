//! The indexes of a mapping: their names, fields and settings; whose they are; how one takes the
//! place of another.
//!
//! Readers use the alias `into`. Behind it is the index `into-onelog-N`, N being the generation; a
//! rebuild makes the next one beside it. Each index has an alias of its own for writing, so that a
//! request that comes too late cannot make an index anew by writing to it (`require_alias`), and
//! one more until it is put in place: taking that one away is part of the exchange, which therefore
//! takes place once, however many processes request it and how often.

mod fields;

use std::collections::BTreeMap;

use onelog_mapping::MappingPlan;
use onelog_store::{Remedy, StoreError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::connection::{Body, Client, LONG_TIMEOUT, Method, escape};
use crate::kind::SETTINGS;

pub(crate) use self::fields::OWN;

/// The most bytes of names in one path; servers take lines of 4 KiB.
const NAMES_BYTES_MAX: usize = 3000;
/// Settings that are different while an index is backfilled.
pub(crate) const REFRESH: &str = "index.refresh_interval";
pub(crate) const REPLICAS: &str = "index.number_of_replicas";
pub(crate) const AUTO_REPLICAS: &str = "index.auto_expand_replicas";
pub(crate) const DURABILITY: &str = "index.translog.durability";

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    #[serde(default)]
    pub(crate) aliases: Map<String, Value>,
    #[serde(default)]
    pub(crate) mappings: Value,
    #[serde(default)]
    pub(crate) settings: Value,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Owner<'i> {
    /// Onelog did not make it.
    Foreign,
    /// Onelog's; its sink was removed.
    None,
    Sink(&'i str),
}

impl Index {
    pub(crate) fn owner(&self) -> Owner<'_> {
        match self.mappings.pointer("/_meta/onelog/sink") {
            None => Owner::Foreign,
            Some(Value::String(sink)) => Owner::Sink(sink),
            Some(_) => Owner::None,
        }
    }

    pub(crate) fn shards(&self) -> u32 {
        let text = self.settings.pointer("/index/number_of_shards");
        text.and_then(Value::as_str)
            .and_then(|text| text.parse().ok())
            .unwrap_or(1)
    }

    fn is_durable(&self) -> bool {
        let text = self.settings.pointer("/index/translog/durability");
        text.and_then(Value::as_str)
            .is_none_or(|text| text.eq_ignore_ascii_case("request"))
    }
}

pub(crate) fn index_name(into: &str, generation: u64) -> String {
    format!("{into}-onelog-{generation}")
}

pub(crate) fn write_alias(index: &str) -> String {
    format!("{index}-write")
}

pub(crate) fn staged_alias(index: &str) -> String {
    format!("{index}-staged")
}

/// The filter of the alias that readers use.
pub(crate) fn visible() -> Value {
    json!({"bool": {"must_not": [{"term": {"_onelog.deleted": true}}]}})
}

/// Why a name cannot be the name of an alias whose index is named after it.
pub(crate) fn check_name(into: &str) -> Option<String> {
    let wrong = |c: char| c.is_control() || r#"\/*?"<>| ,#:"#.contains(c);
    if let Some(character) = into.chars().find(|c| wrong(*c)) {
        return Some(format!("it contains {character:?}"));
    }
    if into.chars().any(char::is_uppercase) {
        return Some("it contains a capital letter".into());
    }
    if into.starts_with(['-', '_', '+', '.']) {
        return Some("it begins with '-', '_', '+' or '.'".into());
    }
    is_reserved(into).then(|| {
        format!(
            "'{}' and names that end like 'orders-onelog-1' are onelog's own",
            crate::bookkeeping::INDEX
        )
    })
}

/// Whether a name is one that onelog gives: its index of sinks, an index of some `into`, or an alias of
/// such an index.
fn is_reserved(name: &str) -> bool {
    let of_index = |name: &str| {
        let behind = name.rsplit_once("-onelog-").map(|(_, behind)| behind);
        behind.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let index = ["-write", "-staged"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    name == crate::bookkeeping::INDEX || of_index(index)
}

/// All settings that a definition gives, by their full names.
pub(crate) fn settings(mapping: &MappingPlan) -> BTreeMap<String, Value> {
    fn flatten(name: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    let dot = if name.is_empty() { "" } else { "." };
                    flatten(&format!("{name}{dot}{field}"), value, out);
                }
            }
            value => {
                let full = match name.starts_with("index.") {
                    true => name.to_owned(),
                    false => format!("index.{name}"),
                };
                out.insert(full, value.clone());
            }
        }
    }
    let mut out = BTreeMap::new();
    for (field, value) in mapping.options.object(SETTINGS).into_iter().flatten() {
        if field != "mappings" {
            flatten(field, value, &mut out);
        }
    }
    // What an index cannot search by in a document stays in the document all the same.
    if mapping.is_document {
        out.entry("index.mapping.ignore_malformed".to_owned())
            .or_insert(Value::Bool(true));
    }
    out
}

/// What of a mapping cannot be kept in these products.
pub(crate) fn check_mapping(mapping: &MappingPlan) -> Result<(), StoreError> {
    let mismatch = |what: String| Err(StoreError::mismatch(mapping, what, Remedy::Said));
    if let Some(what) = check_name(&mapping.into) {
        return mismatch(format!(
            "the name cannot be the name of an index ({what}); choose another name for 'into'"
        ));
    }
    if mapping
        .columns
        .iter()
        .any(|column| column.name == fields::OWN)
    {
        return mismatch(format!(
            "the column '{}' has the name of onelog's own field; choose another name",
            fields::OWN
        ));
    }
    let durability = settings(mapping).remove(DURABILITY);
    match durability.as_ref().and_then(Value::as_str) {
        Some("async") => mismatch(
            "with the setting 'translog.durability' = 'async' the store could forget rows and keep the position; take it out of the mapping's 'settings'".into(),
        ),
        _ => Ok(()),
    }
}

/// Makes an index that is to be backfilled.
pub(crate) fn create_index(
    client: &Client,
    mapping: &MappingPlan,
    sink: &str,
    index: &str,
) -> Result<(), StoreError> {
    const DOING: &str = "making an index in";
    let mut settings = settings(mapping);
    settings.remove(AUTO_REPLICAS);
    settings.insert(REFRESH.into(), "-1".into());
    settings.insert(REPLICAS.into(), 0.into());
    settings.insert(DURABILITY.into(), "async".into());
    let body = json!({
        "settings": settings,
        "mappings": fields::mappings(mapping, sink),
        "aliases": {write_alias(index): {}, staged_alias(index): {}},
    });
    let path = format!("/{}", escape(index));
    let answer = client.call(DOING, Method::PUT, &path, Body::Json(body), LONG_TIMEOUT)?;
    if answer.status == 400 {
        let what = format!(
            "its index cannot be made: {}; correct the mapping, of which its settings and fields are made",
            answer.fault()
        );
        return Err(StoreError::mismatch(mapping, what, Remedy::Said));
    }
    answer.success(client, DOING).map(|_| ())
}

/// What is behind a name, which may be an index, an alias or a pattern.
pub(crate) fn find_indexes(
    client: &Client,
    name: &str,
) -> Result<BTreeMap<String, Index>, StoreError> {
    const DOING: &str = "looking at the indexes of";
    let path = format!("/{}?allow_no_indices=true", escape(name));
    match client.get(DOING, &path)?.found(client, DOING)? {
        None => Ok(BTreeMap::new()),
        Some(answer) => answer.json(client, DOING),
    }
}

/// Every generation of a mapping's index.
pub(crate) fn generations(
    client: &Client,
    into: &str,
) -> Result<Vec<(u64, String, Index)>, StoreError> {
    let prefix = name_prefix(into);
    let found = find_indexes(client, &format!("{prefix}*"))?;
    let numbered = found.into_iter().filter_map(|(name, index)| {
        let number = name.strip_prefix(&prefix)?.parse().ok()?;
        Some((number, name, index))
    });
    Ok(numbered.collect())
}

fn name_prefix(into: &str) -> String {
    format!("{into}-onelog-")
}

/// Refuses names that a rebuild may not take: whatever onelog did not make, or made for another
/// sink.
pub(crate) fn check_owner(client: &Client, sink: &str, into: &str) -> Result<(), StoreError> {
    let not_owner = |what: String| {
        Err(StoreError::NotOwner {
            into: into.to_owned(),
            owner: None,
            what,
        })
    };
    for (name, index) in find_indexes(client, into)? {
        match index.owner() {
            Owner::None => {}
            Owner::Sink(owner) if owner == sink => {}
            Owner::Sink(owner) => {
                let fact = format!("it belongs to the sink '{owner}'");
                return Err(StoreError::owned(into, owner, fact));
            }
            Owner::Foreign if name == into => {
                return not_owner(
                    "an index of this name is there that onelog did not make; choose another name for 'into', or delete the index".into(),
                );
            }
            Owner::Foreign => {
                return not_owner(format!(
                    "an alias of this name is there that leads to '{name}', which onelog did not make; choose another name for 'into', or take the alias away"
                ));
            }
        }
    }
    Ok(())
}

/// Whether the alias leads to `index` and the index has the fields of the mapping.
pub(crate) fn check_shape(
    client: &Client,
    mapping: &MappingPlan,
    index: &str,
) -> Result<(), StoreError> {
    let found = find_indexes(client, &mapping.into)?;
    let mut what = Vec::new();
    match found.get(index) {
        None => what.push(format!(
            "the alias '{}' does not lead to the index '{index}'",
            mapping.into
        )),
        Some(is) => {
            if is
                .aliases
                .get(&mapping.into)
                .and_then(|alias| alias.get("filter"))
                != Some(&visible())
            {
                what.push("its alias has another filter, so deleted documents may show".into());
            }
            if !is.aliases.contains_key(&write_alias(index)) {
                what.push(format!("the alias '{}' is not there", write_alias(index)));
            }
            if !is.is_durable() {
                what.push("its translog is not flushed with each request".into());
            }
            what.extend(fields::mismatches(mapping, &is.mappings));
        }
    }
    for other in found.keys().filter(|name| *name != index) {
        what.push(format!(
            "the alias '{}' leads to the index '{other}' too",
            mapping.into
        ));
    }
    if what.is_empty() {
        return Ok(());
    }
    Err(StoreError::mismatch(
        mapping,
        what.join("; "),
        Remedy::Rebuild,
    ))
}

/// Deletes an index if it is there.
pub(crate) fn delete_index(client: &Client, index: &str) -> Result<(), StoreError> {
    const DOING: &str = "deleting an old index in";
    let path = format!("/{}", escape(index));
    let answer = client.call(DOING, Method::DELETE, &path, Body::Nothing, LONG_TIMEOUT)?;
    answer.found(client, DOING).map(|_| ())
}

/// Makes an index one without an owner.
pub(crate) fn forget_owner(client: &Client, index: &str) -> Result<(), StoreError> {
    const DOING: &str = "giving up an index in";
    let body = Body::Json(json!({"_meta": {"onelog": {"sink": null}}}));
    let path = format!("/{}/_mapping", escape(index));
    let answer = client.call(DOING, Method::PUT, &path, body, LONG_TIMEOUT)?;
    answer.found(client, DOING).map(|_| ())
}

/// Makes everything that was written to these indexes visible to searches.
pub(crate) fn refresh(client: &Client, indexes: &[String]) -> Result<(), StoreError> {
    const DOING: &str = "refreshing the indexes of";
    let mut path = String::new();
    let mut rest = indexes.iter().peekable();
    while let Some(index) = rest.next() {
        path.push(if path.is_empty() { '/' } else { ',' });
        path.push_str(&escape(index));
        let next = rest.peek().map(|next| next.len() * 3);
        if next.is_none_or(|next| path.len() + next > NAMES_BYTES_MAX) {
            // A missing index is reported where it is needed.
            path.push_str("/_refresh?ignore_unavailable=true");
            let path = std::mem::take(&mut path);
            client
                .read(DOING, Method::POST, &path, Body::Nothing, LONG_TIMEOUT)?
                .success(client, DOING)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_onelogs_own_is_a_sinks() {
        let index = index_name("orders", 17);
        for name in [
            crate::bookkeeping::INDEX,
            &index,
            &write_alias(&index),
            &staged_alias(&index),
            &index_name(&index, 2),
        ] {
            let why = check_name(name).unwrap_or_default();
            assert!(why.contains("onelog's own"), "{name}: {why}");
        }
        for name in [
            "orders",
            "orders-onelog-",
            "an-onelog-index",
            "orders-write",
            "onelog-1",
        ] {
            assert_eq!(check_name(name), None, "{name}");
        }
    }
}

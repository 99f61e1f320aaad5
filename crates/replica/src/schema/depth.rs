//! How deep the library recurses, and stacks that suffice for it.
//!
//! The library compiles a schema, checks a document and drops what it compiled by recursion, along
//! references as along nesting, and counts nothing on the way. What it may need is therefore found
//! out beforehand, without recursion: it goes through the parts of a schema that lead to a
//! reference at most twice each to compile it, and through the subschemas that look at one value
//! once for each level of a document. What could exhaust the stack of a thread like any other is
//! done on a thread of its own, and a schema that needs too much at one value is refused.

use std::collections::HashMap;
use std::io;

use onelog_record::{JSON_DEPTH_MAX, Json};
use serde_json::{Map, Value};

use super::steps::REFERENCES;

const THREAD: &str = "onelog-schema";

/// The most subschemas that look at one value, one inside the other.
pub(super) const AT_ONE_VALUE_MAX: usize = 1024;
/// How deep the text of a schema may nest: its definition has one level more.
const NESTING_MAX: usize = JSON_DEPTH_MAX - 2;
/// What a reference to the schemas of JSON Schema itself leads to.
const LEVELS_OF_A_DIALECT: usize = 64;
/// Of so many resources one reference may name one.
const RESOURCES_MAX: usize = 256;

/// Stack for one level of each; what a build without optimisation needs.
const COMPILING_BYTES: usize = 24 << 10;
const CHECKING_BYTES: usize = 4 << 10;
const DROPPING_BYTES: usize = 2 << 10;
/// Stack for what does not nest, on a thread that is made for it.
const BASE_BYTES: usize = 2 << 20;
/// What may be used of the stack of any thread.
const SPARE_BYTES: usize = 256 << 10;

/// Keywords whose subschemas look at the same value: lists, maps and single ones.
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const MAPS: [&str; 2] = ["dependentSchemas", "dependencies"];
const SINGLE: [&str; 4] = ["not", "if", "then", "else"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Depth {
    /// Levels of compiling.
    compiled: usize,
    /// Levels of checking one value without what is in it.
    at_one_value: usize,
}

impl Depth {
    /// # Errors
    /// Says what nests too deeply.
    pub(super) fn of(schema: &Value) -> Result<Self, String> {
        let parts = Parts::of(schema)?;
        let depth = Self {
            compiled: NESTING_MAX + 2 * parts.leading_to_references(),
            at_one_value: parts.longest_at_one_value(),
        };
        match depth.at_one_value {
            0..=AT_ONE_VALUE_MAX => Ok(depth),
            levels => Err(format!(
                "it nests up to {levels} subschemas for one value, through references, 'allOf' and \
                 the like; the limit is {AT_ONE_VALUE_MAX}"
            )),
        }
    }

    pub(super) fn compile<T: Send>(self, compile: impl FnOnce() -> T + Send) -> io::Result<T> {
        // The checks of a schema by that of its dialect are as deep as its text, whatever it says.
        on_stack(BASE_BYTES + self.compiled * COMPILING_BYTES, compile)
    }

    pub(super) fn check<T: Send>(
        self,
        document: &Json<'_>,
        check: impl FnOnce() -> T + Send,
    ) -> io::Result<T> {
        let bytes = |levels: usize| levels * self.at_one_value * CHECKING_BYTES;
        if bytes(JSON_DEPTH_MAX) <= SPARE_BYTES || bytes(levels(document)) <= SPARE_BYTES {
            return Ok(check());
        }
        on_stack(BASE_BYTES + bytes(levels(document)), check)
    }
}

/// What was compiled; its parts lie one inside the other.
#[derive(Debug)]
pub(super) struct Held<T: Send + 'static> {
    compiled: Option<T>,
    depth: Depth,
}

impl<T: Send + 'static> Held<T> {
    pub(super) const fn new(compiled: T, depth: Depth) -> Self {
        Self {
            compiled: Some(compiled),
            depth,
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "`compiled` is private, and set from `new` until the drop"
    )]
    pub(super) fn get(&self) -> &T {
        let compiled = self.compiled.as_ref();
        compiled.expect("only the end of a Held takes what it holds")
    }
}

impl<T: Send + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        let bytes = (self.depth.compiled - NESTING_MAX) * DROPPING_BYTES;
        let Some(compiled) = self.compiled.take().filter(|_| bytes > SPARE_BYTES) else {
            return;
        };
        let (give, given) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .stack_size(BASE_BYTES + bytes);
        match thread.spawn(move || drop(given.recv())) {
            Ok(thread) => {
                _ = give.send(compiled);
                _ = thread.join();
            }
            // Memory that is lost is less than a process that ends.
            Err(_) => std::mem::forget(compiled),
        }
    }
}

/// Runs `work` on a thread of its own with such a stack.
fn on_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .stack_size(bytes)
            .spawn_scoped(scope, work)?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// The levels of a document, its parts without any counted as one; it was read within
/// `JSON_DEPTH_MAX`. The names in it are looked at like values.
fn levels(document: &Json<'_>) -> usize {
    let inside = match document {
        Json::Array(items) => items.iter().map(levels).max(),
        Json::Object(fields) => fields.iter().map(|(_, field)| levels(field)).max(),
        _ => return 1,
    };
    1 + inside.unwrap_or(1)
}

/// The objects of a schema, which may all be subschemas, and how they lead to one another.
#[derive(Default)]
struct Parts<'s> {
    objects: Vec<Object<'s>>,
    numbers: HashMap<*const Value, usize>,
    /// By the end of their identifiers.
    resources: HashMap<&'s str, Vec<usize>>,
    /// For each name, a number behind those of the objects: it leads to all that have it.
    anchors: HashMap<&'s str, (usize, Vec<usize>)>,
    is_unclear: bool,
}

struct Object<'s> {
    value: &'s Value,
    fields: &'s Map<String, Value>,
    parent: Option<usize>,
    /// The nearest object around it that has an identifier, or the outermost one.
    resource: usize,
}

impl<'s> Parts<'s> {
    fn of(schema: &'s Value) -> Result<Self, String> {
        let mut parts = Self::default();
        let mut open = vec![(schema, 1, None, 0)];
        while let Some((value, level, parent, resource)) = open.pop() {
            let (parent, resource) = match value {
                Value::Object(fields) => {
                    let number = parts.note(value, fields, parent, resource);
                    (Some(number), parts.objects[number].resource)
                }
                Value::Array(_) => (parent, resource),
                _ => continue,
            };
            if level > NESTING_MAX {
                return Err(format!("it nests deeper than {NESTING_MAX} levels"));
            }
            let inside = |inner| (inner, level + 1, parent, resource);
            match value {
                Value::Object(fields) => open.extend(fields.values().map(inside)),
                Value::Array(items) => open.extend(items.iter().map(inside)),
                _ => {}
            }
        }
        let behind = parts.objects.len();
        for (n, (number, _)) in parts.anchors.values_mut().enumerate() {
            *number = behind + n;
        }
        Ok(parts)
    }

    fn note(
        &mut self,
        value: &'s Value,
        fields: &'s Map<String, Value>,
        parent: Option<usize>,
        around: usize,
    ) -> usize {
        let number = self.objects.len();
        let text = |name| fields.get(name).and_then(Value::as_str);
        let mut resource = around;
        for id in [text("$id"), text("id")].into_iter().flatten() {
            match id.split_once('#') {
                Some(("", name)) => self.anchors.entry(name).or_default().1.push(number),
                _ => {
                    resource = number;
                    self.resources.entry(end_of(id)).or_default().push(number);
                }
            }
        }
        for name in [text("$anchor"), text("$dynamicAnchor")] {
            let named = name.map(|name| self.anchors.entry(name).or_default());
            named.into_iter().for_each(|named| named.1.push(number));
        }
        self.numbers.insert(std::ptr::from_ref(value), number);
        self.objects.push(Object {
            value,
            fields,
            parent,
            resource,
        });
        number
    }

    /// How many objects are a reference or have one in them.
    fn leading_to_references(&self) -> usize {
        let mut lead = vec![false; self.objects.len()];
        for (number, object) in self.objects.iter().enumerate() {
            if !REFERENCES
                .iter()
                .any(|name| object.fields.contains_key(*name))
            {
                continue;
            }
            let mut next = Some(number);
            while let Some(at) = next.filter(|at| !lead[*at]) {
                lead[at] = true;
                next = self.objects[at].parent;
            }
        }
        lead.into_iter().filter(|leads| *leads).count()
    }

    /// The most subschemas that can look at one value, one inside the other. Of those that lead back
    /// to themselves all are counted.
    fn longest_at_one_value(mut self) -> usize {
        let objects = self.objects.len();
        let mut weights = Vec::with_capacity(objects);
        let mut leads_to = Vec::with_capacity(objects);
        for number in 0..objects {
            let (targets, elsewhere) = self.targets(number);
            weights.push(1 + elsewhere);
            leads_to.push(targets);
        }
        if self.is_unclear {
            return objects;
        }
        let mut anchors: Vec<_> = std::mem::take(&mut self.anchors).into_values().collect();
        anchors.sort_unstable();
        leads_to.extend(anchors.into_iter().map(|(_, named)| named));
        weights.resize(leads_to.len(), 0);

        let mut led_from = vec![Vec::new(); leads_to.len()];
        for (from, targets) in leads_to.iter().enumerate() {
            targets.iter().for_each(|to| led_from[*to].push(from));
        }
        let (behind, mut is_done) = longest(&leads_to, &led_from, &weights);
        let (before, is_done_too) = longest(&led_from, &leads_to, &weights);
        let longest = behind.iter().max().copied().unwrap_or(0);
        is_done
            .iter_mut()
            .zip(is_done_too)
            .for_each(|(done, too)| *done |= too);
        let circling = weights.iter().zip(is_done).filter(|(_, done)| !done);
        match circling.map(|(weight, _)| weight).sum::<usize>() {
            0 => longest,
            circling => circling + longest + before.iter().max().copied().unwrap_or(0),
        }
    }

    /// The subschemas of a part that look at its own value, and the levels outside of the schema.
    fn targets(&mut self, number: usize) -> (Vec<usize>, usize) {
        let fields = self.objects[number].fields;
        let lists = LISTS
            .iter()
            .filter_map(|name| fields.get(*name)?.as_array());
        let maps = MAPS
            .iter()
            .filter_map(|name| fields.get(*name)?.as_object());
        let single = SINGLE.iter().filter_map(|name| fields.get(*name));
        let subschemas = lists
            .flatten()
            .chain(maps.flat_map(Map::values))
            .chain(single);
        let numbers = subschemas.filter_map(|value| self.number(value));
        let mut targets: Vec<usize> = numbers.collect();
        let mut elsewhere = 0;
        for name in REFERENCES {
            if let Some(reference) = fields.get(name).and_then(Value::as_str) {
                let resource = self.objects[number].resource;
                if !self.follow(reference, resource, &mut targets) {
                    elsewhere = LEVELS_OF_A_DIALECT;
                }
            }
        }
        (targets, elsewhere)
    }

    fn number(&self, value: &Value) -> Option<usize> {
        self.numbers.get(&std::ptr::from_ref(value)).copied()
    }

    /// Whether the reference leads to a part of the schema.
    fn follow(&mut self, reference: &str, from: usize, targets: &mut Vec<usize>) -> bool {
        let (resource, place) = reference.split_once('#').unwrap_or((reference, ""));
        let named: &[usize] = match resource {
            "" => &[from, 0],
            resource => (self.resources.get(end_of(resource))).map_or(&[], Vec::as_slice),
        };
        if named.len() > RESOURCES_MAX {
            self.is_unclear = true;
            return true;
        }
        if !place.is_empty() && !place.starts_with('/') {
            let anchor = self.anchors.get(place);
            targets.extend(anchor.map(|(number, _)| *number));
            return anchor.is_some();
        }
        let place = decoded(place);
        let resources = named.iter().filter_map(|number| self.objects.get(*number));
        let values = resources.filter_map(|resource| resource.value.pointer(&place));
        let mut is_found = false;
        for value in values {
            is_found = true;
            targets.extend(self.number(value));
        }
        is_found
    }
}

/// For each, the weight of the longest way that leads on from it, itself included, as far as none of
/// these leads back; and whether none does.
fn longest(
    leads_to: &[Vec<usize>],
    led_from: &[Vec<usize>],
    weights: &[usize],
) -> (Vec<usize>, Vec<bool>) {
    let mut left: Vec<usize> = leads_to.iter().map(Vec::len).collect();
    let mut ways = weights.to_vec();
    let mut is_done = vec![false; ways.len()];
    let mut ends: Vec<usize> = (0..left.len()).filter(|n| left[*n] == 0).collect();
    while let Some(end) = ends.pop() {
        is_done[end] = true;
        for &from in &led_from[end] {
            ways[from] = ways[from].max(weights[from] + ways[end]);
            left[from] -= 1;
            if left[from] == 0 {
                ends.push(from);
            }
        }
    }
    (ways, is_done)
}

/// The last part of an identifier: what a relative one has in common with it.
fn end_of(identifier: &str) -> &str {
    let identifier = identifier.split('#').next().unwrap_or_default();
    identifier.rsplit('/').next().unwrap_or_default()
}

/// The pointer that a fragment writes with percent signs.
fn decoded(fragment: &str) -> String {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = &after[if code.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;

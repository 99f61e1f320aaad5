//! The shape of a sink's definition, which `onelog_sinks` reads and writes. The fields of every kind
//! of store are here; the others, and the examples, are those that the kinds describe.

use std::collections::BTreeMap;

use onelog_sinks::{FieldRule, FieldValue, Kinds, StoreKind};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, Components, Object, ObjectBuilder, Schema,
    Type,
};

/// A store that shall follow the log.
#[derive(Debug, ToSchema)]
#[allow(dead_code)]
pub struct NewSink {
    /// Needed to make a sink. In a request that names the sink in its path, and in a dry run, it
    /// may be missing.
    #[schema(nullable = false)]
    name: Option<String>,
    kind: String,
    mappings: Vec<Mapping>,
    #[schema(nullable = false)]
    paused: Option<bool>,
    /// What happens when the store refuses a record: `stop` (unless given) or `park`.
    #[schema(nullable = false)]
    on_refused: Option<String>,
    /// How often the store is compared with the log, for example `1h`.
    #[schema(nullable = false)]
    verify_every: Option<String>,
    /// How much log is kept for the sink at most, for example `10GiB`.
    #[schema(nullable = false)]
    keep_log: Option<String>,
    /// How much of the log, unpacked, one batch may have, for example `1MiB`; `8MiB` unless given.
    #[schema(nullable = false)]
    batch_bytes: Option<String>,
    /// How many rows of a table a backfill may delete; unless given, 100 or a fifth of them.
    #[schema(nullable = false)]
    max_deletes: Option<u64>,
    /// The id of another log whose sink of this name in the store this one may take, once, with its
    /// tables.
    #[schema(nullable = false)]
    take_from_log: Option<String>,
    /// The number of the node of a cluster on which it runs while that is there; unless given, the
    /// leader.
    #[schema(nullable = false)]
    run_on: Option<u64>,
}

/// How a table's records become rows.
#[derive(Debug, ToSchema)]
#[allow(dead_code)]
pub struct Mapping {
    /// The table of the log.
    table: String,
    /// The table of the store.
    into: String,
    /// The columns beside the key, by their names in the store.
    #[schema(nullable = false)]
    columns: Option<BTreeMap<String, Column>>,
    /// A jq program: whether a record makes a row.
    #[schema(nullable = false)]
    r#where: Option<String>,
    /// A jq program that makes another document of the record's.
    #[schema(nullable = false)]
    transform: Option<String>,
    /// The fields that are kept: a list of names, or an object of new names and paths.
    #[schema(nullable = false)]
    fields: Option<Fields>,
    /// The row's key, made of the record's: `order:{$key}`.
    #[schema(nullable = false)]
    key: Option<String>,
}

/// Where a column's cells come from, and what they are.
#[derive(Debug, ToSchema)]
#[allow(dead_code)]
pub struct Column {
    /// `$key`, `$value`, `$version`, or a field of the document: a JSON Pointer, or a name at the top.
    from: String,
    /// The type of the cells.
    r#type: String,
}

/// A list of names, or an object of new names and paths.
#[derive(Debug, serde::Serialize, ToSchema)]
#[allow(dead_code)]
#[serde(untagged)]
pub enum Fields {
    Names(Vec<String>),
    Paths(BTreeMap<String, String>),
}

/// Adds to the schemas of a definition what each kind of store takes and shows of it.
pub fn add_kinds(kinds: Kinds, components: &mut Components) {
    let own = |rules: fn(&'static dyn StoreKind) -> Vec<FieldRule>| {
        let rules = kinds.iter().map(move |kind| (kind.name(), rules(kind)));
        rules.flat_map(|(kind, rules)| rules.into_iter().map(move |rule| (kind, rule)))
    };
    if let Some(sink) = object(components, &NewSink::name()) {
        add_fields(sink, own(|kind| kind.fields().to_vec()));
        let names: Vec<String> = kinds.names().iter().map(|name| code(name)).collect();
        let kind = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(format!("The kind of store: {}.", names.join(", "))));
        sink.properties.insert("kind".to_owned(), kind.into());
        sink.examples = kinds.iter().map(StoreKind::example).collect();
    }
    if let Some(mapping) = object(components, &Mapping::name()) {
        add_fields(mapping, own(|kind| kind.rules().fields().collect()));
    }
}

fn object<'c>(components: &'c mut Components, name: &str) -> Option<&'c mut Object> {
    match components.schemas.get_mut(name)? {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}

/// A field that several kinds describe alike is described once, with their names.
fn add_fields(schema: &mut Object, rules: impl Iterator<Item = (&'static str, FieldRule)>) {
    let mut by_name: BTreeMap<&str, Vec<(FieldRule, Vec<&str>)>> = BTreeMap::new();
    for (kind, rule) in rules {
        let described = by_name.entry(rule.name).or_default();
        match described.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, kinds)) => kinds.push(kind),
            None => described.push((rule, vec![kind])),
        }
    }
    for (name, described) in by_name {
        let property = match &described[..] {
            [(rule, kinds)] => property(rule, kinds),
            several => {
                let each = several.iter().map(|(rule, kinds)| property(rule, kinds));
                let any = each.fold(AnyOfBuilder::new(), AnyOfBuilder::item);
                any.into()
            }
        };
        schema.properties.insert(name.to_owned(), property);
    }
}

fn property(rule: &FieldRule, kinds: &[&str]) -> RefOr<Schema> {
    let kinds: Vec<String> = kinds.iter().map(|kind| code(kind)).collect();
    let help = format!("Of {}: {}.", kinds.join(", "), rule.help);
    let typed = |of: Type| ObjectBuilder::new().schema_type(of);
    let shape = match rule.value {
        FieldValue::Text => typed(Type::String),
        FieldValue::Flag => typed(Type::Boolean),
        FieldValue::Count { max } => typed(Type::Integer)
            .minimum(Some(1))
            .maximum(i64::try_from(max).ok()),
        FieldValue::Choice { of, .. } => typed(Type::String).enum_values(Some(of.iter().copied())),
        FieldValue::Object => {
            typed(Type::Object).additional_properties(Some(AdditionalProperties::FreeForm(true)))
        }
        FieldValue::Texts => {
            let texts = ArrayBuilder::new().items(typed(Type::String));
            return texts.description(Some(help)).into();
        }
    };
    shape.description(Some(help)).into()
}

fn code(name: &str) -> String {
    format!("`{name}`")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use onelog_sinks::{Kinds, SinkDefinition};
    use onelog_stores::KINDS;
    use serde_json::{Value, json};
    use utoipa::{PartialSchema as _, ToSchema as _};

    use super::{Components, Mapping, NewSink, add_kinds};

    /// The fields that the parser lists for a definition with an unknown one.
    fn known(definition: &Value) -> BTreeSet<String> {
        let error = SinkDefinition::from_json(KINDS, definition).unwrap_err();
        let (_, list) = error.what.split_once("known are: ").unwrap();
        list.split(", ").map(str::to_owned).collect()
    }

    fn schemas(kinds: Kinds) -> Value {
        let mut components = Components::new();
        for (name, schema) in [
            (NewSink::name(), NewSink::schema()),
            (Mapping::name(), Mapping::schema()),
        ] {
            components.schemas.insert(name.into_owned(), schema);
        }
        add_kinds(kinds, &mut components);
        serde_json::to_value(components.schemas).unwrap()
    }

    fn fields(schema: &Value) -> BTreeSet<String> {
        schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    #[test]
    fn the_shape_has_the_fields_that_the_parser_reads() {
        let schemas = schemas(KINDS);
        let of_kinds: BTreeSet<String> = KINDS
            .names()
            .iter()
            .flat_map(|kind| known(&json!({"kind": kind, "zzzzzzzzzzzzzzzz": 1})))
            .collect();
        assert_eq!(of_kinds, fields(&schemas["NewSink"]));
        let of_mappings = known(&json!({"name": "s", "kind": "sqlite", "path": "p",
            "mappings": [{"table": "t", "into": "i", "zzzzzzzzzzzzzzzz": 1}]}));
        assert_eq!(of_mappings, fields(&schemas["Mapping"]));
    }

    #[test]
    fn a_field_of_some_kinds_names_them_and_has_its_shape() {
        // These five, whatever else there is: another store adds its name to what is said below.
        let five = ["sqlite", "postgres", "mysql", "redis", "elasticsearch"];
        let five = five.map(|name| KINDS.find(name).unwrap());
        let schemas = schemas(Kinds::new(five.to_vec().leak()));
        let (sink, mapping) = (
            &schemas["NewSink"]["properties"],
            &schemas["Mapping"]["properties"],
        );
        for (property, expected) in [
            (
                &sink["schema"],
                json!({"type": "string",
                    "description": "Of `postgres`: the schema of the tables, public unless given."}),
            ),
            (
                &sink["partitions"],
                json!({"type": "integer", "minimum": 1, "maximum": 4096, "description":
                    "Of `redis`: given for a cluster: into how many groups keys are spread."}),
            ),
            (
                &mapping["existing"],
                json!({"type": "boolean", "description":
                    "Of `postgres`, `mysql`: the table exists already and is not made."}),
            ),
            (
                &mapping["as"],
                json!({"type": "string", "enum": ["string", "hash"], "description": "Of `redis`: what a \
                    row is, a string that holds JSON or a hash with one field a column."}),
            ),
            (
                &mapping["settings"],
                json!({"type": "object", "additionalProperties": true,
                    "description": "Of `elasticsearch`: the settings of the index."}),
            ),
            (
                &mapping["full_text"],
                json!({"type": "array", "items": {"type": "string"},
                    "description": "Of `sqlite`: columns with a full-text index."}),
            ),
        ] {
            assert_eq!(property, &expected);
        }
        let url = sink["url"]["description"].as_str().unwrap();
        assert!(
            url.starts_with("Of `postgres`, `mysql`, `redis`, `elasticsearch`: where"),
            "{url}"
        );
        let kind = sink["kind"]["description"].as_str().unwrap();
        assert_eq!(
            kind,
            "The kind of store: `sqlite`, `postgres`, `mysql`, `redis`, `elasticsearch`."
        );
    }

    #[test]
    fn the_example_of_each_kind_is_one_that_the_parser_takes() {
        let schemas = schemas(KINDS);
        let examples = schemas["NewSink"]["examples"].as_array().unwrap();
        let kinds = examples.iter().map(|example| {
            let read = SinkDefinition::from_json(KINDS, example).unwrap();
            assert_eq!(read.mappings[0].table, "shop.orders");
            read.target.kind().name()
        });
        assert_eq!(kinds.collect::<Vec<_>>(), KINDS.names());
    }
}

//! The flags that kinds of store give the command line: one for each field that they describe, but
//! for the place of the store, which is the address.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use onelog_command::CommandError;
use onelog_sinks::{FieldRule, FieldValue, StoreKind};
use onelog_stores::KINDS;
use serde_json::{Map, Value};

static FLAGS: LazyLock<Vec<Flag>> = LazyLock::new(flags);

/// A field, and the kinds that have it.
struct Flag {
    rule: FieldRule,
    /// The name with hyphens.
    long: String,
    kinds: Vec<&'static str>,
}

/// The fields that were given as flags, as they were written.
#[derive(Clone, Debug, Default)]
pub struct KindFlags(BTreeMap<&'static str, Vec<String>>);

type Fields = Map<String, Value>;

impl KindFlags {
    /// The fields of a definition and those of its mappings.
    pub fn fields(&self, kind: &'static dyn StoreKind) -> Result<(Fields, Fields), CommandError> {
        let (mut of_sink, mut of_mapping) = (Fields::new(), Fields::new());
        for (name, given) in &self.0 {
            let sink = kind.fields().iter().find(|rule| rule.name == *name);
            let mapping = || kind.rules().fields().find(|rule| rule.name == *name);
            if let Some(rule) = sink {
                of_sink.insert(rule.name.to_owned(), value(rule, given)?);
            } else if let Some(rule) = mapping() {
                of_mapping.insert(rule.name.to_owned(), value(&rule, given)?);
            } else {
                let flag = FLAGS.iter().find(|flag| flag.rule.name == *name);
                let (long, kinds) = flag.map_or((*name, String::new()), |flag| {
                    (flag.long.as_str(), flag.kinds.join(" and "))
                });
                return Err(CommandError::Usage(format!(
                    "--{long} belongs to sinks of the kind {kinds}, this one is of the kind {}",
                    kind.name()
                )));
            }
        }
        Ok((of_sink, of_mapping))
    }
}

/// As the definition has it. What is no number stays a text, which the server refuses by name.
fn value(rule: &FieldRule, given: &[String]) -> Result<Value, CommandError> {
    let text = given.last().map(String::as_str).unwrap_or_default();
    Ok(match rule.value {
        FieldValue::Text | FieldValue::Choice { .. } => text.into(),
        FieldValue::Texts => given.into(),
        FieldValue::Flag => true.into(),
        FieldValue::Count { .. } => text.parse::<u64>().map_or(text.into(), Value::from),
        FieldValue::Object => serde_json::from_str(text)
            .map_err(|error| CommandError::Usage(format!("--{}: {error}", rule.name)))?,
    })
}

fn flags() -> Vec<Flag> {
    let mut flags: Vec<Flag> = Vec::new();
    for kind in KINDS.iter() {
        let place = kind.fields_of("");
        let fields = kind.fields().iter().copied().chain(kind.rules().fields());
        for rule in fields.filter(|rule| !place.contains_key(rule.name)) {
            match flags.iter_mut().find(|flag| flag.rule.name == rule.name) {
                Some(flag) => flag.kinds.push(kind.name()),
                None => flags.push(Flag {
                    rule,
                    long: rule.name.replace('_', "-"),
                    kinds: vec![kind.name()],
                }),
            }
        }
    }
    flags
}

impl Flag {
    fn arg(&'static self) -> Arg {
        let arg = Arg::new(self.rule.name)
            .long(self.long.as_str())
            .help(format!("Of {}: {}", self.kinds.join(", "), self.rule.help))
            .requires("to");
        match self.rule.value {
            FieldValue::Flag => arg.action(ArgAction::SetTrue),
            FieldValue::Text => arg.value_name("TEXT"),
            FieldValue::Count { .. } => arg.value_name("COUNT"),
            FieldValue::Choice { what, of } => arg
                .value_name(what)
                .value_parser(PossibleValuesParser::new(of)),
            FieldValue::Object => arg.value_name("JSON"),
            FieldValue::Texts => arg.value_name("NAME").action(ArgAction::Append),
        }
    }

    fn given(&self, matches: &ArgMatches) -> Option<Vec<String>> {
        let name = self.rule.name;
        if self.rule.value == FieldValue::Flag {
            return matches.get_flag(name).then(Vec::new);
        }
        matches
            .get_many::<String>(name)
            .map(|given| given.cloned().collect())
    }
}

impl clap::Args for KindFlags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(Flag::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KindFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = FLAGS
            .iter()
            .filter_map(|flag| Some((flag.rule.name, flag.given(matches)?)));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};
    use serde_json::json;

    use super::*;

    /// The fields of a definition and of its mappings that a command line gives.
    fn fields(url: &str, line: &[&str]) -> Result<(Value, Value), String> {
        let command = Command::new("create").arg(Arg::new("to").long("to"));
        let words = ["create", "--to", url].into_iter();
        let matches = KindFlags::augment_args(command)
            .try_get_matches_from(words.chain(line.iter().copied()))
            .map_err(|error| error.to_string())?;
        let flags = KindFlags::from_arg_matches(&matches).unwrap();
        let kind = KINDS.target(url).unwrap().kind();
        let (sink, mapping) = flags.fields(kind).map_err(|error| error.to_string())?;
        Ok((sink.into(), mapping.into()))
    }

    #[test]
    fn every_field_of_a_kind_is_a_flag_and_becomes_what_the_kind_says() {
        let given = fields(
            "redis://h",
            &["--as", "hash", "--ttl-seconds", "60", "--partitions", "8"],
        );
        let expected = (
            json!({"partitions": 8}),
            json!({"as": "hash", "ttl_seconds": 60}),
        );
        assert_eq!(given.unwrap(), expected);
        let given = fields("postgres://h/d", &["--existing", "--schema", "shop"]);
        assert_eq!(
            given.unwrap(),
            (json!({"schema": "shop"}), json!({"existing": true}))
        );
        let given = fields("sqlite://a.db", &["--full-text", "a", "--full-text", "b"]);
        assert_eq!(
            given.unwrap(),
            (json!({}), json!({"full_text": ["a", "b"]}))
        );
        let given = fields("http://h", &["--settings", r#"{"number_of_shards": 2}"#]);
        let settings = json!({"settings": {"number_of_shards": 2}});
        assert_eq!(given.unwrap(), (json!({}), settings));
    }

    #[test]
    fn a_flag_of_another_kind_and_a_value_that_is_none_are_named() {
        for (url, line, expected) in [
            (
                "redis://h",
                ["--existing", "--as=hash"],
                "--existing belongs to sinks of the kind postgres and mysql, this one is of the kind redis",
            ),
            (
                "redis://h",
                ["--as", "list"],
                "[possible values: string, hash]",
            ),
            (
                "http://h",
                ["--settings", "{"],
                "--settings: EOF while parsing",
            ),
        ] {
            let said = fields(url, &line).unwrap_err();
            assert!(said.contains(expected), "{said}");
        }
    }
}

//! What `onelog serve` is set up with: flags over environment over file over defaults.

mod cluster;
mod declared;
mod file;
mod flags;
#[cfg(feature = "kafka")]
mod kafka;
mod keys;
mod settings;

use std::path::{Path, PathBuf};

use onelog_command::CommandError;

pub use declared::{Declarations, Declared};
pub use file::FileError;
pub use flags::{Flags, Source};
#[cfg(feature = "demo")]
pub use settings::DEFAULT_LISTEN;
pub use settings::{LogFormat, Settings};

/// The file that is read when none is named and it is there.
pub const DEFAULT_FILE: &str = "onelog.toml";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    /// A value in the file.
    #[error("{}, line {line}: {name}: {message}", path.display())]
    FileValue {
        path: PathBuf,
        line: usize,
        name: String,
        message: String,
    },
    /// A value in the environment.
    #[error("the environment variable {name}: {message}")]
    EnvironmentValue { name: &'static str, message: String },
    #[error("--{name}: {message}")]
    FlagValue { name: &'static str, message: String },
    /// Two values that do not fit together.
    #[error("{0}")]
    Together(String),
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.into())
    }
}

/// Puts the settings together. `file` must exist; without one, `onelog.toml` in the current
/// folder is read if it is there.
pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Settings, ConfigError> {
    let default = Path::new(DEFAULT_FILE);
    let file = file.or_else(|| default.exists().then_some(default));
    let mut settings = Settings::default();
    if let Some(path) = file {
        let contents = file::read(path)?;
        settings.declared = contents.declared;
        for value in contents.values {
            (value.key.set)(&mut settings, &value.text).map_err(|message| {
                ConfigError::FileValue {
                    path: path.to_owned(),
                    line: value.line,
                    name: value.key.path(),
                    message,
                }
            })?;
        }
    }
    flags.apply(&mut settings, Source::Environment)?;
    flags.apply(&mut settings, Source::Flag)?;
    settings.check().map_err(ConfigError::Together)?;
    settings.node.cluster = settings.cluster.options().map_err(ConfigError::Together)?;
    #[cfg(feature = "kafka")]
    settings.kafka.options().map_err(ConfigError::Together)?;
    if settings.follow.is_some() && settings.node.cluster.is_some() {
        let both = "a server is one of several (cluster.node), or it follows another one as a read replica (follow), not both";
        return Err(ConfigError::Together(both.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::cluster::CLUSTER_KEYS;
    use super::keys::{self, KEYS};
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../onelog.example.toml");

    fn flags(arguments: &[&str]) -> Flags {
        let command = Flags::augment_args(Command::new("serve").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).unwrap();
        Flags::from_arg_matches(&matches).unwrap()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_example_lists_every_key_once_with_its_default() {
        let lines: Vec<&str> = EXAMPLE
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .collect();
        let expected: Vec<String> = KEYS
            .iter()
            .map(|key| format!("{} = {}", key.name, key.default))
            .collect();
        assert_eq!(lines, expected);
        for key in keys::all() {
            assert!(
                EXAMPLE.contains(key.help),
                "the example lacks: # {}",
                key.help
            );
        }
        for key in CLUSTER_KEYS {
            let line = format!("\n#{} = ", key.name);
            assert!(EXAMPLE.contains(&line), "the example lacks:{line}");
        }
    }

    #[test]
    fn the_defaults_of_the_example_are_the_defaults_of_the_program() {
        let example = file(EXAMPLE);
        let settings = load(Some(example.path()), &Flags::default()).unwrap();
        assert_eq!(
            format!("{settings:?}"),
            format!("{:?}", Settings::default())
        );
    }

    #[test]
    fn the_tables_and_sinks_of_the_example_can_be_used_as_they_are() {
        let sections = EXAMPLE.lines().filter_map(|line| {
            let line = line.strip_prefix('#')?;
            (!line.starts_with(['#', ' '])).then_some(line)
        });
        let text: Vec<&str> = sections.collect();
        let file = file(&text.join("\n"));
        let settings = load(Some(file.path()), &Flags::default()).unwrap();
        let declared = &settings.declared;
        assert_eq!(declared.tables.len(), 1);
        let kinds: Vec<&str> = declared
            .sinks
            .iter()
            .map(|s| s.what.target.kind().name())
            .collect();
        assert_eq!(kinds, ["postgres", "redis"]);
        let cluster = settings.node.cluster.unwrap();
        assert_eq!(cluster.node, onelog::NodeId(2));
        assert_eq!(cluster.peers.len(), 2);
        assert_eq!(cluster.join, Some(onelog::Join::Voter));
        #[cfg(feature = "kafka")]
        assert!(settings.kafka.options().unwrap().is_some());
    }

    #[test]
    fn each_key_has_the_flag_and_the_variable_of_its_name() {
        for key in KEYS {
            assert_eq!(key.flag, key.name.replace('_', "-"));
            assert_eq!(key.env, format!("ONELOG_{}", key.name.to_uppercase()));
        }
        for key in CLUSTER_KEYS {
            let flag = key.flag.strip_prefix("peer-").unwrap_or(key.flag);
            assert_eq!(flag, key.name.replace('_', "-"));
            let env = format!("ONELOG_{}", key.flag.replace('-', "_").to_uppercase());
            assert_eq!(key.env, env);
        }
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let file = file("segment_bytes = \"1MiB\"\nids_max = 7\nlisten = \"127.0.0.1:1\"\n");
        let mut set = flags(&["--listen", "127.0.0.1:3"]);
        set.set_for_test("listen", Source::Environment, "127.0.0.1:2");
        set.set_for_test("ids_max", Source::Environment, "8");
        let settings = load(Some(file.path()), &set).unwrap();
        assert_eq!(settings.node.segment_bytes, 1 << 20);
        assert_eq!(settings.node.ids_max, 8);
        assert_eq!(settings.listen, "127.0.0.1:3");
    }

    #[test]
    fn a_bad_value_is_reported_with_its_source() {
        let bad = file("\nsegment_bytes = \"many\"");
        let error = load(Some(bad.path()), &Flags::default()).unwrap_err();
        assert!(
            error.to_string().contains("line 2: segment_bytes: 'many'"),
            "{error}"
        );
        let good = file("");
        let error = load(Some(good.path()), &flags(&["--flushes-in-flight", "9"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--flushes-in-flight: '9' is not a whole number from 1 to 4"
        );
        let mut set = Flags::default();
        set.set_for_test("compression", Source::Environment, "rar");
        let error = load(Some(good.path()), &set).unwrap_err();
        assert!(error.to_string().contains("ONELOG_COMPRESSION"), "{error}");
    }

    #[test]
    fn a_switch_is_given_alone_or_with_a_value() {
        let none = file("create_tables = true");
        assert!(
            load(Some(none.path()), &flags(&[]))
                .unwrap()
                .http
                .create_tables
        );
        let off = flags(&["--create-tables=false"]);
        assert!(!load(Some(none.path()), &off).unwrap().http.create_tables);
        let empty = file("");
        let on = flags(&["--create-tables"]);
        assert!(load(Some(empty.path()), &on).unwrap().http.create_tables);
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_it_was_named() {
        let error = load(Some(Path::new("/nowhere/onelog.toml")), &Flags::default()).unwrap_err();
        assert!(
            error.to_string().contains("/nowhere/onelog.toml"),
            "{error}"
        );
    }
}

//! The flags and environment variables of `onelog serve`, made from the list of keys.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::ConfigError;
use super::keys::{self, Key};
use super::settings::Settings;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An environment variable.
    Environment,
    Flag,
}

/// What was set by flags and by the environment.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    values: Vec<(&'static Key, Source, String)>,
}

impl Flags {
    /// Puts the values that come from `source` into the settings.
    pub fn apply(&self, settings: &mut Settings, source: Source) -> Result<(), ConfigError> {
        for (key, _, text) in self.values.iter().filter(|(_, from, _)| *from == source) {
            (key.set)(settings, text).map_err(|message| match source {
                Source::Environment => ConfigError::EnvironmentValue {
                    name: key.env,
                    message,
                },
                Source::Flag => ConfigError::FlagValue {
                    name: key.flag,
                    message,
                },
            })?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn set_for_test(&mut self, name: &str, source: Source, text: &str) {
        let key = keys::all().find(|key| key.path() == name).unwrap();
        self.values.push((key, source, text.to_owned()));
    }
}

impl Args for Flags {
    fn augment_args(mut command: Command) -> Command {
        for key in keys::all() {
            let mut arg = Arg::new(key.flag)
                .long(key.flag)
                .env(key.env)
                .hide_env_values(true)
                .value_name(key.value_name)
                .help(key.help);
            if key.is_switch() {
                arg = arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true");
            }
            command = command.arg(arg);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for key in keys::all() {
            let source = match matches.value_source(key.flag) {
                Some(ValueSource::CommandLine) => Source::Flag,
                Some(ValueSource::EnvVariable) => Source::Environment,
                _ => continue,
            };
            let Some(text) = matches.get_one::<String>(key.flag) else {
                continue;
            };
            // An empty variable is how shells and unit files say "not set".
            if source == Source::Environment && text.is_empty() {
                continue;
            }
            self.values.push((key, source, text.clone()));
        }
        Ok(())
    }
}

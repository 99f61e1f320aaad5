//! Tables and sinks that the configuration declares: made when they are not there, changed when
//! they differ, never deleted.

use onelog::{Node, TableError};
use onelog_command::CommandError;
use onelog_sinks::{DeclareError, SinkError, Sinks};
use onelog_store::SinkDefinition;

use crate::config::{Declarations, Declared};

/// Makes what is declared. What shows without the stores is checked first, so that a file with a
/// mistake makes nothing; then it stops at the first thing that cannot be.
pub fn apply(declared: &Declarations, node: &Node, sinks: &Sinks) -> Result<(), CommandError> {
    let planned = declared.tables.iter().map(|table| {
        let planned = node.planned_table(&table.what);
        planned.map_err(|error| table_failed(table, &error))
    });
    let planned = planned.collect::<Result<Vec<_>, _>>()?;
    let definitions: Vec<&SinkDefinition> = declared.sinks.iter().map(|sink| &sink.what).collect();
    sinks
        .check_ahead(&definitions, &planned)
        .map_err(|(number, error)| sink_failed(&declared.sinks[number], error))?;
    for table in &declared.tables {
        let before = node.position();
        match node.create_table_blocking(table.what.clone()) {
            Ok((_, position)) if position > before => {
                tracing::info!(table = table.what.name, "made a table of the configuration");
            }
            Ok(_) => {}
            Err(error) => return Err(table_failed(table, &error)),
        }
    }
    let mut failed = None;
    for sink in &declared.sinks {
        match apply_sink(sink, sinks) {
            Ok(()) => {}
            // What may pass keeps no other sink waiting.
            Err(DeclareError::Sink(error @ SinkError::Elsewhere { .. })) => {
                failed = failed.or(Some(sink_failed(sink, error)));
            }
            Err(DeclareError::Sink(error)) => return Err(sink_failed(sink, error)),
            Err(error @ DeclareError::Refused { .. }) => {
                let error = CommandError::Failed(format!("{}: {error}", sink.origin()));
                failed = failed.or(Some(error));
            }
        }
    }
    for status in sinks.list() {
        let is_declared = |sink: &Declared<SinkDefinition>| sink.what.name == status.name;
        if !declared.sinks.is_empty() && !declared.sinks.iter().any(is_declared) {
            tracing::info!(
                sink = status.name,
                "this sink is not in the configuration; it follows on until it is deleted: onelog sinks delete"
            );
        }
    }
    failed.map_or(Ok(()), Err)
}

fn apply_sink(declared: &Declared<SinkDefinition>, sinks: &Sinks) -> Result<(), DeclareError> {
    let mut wanted = declared.what.clone();
    let sink = wanted.name.clone();
    let known = match sinks.definition(&sink) {
        Ok(definition) => definition,
        Err(SinkError::Unknown { .. }) => {
            let status = match sinks.create_ahead(wanted) {
                // Another node of the cluster has the same configuration.
                Err(SinkError::Exists { .. }) => return Ok(()),
                status => status?,
            };
            tracing::info!(
                sink,
                store = status.definition.target.place(),
                "made a sink of the configuration"
            );
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if !declared.says_paused {
        wanted.paused = known.paused;
    }
    if wanted == known {
        return Ok(());
    }
    sinks.declare(wanted)?;
    tracing::warn!(
        sink,
        before = shown(&known),
        "the configuration has changed this sink. Where `onelog sinks replace` gave it the definition before, that is undone; `onelog config export` prints what is in force, for this file"
    );
    Ok(())
}

/// A definition without secrets.
fn shown(definition: &SinkDefinition) -> String {
    serde_json::to_string(definition).unwrap_or_default()
}

fn table_failed(table: &Declared<onelog::NewTable>, error: &TableError) -> CommandError {
    match error {
        TableError::Refused(refusal) => CommandError::Failed(format!(
            "{}: the table could not be made: {refusal}",
            table.origin()
        )),
        error => CommandError::Config(table.fault("", error).into()),
    }
}

fn sink_failed(sink: &Declared<SinkDefinition>, error: SinkError) -> CommandError {
    match error {
        SinkError::Definition(error) => {
            let advice = match error.what.starts_with("there is no table") {
                true => {
                    "; declare it in a section [[tables]] of this file, or make it with `onelog tables create`"
                }
                false => "",
            };
            let message = format!("{}{advice}", error.what);
            CommandError::Config(sink.fault(&error.place, message).into())
        }
        error => CommandError::Failed(format!("{}: {error}", sink.origin())),
    }
}

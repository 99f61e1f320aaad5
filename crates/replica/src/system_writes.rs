//! What may be written to system tables, checked at the place in the log where it would be: an entry
//! that the catalog cannot take in never exists. The client that prepared the request looked at an
//! older catalog, and may be wrong about anything.

use onelog_record::{
    CommitRequest, Operation, Quoted, Refusal, TABLE_SETTINGS, TABLE_TABLES, TABLE_UNIQUE,
    TableDefinition, Write,
};

use crate::catalog::Catalog;
use crate::definitions::{self, NewTable, grave_key};

/// Refuses what this catalog could not take in.
pub(crate) fn check(catalog: &Catalog, request: &CommitRequest) -> Result<(), Refusal> {
    let mut changes = Vec::new();
    for (index, write) in request.writes.iter().enumerate() {
        match write.table {
            TABLE_TABLES => changes.push((index, write)),
            TABLE_UNIQUE => {
                return malformed(
                    index,
                    "the rows of unique values follow from the values alone",
                );
            }
            TABLE_SETTINGS => return malformed(index, "there are no settings yet"),
            _ => {}
        }
    }
    match changes[..] {
        [] => Ok(()),
        [(index, define)] => check_definition(catalog, index, define),
        [(index, delete), (_, grave)] => check_removal(catalog, index, delete, grave),
        [_, _, (index, _), ..] => malformed(index, "a transaction changes one table at most"),
    }
}

fn malformed(index: usize, why: impl std::fmt::Display) -> Result<(), Refusal> {
    Err(Refusal::Malformed(format!(
        "writes[{index}]: {}",
        Quoted(&why.to_string())
    )))
}

fn definition_of(write: &Write) -> Result<TableDefinition, String> {
    let Operation::Put(value) = &write.operation else {
        return Err("a table is made by a put of its definition".to_owned());
    };
    serde_json::from_slice(value).map_err(|error| format!("this is no definition: {error}"))
}

fn check_definition(catalog: &Catalog, index: usize, write: &Write) -> Result<(), Refusal> {
    let definition = match definition_of(write) {
        Ok(definition) => definition,
        Err(why) => return malformed(index, why),
    };
    let (name, id, next) = (&definition.name, definition.id, catalog.next_id());
    if definition.dropped {
        return malformed(
            index,
            "the end of a table comes with the deletion of its name",
        );
    }
    if write.key != name.as_bytes() {
        return malformed(
            index,
            format_args!("the key is not the table's name '{name}'"),
        );
    }
    if id != next {
        return malformed(
            index,
            format_args!("the next table has number {next}, not {id}"),
        );
    }
    if catalog.by_name(name).is_some() {
        return malformed(index, format_args!("there is a table '{name}' already"));
    }
    Ok(())
}

/// Refuses a definition that no catalog could take in. It may take long: its schema is compiled.
pub(crate) fn check_definitions(request: &CommitRequest) -> Result<(), Refusal> {
    let writes = request.writes.iter().enumerate();
    let mut changes = writes.filter(|(_, write)| write.table == TABLE_TABLES);
    let (Some((index, define)), None) = (changes.next(), changes.next()) else {
        return Ok(());
    };
    // What is no definition is refused by what looks at the catalog.
    let Ok(definition) = definition_of(define) else {
        return Ok(());
    };
    let table = NewTable {
        name: definition.name,
        kind: definition.kind,
        value: definition.value,
        schema: definition.schema,
        unique: definition.unique,
    };
    definitions::check(&table).or_else(|error| malformed(index, error))
}

fn check_removal(
    catalog: &Catalog,
    index: usize,
    delete: &Write,
    grave: &Write,
) -> Result<(), Refusal> {
    if delete.operation != Operation::Delete {
        return malformed(index, "a transaction changes one table at most");
    }
    let live = std::str::from_utf8(&delete.key).ok();
    let Some(live) = live.and_then(|name| catalog.by_name(name)) else {
        return malformed(index, "there is no table of this name");
    };
    let ended = TableDefinition {
        dropped: true,
        ..TableDefinition::clone(live)
    };
    if grave.key != grave_key(live.id) || definition_of(grave) != Ok(ended) {
        let (name, id) = (&live.name, live.id);
        return malformed(
            index,
            format_args!("table '{name}' has number {id} now, and what ends here is another one"),
        );
    }
    Ok(())
}

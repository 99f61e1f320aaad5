//! Two sinks must not fill one table of one store.

use crate::definition::{DefinitionError, SinkDefinition, SinkKind, Url};

/// Checks that two sinks do not fill one table.
pub(crate) fn check_apart(
    new: &SinkDefinition,
    other: &SinkDefinition,
) -> Result<(), DefinitionError> {
    if !are_one_store(&new.kind, &other.kind) {
        return Ok(());
    }
    for (n, mapping) in new.mappings.iter().enumerate() {
        let taken = other
            .mappings
            .iter()
            .any(|known| known.into.eq_ignore_ascii_case(&mapping.into));
        if taken {
            return Err(DefinitionError::new(
                format!("mappings[{n}].into"),
                format!(
                    "the sink '{}' fills '{}' in this store already; choose another name or another store",
                    other.name, mapping.into
                ),
            ));
        }
    }
    Ok(())
}

/// Whether two definitions lead to one store, as far as their texts tell; the store itself knows
/// the owner of each table.
fn are_one_store(new: &SinkKind, other: &SinkKind) -> bool {
    match (new, other) {
        (SinkKind::Sqlite { path: mine }, SinkKind::Sqlite { path: theirs }) => {
            mine == theirs
                || matches!((mine.canonicalize(), theirs.canonicalize()), (Ok(a), Ok(b)) if a == b)
        }
        (SinkKind::Postgres(mine), SinkKind::Postgres(theirs)) => {
            is_one_place(&mine.url, &theirs.url) && mine.schema == theirs.schema
        }
        (SinkKind::Mysql(mine), SinkKind::Mysql(theirs)) => is_one_place(&mine.url, &theirs.url),
        (SinkKind::Redis(mine), SinkKind::Redis(theirs)) => is_one_place(&mine.url, &theirs.url),
        (SinkKind::Elasticsearch(mine), SinkKind::Elasticsearch(theirs)) => {
            is_one_place(&mine.url, &theirs.url)
        }
        _ => false,
    }
}

fn is_one_place(mine: &Url, theirs: &Url) -> bool {
    let place = |url: &Url| {
        let text = url.as_written();
        let behind = text.rsplit('@').next().unwrap_or(text);
        let behind = behind.split("://").last().unwrap_or(behind);
        behind
            .split('?')
            .next()
            .unwrap_or(behind)
            .trim_end_matches('/')
            .to_owned()
    };
    place(mine) == place(theirs)
}

//! The OpenAPI document: the operations of [`crate::routes`] over the types of [`crate::api`], with
//! the kinds of store of this program.

use onelog_sinks::Kinds;
use utoipa::OpenApi;
use utoipa::openapi::Deprecated;

use crate::api::add_kinds;
use crate::router::ALIASES;
use crate::routes::{backup, keys, list, log, sinks, system, tables, transactions};

pub(crate) fn document(kinds: Kinds) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    if let Some(components) = &mut document.components {
        add_kinds(kinds, components);
    }
    let paths = &mut document.paths.paths;
    for (former, name) in ALIASES {
        let Some(mut item) = paths.get(*name).cloned() else {
            continue;
        };
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            operation.deprecated = Some(Deprecated::True);
            operation.description = Some(format!("The former name of `{name}`."));
            let id = operation.operation_id.take();
            operation.operation_id = id.map(|id| format!("{id}_former"));
        }
        paths.insert((*former).to_owned(), item);
    }
    document
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "onelog",
        description = "A transactional log: write once, in order; every datastore follows. Bytes that are not UTF-8 travel as {\"base64\": \"...\"} in JSON, and in base64 with encoding=base64 in URLs."
    ),
    paths(
        transactions::commit,
        keys::get,
        keys::get_empty,
        list::list,
        log::read,
        tables::create,
        tables::list,
        tables::get,
        tables::delete,
        sinks::create,
        sinks::list,
        sinks::get,
        sinks::delete,
        sinks::pause,
        sinks::resume,
        sinks::verify,
        sinks::rebuild,
        sinks::wait,
        sinks::replace,
        sinks::dry_run,
        sinks::parked,
        sinks::replay,
        backup::make,
        system::status,
        system::healthz,
        system::readyz,
        system::metrics,
        system::openapi,
    )
)]
struct Document;

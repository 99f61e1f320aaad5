//! The OpenAPI document: the operations of [`crate::routes`] over the types of [`crate::api`], with
//! the kinds of store of this program.

use onelog_sinks::Kinds;
use utoipa::OpenApi;
use utoipa::openapi::{Deprecated, Paths, RefOr};

use crate::api::add_kinds;
use crate::router::ALIASES;
use crate::routes::{
    backup, cluster, keys, list, log, replica, sinks, system, tables, transactions,
};

pub(crate) fn document(kinds: Kinds) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    if let Some(components) = &mut document.components {
        add_kinds(kinds, components);
    }
    add_empty_key(&mut document.paths);
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

/// The place of the empty key in a path is empty as well, so its path is another one.
fn add_empty_key(paths: &mut Paths) {
    let Some(mut item) = paths.paths.get("/v1/tables/{table}/keys/{key}").cloned() else {
        return;
    };
    if let Some(operation) = &mut item.get {
        operation.summary = Some("Reads the empty key.".to_owned());
        operation.operation_id = Some("get_empty".to_owned());
        if let Some(parameters) = &mut operation.parameters {
            parameters.retain(|parameter| match parameter {
                RefOr::T(parameter) => !["key", "encoding"].contains(&parameter.name.as_str()),
                RefOr::Ref(_) => true,
            });
        }
    }
    paths
        .paths
        .insert("/v1/tables/{table}/keys/".to_owned(), item);
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "onelog",
        description = "A transactional log: write once, in order; every datastore follows. Bytes that are not UTF-8 travel as {\"base64\": \"...\"} in JSON, and in base64 with encoding=base64 in URLs. Every answer of a cluster's node has the header Onelog-Leader, the number of the node that leads, while it knows that."
    ),
    paths(
        transactions::commit,
        keys::get,
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
        sinks::forget,
        cluster::show,
        cluster::add,
        cluster::promote,
        cluster::remove,
        cluster::transfer,
        replica::log,
        replica::state,
        replica::position,
        backup::make,
        system::status,
        system::healthz,
        system::readyz,
        system::metrics,
        system::openapi,
    )
)]
struct Document;

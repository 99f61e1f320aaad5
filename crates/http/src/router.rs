//! The routes. They are listed once: the router is built from the list, and a test compares the
//! list with the OpenAPI document.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::middleware::{from_fn_with_state, map_response_with_state};
use axum::routing::{MethodRouter, delete, get, post, put};

use crate::routes::{
    Shared, backup, cluster, keys, list, log, replica, sinks, system, tables, transactions,
};
use crate::{forwarding, read_replica};

type Route = (&'static str, &'static str, MethodRouter<Shared>);

/// One list for the router and for the test: a method and its handler cannot part.
macro_rules! routes {
    ($($method:ident $path:literal $handler:path;)*) => {
        vec![$((stringify!($method), $path, $method($handler))),*]
    };
}

fn routes() -> Vec<Route> {
    routes! {
        post "/v1/transactions" transactions::commit;
        get "/v1/tables/{table}/keys/{key}" keys::get;
        get "/v1/tables/{table}/keys/" keys::get;
        get "/v1/tables/{table}/keys" list::list;
        get "/v1/log" log::read;
        post "/v1/tables" tables::create;
        get "/v1/tables" tables::list;
        get "/v1/tables/{table}" tables::get;
        delete "/v1/tables/{table}" tables::delete;
        post "/v1/sinks" sinks::create;
        get "/v1/sinks" sinks::list;
        post "/v1/sinks/dry-run" sinks::dry_run;
        post "/v1/sinks/forget" sinks::forget;
        get "/v1/sinks/{name}" sinks::get;
        put "/v1/sinks/{name}" sinks::replace;
        delete "/v1/sinks/{name}" sinks::delete;
        post "/v1/sinks/{name}/pause" sinks::pause;
        post "/v1/sinks/{name}/resume" sinks::resume;
        post "/v1/sinks/{name}/verify" sinks::verify;
        post "/v1/sinks/{name}/rebuild" sinks::rebuild;
        get "/v1/sinks/{name}/wait" sinks::wait;
        get "/v1/sinks/{name}/parked" sinks::parked;
        post "/v1/sinks/{name}/replay" sinks::replay;
        get "/v1/cluster" cluster::show;
        post "/v1/cluster/members" cluster::add;
        post "/v1/cluster/members/{node}/promote" cluster::promote;
        delete "/v1/cluster/members/{node}" cluster::remove;
        post "/v1/cluster/transfer" cluster::transfer;
        get "/v1/replica/log" replica::log;
        get "/v1/replica/state" replica::state;
        get "/v1/replica/position" replica::position;
        post "/v1/backup" backup::make;
        get "/v1/status" system::status;
        get "/healthz" system::healthz;
        get "/readyz" system::readyz;
        get "/metrics" system::metrics;
        get "/openapi.json" system::openapi;
    }
}

/// Former names of routes: they answer as before, and are in the document as deprecated.
pub(crate) const ALIASES: &[(&str, &str)] = &[("/v1/sinks/try", "/v1/sinks/dry-run")];

/// Names of routes below `/v1/sinks/`. No new sink has such a name; one that an earlier version has
/// made is read, changed and deleted all the same.
const NOT_SINKS: [&str; 3] = ["dry-run", "try", "forget"];

fn of_a_sink_named_as_a_route(name: &'static str) -> MethodRouter<Shared> {
    let path = move || Path(name.to_owned());
    get(move |state| sinks::get(state, path()))
        .put(move |state, headers, body| sinks::replace(state, path(), headers, body))
        .delete(move |state| sinks::delete(state, path()))
}

pub(crate) fn router(app: Shared) -> Router {
    let router = NOT_SINKS.iter().fold(Router::new(), |router, name| {
        let handlers = of_a_sink_named_as_a_route(name);
        router.route(&format!("/v1/sinks/{name}"), handlers)
    });
    let router = routes()
        .into_iter()
        .fold(router, |router, (_, path, handlers)| {
            let former = ALIASES.iter().filter(|(_, name)| *name == path);
            let router = former.fold(router, |router, (former, _)| {
                router.route(former, handlers.clone())
            });
            router.route(path, handlers)
        });
    let router = router
        .fallback(system::not_found)
        .method_not_allowed_fallback(system::method_not_allowed);
    let is_alone = app.node.peer_address().is_none();
    let router = match is_alone {
        true => router,
        false => {
            let forward = from_fn_with_state(Arc::clone(&app), forwarding::forward);
            let say_leader = map_response_with_state(Arc::clone(&app), cluster::say_leader);
            router.layer(forward).layer(say_leader)
        }
    };
    let router = match app.node.source() {
        None => router,
        Some(_) => router.layer(from_fn_with_state(Arc::clone(&app), read_replica::refuse)),
    };
    router.with_state(app)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_in_the_document_and_every_path_of_the_document_is_a_route() {
        let document =
            serde_json::to_value(crate::openapi::document(onelog_stores::KINDS)).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3."));
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                methods.map(|method| (method.clone(), path.clone()))
            })
            .collect();
        let mut routed = BTreeSet::new();
        for (method, path, _) in routes() {
            assert!(routed.insert((method.to_owned(), path.to_owned())));
            for (former, _) in ALIASES.iter().filter(|(_, name)| *name == path) {
                routed.insert((method.to_owned(), (*former).to_owned()));
                assert_eq!(document["paths"][*former][method]["deprecated"], true);
            }
        }
        assert_eq!(routed, documented);
    }
}

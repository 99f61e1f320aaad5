//! How the server is: for people, for orchestrators, for Prometheus; and what it offers.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use onelog::{ClusterStatus, Node};

use super::{Answer, Shared, at_position, json};
use crate::api::{Health, HttpLimits, Status};
use crate::errors::ApiError;
use crate::openapi;
use onelog_request::WAIT_TIMEOUT_MS_MAX;

use crate::options::{BLOCKING_CALLS_MAX, LIST_BYTES_MAX, LIST_LIMIT_MAX, VERIFICATIONS_MAX};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "system",
    responses((status = 200, description = "It does", body = crate::api::Health))
)]
pub(crate) async fn healthz() -> Answer {
    let status = "ok";
    json(
        StatusCode::OK,
        &Health {
            status,
            failure: None,
        },
    )
}

/// Whether transactions can be committed, as far as this node knows; on a read replica, whether reads
/// are answered.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "system",
    responses(
        (status = 200, description = "They can", body = crate::api::Health),
        (status = 503, description = "`failed`: why. In a cluster `no_leader`: none is known now; `not_member`: the node waits to be added; `starting`: it was, and has not got the state yet; `disk_full`: the node writes nothing for want of room; `not_following`: it could not take in a snapshot, and falls behind; `removed`: it was, for ever. On a read replica `starting`, `other_log`, `other_history`", body = crate::api::Health),
    )
)]
pub(crate) async fn readyz(State(app): State<Shared>) -> Answer {
    let (status, failure) = readiness(&app.node);
    let code = match failure {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let failure = failure.as_deref();
    json(code, &Health { status, failure })
}

fn readiness(node: &Node) -> (&'static str, Option<String>) {
    if let Some(failure) = node.failure() {
        return ("failed", Some(failure));
    }
    if let Some(following) = node.following() {
        let state = following.state;
        return match state.is_ready() {
            true => ("ready", None),
            false => (state.name(), Some(following.why.unwrap_or_default())),
        };
    }
    // The rest takes longer.
    let takes_part = node.leader().is_some()
        && node.is_member()
        && !node.is_full_in_cluster()
        && node.not_following().is_none();
    let cluster = (!takes_part).then(|| node.cluster()).flatten();
    cluster.map_or(("ready", None), readiness_in)
}

fn readiness_in(cluster: ClusterStatus) -> (&'static str, Option<String>) {
    let number = cluster.node;
    if cluster.is_removed {
        let why = format!(
            "node {number} was removed from its cluster, and numbers are not used again: start it with an empty folder under a new number"
        );
        return ("removed", Some(why));
    }
    if !cluster.is_member && cluster.leader.is_some() {
        let mut why = format!(
            "node {number} was added, and takes in what the cluster has: nothing can be read here yet"
        );
        if let Some(reason) = cluster.not_following {
            why += &format!("; it does not follow: {reason}");
        }
        return ("starting", Some(why));
    }
    if !cluster.is_member {
        let why = cluster.join_error.unwrap_or_else(|| {
            format!(
                "node {number} waits to be added: onelog cluster add {number} {}",
                cluster.address
            )
        });
        return ("not_member", Some(why));
    }
    if cluster.disk_full {
        let why = format!(
            "the disk of node {number} has no room, so it writes nothing and falls behind: make room"
        );
        return ("disk_full", Some(why));
    }
    if cluster.leader.is_some() {
        return cluster.not_following.map_or(("ready", None), |reason| {
            let why = format!("node {number} does not follow, so it falls behind: {reason}");
            ("not_following", Some(why))
        });
    }
    let why =
        "no leader of the cluster is known: a majority of its voters must run and be connected";
    ("no_leader", Some(why.to_owned()))
}

/// Figures for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "system",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"))
)]
pub(crate) async fn metrics(State(app): State<Shared>) -> Answer {
    let text = app.blocking(|app| app.node.metrics_text()).await?;
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
    Ok(response)
}

/// Position, sinks, limits in force.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "system",
    responses((status = 200, description = "The node's state", body = crate::api::Status))
)]
pub(crate) async fn status(State(app): State<Shared>) -> Answer {
    let (node, sinks) = app
        .blocking(|app| (app.node.status(), app.sinks.list()))
        .await?;
    let options = &app.options;
    let http = HttpLimits {
        create_tables: options.create_tables,
        connections_max: options.max_connections,
        request_timeout_ms: options.request_timeout_ms,
        header_timeout_ms: options.header_timeout_ms,
        body_timeout_ms: options.body_timeout_ms,
        bodies_bytes_max: options.bodies_bytes_max,
        wait_timeout_ms_max: WAIT_TIMEOUT_MS_MAX,
        list_limit_max: LIST_LIMIT_MAX,
        list_bytes_max: LIST_BYTES_MAX,
        log_streams_max: options.log_streams_max,
        blocking_calls_max: BLOCKING_CALLS_MAX,
        verifications_max: VERIFICATIONS_MAX,
    };
    let position = node.position;
    let sinks = sinks
        .into_iter()
        .map(|status| options.declared.sink(status))
        .collect();
    let body = Status::new(node, sinks, http);
    Ok(at_position(json(StatusCode::OK, &body)?, position))
}

/// This description of the API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "system",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"))
)]
pub(crate) async fn openapi(State(app): State<Shared>) -> Answer {
    json(StatusCode::OK, &openapi::document(app.sinks.kinds()))
}

pub(crate) async fn not_found(method: Method, uri: Uri) -> ApiError {
    let message = format!(
        "there is no {method} {}; /openapi.json lists everything there is",
        uri.path().chars().take(200).collect::<String>()
    );
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// A route that does not know the method.
pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let message = format!(
        "{} does not answer {method}; the header Allow lists what it does",
        uri.path().chars().take(200).collect::<String>()
    );
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterStatus {
        ClusterStatus {
            node: 2,
            address: "127.0.0.1:7172".to_owned(),
            term: 3,
            leader: Some(1),
            leads: false,
            is_member: true,
            is_changing: false,
            is_removed: false,
            disk_full: false,
            join_error: None,
            not_following: None,
            mended_frames: 0,
            members: Vec::new(),
        }
    }

    #[test]
    fn a_node_without_its_clusters_state_is_not_ready_whichever_node_leads() {
        let status = |change: fn(&mut ClusterStatus)| {
            let mut cluster = cluster();
            change(&mut cluster);
            readiness_in(cluster).0
        };
        assert_eq!(status(|_| {}), "ready");
        assert_eq!(status(|cluster| cluster.leader = None), "no_leader");
        assert_eq!(status(|cluster| cluster.is_member = false), "starting");
        let waits = |cluster: &mut ClusterStatus| {
            cluster.is_member = false;
            cluster.leader = None;
        };
        assert_eq!(status(waits), "not_member");
        assert_eq!(status(|cluster| cluster.is_removed = true), "removed");
        assert_eq!(status(|cluster| cluster.disk_full = true), "disk_full");
        let refused = |cluster: &mut ClusterStatus| {
            cluster.not_following = Some("its snapshot was refused".to_owned());
        };
        assert_eq!(status(refused), "not_following");
        // The reason is shown by a node that has no state yet as well.
        let mut new = cluster();
        refused(&mut new);
        new.is_member = false;
        let (status, why) = readiness_in(new);
        assert_eq!(status, "starting");
        assert!(why.unwrap().ends_with("its snapshot was refused"));
    }
}

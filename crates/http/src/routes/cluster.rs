//! `/v1/cluster`: who takes part, and who leads.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use onelog::{MembersChangeError, NodeId};
use onelog_record::code;

use super::{Answer, Shared, json};
use crate::api::{ClusterView, NewLeader, NewMember};
use crate::app::App;
use crate::body::read_body;
use crate::errors::ApiError;
use crate::object::read_object;
use crate::query::Query;

/// The number of the node that leads, where a cluster's node knows it.
const ONELOG_LEADER: HeaderName = HeaderName::from_static("onelog-leader");
/// How long a client should wait before it looks for a leader again.
const RETRY_AFTER_MS: u64 = 1_000;

/// Shows the cluster as this node sees it. A node that is alone is its only member.
#[utoipa::path(
    get,
    path = "/v1/cluster",
    tag = "cluster",
    responses((status = 200, description = "Term, leader, members", body = crate::api::ClusterView))
)]
pub(crate) async fn show(State(app): State<Shared>) -> Answer {
    view(&app).await
}

/// Adds a node as a learner, which gets the log and decides nothing; or records another address of a
/// member.
#[utoipa::path(
    post,
    path = "/v1/cluster/members",
    tag = "cluster",
    request_body = crate::api::NewMember,
    responses(
        (status = 200, description = "It is a member", body = crate::api::ClusterView),
        (status = 409, description = "`not_a_cluster`; `member_removed`: the number was used before; `change_under_way`; `too_many_members`", body = crate::api::Error),
        (status = 413, description = "`too_large`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "`no_leader`, `overloaded`: nothing was changed; `change_unknown`, `stopped`", body = crate::api::Error,
            headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 504, description = "`request_timeout`", body = crate::api::Error),
    )
)]
pub(crate) async fn add(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let member: NewMember = read_object(&body.bytes)?;
    let changing = app.node.add_member(NodeId(member.node), member.address);
    changed(&app, app.in_time(changing).await?).await
}

/// Makes a voter of a learner that has caught up.
#[utoipa::path(
    post,
    path = "/v1/cluster/members/{node}/promote",
    tag = "cluster",
    params(("node" = u64, Path, description = "The number of the node", example = 2)),
    responses(
        (status = 200, description = "It votes", body = crate::api::ClusterView),
        (status = 404, description = "`unknown_member`", body = crate::api::Error),
        (status = 409, description = "`not_a_cluster`; `not_caught_up`: request it again later; `change_under_way`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "`no_leader`: nothing was changed; `change_unknown`, `stopped`", body = crate::api::Error,
            headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 504, description = "`request_timeout`", body = crate::api::Error),
    )
)]
pub(crate) async fn promote(State(app): State<Shared>, Path(node): Path<String>) -> Answer {
    let changing = app.node.promote_member(number(&node)?);
    changed(&app, app.in_time(changing).await?).await
}

/// Removes a node, for ever: its number is not used again.
#[utoipa::path(
    delete,
    path = "/v1/cluster/members/{node}",
    tag = "cluster",
    params(
        ("node" = u64, Path, description = "The number of the node", example = 2),
        ("force" = Option<bool>, Query, description = "Also where the voters that are left could commit nothing", example = true),
    ),
    responses(
        (status = 200, description = "It is no member", body = crate::api::ClusterView),
        (status = 404, description = "`unknown_member`", body = crate::api::Error),
        (status = 409, description = "`not_a_cluster`; `majority_lost`: too few of the voters that would be left are connected; `last_voter`; `change_under_way`; `leadership_not_taken`: the node leads, and no other one took over", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "`no_leader`, `overloaded`: nothing was changed; `change_unknown`, `stopped`", body = crate::api::Error,
            headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 504, description = "`request_timeout`", body = crate::api::Error),
    )
)]
pub(crate) async fn remove(
    State(app): State<Shared>,
    Path(node): Path<String>,
    uri: Uri,
) -> Answer {
    let force = Query::parse(uri.query(), &["force"])?.flag("force")?;
    let node = number(&node)?;
    let removed = match force {
        true => app.in_time(app.node.remove_member_forced(node)).await?,
        false => app.in_time(app.node.remove_member(node)).await?,
    };
    changed(&app, removed).await
}

/// Hands the leadership to another voter.
#[utoipa::path(
    post,
    path = "/v1/cluster/transfer",
    tag = "cluster",
    request_body = crate::api::NewLeader,
    responses(
        (status = 200, description = "That one leads", body = crate::api::ClusterView),
        (status = 404, description = "`unknown_member`", body = crate::api::Error),
        (status = 409, description = "`not_a_cluster`; `leadership_not_taken`; `not_a_voter`: it is a learner; `change_under_way`", body = crate::api::Error),
        (status = 413, description = "`too_large`", body = crate::api::Error),
        (status = 422, description = "Malformed, and where", body = crate::api::Error),
        (status = 503, description = "`no_leader`: nothing was changed; `change_unknown`, `overloaded`, `stopped`", body = crate::api::Error,
            headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 504, description = "`request_timeout`", body = crate::api::Error),
    )
)]
pub(crate) async fn transfer(State(app): State<Shared>, headers: HeaderMap, body: Body) -> Answer {
    let body = read_body(&app, &headers, body).await?;
    let to: NewLeader = read_object(&body.bytes)?;
    let changing = app.node.transfer_leadership(NodeId(to.node));
    changed(&app, app.in_time(changing).await?).await
}

/// Says in every answer who leads.
pub(crate) async fn say_leader(State(app): State<Shared>, mut response: Response) -> Response {
    if let Some(leader) = app.node.leader() {
        let leader = HeaderValue::from(leader.get());
        response.headers_mut().insert(ONELOG_LEADER, leader);
    }
    response
}

async fn changed(app: &std::sync::Arc<App>, result: Result<(), MembersChangeError>) -> Answer {
    match result {
        Ok(()) => view(app).await,
        Err(error) => Err(refused(&error)),
    }
}

async fn view(app: &std::sync::Arc<App>) -> Answer {
    let view = app.blocking(|app| {
        let leads = app.node.failure().is_none();
        ClusterView::new(app.node.cluster(), leads)
    });
    json(StatusCode::OK, &view.await?)
}

fn number(text: &str) -> Result<NodeId, ApiError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if is_plain && number > 0 => Ok(NodeId(number)),
        _ => Err(ApiError::malformed(
            "node",
            format!("'{text}' is not the number of a node: expected a whole number from 1"),
        )),
    }
}

fn refused(error: &MembersChangeError) -> ApiError {
    use MembersChangeError as E;
    let message = error.to_string();
    let (status, code) = match error {
        E::Alone => (StatusCode::CONFLICT, "not_a_cluster"),
        E::UnderWay => (StatusCode::CONFLICT, "change_under_way"),
        E::NoVoter => (StatusCode::CONFLICT, "last_voter"),
        E::MajorityLost { .. } => (StatusCode::CONFLICT, "majority_lost"),
        E::TooMany(_) => (StatusCode::CONFLICT, "too_many_members"),
        E::Removed(_) => (StatusCode::CONFLICT, "member_removed"),
        E::NotCaughtUp { .. } => (StatusCode::CONFLICT, "not_caught_up"),
        E::NotTaken(_) => (StatusCode::CONFLICT, "leadership_not_taken"),
        E::NoVoterYet(_) => (StatusCode::CONFLICT, "not_a_voter"),
        E::NoMember(_) => (StatusCode::NOT_FOUND, "unknown_member"),
        E::Address(_) => return ApiError::malformed("address", message),
        E::NodeNumber => return ApiError::malformed("node", message),
        E::NoLeader => (StatusCode::SERVICE_UNAVAILABLE, "no_leader"),
        E::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "change_unknown"),
        E::NotRecorded(_) => (StatusCode::SERVICE_UNAVAILABLE, code::OVERLOADED),
        E::Stopped => (StatusCode::SERVICE_UNAVAILABLE, code::STOPPED),
    };
    let refusal = ApiError::new(status, code, message);
    match status {
        StatusCode::SERVICE_UNAVAILABLE => refusal.retry_after(RETRY_AFTER_MS),
        _ => refusal,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn every_refused_change_has_its_status_and_its_code() {
        use MembersChangeError as E;
        let majority = E::MajorityLost {
            node: 2,
            voters: 2,
            live: 1,
            majority: 2,
        };
        let behind = E::NotCaughtUp {
            node: 2,
            from: 1,
            to: 9,
        };
        for (error, status, code) in [
            (E::Alone, 409, "not_a_cluster"),
            (E::UnderWay, 409, "change_under_way"),
            (E::NoVoter, 409, "last_voter"),
            (majority, 409, "majority_lost"),
            (E::TooMany(99), 409, "too_many_members"),
            (E::Removed(2), 409, "member_removed"),
            (behind, 409, "not_caught_up"),
            (E::NotTaken(2), 409, "leadership_not_taken"),
            (E::NoVoterYet(2), 409, "not_a_voter"),
            (E::NoMember(2), 404, "unknown_member"),
            (E::Address("a".to_owned()), 422, "malformed"),
            (E::NodeNumber, 422, "malformed"),
            (E::NoLeader, 503, "no_leader"),
            (E::Unknown, 503, "change_unknown"),
            (E::NotRecorded("full".to_owned()), 503, "overloaded"),
            (E::Stopped, 503, "stopped"),
        ] {
            let answer = refused(&error);
            let (found, body) = answer.parts();
            assert_eq!((found, body["error"].as_str()), (status, Some(code)));
            let response = answer.into_response();
            let retry_after = response.headers().get(header::RETRY_AFTER);
            assert_eq!(retry_after.is_some(), status == 503, "{code}");
        }
    }
}

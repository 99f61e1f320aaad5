//! Requests about a sink that another node of the cluster runs: that node carries them out, and its
//! answer is the client's.
//!
//! ```text
//!   client ── request ──▶ this node ── request without its connection ──▶ the node that runs the sink
//! ```
//!
//! A request goes on once: the other node never sends it further. Where the sink has moved meanwhile
//! this node looks again. What is sent is drawn in docs/peers.md.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::future::join_all;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use onelog::{Answering, CallError, Node, NodeId, Subject};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::app::App;
use crate::body::read_body;
use crate::errors::ApiError;
use crate::routes::{Shared, json};

/// How long the other node may take; a comparison reads every row of a store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// How much is answered at most; below what a frame between nodes may have.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// How often a sink that moves is followed.
const ATTEMPTS: usize = 3;
/// How long other nodes may take to list their sinks.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);
const LIST: &str = "/v1/sinks";
/// Where the paths of single sinks begin.
const SINKS: &str = "/v1/sinks/";
/// The headers of a request that mean something to a route of a sink.
const SENT: [HeaderName; 1] = [header::CONTENT_TYPE];

/// Marks a request that another node sent.
#[derive(Clone, Copy, Debug)]
struct FromNode;

/// Marks an answer which says that the sink runs elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunsElsewhere;

/// What is in front of the body of a request between nodes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RequestHead {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

/// What is in front of the body of an answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AnswerHead {
    status: u16,
    headers: Vec<(String, String)>,
    /// Whether the sink does not run there, so that nothing was done.
    elsewhere: bool,
}

/// `head_len u32 | head, JSON | body`.
fn encode(head: &impl Serialize, body: &[u8]) -> Option<Bytes> {
    let head = serde_json::to_vec(head).ok()?;
    let mut out = BytesMut::with_capacity(4 + head.len() + body.len());
    out.put_u32_le(u32::try_from(head.len()).ok()?);
    out.put_slice(&head);
    out.put_slice(body);
    Some(out.freeze())
}

fn decode<H: for<'h> Deserialize<'h>>(mut bytes: Bytes) -> Option<(H, Bytes)> {
    if bytes.len() < 4 {
        return None;
    }
    let head_len = bytes.get_u32_le() as usize;
    if bytes.len() < head_len {
        return None;
    }
    let head = serde_json::from_slice(&bytes.split_to(head_len)).ok()?;
    Some((head, bytes))
}

/// The sink that a request is about, where only the node that runs it can serve it.
fn sink_of(request: &Request) -> Option<String> {
    let path = request.uri().path().strip_prefix(SINKS)?;
    let (name, action) = match path.split_once('/') {
        Some((name, action)) => (name, Some(action)),
        None => (path, None),
    };
    match action {
        // These are of the log, and of every node.
        Some("wait" | "parked") => return None,
        // A name in the place of a sink's, as in `/v1/sinks/dry-run`.
        None if request.method() == Method::POST => return None,
        _ => {}
    }
    let name = percent_decode_str(name).decode_utf8().ok()?;
    (!name.is_empty()).then(|| name.into_owned())
}

fn is_list(request: &Request) -> bool {
    request.method() == Method::GET && request.uri().path() == LIST
}

/// Has a request carried out by the node that runs its sink; all others are served here.
pub(crate) async fn forward(State(app): State<Shared>, request: Request, next: Next) -> Response {
    if request.extensions().get::<FromNode>().is_some() {
        return next.run(request).await;
    }
    if is_list(&request) {
        let own = next.run(request).await;
        return whole_list(&app, own).await;
    }
    let Some(sink) = sink_of(&request) else {
        return next.run(request).await;
    };
    let Some(node) = app.sinks.runs_on_another(&sink).await else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let body = match read_body(&app, &parts.headers, body).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    let is_read = parts.method == Method::GET;
    let head = RequestHead {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: headers_of(&parts.headers, |name| SENT.contains(name)),
    };
    match elsewhere(&app, &sink, node, &head, &body.bytes).await {
        Ok(Some(answer)) => answer,
        // What this node knows of it is answered, which is that it runs elsewhere.
        Err(_) if is_read => next.run(Request::from_parts(parts, Body::empty())).await,
        Ok(None) => {
            let again = Request::from_parts(parts, Body::from(body.bytes.clone()));
            next.run(again).await
        }
        Err((node, error)) => unanswered(&sink, node, &error).into_response(),
    }
}

/// The answer of the node that runs the sink; `None`: this one does by now, or none does.
async fn elsewhere(
    app: &App,
    sink: &str,
    node: u64,
    head: &RequestHead,
    body: &[u8],
) -> Result<Option<Response>, (u64, CallError)> {
    let mut runs_on = Some(node);
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let Some(node) = runs_on else {
            return Ok(None);
        };
        let Some(bytes) = encode(head, body) else {
            return Ok(None);
        };
        let called = app
            .node
            .call(NodeId(node), Subject::Requests, bytes, ANSWER_TIMEOUT);
        let answer = match app.until_stopped(called).await {
            Ok(called) => called.map_err(|error| (node, error))?,
            Err(stopped) => return Ok(Some(stopped.into_response())),
        };
        let Some((head, body)) = decode::<AnswerHead>(answer) else {
            let why = "its answer cannot be read".to_owned();
            let node_id = NodeId(node);
            return Err((node, CallError::Failed { node: node_id, why }));
        };
        let moved = head.elsewhere;
        last = Some(response_of(head, body));
        if !moved {
            break;
        }
        runs_on = app.sinks.runs_on_another(sink).await;
    }
    Ok(last)
}

/// What the list of a node says.
#[derive(Serialize, Deserialize)]
struct List {
    sinks: Vec<Box<RawValue>>,
}

/// What of a sink's status says where it runs.
#[derive(Deserialize)]
struct Listed {
    name: String,
    state: String,
    runs_on: Option<u64>,
}

impl Listed {
    fn of(sink: &RawValue) -> Option<Self> {
        serde_json::from_str(sink.get()).ok()
    }

    /// The other node that knows its state.
    fn elsewhere(&self) -> Option<u64> {
        self.runs_on.filter(|_| self.state == "elsewhere")
    }
}

/// This node's list, with what other nodes say of the sinks that run there. A node that does not answer
/// leaves what this one knows.
async fn whole_list(app: &App, own: Response) -> Response {
    let (parts, body) = own.into_parts();
    let bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return ApiError::internal(error).into_response(),
    };
    let Ok(mut list) = serde_json::from_slice::<List>(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    let elsewhere = |sink: &RawValue| Listed::of(sink)?.elsewhere();
    let nodes: BTreeSet<u64> = list
        .sinks
        .iter()
        .filter_map(|sink| elsewhere(sink))
        .collect();
    let lists = join_all(nodes.iter().map(|node| list_of(app, *node))).await;
    let known: BTreeMap<(String, u64), Box<RawValue>> = nodes
        .into_iter()
        .zip(lists)
        .flat_map(|(node, list)| list.into_iter().map(move |sink| (node, sink)))
        .filter_map(|(node, sink)| {
            let listed = Listed::of(&sink)?;
            (listed.elsewhere().is_none()).then_some(((listed.name, node), sink))
        })
        .collect();
    for sink in &mut list.sinks {
        let there = Listed::of(sink).and_then(|listed| Some((listed.elsewhere()?, listed.name)));
        if let Some(found) = there.and_then(|(node, name)| known.get(&(name, node))) {
            *sink = found.clone();
        }
    }
    json(parts.status, &list).unwrap_or_else(ApiError::into_response)
}

async fn list_of(app: &App, node: u64) -> Vec<Box<RawValue>> {
    let head = RequestHead {
        method: Method::GET.to_string(),
        target: LIST.to_owned(),
        headers: Vec::new(),
    };
    let Some(bytes) = encode(&head, b"") else {
        return Vec::new();
    };
    let called = app
        .node
        .call(NodeId(node), Subject::Requests, bytes, LIST_TIMEOUT)
        .await;
    let list = called.ok().and_then(decode::<AnswerHead>);
    let list = list.and_then(|(_, body)| serde_json::from_slice::<List>(&body).ok());
    list.map_or_else(Vec::new, |list| list.sinks)
}

fn unanswered(sink: &str, node: u64, error: &CallError) -> ApiError {
    let message = format!(
        "the sink '{sink}' runs on node {node} of the cluster, which did not answer ({error}): whether it was done is not known. See how the sink is (onelog sinks show {sink}) and, where it was not done, send the request again, to any node; if node {node} stays away, onelog cluster says why"
    );
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "sink_unanswered", message).with(|body| {
        body.sink = Some(sink.to_owned());
        body.runs_on = Some(Some(node));
    })
}

fn headers_of(
    headers: &axum::http::HeaderMap,
    wanted: impl Fn(&HeaderName) -> bool,
) -> Vec<(String, String)> {
    let wanted = headers.iter().filter(|(name, _)| wanted(name));
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.to_string(), value.to_str().ok()?.to_owned()))
    };
    wanted.filter_map(text).collect()
}

fn response_of(head: AnswerHead, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in head.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// From now on requests of other nodes are carried out, until the router is dropped.
pub(crate) fn answer_nodes(node: &Node, router: &Arc<Router>) {
    let router = Arc::downgrade(router);
    node.answer_calls(Subject::Requests, move |bytes: Bytes| -> Answering {
        Box::pin(carry_out(Weak::clone(&router), bytes))
    });
}

async fn carry_out(router: Weak<Router>, bytes: Bytes) -> Option<Bytes> {
    let (head, body) = decode::<RequestHead>(bytes)?;
    // The door must not live for as long as others wait for it.
    let router = Router::clone(router.upgrade()?.as_ref());
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = head.method.parse().ok()?;
    *request.uri_mut() = head.target.parse().ok()?;
    if sink_of(&request).is_none() && !is_list(&request) {
        return None;
    }
    for (name, value) in head.headers {
        let name = HeaderName::try_from(name).ok()?;
        request.headers_mut().insert(name, value.parse().ok()?);
    }
    request.extensions_mut().insert(FromNode);
    let Ok(response) = TowerToHyperService::new(router).call(request).await;
    let head = AnswerHead {
        status: response.status().as_u16(),
        headers: headers_of(response.headers(), |name| {
            name != header::CONTENT_LENGTH && name != header::DATE
        }),
        elsewhere: response.extensions().get::<RunsElsewhere>().is_some(),
    };
    let body = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX);
    encode(&head, &body.await.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_between_nodes_have_these_bytes() {
        let head = RequestHead {
            method: "POST".to_owned(),
            target: "/v1/sinks/s/pause?a=b".to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        };
        let bytes = encode(&head, b"{}").unwrap();
        let text = br#"{"method":"POST","target":"/v1/sinks/s/pause?a=b","headers":[["content-type","application/json"]]}"#;
        assert_eq!(bytes[..4], (text.len() as u32).to_le_bytes());
        assert_eq!(&bytes[4..], [&text[..], b"{}"].concat());
        assert_eq!(decode(bytes), Some((head, Bytes::from_static(b"{}"))));

        let head = AnswerHead {
            status: 200,
            headers: Vec::new(),
            elsewhere: false,
        };
        let bytes = encode(&head, b"ok").unwrap();
        let text = br#"{"status":200,"headers":[],"elsewhere":false}ok"#;
        assert_eq!(&bytes[4..], text);
        assert_eq!(
            decode(bytes.clone()),
            Some((head, Bytes::from_static(b"ok")))
        );
        for len in 0..bytes.len() - 2 {
            assert_eq!(decode::<AnswerHead>(bytes.slice(..len)), None);
        }
    }

    #[test]
    fn a_request_without_an_answer_says_how_to_go_on() {
        let node = NodeId(2);
        let why = "the connection ended".to_owned();
        let error = unanswered("s", 2, &CallError::Failed { node, why });
        let text = format!("{error:?}");
        for part in [
            "sink_unanswered",
            "the connection ended",
            "is not known",
            "onelog sinks show s",
            "to any node",
            "onelog cluster",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn only_what_the_node_of_a_sink_can_serve_goes_on() {
        let sink = |method: &str, uri: &str| {
            let request = Request::builder().method(method).uri(uri);
            sink_of(&request.body(Body::empty()).unwrap())
        };
        for (method, path) in [
            ("GET", "/v1/sinks/a%20b"),
            ("PUT", "/v1/sinks/a%20b"),
            ("DELETE", "/v1/sinks/a%20b?x=y"),
            ("POST", "/v1/sinks/a%20b/verify?repair=true"),
        ] {
            assert_eq!(sink(method, path).as_deref(), Some("a b"), "{path}");
        }
        for (method, path) in [
            ("POST", "/v1/sinks"),
            ("GET", "/v1/sinks"),
            ("GET", "/v1/sinks/"),
            ("POST", "/v1/sinks/dry-run"),
            ("GET", "/v1/sinks/a/wait?position=3"),
            ("GET", "/v1/sinks/a/parked"),
            ("GET", "/v1/tables/a"),
            ("GET", "/v1/sinks/%ff"),
        ] {
            assert_eq!(sink(method, path), None, "{path}");
        }
    }
}

//! Which sink has the name of an alias: one document for each name in the index `onelog-sinks`, beside
//! the sinks' own, which have no colon in their ids.
//!
//! ```text
//! id     `alias:` and the name
//! alias  the name
//! sink   the sink that has it
//! ```
//! The indexes say whose they are as well, but a sink that looks at them and then exchanges aliases
//! does two steps, and another one could come in between. Making a document takes place once: of
//! sinks that do so at the same moment one has the name, until it is removed or puts indexes of
//! other names in place. Its ledger lists what it may have (`names`).

use onelog_store::StoreError;
use serde::{Deserialize, Serialize};

use crate::bookkeeping::{Found, INDEX, make_index};
use crate::connection::{Body, Client, Method, REQUEST_TIMEOUT, escape};

const DOING: &str = "writing the owners of aliases to";

#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    alias: String,
    sink: String,
}

fn id(alias: &str) -> String {
    escape(&format!("alias:{alias}"))
}

/// Gives a sink a name, unless another one has it.
pub(crate) fn claim(client: &Client, sink: &str, alias: &str) -> Result<(), StoreError> {
    make_index(client)?;
    let body = serde_json::json!(Claim {
        alias: alias.to_owned(),
        sink: sink.to_owned(),
    });
    let path = format!("/{INDEX}/_create/{}", id(alias));
    let answer = client.call(DOING, Method::PUT, &path, Body::Json(body), REQUEST_TIMEOUT)?;
    if answer.status != 409 {
        return answer.success(client, DOING).map(|_| ());
    }
    match find(client, alias)? {
        Some((_, claim)) if claim.sink == sink => Ok(()),
        Some((_, claim)) => {
            let fact = format!("it belongs to the sink '{}'", claim.sink);
            Err(StoreError::owned(alias, &claim.sink, fact))
        }
        None => Err(StoreError::Unavailable {
            what: format!("{DOING} {}", client.shown),
            cause: format!("another sink gave the name '{alias}' up just now").into(),
        }),
    }
}

/// Gives a name up, where it is this sink's.
pub(crate) fn release(client: &Client, sink: &str, alias: &str) -> Result<(), StoreError> {
    let Some((found, claim)) = find(client, alias)? else {
        return Ok(());
    };
    if claim.sink != sink {
        return Ok(());
    }
    let path = format!("/{INDEX}/_doc/{}?{}", id(alias), found.condition());
    let answer = client.call(DOING, Method::DELETE, &path, Body::Nothing, REQUEST_TIMEOUT)?;
    // 404, 409: it was given up meanwhile, and may be another one's.
    match answer.status {
        404 | 409 => Ok(()),
        _ => answer.success(client, DOING).map(|_| ()),
    }
}

fn find(client: &Client, alias: &str) -> Result<Option<(Found, Claim)>, StoreError> {
    let path = format!("/{INDEX}/_doc/{}", id(alias));
    let Some(answer) = client.get(DOING, &path)?.found(client, DOING)? else {
        return Ok(None);
    };
    let found: Found = answer.json(client, DOING)?;
    let claim = Claim::deserialize(&found.source).map_err(|error| StoreError::Broken {
        what: format!(
            "the document 'alias:{alias}' of the index '{INDEX}' in {} is not one of onelog's; delete it",
            client.shown
        ),
        cause: error.into(),
    })?;
    Ok(Some((found, claim)))
}

//! Several hosts in one address: where none of them can be used, what each of them answered.

use std::str::FromStr as _;
use std::time::Duration;

use futures_util::future::join_all;
use onelog_store::StoreError;
use tokio_postgres::Config;
use tokio_postgres::config::TargetSessionAttrs;

use crate::connection::{connect, known_ssl_mode};
use crate::error::{self, Fault};
use crate::kind::PostgresTarget;

/// How many hosts of an address are asked for their own answers.
const HOSTS_ASKED_MAX: usize = 8;
/// How long all of them together may take.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How many bytes of each answer are reported.
const ANSWER_BYTES_MAX: usize = 400;

/// What a host answered.
enum Answer {
    /// It does not let the user in.
    NoAccess(String),
    /// It lets the user in, and takes no writes.
    NotWritable(String),
    Other(String),
}

/// The error with the answer of each host in the place of the last host's. A host that refuses the
/// login may be the only one that takes writes, so where all others take none, that is the fault.
pub(crate) async fn with_answers(
    failed: StoreError,
    url: &str,
    target: &PostgresTarget,
    what: String,
) -> StoreError {
    let hosts = each(&known_ssl_mode(url));
    if hosts.len() < 2 {
        return failed;
    }
    let asked = hosts.iter().take(HOSTS_ASKED_MAX);
    let answers = join_all(asked.map(|(_, url)| answer(url, target))).await;
    let said: Vec<String> = hosts.iter().zip(&answers).map(shown).collect();
    let mut said = said.join("; ");
    if hosts.len() > HOSTS_ASKED_MAX {
        said.push_str(&format!("; and {} more", hosts.len() - HOSTS_ASKED_MAX));
    }
    let is_refused = |answer: &Answer| matches!(answer, Answer::NoAccess(_));
    let is_answered = |answer: &Answer| !matches!(answer, Answer::Other(_));
    let cause = said.into();
    if answers.iter().any(is_refused) && answers.iter().all(is_answered) {
        return StoreError::NoAccess { what, cause };
    }
    match failed {
        StoreError::NotWritable { .. } => StoreError::NotWritable { what, cause },
        StoreError::NoAccess { .. } | StoreError::Unavailable { .. } => {
            StoreError::Unavailable { what, cause }
        }
        other => other,
    }
}

fn shown(((host, _), answer): (&(String, String), &Answer)) -> String {
    let (Answer::NoAccess(said) | Answer::NotWritable(said) | Answer::Other(said)) = answer;
    let end = said.floor_char_boundary(ANSWER_BYTES_MAX);
    let more = if end < said.len() { "…" } else { "" };
    format!("{host}: {}{more}", &said[..end])
}

async fn answer(url: &str, target: &PostgresTarget) -> Answer {
    let Ok(mut config) = Config::from_str(url) else {
        return Answer::Other("its address cannot be read".to_owned());
    };
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    config.connect_timeout(ANSWERS_TIMEOUT);
    match tokio::time::timeout(ANSWERS_TIMEOUT, connect(&config, target)).await {
        Err(_) => Answer::Other(format!("no answer within {} s", ANSWERS_TIMEOUT.as_secs())),
        Ok(Ok(_)) => Answer::Other("it takes writes now".to_owned()),
        Ok(Err(Fault::Sql(error))) => {
            let said = error::advising_message(&error);
            match error::classify("", "", error) {
                StoreError::NoAccess { .. } => Answer::NoAccess(said),
                StoreError::NotWritable { .. } => Answer::NotWritable(said),
                _ => Answer::Other(said),
            }
        }
        Ok(Err(fault)) => Answer::Other(fault.into_store_error("connecting to", "it").to_string()),
    }
}

/// Each host of an address, with the address that leads to it alone.
fn each(url: &str) -> Vec<(String, String)> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Vec::new();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), authority),
    };
    let alone = |host: &str| (host.to_owned(), format!("{scheme}://{login}{host}{path}"));
    hosts.split(',').map(alone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_an_address_of_its_own() {
        let host = |host: &str, url: &str| (host.to_owned(), url.to_owned());
        assert_eq!(
            each("postgres://u:p%2C@a:1,[::1]:2/d?sslmode=require"),
            [
                host("a:1", "postgres://u:p%2C@a:1/d?sslmode=require"),
                host("[::1]:2", "postgres://u:p%2C@[::1]:2/d?sslmode=require"),
            ]
        );
        assert_eq!(each("postgres://a"), [host("a", "postgres://a")]);
    }
}

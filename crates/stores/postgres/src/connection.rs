//! Connections: where to, by which certificates, with which settings, and how long each step may
//! take.
//!
//! A connection belongs to one thread. Its task runs on a runtime of its own, and only while that
//! thread waits for an answer. Both the server and this side bound every statement: the server's
//! own limit frees its locks, ours notices a server that is gone.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr as _;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use onelog_store::{StoreError, tls_config};
use tokio::runtime::Runtime;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{self, Fault};
use crate::hosts::with_answers;
use crate::kind::PostgresTarget;

/// How long connecting may take, TLS and password included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one statement may take.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a step of a rebuild over whole tables may take.
pub(crate) const REBUILD_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// How long a statement waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server lets a transaction of ours stay open without a statement. A process that
/// was stopped in the middle of one must not keep its successor from taking over.
const IDLE_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);
/// This side waits a little longer than the server, whose message says more.
const GRACE: Duration = Duration::from_secs(5);
/// When a silent connection is probed, and for how long unanswered bytes are tolerated.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const UNANSWERED_MAX: Duration = Duration::from_secs(30);

/// The first version that has every statement used here.
const VERSION_MIN: i32 = 120_000;

const STANDBY: &str = "it is a standby: until it is promoted nothing can be written; where that is not a failover, let the address lead to the primary, or name all hosts, separated by commas";
const READ_ONLY: &str = "its transactions are read-only: default_transaction_read_only is on for the server, the database or the user";

/// The beginning of a transaction that writes, and of one that reads; the first statement behind it
/// fixes what is seen.
///
/// Every setting ends with its transaction: behind the address may be a pool, which hands the same
/// session of the server to other clients, and to us another one for each transaction. For the same
/// reason nothing is prepared, and nothing temporary is made.
pub(crate) static BEGIN_WRITE: LazyLock<String> = LazyLock::new(|| {
    begin(
        "ISOLATION LEVEL READ COMMITTED",
        STATEMENT_TIMEOUT,
        IDLE_TRANSACTION_TIMEOUT,
    )
});
pub(crate) static BEGIN_READ: LazyLock<String> = LazyLock::new(|| {
    begin(
        "ISOLATION LEVEL REPEATABLE READ READ ONLY",
        Duration::ZERO,
        Duration::ZERO,
    )
});

/// `row_security = off`: rows that a policy hides would be an error instead of missing.
/// `quote_all_identifiers = off`: the names of types are compared.
/// `force_generic_plan`: no copies of whole columns of a batch in the plan of its one use.
fn begin(how: &str, statement: Duration, idle: Duration) -> String {
    format!(
        "BEGIN {how}; SET LOCAL synchronous_commit = off; SET LOCAL TimeZone = 'UTC';
         SET LOCAL row_security = off; SET LOCAL jit = off; SET LOCAL client_min_messages = error;
         SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL quote_all_identifiers = off;
         SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {};
         SET LOCAL idle_in_transaction_session_timeout = {}",
        statement.as_millis(),
        LOCK_TIMEOUT.as_millis(),
        idle.as_millis(),
    )
}

/// A connection and the runtime that drives it.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) place: String,
    runtime: Runtime,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Write,
    /// Reading where a sink writes.
    Snapshot,
    /// Reading wherever the address leads to.
    Read,
}

impl Connection {
    /// Connects and checks that the server can be used.
    pub(crate) fn open(
        target: &PostgresTarget,
        sink: &str,
        purpose: Purpose,
    ) -> Result<Self, StoreError> {
        let place = target.server.url.shown();
        let mut config = config(target, sink)?;
        if purpose != Purpose::Read && config.get_hosts().len() > 1 {
            // Whatever the order of the hosts, only one of them takes writes.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| StoreError::Unavailable {
                what: "making a runtime for a connection".to_owned(),
                cause: cause.into(),
            })?;
        let what = "connecting to";
        let opened = runtime.block_on(async {
            match tokio::time::timeout(CONNECT_TIMEOUT, connect(&config, target)).await {
                Ok(outcome) => outcome.map_err(|fault| fault.into_store_error(what, &place)),
                Err(_) => Err(error::unavailable(
                    format!("{what} {place}"),
                    format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
                )),
            }
        });
        let client = match (opened, target.server.url.resolve()) {
            (Ok(client), _) => client,
            // The driver tells what the last host answered, whichever that is.
            (Err(error), Ok(url)) if purpose != Purpose::Read => {
                let what = format!("{what} {place}");
                return Err(runtime.block_on(with_answers(error, &url, target, what)));
            }
            (Err(error), _) => return Err(error),
        };
        let connection = Self {
            client,
            place,
            runtime,
        };
        connection.check_server(purpose)?;
        Ok(connection)
    }

    /// Waits for `future`, at most `limit` and a little.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        future: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, StoreError> {
        self.try_wait(what, limit, future)
            .map_err(|fault| fault.into_store_error(what, &self.place))
    }

    /// As [`Connection::wait`], with the error as it came.
    pub(crate) fn try_wait<T>(
        &self,
        what: &str,
        limit: Duration,
        future: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let limit = limit + GRACE;
        let bounded = async {
            match tokio::time::timeout(limit, future).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Fault::Store(error::unavailable(
                    format!("{what} {}", self.place),
                    format!("no answer within {} s", limit.as_secs()),
                ))),
            }
        };
        self.runtime.block_on(bounded)
    }

    /// Checks what no setting can mend.
    fn check_server(&self, purpose: Purpose) -> Result<(), StoreError> {
        let facts =
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                pg_is_in_recovery(), current_setting('transaction_read_only')::bool,
                current_setting('server_encoding')";
        let row = self.wait("looking at the server", STATEMENT_TIMEOUT, async {
            Ok(self.client.query_typed_one(facts, &[]).await?)
        })?;
        let what = format!("the server at {} cannot be used", self.place);
        if row.get::<_, i32>(0) < VERSION_MIN {
            let found: String = row.get(1);
            return Err(error::broken(
                what,
                format!("it is PostgreSQL {found}; version 12 or newer is needed"),
            ));
        }
        let (is_standby, is_read_only) = (row.get::<_, bool>(2), row.get::<_, bool>(3));
        if purpose == Purpose::Write && (is_standby || is_read_only) {
            let why = if is_standby { STANDBY } else { READ_ONLY };
            return Err(error::not_writable(
                format!("using the server at {}", self.place),
                why,
            ));
        }
        let encoding: String = row.get(4);
        if encoding != "UTF8" {
            return Err(error::broken(
                what,
                format!("the database's encoding is {encoding}; make one with ENCODING 'UTF8'"),
            ));
        }
        Ok(())
    }
}

fn config(target: &PostgresTarget, sink: &str) -> Result<Config, StoreError> {
    let url = target.server.url.resolve().map_err(|fault| {
        error::broken(
            format!("reading the url {}", target.server.url.shown()),
            fault.to_string(),
        )
    })?;
    let mut config = Config::from_str(&known_ssl_mode(&url)).map_err(|_| {
        // The driver's error could hold a part of the password.
        error::broken(
            format!("reading the url {}", target.server.url.shown()),
            "it is not an address as postgres://user:password@host:port/database?sslmode=require; special characters in user and password are written as %40 for @, %2F for /, %3F for ?",
        )
    })?;
    if config.get_application_name().is_none() {
        config.application_name(format!("onelog:{sink}"));
    }
    config
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .tcp_user_timeout(UNANSWERED_MAX);
    Ok(config)
}

/// Certificates and names are always checked, so that the two stricter modes mean what `require`
/// means here.
pub(crate) fn known_ssl_mode(url: &str) -> String {
    let Some((address, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let parameters: Vec<&str> = query
        .split('&')
        .map(|parameter| match parameter {
            "sslmode=verify-full" | "sslmode=verify-ca" => "sslmode=require",
            "sslmode=allow" => "sslmode=prefer",
            other => other,
        })
        .collect();
    format!("{address}?{}", parameters.join("&"))
}

pub(crate) async fn connect(config: &Config, target: &PostgresTarget) -> Result<Client, Fault> {
    if config.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = config.connect(NoTls).await?;
        // How a connection ends is reported to the caller that waits for its answer.
        tokio::spawn(async move { connection.await.ok() });
        return Ok(client);
    }
    let tls = tls_config(target.server.trust())
        .map_err(|why| error::broken("preparing the connection", why))?;
    let tls = MakeRustlsConnect::new(tls);
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(async move { connection.await.ok() });
    Ok(client)
}

/// Runs `steps` in a transaction that may write, which is rolled back when they fail.
pub(crate) async fn in_transaction<T>(
    client: &Client,
    steps: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    client.batch_execute(&BEGIN_WRITE).await?;
    match steps.await {
        Ok(value) => {
            client.batch_execute("COMMIT").await?;
            Ok(value)
        }
        Err(fault) => {
            // The first error is reported; a connection that is gone has rolled back already.
            client.batch_execute("ROLLBACK").await.ok();
            Err(fault)
        }
    }
}

type Answer<'c> = Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + 'c>>;

/// Statements that are sent one behind the other without waiting for answers in between. After an
/// error the server refuses the rest of the transaction, so the first error is the one to tell.
#[derive(Default)]
pub(crate) struct Pipeline<'c> {
    sent: Vec<Result<u64, Answer<'c>>>,
    failed: Option<(usize, tokio_postgres::Error)>,
}

impl<'c> Pipeline<'c> {
    /// Sends a statement. A future of the driver writes its request when it is polled first.
    pub(crate) fn send(
        &mut self,
        statement: impl Future<Output = Result<u64, tokio_postgres::Error>> + 'c,
    ) {
        let mut answer: Answer<'c> = Box::pin(statement);
        let mut context = Context::from_waker(Waker::noop());
        let sent = match answer.as_mut().poll(&mut context) {
            Poll::Pending => Err(answer),
            Poll::Ready(Ok(rows)) => Ok(rows),
            Poll::Ready(Err(error)) => {
                let number = self.sent.len();
                self.failed.get_or_insert((number, error));
                Ok(0)
            }
        };
        self.sent.push(sent);
    }

    /// How many statements were sent.
    pub(crate) const fn len(&self) -> usize {
        self.sent.len()
    }

    /// The answers in the order of the statements, or the number of the first that failed.
    pub(crate) async fn answers(self) -> Result<Vec<u64>, (usize, tokio_postgres::Error)> {
        let mut rows = Vec::with_capacity(self.sent.len());
        for (number, sent) in self.sent.into_iter().enumerate() {
            let outcome = match sent {
                Ok(rows) => Ok(rows),
                Err(answer) => answer.await,
            };
            match outcome {
                Ok(count) => rows.push(count),
                Err(error) => return Err((number, error)),
            }
        }
        self.failed.map_or(Ok(rows), Err)
    }
}

#[cfg(test)]
mod tests {
    use onelog_store::ServerAddress;

    use super::*;

    fn target(url: &str) -> PostgresTarget {
        PostgresTarget {
            server: ServerAddress::from(url),
            schema: "public".into(),
        }
    }

    #[test]
    fn the_stricter_modes_of_tls_are_known() {
        assert_eq!(
            known_ssl_mode("postgres://h/d?sslmode=verify-full&application_name=x"),
            "postgres://h/d?sslmode=require&application_name=x"
        );
        assert_eq!(known_ssl_mode("postgres://h/d"), "postgres://h/d");
    }

    #[test]
    fn an_address_that_cannot_be_read_shows_no_password() {
        for url in [
            "postgres://u:pa?secret@h:port/d",
            "postgres://u:secret@h:port/d",
            "postgres://u:secret@h:port/d?secret=1",
        ] {
            let error = config(&target(url), "s").unwrap_err().to_string();
            assert!(!error.contains("secret@"), "{error}");
            assert!(!error.contains(":secret"), "{error}");
        }
    }
}

//! One connection to the server, used by blocking calls, each of them bounded in time.
//!
//! The session is made strict and independent of the server's settings: no value is cut or turned
//! into another in silence, texts are utf8mb4, times are UTC.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, OptsBuilder, Params, Row, SslOpts};
use onelog_store::{Cause, StoreError, choose_cryptography, read_pem};
use tokio::runtime::Runtime;

use crate::error::{Fault, READ_ONLY, classify};
use crate::kind::MysqlTarget;

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one statement may take.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a statement of a rebuild may take that goes over all rows.
pub(crate) const REBUILD_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long a statement waits for rows, or a table's definition, that another session holds.
pub(crate) const LOCK_WAIT_SECONDS: u32 = 10;
/// After how long MariaDB ends a transaction of ours that went silent, so that a process that was
/// stopped does not hold up its successor.
const SILENT_TRANSACTION_SECONDS: u32 = 60;
/// Prepared statements kept; each mapping needs a dozen at most.
const STATEMENTS_KEPT: usize = 1024;
/// The oldest servers whose `RENAME TABLE` is one atomic step through a crash.
const MARIADB_OLDEST: (u16, u16, u16) = (10, 6, 1);
const MYSQL_OLDEST: (u16, u16, u16) = (8, 0, 19);
/// The least packet that a server must take: a record of the largest size, with room around it.
const PACKET_BYTES_LEAST: usize = 4 << 20;

/// Whether the server is not read-only. Newer versions have names instead of numbers.
pub(crate) const IS_WRITABLE: &str = "CAST(@@global.read_only AS CHAR) IN ('0', 'OFF')";

/// Which product the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Mariadb,
    Mysql,
}

impl Flavour {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mariadb => "MariaDB",
            Self::Mysql => "MySQL",
        }
    }

    /// The collation in which two texts are equal only when their bytes are.
    pub(crate) const fn exact_collation(self) -> &'static str {
        match self {
            Self::Mariadb => "utf8mb4_nopad_bin",
            Self::Mysql => "utf8mb4_0900_bin",
        }
    }
}

/// A connection and the thread's runtime that drives it. The connection goes first.
#[derive(Debug)]
pub(crate) struct Connection {
    conn: Option<Conn>,
    runtime: Runtime,
    place: String,
    flavour: Flavour,
    packet_bytes: usize,
    folds_names: bool,
    version: String,
    is_read_only: bool,
}

impl Connection {
    /// Connects, checks that the server can be written to, and makes the session strict.
    pub(crate) fn open(target: &MysqlTarget) -> Result<Self, StoreError> {
        let connection = Self::open_to_read(target)?;
        connection.check_writable()?;
        Ok(connection)
    }

    /// Connects and makes the session strict; reading suffices.
    pub(crate) fn open_to_read(target: &MysqlTarget) -> Result<Self, StoreError> {
        let place = target.server.url.shown();
        let broken = |cause: Cause| StoreError::Broken {
            what: format!("opening {place}"),
            cause,
        };
        let options = options(target).map_err(broken)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| broken(error.into()))?;
        let connecting = async { tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(options)).await };
        let conn = match runtime.block_on(connecting) {
            Ok(conn) => conn.map_err(Fault::from),
            Err(_) => Err(Fault::TimedOut(CONNECT_TIMEOUT)),
        };
        let conn = conn.map_err(|fault| classify(&format!("connecting to {place}"), fault))?;
        let mut connection = Self {
            conn: Some(conn),
            runtime,
            place,
            flavour: Flavour::Mysql,
            packet_bytes: 0,
            folds_names: false,
            version: String::new(),
            is_read_only: false,
        };
        connection.learn_settings()?;
        connection.make_strict()?;
        Ok(connection)
    }

    pub(crate) fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The largest request that the server takes.
    pub(crate) fn packet_bytes(&self) -> usize {
        self.packet_bytes
    }

    /// Whether the server takes names of tables that differ in case for the same.
    pub(crate) fn folds_names(&self) -> bool {
        self.folds_names
    }

    fn learn_settings(&mut self) -> Result<(), StoreError> {
        let what = "looking at the settings of";
        let rows = self.rows(
            what,
            &format!(
                "SELECT VERSION(), DATABASE(), @@max_allowed_packet, @@lower_case_table_names,
             {IS_WRITABLE}"
            ),
            Params::Empty,
        )?;
        let [row] = &rows[..] else {
            return Err(self.broken(what, "the server did not answer its settings"));
        };
        let text = |n| row.get::<Option<String>, _>(n).flatten();
        let number = |n| row.get::<Option<u64>, _>(n).flatten().unwrap_or(0);
        if text(1).is_none() {
            return Err(self.broken(
                what,
                "the url names no database; write …@host:port/database",
            ));
        }
        self.version = text(0).unwrap_or_default();
        self.flavour = match self.version.to_ascii_lowercase().contains("mariadb") {
            true => Flavour::Mariadb,
            false => Flavour::Mysql,
        };
        self.packet_bytes = usize::try_from(number(2)).unwrap_or(usize::MAX);
        self.folds_names = number(3) != 0;
        self.is_read_only = number(4) == 0;
        Ok(())
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        let what = "looking at the settings of";
        let oldest = match self.flavour {
            Flavour::Mariadb => MARIADB_OLDEST,
            Flavour::Mysql => MYSQL_OLDEST,
        };
        let found = self.conn.as_ref().map_or((0, 0, 0), Conn::server_version);
        if found < oldest {
            let (a, b, c) = oldest;
            return Err(self.broken(
                what,
                &format!(
                    "{} {a}.{b}.{c} or later is needed, this is {}: older ones cannot rename several tables in one step that survives a crash",
                    self.flavour.name(),
                    self.version
                ),
            ));
        }
        if self.is_read_only {
            return Err(self.read_only(what));
        }
        if self.packet_bytes < PACKET_BYTES_LEAST {
            return Err(self.broken(
                what,
                &format!(
                    "max_allowed_packet is {}; set it to {PACKET_BYTES_LEAST} or more on the server",
                    self.packet_bytes
                ),
            ));
        }
        Ok(())
    }

    fn make_strict(&mut self) -> Result<(), StoreError> {
        let what = "setting up a session in";
        let silent = match self.flavour {
            Flavour::Mariadb => {
                format!(", idle_write_transaction_timeout = {SILENT_TRANSACTION_SECONDS}")
            }
            Flavour::Mysql => String::new(),
        };
        self.execute(what, "SET NAMES utf8mb4")?;
        self.execute(
            what,
            &format!(
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,NO_BACKSLASH_ESCAPES',
                 time_zone = '+00:00', autocommit = 1, foreign_key_checks = 1, unique_checks = 1,
                 lock_wait_timeout = {LOCK_WAIT_SECONDS},
                 innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}{silent}"
            ),
        )?;
        self.execute(
            what,
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )?;
        Ok(())
    }

    /// Does something with the connection. After a loss or a silence it is not used again:
    /// what it would answer is unknown.
    pub(crate) fn run<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let Some(conn) = self.conn.as_mut() else {
            return Err(Fault::Closed);
        };
        let timed = async { tokio::time::timeout(limit, work(conn)).await };
        let outcome = match self.runtime.block_on(timed) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Fault::Driver(error),
            Err(_) => Fault::TimedOut(limit),
        };
        if outcome.code().is_none() {
            self.conn = None;
        }
        Err(outcome)
    }

    /// The same without one bound over all of it: the work bounds its own steps.
    pub(crate) fn run_unbounded<T, E: From<Fault>>(
        &mut self,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(conn) = self.conn.as_mut() else {
            return Err(Fault::Closed.into());
        };
        self.runtime.block_on(work(conn))
    }

    /// The connection is not used again.
    pub(crate) fn give_up(&mut self) {
        self.conn = None;
    }

    /// Runs a statement without parameters.
    pub(crate) fn statement(&mut self, limit: Duration, sql: &str) -> Result<u64, Fault> {
        self.run(limit, async |conn: &mut Conn| {
            conn.query_drop(sql).await?;
            Ok(conn.affected_rows())
        })
    }

    /// Runs a prepared statement; answers how many rows it found.
    pub(crate) fn prepared(&mut self, sql: &str, params: Params) -> Result<u64, Fault> {
        self.prepared_within(STATEMENT_TIMEOUT, sql, params)
    }

    /// The same, which may take so long.
    pub(crate) fn prepared_within(
        &mut self,
        limit: Duration,
        sql: &str,
        params: Params,
    ) -> Result<u64, Fault> {
        self.run(limit, async |conn: &mut Conn| {
            conn.exec_drop(sql, params).await?;
            Ok(conn.affected_rows())
        })
    }

    /// Runs a statement without parameters; `what` says in an error what it was for.
    pub(crate) fn execute(&mut self, what: &str, sql: &str) -> Result<u64, StoreError> {
        self.statement(STATEMENT_TIMEOUT, sql)
            .map_err(|fault| self.store_error(what, fault))
    }

    /// Deletes rows without what would follow them: the server looks at no foreign key until that is
    /// done, and looks at them again however it ends.
    pub(crate) fn without_followers<T, E: From<StoreError>>(
        &mut self,
        what: &str,
        delete: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.execute(what, "SET SESSION foreign_key_checks = 0")?;
        let deleted = delete(self);
        let restored = self.execute(what, "SET SESSION foreign_key_checks = 1");
        let deleted = deleted?;
        restored?;
        Ok(deleted)
    }

    /// All rows of a small result.
    pub(crate) fn rows(
        &mut self,
        what: &str,
        sql: &str,
        params: Params,
    ) -> Result<Vec<Row>, StoreError> {
        self.fetch(sql, params)
            .map_err(|fault| self.store_error(what, fault))
    }

    /// As [`Self::rows`], with the fault as it came.
    pub(crate) fn fetch(&mut self, sql: &str, params: Params) -> Result<Vec<Row>, Fault> {
        self.fetch_within(STATEMENT_TIMEOUT, sql, params)
    }

    /// The same, which may take so long.
    pub(crate) fn fetch_within(
        &mut self,
        limit: Duration,
        sql: &str,
        params: Params,
    ) -> Result<Vec<Row>, Fault> {
        self.run(limit, async |conn: &mut Conn| conn.exec(sql, params).await)
    }

    /// Ends a transaction without a trace. That it fails means that the connection is lost, which
    /// has the same effect.
    pub(crate) fn roll_back(&mut self) {
        if self.statement(STATEMENT_TIMEOUT, "ROLLBACK").is_err() {
            self.conn = None;
        }
    }

    /// What a fault means for the sink.
    pub(crate) fn store_error(&self, what: &str, fault: Fault) -> StoreError {
        classify(&format!("{what} {}", self.place), fault)
    }

    pub(crate) fn broken(&self, what: &str, why: &str) -> StoreError {
        StoreError::Broken {
            what: format!("{what} {}", self.place),
            cause: why.to_owned().into(),
        }
    }

    pub(crate) fn read_only(&self, what: &str) -> StoreError {
        StoreError::NotWritable {
            what: format!("{what} {}", self.place),
            cause: READ_ONLY.into(),
        }
    }

    /// Fails where the server is read-only. A user with every right could write to it all the same,
    /// and what is written to a replica is lost, or breaks its replication.
    pub(crate) fn check_read_only(&mut self, what: &str) -> Result<(), StoreError> {
        let rows = self.rows(what, &format!("SELECT {IS_WRITABLE}"), Params::Empty)?;
        let is_writable = |row: &Row| row.get::<Option<u64>, _>(0).flatten() == Some(1);
        match rows.first().is_some_and(is_writable) {
            true => Ok(()),
            false => Err(self.read_only(what)),
        }
    }

    pub(crate) fn unavailable(&self, what: &str, why: &str) -> StoreError {
        StoreError::Unavailable {
            what: format!("{what} {}", self.place),
            cause: why.to_owned().into(),
        }
    }
}

/// Where to connect and how. A file of certificates, or `require_ssl=true` in the url, means TLS.
fn options(target: &MysqlTarget) -> Result<Opts, Cause> {
    let url = target.server.url.resolve()?;
    let url = match url.strip_prefix("mariadb://") {
        Some(rest) => format!("mysql://{rest}"),
        None => url,
    };
    let parsed = Opts::from_url(&url)?;
    let tls = match (&target.server.ca_file, parsed.ssl_opts()) {
        (Some(file), _) => Some(trusting(vec![read_pem(file)?])),
        (None, Some(_)) => {
            let found = rustls_native_certs::load_native_certs();
            let roots = found.certs.into_iter().map(|c| c.to_vec()).collect();
            Some(trusting(roots))
        }
        (None, None) => None,
    };
    if tls.is_some() {
        choose_cryptography();
    }
    Ok(OptsBuilder::from_opts(parsed)
        // A socket found by asking would lead around a proxy that the url names.
        .prefer_socket(false)
        .client_found_rows(true)
        .stmt_cache_size(STATEMENTS_KEPT)
        .tcp_nodelay(true)
        .ssl_opts(tls)
        .into())
}

fn trusting(roots: Vec<Vec<u8>>) -> SslOpts {
    SslOpts::default()
        .with_root_certs(roots.into_iter().map(Into::into).collect())
        .with_disable_built_in_roots(true)
}

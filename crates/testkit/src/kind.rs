//! Which servers this machine has; tests that need a missing one are skipped, loudly.

use std::io::Write;
use std::path::PathBuf;

use crate::kafka::kafka_python;
use crate::postgres;
use crate::search::{ELASTICSEARCH, OPENSEARCH, Product};

/// `1`: a test whose server is missing fails. Or the names of those that must be there, separated
/// by commas, such as `postgres,redis`.
const REQUIRE: &str = "ONELOG_REQUIRE_SERVERS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    /// Between a client and PostgreSQL.
    Pgbouncer,
    Mariadb,
    Redis,
    OpenSearch,
    Elasticsearch,
    /// A client of Kafka, in C.
    Kcat,
    /// Clients of Kafka for Python.
    KafkaPython,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Pgbouncer => "pgbouncer",
            Self::Mariadb => "mariadb",
            Self::Redis => "redis",
            Self::OpenSearch => "opensearch",
            Self::Elasticsearch => "elasticsearch",
            Self::Kcat => "kcat",
            Self::KafkaPython => "kafka-python",
        }
    }
}

/// Whether a server can be started here; if not, what is missing and how to get it.
pub fn available(kind: Kind) -> Result<(), String> {
    need("setpriv", find_program("setpriv"), "util-linux")?;
    match kind {
        Kind::Postgres => {
            need("postgres", postgres::program("postgres"), "postgresql")?;
            need("initdb", postgres::program("initdb"), "postgresql")?;
            need("psql", postgres::program("psql"), "postgresql-client")
        }
        Kind::Pgbouncer => need("pgbouncer", find_program("pgbouncer"), "pgbouncer"),
        Kind::Mariadb => {
            need("mariadbd", find_program("mariadbd"), "mariadb-server")?;
            need("mariadb", find_program("mariadb"), "mariadb-client")
        }
        Kind::Redis => {
            need("redis-server", find_program("redis-server"), "redis-server")?;
            need("redis-cli", find_program("redis-cli"), "redis-tools")
        }
        Kind::OpenSearch => need_assembled(OPENSEARCH),
        Kind::Elasticsearch => need_assembled(ELASTICSEARCH),
        Kind::Kcat => need("kcat", find_program("kcat"), "kcat"),
        Kind::KafkaPython => match kafka_python() {
            Some(_) => Ok(()),
            None => Err("the clients are not installed; run scripts/kafka-clients (needs python3-venv and the index of Python packages)".to_owned()),
        },
    }
}

fn need(program: &str, found: Option<PathBuf>, package: &str) -> Result<(), String> {
    match found {
        Some(_) => Ok(()),
        None => Err(format!(
            "{program} is not installed; on Debian: apt-get install {package}"
        )),
    }
}

fn need_assembled(product: Product) -> Result<(), String> {
    need("java", find_program("java"), "default-jdk-headless")?;
    match product.assembled() {
        Some(_) => Ok(()),
        None => Err(format!(
            "{} is not assembled; run scripts/search-servers (needs Maven and its registry)",
            product.name()
        )),
    }
}

/// A program in the path, or where Debian puts servers, which is not in every user's path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Whether a test that needs these servers runs; else says why not. See [`require!`].
#[doc(hidden)]
pub fn must_run(test: &str, kinds: &[Kind]) -> bool {
    let wish = std::env::var(REQUIRE).unwrap_or_default();
    for kind in kinds {
        let Err(why) = available(*kind) else {
            continue;
        };
        let required = wish == "1" || wish.split(',').any(|name| name == kind.name());
        assert!(!required, "{test} needs {}: {why}", kind.name());
        let thread = std::thread::current();
        let test = match thread.name() {
            None | Some("main") => test,
            Some(name) => name,
        };
        // Not eprintln!, which the test harness keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
        return false;
    }
    true
}

/// First line of a test that needs servers: skips it, loudly, when one of them is not installed.
/// With `ONELOG_REQUIRE_SERVERS=1` (or the kinds' names) it fails instead.
///
/// ```
/// use onelog_testkit::{Kind, require};
///
/// fn rows_arrive() {
///     require!(Kind::Postgres, Kind::Redis);
///     // …
/// }
/// # rows_arrive();
/// ```
#[macro_export]
macro_rules! require {
    ($($kind:expr),+ $(,)?) => {
        if !$crate::must_run(concat!(module_path!(), ":", line!()), &[$($kind),+]) {
            return;
        }
    };
}

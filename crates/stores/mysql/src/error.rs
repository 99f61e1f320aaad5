//! What the server's errors mean for a sink: a row's fault, a race that was lost, the moment's, or
//! the set-up's.

use std::time::Duration;

use mysql_async::{Error, IoError};
use onelog_store::{StoreError, URL};

use crate::connection::Flavour;

pub(crate) const NO_TABLE: u16 = 1146;
const NO_DATABASE: u16 = 1049;
/// As MySQL and as MariaDB say it.
const ACCOUNT_LOCKED: u16 = 3118;
const ACCOUNT_LOCKED_MARIADB: u16 = 4151;
const PASSWORD_EXPIRED: u16 = 1862;
pub(crate) const NO_COLUMN: u16 = 1054;
pub(crate) const DUPLICATE_COLUMN: u16 = 1060;
/// A table was made or changed after the snapshot was taken.
pub(crate) const TABLE_CHANGED: u16 = 1412;
pub(crate) const DUPLICATE: u16 = 1062;
/// A foreign key refers to a row that is not there.
pub(crate) const NO_PARENT: u16 = 1452;
pub(crate) const NO_PARENT_ADVICE: &str = "tables are backfilled in the order of the mappings: where the table that the foreign key refers to is one of them, put its mapping first";
/// Another session held a lock for too long.
pub(crate) const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// What went wrong with a statement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{}", driver_message(.0))]
    Driver(#[from] Error),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the connection was lost before")]
    Closed,
}

/// The message of an error of the driver, which repeats the name of its class in each layer.
fn driver_message(error: &Error) -> String {
    match error {
        Error::Io(IoError::Io(error)) => error.to_string(),
        Error::Io(error) => error.to_string(),
        Error::Driver(error) => error.to_string(),
        Error::Server(error) => error.to_string(),
        Error::Other(error) => error.to_string(),
        error => error.to_string(),
    }
}

impl Fault {
    /// The server's number of the error.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Driver(Error::Server(error)) => Some(error.code),
            _ => None,
        }
    }

    /// Whether the row is at fault, so that trying again cannot help.
    pub(crate) fn is_rejected_row(&self) -> bool {
        let Self::Driver(Error::Server(error)) = self else {
            return false;
        };
        let class = error.state.get(..2).unwrap_or("");
        matches!(class, "21" | "22" | "23" | "44" | "45")
            || matches!(error.code, 1364 | 1366 | 1977 | 3819 | 3988 | 4025)
    }

    /// Whether the row may be refused for another one: unique and foreign keys; 1048 is the guard of an
    /// upsert.
    pub(crate) fn is_between_rows(&self) -> bool {
        matches!(self.code(), Some(1048 | 1062 | 1216 | 1217 | 1451 | 1452))
    }

    /// Whether two rows may have exchanged what each may have once.
    pub(crate) fn is_exchange(&self) -> bool {
        self.code() == Some(1062)
    }

    /// Whether a row refers to one that is not there, or one that stays refers to it.
    pub(crate) fn is_reference(&self) -> bool {
        matches!(self.code(), Some(1216 | 1217 | 1451 | 1452))
    }

    /// Whether the transaction lost against another one and can begin again at once.
    pub(crate) fn is_lost_race(&self) -> bool {
        matches!(self.code(), Some(1205 | 1213))
    }

    /// The message of the server or the driver.
    pub(crate) fn message(&self, flavour: Flavour) -> String {
        match self {
            Self::Driver(Error::Server(error)) => {
                format!("{} says: {error}", flavour.name())
            }
            other => other.to_string(),
        }
    }
}

/// What a read-only server says of itself.
pub(crate) const READ_ONLY: &str = "the server is read-only, as a replica is (read_only=1): until it is promoted nothing can be written; where that is not a failover, give the address of the primary";

/// Whether the server answers and takes no writes for now: read-only in one of its ways, its disk
/// full, or a node that its cluster has left out.
fn is_not_writable(fault: &Fault) -> bool {
    let Fault::Driver(Error::Server(error)) = fault else {
        return false;
    };
    match error.code {
        // Several options are reported by one number.
        1290 => error.message.contains("read-only") || error.message.contains("read_only"),
        1021 | 1036 | 1047 | 1114 | 1792 | 1836 => true,
        _ => false,
    }
}

/// Errors that stay until a user changes a right or a setting stop the sink; all others may pass, a
/// refused login among them.
pub(crate) fn classify(what: &str, fault: Fault) -> StoreError {
    if is_not_writable(&fault) {
        return StoreError::NotWritable {
            what: what.to_owned(),
            cause: Box::new(fault),
        };
    }
    let advice = match fault.code() {
        Some(1045 | 1698) => {
            "the password is wrong, or there is no such user for the host that onelog connects from: mend user and password in the address"
        }
        Some(ACCOUNT_LOCKED | ACCOUNT_LOCKED_MARIADB | PASSWORD_EXPIRED) => {
            "the account is locked, or its password has expired: ALTER USER … ACCOUNT UNLOCK, or a new password, mends that"
        }
        Some(1044) => {
            "there is no such database, or the user has no rights in it, and the server does not say which: name another database in the address, make it, or give the user the rights that docs/sinks/mysql.md lists"
        }
        Some(NO_DATABASE) => {
            "there is no such database: make it, or name another one in the address"
        }
        Some(1142 | 1143 | 1227 | 1370) => {
            "the user lacks a right: give it those that docs/sinks/mysql.md lists"
        }
        Some(1286) => "the storage engine InnoDB must be on",
        Some(1059 | 1102 | 1300 | 1103 | 1166) => {
            "names have at most 64 characters and do not end with a blank; choose another one"
        }
        Some(1064 | 1071 | 1074 | 1117 | 1118) => "the server does not take such a table",
        _ if is_certificate_fault(&fault) => {
            "the server's certificate is not trusted; give its authority as 'ca_file'"
        }
        _ => {
            return StoreError::Unavailable {
                what: what.to_owned(),
                cause: Box::new(fault),
            };
        }
    };
    let code = fault.code();
    let (what, cause) = (format!("{what} ({advice})"), Box::new(fault));
    match code {
        Some(NO_DATABASE) => StoreError::NoSuchPlace {
            field: URL.name,
            what,
            cause,
        },
        Some(1044 | 1045 | 1698 | ACCOUNT_LOCKED | ACCOUNT_LOCKED_MARIADB | PASSWORD_EXPIRED) => {
            StoreError::NoAccess { what, cause }
        }
        _ => StoreError::Broken { what, cause },
    }
}

fn is_certificate_fault(fault: &Fault) -> bool {
    matches!(fault, Fault::Driver(Error::Io(IoError::Tls(_))))
        || (fault.code().is_none() && fault.to_string().contains("certificate"))
}

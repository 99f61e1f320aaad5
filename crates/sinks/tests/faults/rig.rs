//! What the faults need to know of a store.

use onelog_testkit::{Proxy, Server};
use serde_json::Value;

/// How many accounts each of the two tables has.
pub const ACCOUNTS: usize = 25;
/// What every account holds at first.
pub const BALANCE: i64 = 1000;
/// The sum over all accounts, whatever is transferred.
pub const SUM: i64 = 2 * ACCOUNTS as i64 * BALANCE;
/// The tables in the store.
pub const LEFT: &str = "accounts_left";
pub const RIGHT: &str = "accounts_right";

/// One store under test.
pub trait Rig: Send + Sync {
    fn server(&self) -> &dyn Server;
    /// What the sink connects through.
    fn proxy(&self) -> &Proxy;
    /// The fields of the sink's definition that lead to the store, through the proxy.
    fn target(&self) -> Value;
    /// Bytes that a commit's request has, and no other request.
    fn commit(&self) -> &[u8];
    /// How often each fault is repeated.
    fn rounds(&self) -> u64 {
        20
    }
    /// Makes the store note every write of an account with its version, in the same transaction,
    /// such that a second write of one version fails. Nothing where the store cannot.
    fn note_writes(&self) {}
    /// Forgets what was noted: a rebuild writes rows again.
    fn forget_writes(&self) {}
    /// A reader that adds up all accounts in one atomic reading.
    /// `None` where nothing can be read atomically.
    fn connect(&self) -> Option<Box<dyn Auditor>>;
    /// Makes every later write fail, as a full disk or a rule of the store would.
    fn refuse_writes(&self);
    fn allow_writes(&self);
}

/// A reader of its own, not through the proxy.
pub trait Auditor: Send {
    /// The sum of all accounts, read in one atomic step. `Err`: the store cannot be read now.
    fn sum(&mut self) -> Result<i64, String>;
}

//! What the stories need to know of a store. Looks and edits are made by the server's own client.

use onelog_store::SinkDefinition;
use onelog_testkit::Server;
use serde_json::{Value, json};

/// One store under test.
pub trait Rig: Send + Sync {
    fn server(&self) -> &dyn Server;

    /// The fields of a sink's definition that lead to the store.
    fn target(&self) -> Value;

    /// A mapping of `shop.orders` in which `total` is a whole number.
    fn mapping(&self, into: &str) -> Value;

    /// The same, as much as may be, for a table that takes what the other one refuses.
    fn lax_mapping(&self, into: &str) -> Value {
        self.mapping(into)
    }

    /// From now on the table refuses [`Rig::refused`]; nothing where it always does.
    fn forbid(&self, into: &str);

    /// Ends it. `false`: the store cannot be made to take such a record.
    fn allow(&self, into: &str) -> bool;

    /// From now on a total is in one row only, where the store knows such rules.
    fn make_unique(&self, _into: &str) {}

    /// A record that a table with a rule refuses.
    fn refused(&self) -> Value {
        json!({"total": -1, "note": "against the rule", "forbidden": true})
    }

    /// A record that no such table takes, whatever its rules are.
    fn rejected(&self) -> Value {
        json!({"total": "many"})
    }

    /// What the message of the refusal contains.
    fn message(&self) -> &str;

    /// Whether all that a batch writes is seen together, or nothing of it.
    fn is_atomic(&self) -> bool {
        true
    }

    /// Whether a backfill writes into the table that onelog made, instead of replacing it.
    fn merges(&self) -> bool {
        false
    }

    /// The total of a row as JSON, as a reader finds it; `None` without a row.
    fn total(&self, into: &str, key: &str) -> Option<String>;

    /// Changes the total of a row.
    fn change(&self, into: &str, key: &str, total: i64);

    fn remove(&self, into: &str, key: &str);

    fn add(&self, into: &str, key: &str, total: i64);

    /// Adds rows with the total 0 in one step, where it has such.
    fn add_many(&self, into: &str, keys: &[String]) {
        keys.iter().for_each(|key| self.add(into, key, 0));
    }

    /// Makes a table by hand that the mapping fits. `false`: there are no such tables in the store.
    fn make_table(&self, _into: &str) -> bool {
        false
    }

    /// Makes such a table whose `note` refers to a row of its own.
    fn make_family(&self, _into: &str) -> bool {
        false
    }

    /// From now on the store answers and takes no writes to this table, as in a failover.
    fn freeze(&self, into: &str);

    /// The store takes writes again.
    fn thaw(&self, into: &str);

    /// From now on the server knows the sink's login no more, and its connections are gone. `false`:
    /// there are no logins.
    fn shut_out(&self) -> bool {
        false
    }

    /// The login is as it was.
    fn let_in(&self) {}

    /// Makes the column `note` too narrow for its texts, which are cut. What a sink says of it; `None`:
    /// there are no such columns in the store.
    fn narrow(&self, _into: &str) -> Option<String> {
        None
    }

    /// Gives the column its type back.
    fn widen(&self, _into: &str) {}

    /// The same definition with another address of the server.
    fn elsewhere(&self, definition: &SinkDefinition) -> SinkDefinition {
        let text = definition.to_stored().to_string();
        let text = text.replace("127.0.0.1", "localhost");
        SinkDefinition::from_slice(onelog_stores::KINDS, text.as_bytes()).unwrap()
    }
}

/// `id`, `total` and `note` as columns.
pub fn columns(into: &str) -> Value {
    json!({"table": "shop.orders", "into": into, "columns": {
        "id": {"from": "$key", "type": "text"},
        "total": {"from": "/total", "type": "integer"},
        "note": {"from": "/note", "type": "text"}}})
}

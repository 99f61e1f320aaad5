//! MariaDB under test.

use onelog_testkit::{Mariadb, Server};
use serde_json::{Value, json};

use crate::rig::{Rig, columns};

/// The sink's own login, beside the one of the looks and edits.
const LOGIN: &str = "follower";

pub struct MysqlRig(Mariadb);

impl MysqlRig {
    pub fn start() -> Self {
        let server = Mariadb::start();
        server.sql(&format!(
            "CREATE USER {LOGIN}@localhost IDENTIFIED BY '{LOGIN}';
             GRANT ALL ON *.* TO {LOGIN}@localhost WITH GRANT OPTION"
        ));
        Self(server)
    }
}

impl Rig for MysqlRig {
    fn server(&self) -> &dyn Server {
        &self.0
    }

    fn target(&self) -> Value {
        let url = self.0.url();
        let url = url.replace("onelog:onelog@", &format!("{LOGIN}:{LOGIN}@"));
        json!({"kind": "mysql", "url": url})
    }

    fn mapping(&self, into: &str) -> Value {
        columns(into)
    }

    fn forbid(&self, into: &str) {
        self.0.sql(&format!(
            "ALTER TABLE {into} ADD CONSTRAINT not_negative CHECK (total >= 0)"
        ));
    }

    fn allow(&self, into: &str) -> bool {
        self.0
            .sql(&format!("ALTER TABLE {into} DROP CONSTRAINT not_negative"));
        true
    }

    fn make_unique(&self, into: &str) {
        self.0.sql(&format!(
            "ALTER TABLE {into} ADD CONSTRAINT {into}_total UNIQUE (total)"
        ));
    }

    fn shut_out(&self) -> bool {
        self.0.sql(&format!(
            "ALTER USER {LOGIN}@localhost IDENTIFIED BY 'changed'; KILL USER {LOGIN}@localhost"
        ));
        true
    }

    fn let_in(&self) {
        self.0.sql(&format!(
            "ALTER USER {LOGIN}@localhost IDENTIFIED BY '{LOGIN}'"
        ));
    }

    /// The user of the sink may write all the same: it has every right.
    fn freeze(&self, _into: &str) {
        self.0.sql("SET GLOBAL read_only = 1");
    }

    fn thaw(&self, _into: &str) {
        self.0.sql("SET GLOBAL read_only = 0");
    }

    fn message(&self) -> &str {
        "not_negative"
    }

    fn total(&self, into: &str, key: &str) -> Option<String> {
        let found = self
            .0
            .sql(&format!("SELECT total FROM {into} WHERE id = '{key}'"));
        (!found.is_empty()).then_some(found)
    }

    fn change(&self, into: &str, key: &str, total: i64) {
        self.0.sql(&format!(
            "UPDATE {into} SET total = {total} WHERE id = '{key}'"
        ));
    }

    fn remove(&self, into: &str, key: &str) {
        self.0
            .sql(&format!("DELETE FROM {into} WHERE id = '{key}'"));
    }

    fn add(&self, into: &str, key: &str, total: i64) {
        self.0.sql(&format!(
            "INSERT INTO {into} (id, total) VALUES ('{key}', {total})"
        ));
    }

    fn add_many(&self, into: &str, keys: &[String]) {
        let rows: Vec<String> = keys.iter().map(|key| format!("('{key}', 0)")).collect();
        let rows = rows.join(", ");
        self.0
            .sql(&format!("INSERT INTO {into} (id, total) VALUES {rows}"));
    }

    fn make_table(&self, into: &str) -> bool {
        self.0.sql(&format!(
            "CREATE TABLE {into} (id varchar(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL PRIMARY KEY, total bigint, note longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin)"
        ));
        true
    }

    fn make_family(&self, into: &str) -> bool {
        let text = "varchar(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin";
        self.0.sql(&format!(
            "CREATE TABLE {into} (id {text} NOT NULL PRIMARY KEY, total bigint, note {text}, FOREIGN KEY (note) REFERENCES {into} (id))"
        ));
        true
    }

    fn narrow(&self, into: &str) -> Option<String> {
        self.0.sql(&format!(
            "SET sql_mode = ''; ALTER TABLE {into} MODIFY note varchar(3)"
        ));
        Some("'note' is varchar(3), and should be longtext".to_owned())
    }

    fn widen(&self, into: &str) {
        self.0.sql(&format!(
            "ALTER TABLE {into} MODIFY note longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
        ));
    }
}

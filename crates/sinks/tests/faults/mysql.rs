//! MariaDB under test.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use onelog_testkit::{Mariadb, Proxy, Server};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::rig::{Auditor, LEFT, RIGHT, Rig};

pub struct MysqlRig {
    server: Mariadb,
    proxy: Proxy,
}

impl MysqlRig {
    pub fn start() -> Self {
        let server = Mariadb::start_with(&["innodb_flush_log_at_trx_commit=1"]);
        let proxy = Proxy::in_front_of(&server);
        Self { server, proxy }
    }
}

impl Rig for MysqlRig {
    fn server(&self) -> &dyn Server {
        &self.server
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn target(&self) -> Value {
        json!({"kind": "mysql", "url": self.proxy.url_of(&self.server.url())})
    }

    fn commit(&self) -> &[u8] {
        b"COMMIT"
    }

    fn note_writes(&self) {
        let mut sql = String::from(
            "CREATE TABLE writes (tab varchar(64), k varchar(64), version bigint, PRIMARY KEY (tab, k, version)) ENGINE=InnoDB;",
        );
        for table in [LEFT, RIGHT] {
            for event in ["INSERT", "UPDATE"] {
                sql.push_str(&format!(
                    "CREATE TRIGGER note_{table}_{event} AFTER {event} ON {table} FOR EACH ROW INSERT INTO writes VALUES ('{table}', NEW.id, NEW.at);"
                ));
            }
        }
        self.server.sql(&sql);
    }

    fn forget_writes(&self) {
        self.server.sql("DELETE FROM writes;");
    }

    fn connect(&self) -> Option<Box<dyn Auditor>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let url = self.server.url();
        let connection = runtime.block_on(async {
            let options = mysql_async::Opts::from_url(&url).map_err(|error| error.to_string())?;
            mysql_async::Conn::new(options)
                .await
                .map_err(|error| error.to_string())
        });
        Some(Box::new(MysqlAuditor {
            runtime,
            connection,
        }))
    }

    fn refuse_writes(&self) {
        self.server.sql(&format!(
            "CREATE TRIGGER refuse BEFORE UPDATE ON {RIGHT} FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no more accounts today';
             CREATE TRIGGER refuse_new BEFORE INSERT ON {RIGHT} FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no more accounts today';"
        ));
    }

    fn allow_writes(&self) {
        self.server
            .sql("DROP TRIGGER refuse; DROP TRIGGER refuse_new;");
    }
}

struct MysqlAuditor {
    runtime: Runtime,
    connection: Result<mysql_async::Conn, String>,
}

impl Auditor for MysqlAuditor {
    fn sum(&mut self) -> Result<i64, String> {
        let connection = self.connection.as_mut().map_err(|error| error.clone())?;
        let sql = format!(
            "SELECT CAST((SELECT sum(balance) FROM {LEFT}) + (SELECT sum(balance) FROM {RIGHT}) AS SIGNED)"
        );
        let query = async {
            let row = connection.query_first::<i64, _>(sql);
            tokio::time::timeout(Duration::from_secs(5), row).await
        };
        let row = self
            .runtime
            .block_on(query)
            .map_err(|error| error.to_string())?;
        row.map_err(|error| error.to_string())?
            .ok_or_else(|| "no row".to_owned())
    }
}

//! Whether the tables that a transaction writes are those that its statements were made for.

use tokio_postgres::types::{ToSql, Type};

use crate::connection::Pipeline;
use crate::ddl::shape;
use crate::error::Fault;
use crate::store::Scope;

impl<'a> Scope<'a> {
    /// Sends a look at the tables that this transaction has written to. It meets those that are
    /// others now; the locks of the writes keep the rest as they are until the end.
    pub(crate) fn send_check(&self, pipeline: &mut Pipeline<'a>) {
        let (client, schema) = (self.client, &self.identity.schema);
        let (names, versions) = self.known_versions(true);
        pipeline.send(async move {
            let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
                (schema, Type::TEXT),
                (&names, Type::TEXT_ARRAY),
                (&versions, Type::TEXT_ARRAY),
            ];
            client.execute_typed(&shape::REDEFINED, &parameters).await
        });
    }

    /// Fails where a table is another one than its statements were made for.
    pub(crate) async fn check_definitions(&self) -> Result<(), Fault> {
        let (names, versions) = self.known_versions(false);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&self.identity.schema, Type::TEXT),
            (&names, Type::TEXT_ARRAY),
            (&versions, Type::TEXT_ARRAY),
        ];
        let changed = self
            .client
            .query_typed(&shape::REDEFINED, &parameters)
            .await?;
        match changed.first() {
            Some(row) => Err(Fault::Redefined(row.get(0))),
            None => Ok(()),
        }
    }

    /// A row may be refused by a definition that is new: it is not to blame then.
    pub(crate) async fn blame_definitions(&self, fault: Fault) -> Fault {
        match self.check_definitions().await {
            Err(redefined @ Fault::Redefined(_)) => redefined,
            _ => fault,
        }
    }

    /// Names of tables and what the catalog said of them before their statements were made.
    fn known_versions(&self, locked_only: bool) -> (Vec<String>, Vec<String>) {
        let mappings = self.identity.plan.mappings.iter().zip(self.writers.iter());
        let known = mappings.filter_map(|(mapping, writer)| {
            let writer = writer.as_ref()?;
            let is_wanted = writer.is_locked || !locked_only;
            is_wanted.then(|| (mapping.into.clone(), writer.versions.clone()))
        });
        known.unzip()
    }
}

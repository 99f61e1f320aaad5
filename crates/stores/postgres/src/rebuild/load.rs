//! Copying rows into the new tables, and finding those that the server does not take.

use futures_util::SinkExt as _;
use onelog_mapping::MappingPlan;
use onelog_store::{Change, Refusals, StoreError};
use tokio_postgres::CopyInSink;

use super::{Rebuild, no_rebuild};
use crate::ddl::{list, quote, record_columns, staging_name, table};
use crate::encode::CopyRows;
use crate::error::Fault;
use crate::store::Scope;
use crate::write::says;

/// How many bytes go into one message of a COPY.
const COPY_BYTES: usize = 128 << 10;

impl Scope<'_> {
    pub(crate) async fn load(
        &mut self,
        rebuild: Option<&Rebuild>,
        number: usize,
        rows: &[Change],
    ) -> Result<(), Fault> {
        self.check_epoch().await?;
        self.copy(rebuild.ok_or_else(no_rebuild)?, number, rows)
            .await
    }

    /// Looks for the rows that a COPY is refused for, by halves: its error names none.
    pub(crate) async fn refused_of_load(
        &mut self,
        rebuild: Option<&Rebuild>,
        number: usize,
        rows: &[Change],
    ) -> Result<(), Fault> {
        self.check_epoch().await?;
        let rebuild = rebuild.ok_or_else(no_rebuild)?;
        let mapping = &self.identity.plan.mappings[number];
        let client = self.client;
        client.batch_execute("SAVEPOINT onelog_part").await?;
        let mut refusals = Refusals::default();
        let mut left = vec![rows];
        while let Some(part) = left.pop() {
            if refusals.is_full() {
                break;
            }
            let copied = self.copy(rebuild, number, part).await;
            client
                .batch_execute("ROLLBACK TO SAVEPOINT onelog_part")
                .await?;
            match (copied, part) {
                (Ok(()), _) => {}
                (Err(fault), [row]) if fault.is_rejected_row() => {
                    let error = refusal(mapping, row, fault)?;
                    refusals.note(number, row, error)?;
                }
                (Err(fault), _) if fault.is_rejected_row() => {
                    let (first, second) = part.split_at(part.len() / 2);
                    left.extend([second, first]);
                }
                (Err(fault), _) => return Err(fault),
            }
        }
        Ok(refusals.into_result()?)
    }

    async fn copy(
        &mut self,
        rebuild: &Rebuild,
        number: usize,
        rows: &[Change],
    ) -> Result<(), Fault> {
        let target = &rebuild.targets[number];
        let mapping = &self.identity.plan.mappings[number];
        let wires = target.table.wires(mapping);
        let (schema, sink) = (&self.identity.schema, &self.identity.sink);
        let sql = copy_in(schema, sink, mapping, target.is_merged);
        let sink: CopyInSink<bytes::Bytes> = self.client.copy_in(&sql).await?;
        let mut sink = Box::pin(sink);
        let mut copy = CopyRows::new();
        let mut refusals = Refusals::default();
        for change in rows {
            let Some(value) = &change.value else { continue };
            let pushed = mapping
                .project(&change.key, change.offset, value, self.row)
                .map_err(|fault| StoreError::refused_change(mapping, change, fault))
                .and_then(|()| {
                    let record = target.is_merged.then_some(change);
                    copy.push(self.row, &wires, record)
                        .map_err(|(column, what)| {
                            let what = format!("column '{}': {what}", mapping.columns[column].name);
                            StoreError::refused_change(mapping, change, what)
                        })
                });
            if let Err(error) = pushed {
                refusals.note(number, change, error)?;
            }
            if refusals.is_empty() && copy.bytes() >= COPY_BYTES {
                sink.send(copy.take()).await?;
            }
        }
        refusals.into_result()?;
        sink.send(copy.end()).await?;
        sink.as_mut().finish().await?;
        Ok(())
    }
}

/// What the server says of a row, as the contract has it; every other error is handed back.
pub(super) fn refusal(
    mapping: &MappingPlan,
    row: &Change,
    fault: Fault,
) -> Result<StoreError, Fault> {
    match fault {
        Fault::Sql(error) => Ok(StoreError::refused_change(mapping, row, says(&error))),
        Fault::Store(error) => Ok(error),
        fault @ Fault::Redefined(_) => Err(fault),
    }
}

fn copy_in(schema: &str, sink: &str, mapping: &MappingPlan, is_merged: bool) -> String {
    let mut columns = list(mapping.column_names());
    for name in record_columns(mapping).iter().filter(|_| is_merged) {
        columns.push_str(", ");
        columns.push_str(&quote(name));
    }
    format!(
        "COPY {} ({columns}) FROM STDIN (FORMAT binary)",
        table(schema, &staging_name(sink, mapping)),
    )
}

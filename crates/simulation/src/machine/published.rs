//! What readers of the node may see, and whether it is made known in the order that is promised.

use std::cell::RefCell;
use std::sync::Arc;

use onelog_record::{Entry, Index, Op, Position, TABLE_TABLES, TableDefinition};
use onelog_record::{Transactions, raw_body};
use onelog_replica::{Catalog, Observer};

#[derive(Debug)]
pub(super) struct Published {
    position: Position,
    catalog: Arc<Catalog>,
    log_start: Position,
    /// Promises that were broken and are not reported yet.
    faults: RefCell<Vec<String>>,
}

impl Published {
    pub(super) fn new(log_start: Position) -> Self {
        Self {
            position: Position::ZERO,
            catalog: Arc::default(),
            log_start,
            faults: RefCell::default(),
        }
    }

    pub(super) fn take_faults(&self) -> Vec<String> {
        self.faults.take()
    }

    pub(super) const fn log_start(&self) -> Position {
        self.log_start
    }

    fn moves_to(&mut self, end: Position) {
        if end < self.position {
            let text = format!("the position went back from {} to {end}", self.position);
            self.faults.get_mut().push(text);
        }
        self.position = end;
    }

    /// A table that an applied entry defines must be in the catalog already.
    fn catalog_fault(&self, entry: &Entry) -> Option<String> {
        let raw = raw_body(entry).ok()?;
        let transactions = Transactions::new(raw, entry.header.base_offset);
        let records = transactions.filter_map(Result::ok).flat_map(|t| {
            let records: Vec<_> = t.records().filter_map(Result::ok).collect();
            records
        });
        for record in records {
            if record.table != TABLE_TABLES || record.op != Op::Put {
                continue;
            }
            let definition: TableDefinition =
                serde_json::from_slice(record.value.as_ref()?).ok()?;
            if self.catalog.by_id(definition.id).is_none() {
                return Some(format!(
                    "entry {} is readable before its table {} is known",
                    entry.index, definition.name
                ));
            }
        }
        None
    }
}

impl Observer for Published {
    fn catalog_changed(&mut self, catalog: &Arc<Catalog>) {
        self.catalog = Arc::clone(catalog);
    }

    fn applied(&mut self, entry: &Entry) {
        let fault = self.catalog_fault(entry);
        self.faults.get_mut().extend(fault);
        self.moves_to(entry.header.end());
    }

    fn replayed(&mut self, _index: Index, end: Position) {
        self.moves_to(end);
    }

    fn log_start_moved(&mut self, start: Position) {
        if start < self.log_start {
            let text = format!(
                "the log's start went back from {} to {start}",
                self.log_start
            );
            self.faults.get_mut().push(text);
        }
        self.log_start = start;
    }
}

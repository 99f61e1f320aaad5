//! The cycle checker: whether lists, as clients saw them, are strictly serializable, whatever the log
//! and its positions say. In the manner of Elle (Kingsbury and Alvaro, 2020).
//!
//! Clients append values, each written once, to lists and read them. A list that was read shows in
//! which order its values were written, so the order of the versions is known without trusting the
//! system. From it follow edges between transactions: one wrote over the other (ww), read what it
//! wrote (wr), or read before it wrote (rw); and one had ended before the other began. A history is
//! strictly serializable exactly when this graph has no cycle: any order that agrees with the edges
//! explains every read. A cycle is the proof of the contrary, and is printed.
//!
//! Costs: linear in the history, with a factor for how many transactions ran at once; only a broken
//! history costs more, up to a bound, for a short cycle of the strongest kind.

mod anomaly;
mod convert;
mod edges;
mod graph;
mod readings;
mod search;
mod time;
mod transaction;
mod versions;
mod writes;

pub use anomaly::{Anomaly, KEPT_MAX, Kind};
pub use convert::check;
pub use transaction::{
    HistoryError, Key, Operation, Outcome, TRANSACTIONS_MAX, Transaction, Value,
};

use anomaly::Anomalies;
use readings::Readings;
use search::Search;
use versions::Versions;
use writes::Writes;

/// Finds what no strictly serializable system shows; the first [`KEPT_MAX`] of each kind.
///
/// # Errors
/// When the history cannot be what clients recorded, and why.
pub fn find(transactions: &[Transaction]) -> Result<Vec<Anomaly>, HistoryError> {
    let mut anomalies = Anomalies::default();
    let writes = Writes::of(transactions)?;
    let readings = Readings::of(&writes, &mut anomalies)?;
    let versions = Versions::of(&readings, &writes, &mut anomalies);
    let graph = edges::graph(&writes, &readings, &versions);
    let mut search = Search {
        writes: &writes,
        graph: &graph,
        anomalies: &mut anomalies,
        is_explained: vec![false; graph.node_count()],
    };
    search.run(&readings, &versions);
    Ok(anomalies.into_sorted())
}

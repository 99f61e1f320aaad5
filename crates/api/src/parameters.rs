//! Parameters of more than one route.

use utoipa::IntoParams;

/// The position of the log that a read sees.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub struct ReadAt {
    /// Reads exactly at this position.
    #[param(example = 12)]
    at: Option<u64>,
    /// Waits until the node has reached this position, then reads the newest state.
    #[param(example = 12)]
    after: Option<u64>,
    /// Reads the newest state, with everything that was acknowledged on any node of the cluster before
    /// this request. On a node that is alone every read without `at` does.
    #[param(example = true)]
    linearizable: Option<bool>,
    /// How long `after` waits: 5000 unless given, at most 60000. `linearizable` waits so long where it is
    /// given.
    #[param(example = 1000)]
    timeout_ms: Option<u64>,
}

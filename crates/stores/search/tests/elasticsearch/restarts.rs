//! A server that goes away and comes back, under one open store.

use onelog_store::StoreError;

use crate::common::{apply_all, assert_equal, backfilled};
use crate::search::Fixture;

/// Until the indexes answer: a node takes requests before it has its shards.
fn start_again(fixture: &Fixture) {
    fixture.server().start_again();
    fixture.request("GET", "/_cluster/health/onelog-sinks,orders-onelog-1?wait_for_status=yellow&wait_for_no_initializing_shards=true&timeout=60s", "");
}

pub fn a_store_goes_on_when_its_server_was_restarted(fixture: &Fixture) {
    // Given a store whose connections are open and unused while the server restarts
    let (mut store, mut model, plan, _) = backfilled(fixture);
    fixture.server().stop();
    start_again(fixture);
    // When it goes on, then it makes new connections,
    let from = model.position();
    assert_eq!(store.position().unwrap().unwrap().position, from);
    model.order("d", 4, "after the first restart");
    apply_all(&plan, &model, from, &mut *store);
    // also after a request that nothing answered.
    fixture.server().kill();
    let error = store.position().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    start_again(fixture);
    let from = model.position();
    model.order("e", 5, "after the second restart");
    apply_all(&plan, &model, from, &mut *store);
    assert_equal(&plan, &model, &mut *store);
}

//! The least rights that the page of a store lists.

use onelog_mapping::Plan;

use super::{Model, ORDERS};
use crate::Store;

/// The line of a page that begins so.
pub fn line_of<'p>(page: &'p str, beginning: &str) -> &'p str {
    let line = page.lines().find(|line| line.starts_with(beginning));
    line.unwrap_or_else(|| panic!("the page has no line that begins with '{beginning}'"))
}

/// A sink's user may do whatever the sink does with its store: backfill it, build it again, write
/// and delete rows, compare them, and leave.
pub fn the_rights_suffice(plan: &Plan, store: &mut dyn Store) {
    store.take_over().unwrap();
    let mut model = Model::default();
    model.order("a", 1, "one");
    model.rebuild(plan, store).unwrap();
    model.rebuild(plan, store).unwrap();
    let from = model.position();
    model.order("b", 2, "two");
    model.write(ORDERS, b"a", None);
    store.apply(&model.batch(plan, from)).unwrap();
    assert!(model.verify(plan, store).equal);
    store.remove().unwrap();
}

//! Numbers that no float holds: what an operation does not name keeps every digit, and what is
//! compared is compared exactly.

use onelog_record::{Compare, Number, Operation, OperationFault, Predicate, Refusal};

use crate::fixture::{Node, RequestParts, STOCK, USERS, line, new_request, path};

const ORDER: &str =
    r#"{"count":1,"total":12345678901234567.89,"wei":10000000000000000000000001,"price":1.10}"#;

fn made(node: &Node) -> String {
    line(&node.last_records()[0])
}

#[test]
fn an_operation_leaves_the_numbers_beside_it_as_they_were_written() {
    // Given a document with numbers beyond a float, when a counter in it is raised,
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", ORDER));
    node.accept(&new_request().add(STOCK, "a", "/count", 1));
    // then nothing else has changed.
    let expected = ORDER.replace(r#""count":1"#, r#""count":2"#);
    assert_eq!(made(&node), format!("put a {expected}"));

    // Nor does a `max` that changes nothing.
    let max = Operation::Max(path("/count"), Number::from(0));
    node.accept(&new_request().write(STOCK, "a", max));
    assert_eq!(made(&node), format!("put a {expected}"));
}

#[test]
fn a_sum_that_would_have_to_be_rounded_is_refused() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", ORDER));
    let (refusal, _) = node.refuse(&new_request().add(STOCK, "a", "/wei", 1));
    let expected = Refusal::BadOperation {
        index: 0,
        fault: OperationFault::Overflow,
    };
    assert_eq!(refusal, expected);
}

#[test]
fn a_sum_of_decimals_has_every_digit() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", ORDER));
    node.accept(&new_request().add(STOCK, "a", "/total", 1));
    assert!(
        made(&node).contains(r#""total":12345678901234568.89,"#),
        "{}",
        made(&node)
    );
}

#[test]
fn a_guard_tells_numbers_apart_that_one_float_cannot() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", ORDER));
    let guard = |compare, number: &str| {
        let value: serde_json::Value = serde_json::from_str(&format!("[{number}]")).unwrap();
        let predicate = Predicate::Field {
            path: path("/total"),
            compare,
            value: value[0].clone().into(),
        };
        new_request()
            .guard(STOCK, "a", predicate)
            .put(STOCK, "b", "1")
    };
    // 12345678901234568 is the float that is nearest to the total.
    node.refuse(&guard(Compare::Eq, "12345678901234568"));
    node.refuse(&guard(Compare::Ge, "12345678901234568"));
    node.accept(&guard(Compare::Lt, "12345678901234568"));
}

#[test]
fn unique_fields_tell_numbers_apart_that_one_float_cannot() {
    let mut node = Node::new();
    node.commit(&new_request().put(USERS, "a", r#"{"name":10000000000000000000000001}"#));
    node.commit(&new_request().put(USERS, "b", r#"{"name":10000000000000000000000002}"#));
    let again = new_request().put(USERS, "c", r#"{"name":10000000000000000000000001.0}"#);
    let (refusal, _) = node.refuse(&again);
    assert!(matches!(refusal, Refusal::NotUnique { .. }), "{refusal}");
}

//! Unique fields.

use onelog_commit::unique_row_key;
use onelog_record::{Op, Refusal, TABLE_UNIQUE};
use serde_json::json;

use crate::fixture::{Node, RequestParts, USERS, new_request};

fn user(name: &str) -> String {
    json!({ "name": name }).to_string()
}

fn not_unique(node: &mut Node, request: &onelog_record::CommitRequest) -> (usize, String) {
    match node.refuse(request).0 {
        Refusal::NotUnique { index, owner, .. } => {
            (index, String::from_utf8_lossy(&owner).into_owned())
        }
        other => panic!("no clash: {other:?}"),
    }
}

#[test]
fn a_taken_value_is_refused_with_its_owner() {
    let mut node = Node::new();
    node.commit(&new_request().put(USERS, "1", &user("ada")));
    let request = new_request()
        .put(USERS, "3", &user("bob"))
        .put(USERS, "2", &user("ada"));
    let expected = Refusal::NotUnique {
        index: 1,
        field: "name".into(),
        value: json!("ada").into(),
        owner: "1".into(),
    };
    assert_eq!(node.refuse(&request), (expected, 0));
    node.accept(&new_request().put(USERS, "1", &user("ada")));
}

#[test]
fn the_rows_stand_behind_the_records_in_the_same_transaction() {
    let mut node = Node::new();
    let row = |name: &str| {
        let value = onelog_record::JsonText::from(json!(name));
        unique_row_key(USERS, 0, &value.json())
    };
    let committed = node.commit(&new_request().put(USERS, "1", &user("ada")));
    assert_eq!((committed.records, committed.position.0), (2, 2));

    node.accept(
        &new_request()
            .put(USERS, "1", &user("eve"))
            .put(USERS, "2", &user("bob")),
    );

    let records = node.last_records();
    let rows: Vec<_> = records[2..]
        .iter()
        .map(|r| (r.op, r.table, r.key.clone(), r.value.clone()))
        .collect();
    let expected = [
        (Op::Delete, TABLE_UNIQUE, row("ada"), None),
        (Op::Put, TABLE_UNIQUE, row("eve"), Some("1".into())),
        (Op::Put, TABLE_UNIQUE, row("bob"), Some("2".into())),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn a_value_given_up_can_be_taken_by_another_key() {
    let mut node = Node::new();
    node.commit(&new_request().put(USERS, "1", &user("ada")));
    node.accept(&new_request().delete(USERS, "1"));
    node.accept(&new_request().put(USERS, "2", &user("ada")));
    node.accept(
        &new_request()
            .delete(USERS, "2")
            .put(USERS, "3", &user("ada")),
    );
    assert_eq!(
        not_unique(&mut node, &new_request().put(USERS, "1", &user("ada"))),
        (0, "3".into())
    );
}

#[test]
fn two_keys_may_swap_their_values_in_one_transaction() {
    let mut node = Node::new();
    node.commit(
        &new_request()
            .put(USERS, "1", &user("ada"))
            .put(USERS, "2", &user("bob")),
    );
    let swap = new_request()
        .put(USERS, "1", &user("bob"))
        .put(USERS, "2", &user("ada"));
    node.commit(&swap);
    assert_eq!(
        not_unique(&mut node, &new_request().put(USERS, "3", &user("ada"))),
        (0, "2".into())
    );
    assert_eq!(
        not_unique(&mut node, &new_request().put(USERS, "3", &user("bob"))),
        (0, "1".into())
    );
}

#[test]
fn one_transaction_cannot_give_a_value_twice() {
    let mut node = Node::new();
    let request = new_request()
        .put(USERS, "1", &user("ada"))
        .put(USERS, "2", &user("ada"));
    assert_eq!(not_unique(&mut node, &request), (1, "1".into()));
    // Only the end state counts.
    node.accept(&request.put(USERS, "1", &user("bob")));
}

#[test]
fn null_and_missing_values_belong_to_nobody_and_equal_numbers_are_one_value() {
    let mut node = Node::new();
    for (key, document) in [
        ("1", "{}"),
        ("2", "{}"),
        ("3", r#"{"name":null}"#),
        ("4", r#"{"name":null,"mail":{"work":1}}"#),
        ("5", "[]"),
        ("6", r#"{"name":1}"#),
    ] {
        node.commit(&new_request().put(USERS, key, document));
    }
    let one = new_request().put(USERS, "7", r#"{"name":1.0}"#);
    assert_eq!(not_unique(&mut node, &one), (0, "6".into()));
    let mail = new_request().put(USERS, "7", r#"{"mail":{"work":1}}"#);
    assert_eq!(not_unique(&mut node, &mail), (0, "4".into()));
}

#[test]
fn long_values_are_distinguished_by_all_their_bytes() {
    let mut node = Node::new();
    let long = "x".repeat(5_000);
    node.commit(&new_request().put(USERS, "1", &user(&long)));
    node.commit(&new_request().put(USERS, "2", &user(&format!("{long}y"))));
    assert_eq!(
        not_unique(&mut node, &new_request().put(USERS, "3", &user(&long))),
        (0, "1".into())
    );
}

//! Operations and their after-images.

use onelog_record::{
    Header, Number, Offset, Operation, OperationFault, Position, Refusal, Subject,
};
use serde_json::json;

use crate::fixture::{
    BLOBS, EVENTS, Node, RequestParts, STOCK, STRICT, UNKNOWN, line, new_request, path,
};

fn lines(node: &Node) -> Vec<String> {
    node.last_records().iter().map(line).collect()
}

fn fault(node: &mut Node, request: &onelog_record::CommitRequest) -> OperationFault {
    match node.refuse(request).0 {
        Refusal::BadOperation { fault, .. } => fault,
        other => panic!("no bad operation: {other:?}"),
    }
}

#[test]
fn each_operation_sees_those_before_it_and_only_after_images_leave() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", r#"{"z":1,"n":5,"price":0.1234567890123456789}"#));
    let request = new_request()
        .add(STOCK, "a", "n", -2)
        .write(STOCK, "a", Operation::Max(path("z"), Number::from(9)))
        .write(STOCK, "a", Operation::Append(path("/l"), json!("x").into()))
        .delete(STOCK, "a")
        .add(STOCK, "a", "", 4)
        .put(STOCK, "a", "1")
        .put(STOCK, "a", "1");

    let committed = node.accept(&request);

    assert_eq!(
        lines(&node),
        [
            r#"put a {"z":1,"n":3,"price":0.1234567890123456789}"#,
            r#"put a {"z":9,"n":3,"price":0.1234567890123456789}"#,
            r#"put a {"z":9,"n":3,"price":0.1234567890123456789,"l":["x"]}"#,
            "delete a ",
            "put a 4",
            "put a 1",
            "put a 1",
        ]
    );
    assert_eq!(
        (
            committed.first_offset,
            committed.position,
            committed.records
        ),
        (Offset(1), Position(8), 7)
    );
}

#[test]
fn rewriting_a_document_leaves_its_other_numbers_as_they_are() {
    let mut node = Node::new();
    // A parser that rounds carelessly changes the last digit of each of these.
    let text = "[423.20917087271323,500.51128279500443,3.5733890759326314,964.7566461334505]";
    node.commit(&new_request().put(STOCK, "a", &format!(r#"{{"n":0,"f":{text}}}"#)));
    for round in 1..4 {
        node.accept(&new_request().add(STOCK, "a", "n", 1));
        assert_eq!(
            lines(&node),
            [format!(r#"put a {{"n":{round},"f":{text}}}"#)]
        );
    }
}

#[test]
fn bytes_can_be_appended_but_not_added_to() {
    let mut node = Node::new();
    let append = |tail: &'static str| Operation::AppendBytes(tail.into());
    node.accept(
        &new_request()
            .write(BLOBS, "b", append("x"))
            .write(BLOBS, "b", append("y")),
    );
    assert_eq!(lines(&node), ["put b x", "put b xy"]);
    for request in [
        new_request().write(STOCK, "a", append("x")),
        new_request().add(BLOBS, "b", "", 1),
        new_request().write(BLOBS, "b", Operation::Append(path(""), json!(1).into())),
    ] {
        assert!(matches!(
            fault(&mut node, &request),
            OperationFault::WrongTable(_)
        ));
    }
}

#[test]
fn a_stream_takes_puts_as_events_that_are_no_state() {
    let mut node = Node::new();
    let mut request = new_request().put(EVENTS, "e", "1");
    request.writes[0].headers.push(Header {
        name: "kind".into(),
        value: "test".into(),
    });
    node.accept(&request);
    assert_eq!(lines(&node), ["event e 1"]);
    assert_eq!(node.last_records()[0].headers, request.writes[0].headers);
    for request in [
        new_request().delete(EVENTS, "e"),
        new_request().add(EVENTS, "e", "", 1),
    ] {
        assert!(matches!(
            fault(&mut node, &request),
            OperationFault::WrongTable(_)
        ));
    }
}

#[test]
fn the_schema_holds_for_every_after_image() {
    let mut node = Node::new();
    node.commit(&new_request().put(STRICT, "a", r#"{"name":"x"}"#));
    for request in [
        new_request().put(STRICT, "b", r#"{"name":1}"#),
        new_request().add(STRICT, "c", "n", 1),
    ] {
        let expected = OperationFault::Schema("'name' must be a text".into());
        assert_eq!(fault(&mut node, &request), expected);
    }
    let no_json = new_request().put(STRICT, "b", "{");
    assert_eq!(fault(&mut node, &no_json), OperationFault::NotJson);
    node.accept(&new_request().add(STRICT, "a", "n", 1).delete(STRICT, "a"));
}

#[test]
fn an_operation_on_a_value_that_is_no_json_is_refused() {
    let mut node = Node::new();
    node.commit(&new_request().put(STOCK, "a", "{"));
    assert_eq!(
        fault(&mut node, &new_request().add(STOCK, "a", "", 1)),
        OperationFault::NotJson
    );
}

#[test]
fn an_unknown_table_is_named_and_nothing_is_written() {
    let mut node = Node::new();
    let request = new_request().put(STOCK, "a", "1").put(UNKNOWN, "a", "1");
    let expected = Refusal::UnknownTable {
        subject: Subject::Write(1),
        table: UNKNOWN,
    };
    assert_eq!(node.refuse(&request), (expected, 0));
    let first = node.accept(&new_request().add(STOCK, "a", "", 1));
    assert_eq!(first.first_offset, Offset(0));
    assert_eq!(
        lines(&node),
        ["put a 1"],
        "the refused put left nothing to add to"
    );
}

//! The door closes in order.

use std::net::TcpStream;

use serde_json::json;

use crate::server::Server;

#[test]
fn streams_end_and_waits_are_answered_when_the_door_closes() {
    let mut server = Server::with_tables();
    let position = server.put("shop.orders", "a", json!(1));
    let mut events = server.follow("/v1/log", &[]);
    let mut waiting = server.connect();
    std::io::Write::write_all(
        &mut waiting,
        b"GET /v1/tables/shop.orders/keys/a?after=1000000&timeout_ms=60000 HTTP/1.1\r\nhost: t\r\n\r\n",
    )
    .unwrap();
    while events.any().unwrap().id < position {}
    // Served on another connection, so the waiting request has been accepted before it.
    server.get("/healthz").expect(200);

    server.stop();

    while events.any().is_some() {}
    let answer = crate::server::Answer::read(&mut std::io::BufReader::new(waiting));
    answer.refused(503, "stopped");
    assert!(TcpStream::connect(server.address).is_err());
    assert_eq!(server.node.position().get(), position);
}

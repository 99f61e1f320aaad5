//! The proxy passes everything on, and cuts exactly where a test wants it.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use onelog_testkit::{Direction, Kind, Postgres, Proxy, Redis, Server, require};

/// A server that sends back what it gets, and tells what each connection got when it ended.
fn echo() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, endings) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, ended) = (stream.unwrap(), ended.clone());
            thread::spawn(move || {
                let (mut got, mut data) = (Vec::new(), [0; 1024]);
                while let Ok(count @ 1..) = stream.read(&mut data) {
                    got.extend_from_slice(&data[..count]);
                    // The client may be cut off.
                    let _ = stream.write_all(&data[..count]);
                }
                // The test may be over.
                let _ = ended.send(got);
            });
        }
    });
    (address, endings)
}

fn client_of(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).unwrap()
}

fn say(stream: &mut TcpStream, words: &str) {
    stream.write_all(words.as_bytes()).unwrap();
}

fn hear(stream: &mut TcpStream, count: usize) -> String {
    let mut words = vec![0; count];
    stream.read_exact(&mut words).unwrap();
    String::from_utf8(words).unwrap()
}

/// What a client sees of a cut: nothing more, then a reset.
fn assert_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn everything_passes_both_ways_and_an_end_is_an_end() {
    let (server, endings) = echo();
    let proxy = Proxy::to(server);
    let mut client = client_of(&proxy);
    say(&mut client, "hello");
    assert_eq!(hear(&mut client, 5), "hello");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(endings.recv().unwrap(), b"hello");
    assert_eq!(proxy.cuts(), 0);
}

#[test]
fn a_cut_resets_every_connection_and_new_ones_work() {
    let (server, endings) = echo();
    let proxy = Proxy::to(server);
    let mut clients = [client_of(&proxy), client_of(&proxy)];
    proxy.wait_for_connections(2);
    proxy.cut();
    assert_eq!((proxy.connections(), proxy.cuts()), (0, 2));
    clients.iter_mut().for_each(assert_reset);
    assert_eq!(endings.recv().unwrap(), b"");

    let mut client = client_of(&proxy);
    say(&mut client, "again");
    assert_eq!(hear(&mut client, 5), "again");
}

#[test]
fn a_cut_ends_a_writer_whose_server_does_not_read() {
    // Given a server that accepts and then never reads, and a client that writes until it is stuck,
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap());
    let mut client = client_of(&proxy);
    let _unread = listener.accept().unwrap();
    let writer = thread::spawn(move || {
        let data = vec![0; 64 << 10];
        loop {
            if let Err(error) = client.write_all(&data) {
                return error.kind();
            }
        }
    });
    proxy.wait_for_connections(1);
    // when it is cut, then both the client and the proxy let go.
    proxy.cut();
    let end = writer.join().unwrap();
    assert!(
        matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{end}"
    );
}

#[test]
fn a_request_is_cut_after_exactly_so_many_bytes() {
    let (server, endings) = echo();
    let proxy = Proxy::to(server);
    let mut client = client_of(&proxy);
    say(&mut client, "12");
    assert_eq!(hear(&mut client, 2), "12");
    proxy.cut_after_bytes(Direction::ToServer, 3);
    say(&mut client, "34567");
    proxy.wait_for_cuts(1);
    assert_eq!(endings.recv().unwrap(), b"12345");
}

#[test]
fn an_answer_is_cut_after_exactly_so_many_bytes() {
    let (server, endings) = echo();
    let proxy = Proxy::to(server);
    let mut client = client_of(&proxy);
    proxy.cut_after_bytes(Direction::ToClient, 0);
    say(&mut client, "12345");
    assert_reset(&mut client);
    assert_eq!(endings.recv().unwrap(), b"12345");
    assert_eq!(proxy.cuts(), 1);
}

#[test]
fn a_proxy_that_refuses_is_like_a_dead_server_and_keeps_open_connections() {
    let (server, _endings) = echo();
    let proxy = Proxy::to(server);
    let mut client = client_of(&proxy);
    proxy.wait_for_connections(1);
    proxy.refuse(true);
    proxy.refuse(true);
    let refused = TcpStream::connect(proxy.address());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    say(&mut client, "hello");
    assert_eq!(hear(&mut client, 5), "hello");

    proxy.refuse(false);
    let mut client = client_of(&proxy);
    say(&mut client, "again");
    assert_eq!(hear(&mut client, 5), "again");
}

#[test]
fn a_delayed_answer_is_held_back_until_the_delay_or_a_cut_ends_it() {
    let (server, endings) = echo();
    let proxy = Proxy::to(server);
    let mut client = client_of(&proxy);
    proxy.delay_ms(1);
    say(&mut client, "hello");
    assert_eq!(hear(&mut client, 5), "hello");

    proxy.delay_ms(24 * 3600 * 1000);
    say(&mut client, "12345");
    // The server has answered when it sees that nothing more comes.
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(endings.recv().unwrap(), b"hello12345");
    proxy.cut();
    assert_reset(&mut client);
}

#[test]
fn a_commit_arrives_and_its_answer_is_lost() {
    require!(Kind::Postgres);
    let server = Postgres::start();
    server.sql("CREATE TABLE t (id int)");
    let proxy = Proxy::in_front_of(&server);
    let insert = |id: u32| {
        let sql = format!("INSERT INTO t VALUES ({id})");
        Command::new("psql")
            .args(["-X", "-d", &proxy.url_of(&server.url())])
            .args(["-c", "BEGIN", "-c", &sql, "-c", "COMMIT"])
            .output()
            .unwrap()
    };
    proxy.cut_answer_after(b"COMMIT");
    let first = insert(1);
    assert!(!first.status.success(), "{first:?}");
    assert_eq!(server.sql("SELECT id FROM t"), "1");

    let second = insert(2);
    assert!(second.status.success(), "{second:?}");
    assert_eq!(server.sql("SELECT id FROM t ORDER BY id"), "1\n2");
}

#[test]
fn a_pipelined_transaction_is_carried_out_though_its_first_answers_are_lost_too() {
    require!(Kind::Redis);
    let server = Redis::start();
    let proxy = Proxy::in_front_of(&server);
    let mut client = client_of(&proxy);
    proxy.cut_answer_after(b"EXEC");
    let mut answers = client.try_clone().unwrap();
    let reader = thread::spawn(move || {
        let mut heard = Vec::new();
        let end = answers.read_to_end(&mut heard);
        (heard, end.map_err(|error| error.kind()))
    });
    // The list is long, so that the first answer is there before the last command has arrived.
    let commands = "INCR n\r\n".repeat(100_000);
    say(&mut client, &format!("MULTI\r\n{commands}EXEC\r\n"));
    let (heard, end) = reader.join().unwrap();
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(!heard.contains(&b':'), "the answer of EXEC holds numbers");
    assert_eq!(server.command(&["GET", "n"]), "100000");
}

#[test]
fn a_url_keeps_all_but_the_host() {
    let (server, _endings) = echo();
    let proxy = Proxy::to(server);
    let address = proxy.address();
    for (given, expected) in [
        ("redis://127.0.0.1:1", format!("redis://{address}")),
        (
            "mysql://a:b%40c@127.0.0.1:1/d",
            format!("mysql://a:b%40c@{address}/d"),
        ),
        (
            "http://localhost:9200/?x=a@b",
            format!("http://{address}/?x=a@b"),
        ),
    ] {
        assert_eq!(proxy.url_of(given), expected);
    }
}

//! Mutual TLS.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use onelog_peers::{Lane, Peers, PeersOptions, StartError, name_of};
use onelog_record::NodeId;
use onelog_testkit::{Authority, Certificates};

use crate::rig::{ECHO, LONG, Node, files, greeting, options};

const LANE: Lane = Lane::Bulk;

fn with(node: u64, certificates: &Certificates) -> PeersOptions {
    let mut options = options(node);
    options.tls = Some(files(certificates));
    options
}

fn secure(node: u64, certificates: &Certificates) -> Node {
    Node::start_with(with(node, certificates))
}

fn named(authority: &mut Authority, node: u64) -> Certificates {
    authority.issue(&name_of(NodeId(node)))
}

#[test]
fn nodes_of_one_authority_are_connected_both_ways() {
    let mut authority = Authority::new();
    let one = secure(1, &named(&mut authority, 1));
    let two = secure(2, &named(&mut authority, 2));
    one.connect(&two);
    two.connect(&one);
    for bytes in [&b""[..], b"small", &[3; 300_000]] {
        let answer = one
            .peers
            .request(NodeId(2), LANE, ECHO, bytes.to_vec().into(), LONG);
        assert_eq!(answer.wait().unwrap(), bytes);
    }
}

#[test]
fn a_certificate_of_another_authority_is_trusted_by_neither_side() {
    let (mut ours, mut theirs) = (Authority::new(), Authority::new());
    let one = secure(1, &named(&mut ours, 1));
    let stranger = secure(2, &named(&mut theirs, 2));
    // The caller does not trust the called node
    one.set(NodeId(2), stranger.address());
    let advice = "; this node's file authority does not have the authority";
    one.wait_for_error(NodeId(2), LANE, advice);
    // Nor the called node a caller that trusts it
    let mixed = named(&mut theirs, 3);
    let trusting = Certificates {
        root: named(&mut ours, 9).root,
        ..mixed
    };
    let trusting = secure(3, &trusting);
    trusting.set(NodeId(1), one.address());
    let advice = "; the other node's file authority does not have the authority";
    trusting.wait_for_error(NodeId(1), LANE, advice);
    one.wait_for_figures(|figures| figures.refused >= 1);
    assert!(one.peers.figures().incoming.is_empty());
}

#[test]
fn an_expired_certificate_is_not_trusted() {
    let mut authority = Authority::new();
    let one = secure(1, &named(&mut authority, 1));
    let late = secure(2, &authority.issue_expired(&name_of(NodeId(2))));
    one.set(NodeId(2), late.address());
    one.wait_for_error(
        NodeId(2),
        LANE,
        "invalid peer certificate: certificate expired",
    );
    late.set(NodeId(1), one.address());
    one.wait_for_error(NodeId(2), LANE, "of the other node's certificate is over");
    late.wait_for_error(NodeId(1), LANE, "received fatal alert: CertificateExpired");
    late.wait_for_error(NodeId(1), LANE, "of this node's certificate is over");
}

#[test]
fn a_certificate_is_for_one_node() {
    let mut authority = Authority::new();
    let (certificate_1, certificate_2) = (named(&mut authority, 1), named(&mut authority, 2));
    // A node does not start with that of another
    let started = Peers::start(with(3, &certificate_2), Node::start(9).recorder);
    let Err(StartError::Tls(error)) = started else {
        panic!("{started:?}");
    };
    assert!(error.to_string().contains("node-3.onelog"), "{error}");
    // Node 2 cannot be taken for node 3
    let (one, two) = (secure(1, &certificate_1), secure(2, &certificate_2));
    one.set(NodeId(3), two.address());
    one.wait_for_error(NodeId(3), LANE, "not valid for name \"node-3.onelog\"");
    one.wait_for_error(NodeId(3), LANE, "another node is at that address");
    // Nor speak for it
    let mut raw = tls_client(&certificate_2, &one);
    raw.send(3);
    let refusal = raw.read_to_end();
    let text = String::from_utf8_lossy(&refusal);
    assert!(
        text.contains("its certificate is not for node-3.onelog"),
        "{text}"
    );
}

#[test]
fn a_key_of_another_certificate_is_named_at_the_start() {
    let mut authority = Authority::new();
    let (ours, other) = (named(&mut authority, 1), named(&mut authority, 1));
    let mixed = Certificates {
        key: other.key.clone(),
        ..ours
    };
    let started = Peers::start(with(1, &mixed), Node::start(9).recorder);
    let Err(StartError::Tls(error)) = started else {
        panic!("{started:?}");
    };
    let said = error.to_string();
    assert!(said.contains(&other.key.display().to_string()), "{said}");
    assert!(
        said.contains("the one that the certificate was made for"),
        "{said}"
    );
}

#[test]
fn a_caller_without_a_certificate_is_refused() {
    let mut authority = Authority::new();
    let certificates = named(&mut authority, 1);
    let one = secure(1, &certificates);
    let without = Certificates {
        certificate: "".into(),
        ..certificates
    };
    let mut raw = tls_client(&without, &one);
    raw.send(2);
    raw.read_to_end();
    one.wait_for_figures(|figures| figures.refused == 1);
}

#[test]
fn plain_text_against_tls_is_named_on_both_sides() {
    let mut authority = Authority::new();
    let (secure, plain) = (secure(1, &named(&mut authority, 1)), Node::start(2));
    secure.set(NodeId(2), plain.address());
    plain.set(NodeId(1), secure.address());
    plain.wait_for_figures(|figures| figures.damaged >= 1);
    secure.wait_for_figures(|figures| figures.refused >= 1);
    plain.wait_for_error(NodeId(1), LANE, "the other side speaks TLS");
    secure.wait_for_error(NodeId(2), LANE, "TLS: tls handshake eof");
}

#[test]
fn new_certificates_are_used_by_the_next_connection() {
    // Given two nodes that trust each other, with certificates in files
    let (mut before, mut after) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let install = |node: u64, from: &Certificates| {
        let to = |name: &str| folder.path().join(format!("{node}.{name}"));
        let installed = Certificates {
            root: to("root"),
            certificate: to("crt"),
            key: to("key"),
        };
        for (from, to) in [
            (&from.root, &installed.root),
            (&from.certificate, &installed.certificate),
            (&from.key, &installed.key),
        ] {
            fs::copy(from, to).unwrap();
        }
        installed
    };
    let one = secure(1, &install(1, &named(&mut before, 1)));
    let two = secure(2, &install(2, &named(&mut before, 2)));
    one.connect(&two);
    // When the files of one are exchanged
    let key = folder.path().join("1.key");
    let kept = fs::read(&key).unwrap();
    install(1, &named(&mut after, 1));
    // Then its connections stay, and a third node of the new authority can call it
    let three = secure(3, &install(3, &named(&mut after, 3)));
    three.connect(&one);
    assert!(one.lane(NodeId(2), LANE).is_connected);
    // And a key that does not fit changes nothing
    fs::write(&key, kept).unwrap();
    let four = secure(4, &install(4, &named(&mut after, 4)));
    four.connect(&one);
}

/// A client of TLS that says in its greeting whatever a test likes.
struct TlsClient(rustls::StreamOwned<rustls::ClientConnection, TcpStream>);

fn tls_client(certificates: &Certificates, to: &Node) -> TlsClient {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&certificates.root).unwrap())
        .unwrap();
    let provider = rustls::crypto::ring::default_provider().into();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificates.certificate.to_str() {
        Some("") => config.with_no_client_auth(),
        _ => {
            let chain = vec![CertificateDer::from_pem_file(&certificates.certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_file(&certificates.key).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let name = ServerName::try_from(name_of(to.id)).unwrap();
    let connection = rustls::ClientConnection::new(config.into(), name).unwrap();
    let stream = TcpStream::connect(to.address()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    TlsClient(rustls::StreamOwned::new(connection, stream))
}

impl TlsClient {
    fn send(&mut self, from: u64) {
        let greeting = greeting(from, 1, LANE).to_frame().encode();
        let _ = self.0.write_all(&greeting);
        let _ = self.0.flush();
    }

    /// What came before the end, which may be an alert.
    fn read_to_end(&mut self) -> Vec<u8> {
        use std::io::Read as _;
        let mut all = Vec::new();
        let _ = self.0.read_to_end(&mut all);
        all
    }
}

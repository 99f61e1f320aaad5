//! TLS: a door in front of the server speaks it, since the server of the tests does not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onelog_search::{ElasticsearchStore, ElasticsearchTarget};
use onelog_store::conformance::{LOG, Model};
use onelog_store::{Address, ServerAddress, Store as _};
use onelog_testkit::Certificates;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::common::{STANDARD, assert_equal};
use crate::search::Fixture;

pub fn a_server_is_only_talked_to_when_its_certificate_is_trusted(fixture: &Fixture) {
    // Given a server that speaks TLS with a certificate of an authority of its own
    let made = Certificates::shared();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let port = fixture.server().port();
    let door = runtime.block_on(open_door(made, SocketAddr::from(([127, 0, 0, 1], port))));
    let harness = fixture.harness();
    let plan = harness.plan(STANDARD);
    let open = |ca_file: Option<&Path>| {
        let target = ElasticsearchTarget {
            server: ServerAddress {
                url: Address::from(format!("https://localhost:{}", door.port()).as_str()),
                ca_file: ca_file.map(PathBuf::from),
            },
        };
        ElasticsearchStore::open(&target, "follower", LOG, Arc::clone(&plan))
    };
    // When the authority is trusted, then the sink follows,
    let mut store = open(Some(&made.root)).unwrap();
    store.take_over().unwrap();
    let mut model = Model::default();
    for n in 0..500 {
        model.order(&format!("k{n}"), n, "a note that fills a packet");
    }
    model.rebuild(&plan, &mut store).unwrap();
    assert_equal(&plan, &model, &mut store);
    // else nothing is said to the server, and the error says why.
    let error = open(None).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let error = open(Some(Path::new("/nowhere.pem"))).unwrap_err();
    assert!(
        !error.is_retryable() && error.to_string().contains("/nowhere.pem"),
        "{error}"
    );
}

/// Takes connections, ends TLS, and hands the bytes on.
async fn open_door(made: &Certificates, server: SocketAddr) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(&made.certificate).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&made.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust this door goes away, which is what it should do.
                let Ok(mut inside) = acceptor.accept(stream).await else {
                    return;
                };
                let mut outside = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    address
}

//! Mutual TLS 1.3. Both sides show a certificate that the one authority has signed, for the name
//! `node-N.onelog` of the node that they say they are: a certificate of one node cannot be used to
//! speak for another.
//!
//! The files are looked at for each new connection and read again when one has changed; what cannot
//! be used then is reported once, and the certificates before it stay in use.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use onelog_record::NodeId;
use parking_lot::Mutex;
use rustls::client::{Resumption, verify_server_name};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::TlsError;
use crate::greeting::Refusal;

/// Where certificates and key are, as PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// This node's certificate, those between it and the authority behind it.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The one authority (or several) whose certificates nodes have.
    pub authority: PathBuf,
}

/// What connections are made with.
#[derive(Clone, Debug)]
pub(crate) struct Configs {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
}

#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    node: NodeId,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    configs: Configs,
    /// Of the files that were last read, whether they could be used or not.
    stamps: Stamps,
}

/// What changes when a file does: when and where it was written, and its length.
type Stamps = [Option<(SystemTime, u64, u64)>; 3];

/// The name in the certificate of a node.
#[must_use]
pub fn name_of(node: NodeId) -> String {
    format!("node-{node}.onelog")
}

#[expect(
    clippy::expect_used,
    reason = "letters, digits, a hyphen and a point, of fewer than 64 characters"
)]
pub(crate) fn server_name_of(node: NodeId) -> ServerName<'static> {
    ServerName::try_from(name_of(node)).expect("the name of a node is a name of DNS")
}

/// Checks that the side that has called has the certificate of the node that it says it is.
pub(crate) fn check_name(
    certificates: Option<&[CertificateDer<'_>]>,
    node: NodeId,
) -> Result<(), Refusal> {
    let why = match certificates.and_then(<[_]>::first) {
        None => "it has shown none".to_owned(),
        Some(certificate) => match is_for(certificate, node) {
            Ok(()) => return Ok(()),
            Err(why) => why.to_string(),
        },
    };
    Err(Refusal::Certificate { node, why })
}

fn is_for(certificate: &CertificateDer<'_>, node: NodeId) -> Result<(), rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    verify_server_name(&parsed, &server_name_of(node))
}

impl Tls {
    pub fn load(files: TlsFiles, node: NodeId) -> Result<Self, TlsError> {
        // What changes while it is read is read again.
        let stamps = stamps_of(&files);
        let configs = load(&files, node)?;
        Ok(Self {
            files,
            node,
            current: Mutex::new(Current { configs, stamps }),
        })
    }

    /// What a new connection is made with.
    pub fn configs(&self) -> Configs {
        let mut current = self.current.lock();
        let stamps = stamps_of(&self.files);
        if stamps != current.stamps {
            current.stamps = stamps;
            match load(&self.files, self.node) {
                Ok(configs) => {
                    tracing::info!("the certificates for other nodes were read again");
                    current.configs = configs;
                }
                Err(error) => {
                    tracing::error!("new certificates for other nodes are not used: {error}");
                }
            }
        }
        current.configs.clone()
    }
}

fn stamps_of(files: &TlsFiles) -> Stamps {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |metadata: Metadata| {
        let modified = metadata.modified().ok()?;
        Some((modified, metadata.len(), metadata.ino()))
    };
    [&files.certificate, &files.key, &files.authority]
        .map(|path| fs::metadata(path).ok().and_then(stamp))
}

fn load(files: &TlsFiles, node: NodeId) -> Result<Configs, TlsError> {
    let pair = |source| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    };
    let authority = |why: String| TlsError::Authority {
        path: files.authority.clone(),
        why,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.authority)? {
        let added = roots.add(certificate);
        added.map_err(|error| authority(error.to_string()))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(&files.certificate)?;
    is_for(&chain[0], node).map_err(|error| TlsError::Name {
        path: files.certificate.clone(),
        name: name_of(node),
        why: error.to_string(),
    })?;
    let key = private_key(&files.key)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| authority(error.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .and_then(|config| {
            config
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain.clone(), key.clone_key())
        })
        .map_err(pair)?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .and_then(|config| {
            config
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)
        })
        .map_err(pair)?;
    // Every connection is verified against the certificates as they are now.
    client.resumption = Resumption::disabled();
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Configs {
        client: Arc::new(client),
        server: Arc::new(server),
    })
}

/// One or more, or the file is no use.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| TlsError::Pem {
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    if all.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| TlsError::Pem {
        path: path.to_owned(),
        why: error.to_string(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

//! TLS to the stores: whose certificates are trusted, and by which cryptography.
//!
//! Certificates and the names in them are always checked.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Whose certificates are trusted.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// No certificate: the address has no TLS.
    NoCertificate,
    /// The system's authorities.
    System,
    /// Those in a file of PEM, a sink's `ca_file`.
    These(&'a Path),
}

impl<'a> Trust<'a> {
    pub fn of(ca_file: Option<&'a Path>) -> Self {
        ca_file.map_or(Self::System, Self::These)
    }
}

/// How a client checks whom it speaks to; the error is for people. The system's authorities are read
/// once.
pub fn tls_config(trust: Trust<'_>) -> Result<ClientConfig, String> {
    static SYSTEM: OnceLock<ClientConfig> = OnceLock::new();
    match trust {
        Trust::NoCertificate => trusting(RootCertStore::empty()),
        Trust::These(path) => trusting(authorities(path)?),
        Trust::System => {
            if let Some(config) = SYSTEM.get() {
                return Ok(config.clone());
            }
            // A certificate of the system that cannot be read is one that is not trusted; without
            // any, connecting says that the server is not trusted.
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let config = trusting(roots)?;
            Ok(SYSTEM.get_or_init(|| config).clone())
        }
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let failed = |why: &dyn std::fmt::Display| {
        format!("reading the certificates in {}: {why}", path.display())
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read_pem(path)?) {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    match roots.is_empty() {
        true => Err(failed(&"there is no certificate in PEM form in it")),
        false => Ok(roots),
    }
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("preparing TLS: {error}"))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The bytes of a sink's `ca_file`, for drivers that read PEM themselves.
pub fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path)
        .map_err(|error| format!("reading the certificates in {}: {error}", path.display()))
}

/// Chooses the cryptography for drivers that take whatever the process has chosen.
pub fn choose_cryptography() {
    // The first caller has chosen; a second choice is refused, which is no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_gives_no_trust_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let message = || tls_config(Trust::These(&path)).unwrap_err();
        assert!(message().contains("No such file"), "{}", message());
        for (content, why) in [
            ("", "there is no certificate in PEM form in it"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "BadEncoding",
            ),
        ] {
            std::fs::write(&path, content).unwrap();
            assert!(message().contains(why), "{}", message());
            assert!(message().contains(path.to_str().unwrap()), "{}", message());
        }
        assert!(tls_config(Trust::NoCertificate).is_ok());
    }
}

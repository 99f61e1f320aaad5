//! What to do when TLS between two nodes fails: the library says what is wrong, not on which side, nor
//! with which file.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Ends the message of an error of a handshake; empty where nothing more is known.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    let error = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    match error {
        Some(Error::InvalidCertificate(fault)) => of_theirs(fault),
        Some(Error::AlertReceived(alert)) => of_ours(*alert),
        _ => "",
    }
}

/// This node does not accept the certificate of the other one.
const fn of_theirs(fault: &CertificateError) -> &'static str {
    match fault {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "; this node's file authority does not have the authority that signed the other node's certificate: give all nodes the same authority, and certificates of it"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "; the time of the other node's certificate is over: give that node a new one, or set this machine's clock right"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "; the time of the other node's certificate has not begun: set the clocks of both machines right"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "; another node is at that address, or it has the certificate of another number: correct the address, or its certificate"
        }
        _ => "; the other node's certificate is not accepted here",
    }
}

/// The other one does not accept the certificate of this node.
const fn of_ours(alert: AlertDescription) -> &'static str {
    match alert {
        // Of the former where two authorities have one name: a signature is not that of the other's.
        AlertDescription::DecryptError | AlertDescription::UnknownCA => {
            "; the other node's file authority does not have the authority that signed this node's certificate: give all nodes the same authority, and certificates of it"
        }
        AlertDescription::CertificateExpired => {
            "; the other node says that the time of this node's certificate is over: give this node a new one, or set that machine's clock right"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            "; the other node does not accept this node's certificate: see why in its log"
        }
        AlertDescription::ProtocolVersion => "; nodes speak TLS 1.3: is that a node of onelog?",
        _ => "; the other node has refused, see its log",
    }
}

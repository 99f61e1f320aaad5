//! Certificates for servers that are to speak TLS: a root and one signed by it for 127.0.0.1 and
//! localhost, made once in this process by the command `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::client;
use crate::run_folder;
use crate::spawner;

const DAYS_VALID: &str = "30";

/// Files in PEM format.
#[derive(Debug)]
pub struct Certificates {
    /// What a client has to trust.
    pub root: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's secret key.
    pub key: PathBuf,
}

impl Certificates {
    /// The same for all servers of this process.
    #[must_use]
    pub fn shared() -> &'static Self {
        static CERTIFICATES: OnceLock<Certificates> = OnceLock::new();
        CERTIFICATES.get_or_init(|| Self::make(&run_folder::new_folder("certificates")))
    }

    fn make(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        let openssl = |arguments: &str| {
            let mut command = spawner::command(Path::new("openssl"), None, folder);
            command.current_dir(folder).args(arguments.split(' '));
            if let Err(problem) = client::output_of(command) {
                panic!(
                    "certificates for tests need openssl; on Debian: apt-get install openssl; {problem}"
                );
            }
        };
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n";
        fs::write(file("names"), names).expect("an own folder can be written to");
        let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "req -x509 {new_key} -keyout root.key -out root.pem -subj /CN=onelog-root -days {DAYS_VALID}"
        ));
        openssl(&format!(
            "req {new_key} -keyout server.key -out server.csr -subj /CN=localhost"
        ));
        openssl(&format!(
            "x509 -req -in server.csr -CA root.pem -CAkey root.key -CAcreateserial \
             -out server.pem -days {DAYS_VALID} -extfile names"
        ));
        Self {
            root: file("root.pem"),
            certificate: file("server.pem"),
            key: file("server.key"),
        }
    }
}

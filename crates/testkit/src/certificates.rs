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
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n";
        fs::write(file("names"), names).expect("an own folder can be written to");
        make_root(folder);
        openssl(
            folder,
            &format!("req {NEW_KEY} -keyout server.key -out server.csr -subj /CN=localhost"),
        );
        openssl(
            folder,
            &format!(
                "x509 -req -in server.csr -CA root.pem -CAkey root.key -CAcreateserial \
                 -out server.pem -days {DAYS_VALID} -extfile names"
            ),
        );
        Self {
            root: file("root.pem"),
            certificate: file("server.pem"),
            key: file("server.key"),
        }
    }
}

/// An authority of a test's own, for certificates of which some are not to be trusted.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issued: u32,
}

/// What the command `openssl ca` needs so that it signs whatever it is given.
const AUTHORITY: &str = "[ca]\ndefault_ca=a\n[a]\ndatabase=issued\nserial=serial\nnew_certs_dir=.\n\
                         default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n";

impl Authority {
    #[must_use]
    pub fn new() -> Self {
        let folder = run_folder::new_folder("authority");
        make_root(&folder);
        for (name, content) in [("ca.cnf", AUTHORITY), ("issued", ""), ("serial", "01\n")] {
            fs::write(folder.join(name), content).expect("an own folder can be written to");
        }
        Self { folder, issued: 0 }
    }

    /// A certificate for a name, and its key.
    pub fn issue(&mut self, name: &str) -> Certificates {
        self.issue_for(name, &format!("-days {DAYS_VALID}"))
    }

    /// One that was valid for a day.
    pub fn issue_expired(&mut self, name: &str) -> Certificates {
        self.issue_for(name, "-startdate 20200101000000Z -enddate 20200102000000Z")
    }

    fn issue_for(&mut self, name: &str, dates: &str) -> Certificates {
        self.issued += 1;
        let stem = self.issued.to_string();
        let names = format!("subjectAltName=DNS:{name}\nbasicConstraints=CA:FALSE\n");
        fs::write(self.folder.join("names"), names).expect("an own folder can be written to");
        let request = format!("req {NEW_KEY} -keyout {stem}.key -out {stem}.csr -subj /CN=test");
        openssl(&self.folder, &request);
        let sign = format!(
            "ca -config ca.cnf -batch -notext -cert root.pem -keyfile root.key -in {stem}.csr \
             -out {stem}.crt -extfile names {dates}"
        );
        openssl(&self.folder, &sign);
        Certificates {
            root: self.folder.join("root.pem"),
            certificate: self.folder.join(format!("{stem}.crt")),
            key: self.folder.join(format!("{stem}.key")),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

fn make_root(folder: &Path) {
    openssl(
        folder,
        &format!(
            "req -x509 {NEW_KEY} -keyout root.key -out root.pem -subj /CN=onelog-root -days {DAYS_VALID}"
        ),
    );
}

fn openssl(folder: &Path, arguments: &str) {
    let mut command = spawner::command(Path::new("openssl"), None, folder);
    command
        .current_dir(folder)
        .args(arguments.split_whitespace());
    if let Err(problem) = client::output_of(command) {
        panic!(
            "certificates for tests need openssl; on Debian: apt-get install openssl; {problem}"
        );
    }
}

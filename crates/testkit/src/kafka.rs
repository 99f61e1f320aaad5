//! Clients of Kafka that tests run: where they are.

use std::path::PathBuf;

/// The Python that has the clients, as `scripts/kafka-clients` installs it beside this program in
/// cargo's target folder.
#[must_use]
pub fn kafka_python() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folders = program.ancestors();
    let folder = folders
        .map(|folder| folder.join("testkit/kafka-clients"))
        .find(|folder| folder.join("form").is_file())?;
    Some(folder.join("bin/python"))
}

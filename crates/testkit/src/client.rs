//! The servers' own command line clients, for readiness and for a test's questions.

use std::path::Path;
use std::process::Command;

use crate::spawner;

/// Runs a client; its output without the last line end, or what it complained about.
pub(crate) fn run(program: &str, folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = spawner::command(Path::new(program), None, folder);
    command.args(arguments);
    output_of(command)
}

/// Runs a command to its end; its output without the last line end, or what it complained about.
pub(crate) fn output_of(mut command: Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("running {:?}: {error}", command.get_program()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!(
        "{:?} ended with {}: {} {}",
        command.get_program(),
        output.status,
        text(&output.stderr),
        text(&output.stdout)
    ))
}

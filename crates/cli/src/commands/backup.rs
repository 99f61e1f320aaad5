//! `onelog backup DIR`.

use std::path::PathBuf;
use std::time::Duration;

use onelog_command::{CommandError, Context};
use onelog_terminal::{Out, thousands};
use serde_json::json;

/// A backup reads and writes everything there is; it takes as long as that takes.
const BACKUP_TIME_MAX: Duration = Duration::from_secs(6 * 3_600);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// An empty or new folder, on the server's machine
    dir: PathBuf,
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    // The server has its own working folder: it must get the whole path.
    let into = std::path::absolute(&args.dir).map_err(|source| CommandError::Write {
        path: args.dir.clone(),
        source,
    })?;
    let into = into.to_str().ok_or_else(|| {
        CommandError::Usage(format!("the path {} is not UTF-8", args.dir.display()))
    })?;
    let client = context.client()?.with_timeout(BACKUP_TIME_MAX);
    let answer = client.post("/v1/backup", &json!({"into": into}))?;
    let mut out = Out::new();
    if context.json {
        out.json(&answer)?;
    } else {
        let position = answer["position"].as_u64().unwrap_or_default();
        out.line(&format!(
            "backed up into {into}, everything below position {}",
            thousands(position)
        ))?;
    }
    Ok(out.flush()?)
}

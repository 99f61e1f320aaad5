//! What every command that speaks to a server shares.

use std::time::Duration;

use clap::Args;
use onelog_client::{Client, ClientError};

use crate::units::parse_time_ms;

/// The flags that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Context {
    /// URL of the server that the command asks
    #[arg(
        long,
        global = true,
        env = "ONELOG_URL",
        default_value = "http://127.0.0.1:7070",
        hide_env_values = true
    )]
    pub url: String,
    /// How long a request may take
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub timeout: Duration,
    /// Print JSON instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
}

impl Context {
    /// A client of the server.
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::new(&self.url, self.timeout)
    }
}

/// In the place of a server's flags, for commands that speak to none: their help does not show what
/// means nothing there.
#[derive(Clone, Debug, Args)]
pub struct NoServer {
    #[arg(id = "url", long = "url", hide = true, value_parser = no_server::<String>)]
    _url: Option<String>,
    #[arg(id = "timeout", long = "timeout", hide = true, value_parser = no_server::<Duration>)]
    _timeout: Option<Duration>,
}

fn no_server<T>(_: &str) -> Result<T, String> {
    Err("this command speaks to no server; leave the flag out".to_owned())
}

/// Reads a time limit.
pub fn timeout(text: &str) -> Result<Duration, String> {
    match parse_time_ms(text)? {
        0 => Err("the limit must be more than nothing".to_owned()),
        ms => Ok(Duration::from_millis(ms)),
    }
}

//! `onelog demo`, and the process that it starts to follow the log.

use std::path::PathBuf;

use onelog_demo::{Addresses, DemoError, FollowOptions, Options};

use crate::config::DEFAULT_LISTEN;
use crate::context::Context;
use crate::error::CommandError;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after the three parts instead of serving on
    #[arg(long)]
    exit: bool,
    /// Run the race on this PostgreSQL, postgres://user@host/database
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// On this MariaDB or MySQL, mysql://user@host/database
    #[arg(long, value_name = "URL")]
    mysql: Option<String>,
    /// On this Redis, redis://host
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// On this Elasticsearch or OpenSearch, http://host:9200
    #[arg(long, value_name = "URL")]
    elasticsearch: Option<String>,
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    onelog_demo::run(&Options {
        addresses: Addresses {
            postgres: args.postgres.clone(),
            mysql: args.mysql.clone(),
            redis: args.redis.clone(),
            elasticsearch: args.elasticsearch.clone(),
        },
        exit: args.exit,
        json: context.json,
        timeout: context.timeout,
        listen: DEFAULT_LISTEN.to_owned(),
    })?;
    Ok(())
}

#[derive(Debug, clap::Args)]
pub struct FollowArgs {
    /// The database file
    #[arg(long)]
    database: PathBuf,
    /// The table to follow
    #[arg(long)]
    table: String,
}

pub fn follow(args: &FollowArgs, context: &Context) -> Result<(), CommandError> {
    onelog_demo::follow(&FollowOptions {
        url: context.url.clone(),
        timeout: context.timeout,
        table: args.table.clone(),
        database: args.database.clone(),
    })?;
    Ok(())
}

impl From<DemoError> for CommandError {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Client(error) => Self::Client(error),
            DemoError::Usage(what) => Self::Usage(what),
            DemoError::Write { path, source } => Self::Write { path, source },
            DemoError::Output(error) => Self::Output(error),
            DemoError::Failed(what) => Self::Failed(what),
        }
    }
}

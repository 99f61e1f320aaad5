//! `onelog export TABLE`: the whole table at one position, one row a line.

use onelog_command::{CommandError, Context};
use onelog_record::code;
use onelog_terminal::Out;

use super::get::Moment;
use super::scan::Pages;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the table, as service.table
    table: String,
    /// Print the values alone, as `import` takes them
    #[arg(long)]
    values: bool,
    #[command(flatten)]
    moment: Moment,
}

/// Prints `{"key":…,"version":…,"value":…}` for each row; the position goes to standard error.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let client = context.client()?;
    let mut pages = Pages::of(&args.table, args.moment.clone());
    let mut out = Out::new();
    let mut position = None;
    while let Some(page) = pages.next(&client, u64::MAX).map_err(|error| {
        let too_old = error.server().is_some_and(|e| e.error == code::SNAPSHOT_TOO_OLD);
        match position {
            Some(position) if too_old => CommandError::Failed(format!(
                "{error}: the export took longer than the server keeps position {position} readable (snapshot_age_ms_max); what was printed is not the whole table"
            )),
            _ => error.into(),
        }
    })? {
        position = Some(page.position);
        for row in &page.rows {
            match args.values {
                true => out.json(&row.value)?,
                false => out.json(row)?,
            }
        }
    }
    out.flush()?;
    if let Some(position) = position {
        eprintln!("exported table '{}' at position {position}", args.table);
    }
    Ok(())
}

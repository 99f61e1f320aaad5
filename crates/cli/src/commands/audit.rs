//! `onelog audit --left URL --right URL MAPPING.toml`: needs no server.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onelog_audit::{
    Audit, AuditDefinition, AuditError, AuditOptions, Compared, SHOWN_MAX, SideError, audit,
};
use onelog_command::{CommandError, Context, DefinitionFile, NoServer, timeout};
use onelog_record::JsonText;
use onelog_store::{CA_FILE, Target};
use onelog_stores::KINDS;
use onelog_terminal::{Out, Table, cell, counted, thousands};

use crate::wire::shown;

/// The longest pause before the keys that differ are looked at again.
const AGAIN_MAX: Duration = Duration::from_secs(600);
const CELL_CHARS_MAX: usize = 60;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads both stores and writes to neither. A password can be given as ${NAME}, an \
environment variable. The mapping file names what is compared, for example:\n\n\
  [[compare]]\n\
  name    = \"orders\"\n\
  left    = { table = \"public.orders\", key = \"id\", key_type = \"integer\" }\n\
  right   = { key = \"order:{$key}\", as = \"hash\" }\n\
  columns = [ { name = \"total\",  type = \"numeric\" },\n\
              { name = \"status\", type = \"text\", left = \"state\", right = \"status\" } ]\n\n\
docs/audit.md explains it. Exit status: 0 equal, 1 different or an error, 2 wrong use."
)]
pub struct Args {
    #[command(flatten)]
    _no_server: NoServer,
    #[arg(long, value_name = "URL", help = format!("One store: {}", KINDS.addresses()))]
    left: String,
    /// URL of the store that it is compared with
    #[arg(long, value_name = "URL")]
    right: String,
    /// What is compared, as TOML or JSON; - is standard input
    #[arg(value_name = "MAPPING")]
    mapping: PathBuf,
    /// How many differences are shown of each thing compared
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = show)]
    show: usize,
    /// Look at the keys that differ once more after this time; only what still differs counts
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "2s", value_parser = timeout)]
    again: Option<Duration>,
    /// Certificates that are trusted for the left store instead of the system's
    #[arg(long, value_name = "FILE")]
    left_ca_file: Option<PathBuf>,
    /// The same for the right store
    #[arg(long, value_name = "FILE")]
    right_ca_file: Option<PathBuf>,
}

fn show(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count <= SHOWN_MAX => Ok(count),
        _ => Err(format!("expected a number from 0 to {SHOWN_MAX}")),
    }
}

pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let left = store("left", &args.left, args.left_ca_file.as_ref())?;
    let right = store("right", &args.right, args.right_ca_file.as_ref())?;
    if args.again.is_some_and(|pause| pause > AGAIN_MAX) {
        return Err(CommandError::Usage(format!(
            "--again: at most {} s",
            AGAIN_MAX.as_secs()
        )));
    }
    let file = DefinitionFile::read(&args.mapping)?;
    let definition = AuditDefinition::from_json(&file.value, left.kind(), right.kind())
        .map_err(|error| file.fault(&error.place, error.what))?;
    let show_progress = !context.json && std::io::stderr().is_terminal();
    let mut pause = |name: &str, differing: u64| {
        let time = args.again.unwrap_or_default();
        if show_progress {
            let keys = keys_differ(differing);
            eprintln!(
                "{name}: {keys}; looking at them again in {:.1} s …",
                time.as_secs_f64()
            );
        }
        // A write on its way gives no sign when it arrives.
        std::thread::sleep(time);
    };
    let mut options = AuditOptions {
        show: args.show,
        again: match args.again {
            Some(_) => Some(&mut pause),
            None => None,
        },
    };
    let found = audit(&definition, &left, &right, &mut options).map_err(|error| failed(&error))?;
    let mut out = Out::new();
    match context.json {
        true => out.json(&found)?,
        false => print(&found, args, &mut out)?,
    }
    out.flush()?;
    match found.equal {
        true => Ok(()),
        false => Err(CommandError::Reported),
    }
}

fn store(
    side: &str,
    url: &str,
    ca_file: Option<&PathBuf>,
) -> Result<Arc<dyn Target>, CommandError> {
    let usage = |what: String| CommandError::Usage(format!("--{side}: {what}"));
    let target = KINDS.target(url).map_err(|error| usage(error.what))?;
    target.check_place().map_err(usage)?;
    let Some(path) = ca_file else {
        return Ok(target);
    };
    let trusting = target.with(CA_FILE.name, path.display().to_string().into());
    let trusting = trusting.ok_or_else(|| {
        let kind = target.kind().name();
        usage(format!("a store of the kind {kind} needs no certificates"))
    })?;
    trusting.map_err(|error| usage(error.what))
}

fn failed(error: &AuditError) -> CommandError {
    match &error.cause {
        SideError::Definition(_) => CommandError::Usage(error.to_string()),
        SideError::Store(_) => CommandError::Failed(error.to_string()),
    }
}

fn print(found: &Audit, args: &Args, out: &mut Out) -> std::io::Result<()> {
    out.line(&format!("left   {}", found.left))?;
    out.line(&format!("right  {}\n", found.right))?;
    let mut table = Table::new(&[
        "",
        ">rows left",
        ">rows right",
        "equal",
        ">missing right",
        ">missing left",
        ">different",
    ]);
    for one in &found.compared {
        table.row([
            one.name.clone(),
            thousands(one.rows_left),
            thousands(one.rows_right),
            if one.equal { "yes" } else { "NO" }.to_owned(),
            thousands(one.missing_right),
            thousands(one.missing_left),
            thousands(one.different),
        ]);
    }
    table.print(out)?;
    for one in &found.compared {
        notes(one, out)?;
        if !one.differences.is_empty() {
            differences(one, out)?;
        }
    }
    let total: u64 = found.compared.iter().map(|one| one.differences_total).sum();
    if found.equal {
        return out.line("\nequal");
    }
    out.line(&format!("\nNOT equal: {}", keys_differ(total)))?;
    if args.again.is_none() {
        out.line(
            "If writes go on, some of these may be on their way; --again looks a second time.",
        )?;
    }
    Ok(())
}

fn keys_differ(count: u64) -> String {
    let verb = if count == 1 { "differs" } else { "differ" };
    format!("{} {verb}", counted(count, "key"))
}

/// What the numbers alone do not say.
fn notes(one: &Compared, out: &mut Out) -> std::io::Result<()> {
    let mut notes = Vec::new();
    match one.settled {
        Some(0) => notes.push("looked at again, the same keys still differ".to_owned()),
        Some(settled) => notes.push(format!(
            "{} differed at first and no longer when looked at again: writes on their way",
            counted(settled, "key")
        )),
        None => {}
    }
    if one.keys_twice > 0 {
        notes.push(format!(
            "{} more than once on a side: what is named as the key is not unique there",
            match one.keys_twice {
                1 => "1 key occurs".to_owned(),
                many => format!("{} keys occur", thousands(many)),
            }
        ));
    }
    for (side, count) in [
        ("left", one.other_keys_left),
        ("right", one.other_keys_right),
    ] {
        if count > 0 {
            let rows = counted(count, "row");
            notes.push(format!(
                "{rows} on the {side} left out: the key is not of the form that the mapping gives"
            ));
        }
    }
    if !one.counted_all {
        notes.push("there are more differences than were counted".to_owned());
    }
    for note in notes {
        out.line(&format!("\n{}: {note}", one.name))?;
    }
    Ok(())
}

fn differences(one: &Compared, out: &mut Out) -> std::io::Result<()> {
    out.line(&format!("\n{}: {} and {}", one.name, one.left, one.right))?;
    let mut table = Table::new(&["key", "left", "right"]);
    let text = |value: &Option<JsonText>, rows: u32| match (value, rows) {
        (None, _) => "(missing)".to_owned(),
        (Some(value), 0 | 1) => cell(value.as_str(), CELL_CHARS_MAX),
        (Some(value), 2) => cell(&format!("(twice) {value}"), CELL_CHARS_MAX),
        (Some(value), rows) => cell(&format!("({rows} times) {value}"), CELL_CHARS_MAX),
    };
    for difference in &one.differences {
        table.row([
            cell(&shown(&difference.key), CELL_CHARS_MAX),
            text(&difference.left, difference.rows_left),
            text(&difference.right, difference.rows_right),
        ]);
    }
    table.print(out)?;
    let left = one.differences_total - one.differences.len() as u64;
    if left > 0 {
        out.line(&format!(
            "… and {} more; --show lists them",
            thousands(left)
        ))?;
    }
    Ok(())
}

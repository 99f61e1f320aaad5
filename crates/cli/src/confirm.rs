//! A question before something that cannot be undone: asked on a terminal, and elsewhere answered
//! by `--yes` alone.

use onelog_command::CommandError;

use std::io::{self, BufRead, IsTerminal, Write};

/// Goes on when the name of what is lost has been typed, or with `--yes`. `what` is what will
/// happen, `name` what it happens to.
pub fn confirm(yes: bool, what: &str, name: &str) -> Result<(), CommandError> {
    if yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(CommandError::Usage(format!(
            "this {what}, which cannot be undone; --yes says that it is meant"
        )));
    }
    let typed = ask(
        what,
        name,
        &mut io::stdin().lock(),
        &mut io::stderr().lock(),
    )?;
    match typed == name {
        true => Ok(()),
        false => Err(CommandError::Failed(format!(
            "'{typed}' is not '{name}': nothing was done"
        ))),
    }
}

fn ask(
    what: &str,
    name: &str,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> io::Result<String> {
    write!(
        output,
        "This {what}, which cannot be undone. Type '{name}' to go on: "
    )?;
    output.flush()?;
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

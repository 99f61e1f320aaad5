//! Commands as bytes: what Redis reads, or what the fenced script reads as its arguments.

use std::io::Write as _;

/// The most parts of one command with many keys. Lua's stack takes a few thousand.
const ARGUMENTS_MAX: usize = 1000;

/// How a command is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As Redis reads commands.
    Command,
    /// As arguments of a script: how many parts, then the parts.
    Arguments,
}

#[derive(Clone, Debug)]
pub(crate) struct Commands {
    form: Form,
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: usize,
    /// As arguments of a script.
    pub(crate) arguments: usize,
}

impl Commands {
    pub(crate) const fn new(form: Form) -> Self {
        Self {
            form,
            bytes: Vec::new(),
            count: 0,
            arguments: 0,
        }
    }

    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        self.begin(parts.len());
        parts.iter().for_each(|given| self.part(given));
    }

    /// Begins a command of so many parts; [`Commands::part`] adds them.
    pub(crate) fn begin(&mut self, parts: usize) {
        self.count += 1;
        self.arguments += parts + 1;
        match self.form {
            Form::Command => number(b'*', parts, &mut self.bytes),
            Form::Arguments => part(parts.to_string().as_bytes(), &mut self.bytes),
        }
    }

    pub(crate) fn part(&mut self, given: &[u8]) {
        part(given, &mut self.bytes);
    }

    /// Adds the commands of `other`.
    pub(crate) fn append(&mut self, other: &Self) {
        debug_assert_eq!(self.form, other.form);
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
        self.arguments += other.arguments;
    }

    fn close(&mut self, verb: &[&[u8]], many: &mut Many) {
        if many.parts == 0 {
            return;
        }
        self.begin(verb.len() + many.parts);
        verb.iter().for_each(|given| self.part(given));
        self.bytes.append(&mut many.bytes);
        many.parts = 0;
    }
}

/// A command that takes many keys, gathered part by part and cut into several where it grows long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Many {
    bytes: Vec<u8>,
    parts: usize,
}

impl Many {
    /// Adds parts that belong together; a full command goes to `commands`.
    pub(crate) fn push(&mut self, verb: &[&[u8]], parts: &[&[u8]], commands: &mut Commands) {
        if self.parts + parts.len() > ARGUMENTS_MAX {
            commands.close(verb, self);
        }
        parts.iter().for_each(|given| part(given, &mut self.bytes));
        self.parts += parts.len();
    }

    /// Hands what is left to `commands`.
    pub(crate) fn finish(&mut self, verb: &[&[u8]], commands: &mut Commands) {
        commands.close(verb, self);
    }
}

fn number(tag: u8, count: usize, out: &mut Vec<u8>) {
    out.push(tag);
    // Writing into a vector cannot fail.
    let _ = write!(out, "{count}\r\n");
}

fn part(given: &[u8], out: &mut Vec<u8>) {
    number(b'$', given.len(), out);
    out.extend_from_slice(given);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn command(parts: &[&[u8]], out: &mut Vec<u8>) {
    number(b'*', parts.len(), out);
    parts.iter().for_each(|given| part(given, out));
}

/// `EVALSHA` with some parts and then the arguments that `commands` holds.
pub(crate) fn script(sha: &[u8], key: &[u8], parts: &[&[u8]], commands: &Commands) -> Vec<u8> {
    let mut out = Vec::with_capacity(commands.bytes.len() + 256);
    number(b'*', 4 + parts.len() + commands.arguments, &mut out);
    for given in [b"EVALSHA", sha, b"1", key] {
        part(given, &mut out);
    }
    parts.iter().for_each(|given| part(given, &mut out));
    out.extend_from_slice(&commands.bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_with_many_keys_are_cut_and_nothing_is_lost() {
        let mut commands = Commands::new(Form::Command);
        let mut many = Many::default();
        for n in 0..ARGUMENTS_MAX {
            let name = n.to_string();
            many.push(&[b"MSET"], &[name.as_bytes(), b"v"], &mut commands);
        }
        many.finish(&[b"MSET"], &mut commands);
        many.finish(&[b"MSET"], &mut commands);
        assert_eq!(commands.count, 2);
        let text = String::from_utf8(commands.bytes).unwrap();
        assert_eq!(text.matches("*1001\r\n$4\r\nMSET\r\n").count(), 2);
        assert_eq!(text.matches("$1\r\nv\r\n").count(), ARGUMENTS_MAX);
    }

    #[test]
    fn a_script_gets_each_command_with_the_number_of_its_parts() {
        let mut commands = Commands::new(Form::Arguments);
        commands.push(&[b"SET", b"k", b"v"]);
        let sent = script(b"sha", b"key", &[b"1"], &commands);
        let text = String::from_utf8(sent).unwrap();
        assert!(text.starts_with("*9\r\n$7\r\nEVALSHA\r\n$3\r\nsha\r\n$1\r\n1\r\n$3\r\nkey\r\n"));
        assert!(text.ends_with("$1\r\n3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"));
    }
}

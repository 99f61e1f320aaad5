//! Commands as bytes: what Redis reads, or what the guard script reads as its arguments.

use std::io::Write as _;

/// The most words of one command with many keys. Lua's stack takes a few thousand.
const WORDS_MAX: usize = 1000;

/// How a command is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As Redis reads commands.
    Command,
    /// As arguments of a script: how many words, then the words.
    Arguments,
}

/// A run of commands.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    form: Form,
    /// The bytes of all commands.
    pub(crate) bytes: Vec<u8>,
    /// How many commands there are.
    pub(crate) count: usize,
    /// How many arguments they make.
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

    /// Adds a command.
    pub(crate) fn push(&mut self, words: &[&[u8]]) {
        self.begin(words.len());
        words.iter().for_each(|given| self.word(given));
    }

    /// Begins a command of so many words; [`Commands::word`] adds them.
    pub(crate) fn begin(&mut self, words: usize) {
        self.count += 1;
        self.arguments += words + 1;
        match self.form {
            Form::Command => number(b'*', words, &mut self.bytes),
            Form::Arguments => word(words.to_string().as_bytes(), &mut self.bytes),
        }
    }

    pub(crate) fn word(&mut self, given: &[u8]) {
        word(given, &mut self.bytes);
    }

    /// Adds the commands of `other`.
    pub(crate) fn append(&mut self, other: &Self) {
        debug_assert_eq!(self.form, other.form);
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
        self.arguments += other.arguments;
    }

    fn close(&mut self, verb: &[&[u8]], many: &mut Many) {
        if many.words == 0 {
            return;
        }
        self.begin(verb.len() + many.words);
        verb.iter().for_each(|given| self.word(given));
        self.bytes.append(&mut many.bytes);
        many.words = 0;
    }
}

/// A command that takes many keys, gathered word by word and cut into several where it grows long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Many {
    bytes: Vec<u8>,
    words: usize,
}

impl Many {
    /// Adds words that belong together; a full command goes to `commands`.
    pub(crate) fn push(&mut self, verb: &[&[u8]], words: &[&[u8]], commands: &mut Commands) {
        if self.words + words.len() > WORDS_MAX {
            commands.close(verb, self);
        }
        words.iter().for_each(|given| word(given, &mut self.bytes));
        self.words += words.len();
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

fn word(given: &[u8], out: &mut Vec<u8>) {
    number(b'$', given.len(), out);
    out.extend_from_slice(given);
    out.extend_from_slice(b"\r\n");
}

/// One command.
pub(crate) fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    number(b'*', words.len(), out);
    words.iter().for_each(|given| word(given, out));
}

/// `EVALSHA` with some words and then the arguments that `commands` holds.
pub(crate) fn script(sha: &[u8], key: &[u8], words: &[&[u8]], commands: &Commands) -> Vec<u8> {
    let mut out = Vec::with_capacity(commands.bytes.len() + 256);
    number(b'*', 4 + words.len() + commands.arguments, &mut out);
    for given in [b"EVALSHA", sha, b"1", key] {
        word(given, &mut out);
    }
    words.iter().for_each(|given| word(given, &mut out));
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
        for n in 0..WORDS_MAX {
            let name = n.to_string();
            many.push(&[b"MSET"], &[name.as_bytes(), b"v"], &mut commands);
        }
        many.finish(&[b"MSET"], &mut commands);
        many.finish(&[b"MSET"], &mut commands);
        assert_eq!(commands.count, 2);
        let text = String::from_utf8(commands.bytes).unwrap();
        assert_eq!(text.matches("*1001\r\n$4\r\nMSET\r\n").count(), 2);
        assert_eq!(text.matches("$1\r\nv\r\n").count(), WORDS_MAX);
    }

    #[test]
    fn a_script_gets_each_command_with_the_number_of_its_words() {
        let mut commands = Commands::new(Form::Arguments);
        commands.push(&[b"SET", b"k", b"v"]);
        let sent = script(b"sha", b"key", &[b"1"], &commands);
        let text = String::from_utf8(sent).unwrap();
        assert!(text.starts_with("*9\r\n$7\r\nEVALSHA\r\n$3\r\nsha\r\n$1\r\n1\r\n$3\r\nkey\r\n"));
        assert!(text.ends_with("$1\r\n3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"));
    }
}

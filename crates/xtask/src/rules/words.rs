use std::sync::LazyLock;

use super::{Fault, Tree};
use crate::files::File;
use crate::source;

const LIST: &str = include_str!("../../words.txt");

/// A phrase, one word after the other, and what to write instead.
struct Phrase {
    words: Vec<&'static str>,
    instead: &'static str,
}

static PHRASES: LazyLock<Vec<Phrase>> = LazyLock::new(|| {
    LIST.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(phrase, instead)| Phrase {
            words: phrase.split(' ').collect(),
            instead,
        })
        .collect()
});

pub fn check(file: &File, _: &Tree<'_>) -> Vec<Fault> {
    let words = spoken(file);
    let mut faults = Vec::new();
    for at in 0..words.len() {
        for phrase in PHRASES.iter() {
            let meets =
                phrase.words.iter().enumerate().all(|(step, wanted)| {
                    words.get(at + step).is_some_and(|word| word.1 == *wanted)
                });
            if meets {
                faults.push(Fault::new(
                    words[at].0,
                    format!("\"{}\"; better: {}", phrase.words.join(" "), phrase.instead),
                ));
            }
        }
    }
    faults
}

/// The words of a file's prose in lower case, with their lines.
fn spoken(file: &File) -> Vec<(usize, String)> {
    let prose: Vec<String> = if file.is_rust() {
        source::split(&file.text)
            .into_iter()
            .map(|line| line.prose)
            .collect()
    } else if file.is_markdown() {
        super::wrap::prose(&file.text)
    } else if file.has_hash_comments() {
        file.text
            .lines()
            .map(|line| line.split_once('#').map_or("", |(_, comment)| comment))
            .map(str::to_owned)
            .collect()
    } else {
        Vec::new()
    };
    let mut words = Vec::new();
    for (at, line) in prose.iter().enumerate() {
        let parts = line.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '_' | '’'));
        for word in parts.map(|word| word.trim_matches('\'')) {
            if !word.is_empty() {
                words.push((at + 1, word.to_lowercase()));
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: String) -> File {
        File {
            path: path.to_owned(),
            text,
        }
    }

    #[test]
    fn every_word_of_the_list_is_found_in_a_comment_a_message_and_the_docs() {
        for phrase in PHRASES.iter() {
            let text = phrase.words.join(" ");
            for planted in [
                file("a.rs", format!("// Here {text}, and on.\nfn a() {{}}\n")),
                file(
                    "a.rs",
                    format!("const A: &str = \"{}\";\n", text.to_uppercase()),
                ),
                file("a.md", format!("# Title\n\nHere {text}, too.\n")),
                file("a.toml", format!("a = 1 # {text}\n")),
            ] {
                assert_eq!(check(&planted, &Tree::new()).len(), 1, "{planted:?}");
            }
        }
        assert!(PHRASES.len() > 5);
    }

    #[test]
    fn names_code_in_docs_and_parts_of_other_words_are_left_alone() {
        let name = PHRASES[0].words[0];
        for text in [
            file("a.rs", format!("fn {name}() {{}}\n")),
            file("a.md", format!("`{name}`\n\n```\n{name}\n```\n")),
            file("a.md", format!("un{name}s\n")),
            file("a.json", format!("{{\"a\": \"{name}\"}}\n")),
        ] {
            assert_eq!(check(&text, &Tree::new()), [], "{text:?}");
        }
    }

    #[test]
    fn a_phrase_over_a_line_break_is_found() {
        let phrase = PHRASES.iter().find(|phrase| phrase.words.len() == 2);
        let words = &phrase.expect("the list has phrases").words;
        let text = format!("//! It is {}\n//! {} here.\n", words[0], words[1]);
        assert_eq!(check(&file("a.rs", text), &Tree::new()).len(), 1);
    }
}

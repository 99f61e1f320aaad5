//! The folder `deploy`: what it starts is there in the program.

use std::path::Path;

use crate::server::{Ran, onelog};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

#[test]
fn every_flag_and_variable_of_the_deploy_folder_is_there() {
    let help = Ran::of(onelog().args(["serve", "--help"]).output().unwrap()).good();
    // A line may end anywhere.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut found = 0;
    for name in ["onelog.service", "Containerfile"] {
        let text = std::fs::read_to_string(Path::new(FOLDER).join(name)).unwrap();
        let variables = text
            .split(|c| !is_part(c))
            .filter(|word| word.starts_with("ONELOG_"));
        let serve = text.lines().filter(|line| {
            let is_comment = line.starts_with('#');
            !is_comment && line.contains("serve")
        });
        let flags = serve.flat_map(|line| line.split(|c| !is_part(c)));
        let flags = flags.filter(|word| word.starts_with("--"));
        for word in variables.chain(flags) {
            let shown = [
                format!("{word} "),
                format!("[env: {word}]"),
                format!("[env: {word}=]"),
            ];
            assert!(
                shown.iter().any(|shown| help.contains(shown)),
                "{name}: {word}: {help}"
            );
            found += 1;
        }
    }
    assert!(found >= 10, "{found}");
}

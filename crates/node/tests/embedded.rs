//! The program that the README shows, in a fresh folder and again in the same one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail by them

#[allow(dead_code)] // its `main`
#[path = "../../../examples/embedded.rs"]
mod embedded;

const README: &str = include_str!("../../../README.md");
const PROGRAM: &str = include_str!("../../../examples/embedded.rs");

#[test]
fn the_program_of_the_readme_runs() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let left = embedded::order_apples(folder.path()).unwrap();
        assert_eq!(left, r#"left in stock: {"count":1}"#);
    }
}

#[test]
fn the_readme_shows_the_program_that_runs() {
    let (_, program) = PROGRAM.split_once("\n\n").unwrap();
    assert!(README.contains(&format!("```rust\n{program}```")));
}

//! No program that is accepted, and no record, exhausts the stack of the thread that it runs on.

use super::*;
use crate::compile::PATH_PARTS_MAX;

/// The smallest stack of a thread that runs programs: what threads have when nothing is said.
const STACK_BYTES: usize = 2 << 20;

/// Runs the text, where it is accepted, on a thread with the smallest stack. That it comes back is
/// what is tested.
fn run_on_small_stack(text: &str, value: &str) -> Result<Option<String>, JqError> {
    let program = Program::compile(text)?;
    std::thread::scope(|scope| {
        let runs = || {
            let mut out = Vec::new();
            let found = program.transform(b"k", 7, value.as_bytes(), &mut out)?;
            Ok(found.then(|| String::from_utf8(out).unwrap()))
        };
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, runs).unwrap().join().unwrap()
    })
}

/// As many parts as fit into a text of the full length.
fn longest(before: &str, part: &str, after: &str) -> String {
    let count = (PROGRAM_BYTES_MAX - before.len() - after.len()) / part.len();
    format!("{before}{}{after}", part.repeat(count))
}

/// As many levels as fit.
fn deepest(opening: &str, inside: &str, closing: &str) -> String {
    let count = (PROGRAM_BYTES_MAX - inside.len()) / (opening.len() + closing.len());
    opening.repeat(count) + inside + &closing.repeat(count)
}

#[test]
fn a_path_has_so_many_parts_and_no_more() {
    for (before, part, after) in [
        ("(", ".a", ") == null"),
        ("", ".a", " |= 1"),
        ("del(", ".a", ")"),
        ("[.", "[]?", "]"),
        ("[.", "[0,1]?", "] | length"),
        (".", "[0:1]", ""),
        (".", "[:1]?", " = 2"),
        ("$key as $k | try .", "[$k]", " catch 1"),
        ("label $f | .", "[\"a\"]", ""),
    ] {
        let path = |parts| format!("{before}{}{after}", part.repeat(parts));
        for value in ["null", "{\"a\":{\"a\":1}}", "[[[]]]"] {
            let _any = run_on_small_stack(&path(PATH_PARTS_MAX), value);
        }
        let text = refused(&path(PATH_PARTS_MAX + 1));
        assert!(
            text.contains("a path may have at most 256 parts, this one has 257"),
            "{text}"
        );
    }
    let path = ".a".repeat(PATH_PARTS_MAX + 1);
    assert!(
        matches!(run_on_small_stack(&".a".repeat(PATH_PARTS_MAX), "null"), Ok(Some(null)) if null == "null")
    );
    // The place is that of the first part that is too many.
    let text = refused(&format!("1 |\n  {path}"));
    assert!(
        text.starts_with(&format!("line 2, column {}: ", 3 + path.len() - 1)),
        "{text}"
    );
}

fn long_texts() -> Vec<String> {
    vec![
        longest("(", ".a", ")==null"),
        longest(".", "[0]", " |= 1"),
        longest(".", "[]", ""),
        longest(".a", "?", ""),
        longest(".", "|.a", " |= 1"),
        longest(".", "|.a.b", ""),
        longest(".a", "+.a", ""),
        longest("1", " and 1", ""),
        longest("1", " // 1", ""),
        longest("null", " // null", ""),
        longest(".a", " |= .a", ""),
        longest(".a", " = .a", ""),
        longest(".", "|=.", ""),
        longest("[1", ",1", "]"),
        longest("{", "a:1,", "}"),
        longest("{", "a,", "}"),
        longest("{", "(.,.):1,", "}"),
        longest("\"", "\\(.)", "\""),
        longest("if 1 then 1", " elif 1 then 1", " end"),
        longest("if . then 1", " elif . then 1", " end"),
        longest(". as [$a", ",$a", "]|$a"),
        longest(". as {a:$a", ",a:$a", "}|$a"),
        longest(". as {$a", ",$a", "}|$a"),
        longest(". as {$a", ",(\"a\"):$a", "}|$a"),
        longest("", ". as $a|", "$a"),
        longest("", "label $a|", "1"),
        longest("", "def f: 1;", "f"),
        longest("def f(a", ";a", "): a; 1"),
        longest(". as [$a", "] ?// [$a", "]|$a"),
        longest("reduce .", "|.[]?", " as $x (0; .)"),
        longest("def f: .a;", "f|", "."),
        longest("def f(g): g|g;", "f(", ""),
        longest("..", "|..", " |= 1"),
        longest("--", "--", "1"),
        longest("", "-", "1"),
        longest("first(1", ",1", ")"),
        longest("limit(1;1", ",empty", ")"),
        longest("[.", ",.", "] | flatten"),
        longest("try error(1", "|1", ") catch ."),
    ]
}

fn deep_texts() -> Vec<String> {
    vec![
        deepest("(", ".", ")"),
        deepest("[", ".", "]"),
        deepest("{a:", ".", "}"),
        deepest("\"\\(", ".", ")\""),
        deepest(".[", "0", "]"),
        deepest(".[", "0", "]?"),
        deepest(".[", "0", "]|=1"),
        deepest(".a[", "0", ":]"),
        deepest("map(", ".", ")"),
        deepest("map(", ".", ")|=1"),
        deepest("first(", ".", ")"),
        deepest("del(", ".a", ")"),
        deepest("walk(", ".", ")"),
        deepest("try ", "error", " catch 1"),
        deepest("if ", ".", " then . end"),
        deepest("if . then ", ".", " else 1 end"),
        deepest("reduce ", ".[]?", " as $x(0;.)"),
        deepest("reduce . as $x(0;", ".", ")"),
        deepest("foreach . as $x(0;", ".", ")"),
        deepest("limit(1;", ".", ")"),
        deepest("label $a|(", "break $a", ")"),
        deepest("def f:", "1", ";f"),
        deepest("def f(a):a;f(", "1", ")"),
        deepest("with_entries(", ".", ")"),
        deepest("(.a|=", "1", ")"),
        deepest("(", ".a", ")|=1"),
        deepest("(.a,", ".a", ")"),
        deepest("path(", ".a", ")"),
        ". as ".to_owned() + &"[".repeat(8_000) + "$a" + &"]".repeat(8_000) + "|$a",
        ". as ".to_owned() + &"{a:".repeat(4_000) + "$a" + &"}".repeat(4_000) + "|$a",
        ". as ".to_owned() + &"{(.a):".repeat(2_000) + "$a" + &"}".repeat(2_000) + "|$a",
    ]
}

#[test]
fn the_longest_text_of_each_shape_is_refused_or_comes_back() {
    let mut accepted = 0;
    for text in long_texts().into_iter().chain(deep_texts()) {
        for value in ["null", "1", "{\"a\":{\"a\":1}}", "[[[]],1]"] {
            match run_on_small_stack(&text, value) {
                Err(JqError::Program { .. } | JqError::ProgramTooLong { .. }) => {}
                Err(JqError::Defect(defect)) => panic!("{}: {defect}", &text[..40]),
                _ => accepted += 1,
            }
        }
    }
    assert!(accepted > 100, "{accepted} runs");
}

#[test]
fn paths_of_the_full_length_inside_one_another_come_back() {
    let path = ".a".repeat(PATH_PARTS_MAX);
    let some = ".[]?".replace('.', "").repeat(PATH_PARTS_MAX - 1);
    for text in [
        longest(&path, &format!("|{path}"), ""),
        longest(&path, &format!("|.{some}"), ""),
        longest(&format!("({path})"), &format!("|=({path}"), ""),
        deepest("(", &path, &format!("){path}")),
        deepest(".[", &path, &format!("]{path}")),
        deepest(&format!("({path}|="), "1", ")"),
        deepest(&format!("{path}|try ("), "1", ")"),
    ] {
        let _any = run_on_small_stack(&text, "null");
        let _any = run_on_small_stack(&text, "{\"a\":{\"a\":1}}");
    }
}

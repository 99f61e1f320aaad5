//! The README as a newcomer reads it: its blocks are taken out and run, and what it shows as
//! answers is what comes. `crates/node/tests/embedded.rs` runs its Rust program.

use std::path::Path;
use std::process::{Command, Output};

use onelog_testkit::{Kind, OpenSearch, Port, Postgres, Redis, Server as Store, require};

use crate::server::{ONELOG, Ran, Server, onelog};

const README: &str = include_str!("../../../../README.md");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// How long the live stream of the tour is read.
const LIVE: &str = "curl -N --max-time 1";
/// How curl ends when that time is over.
const CURL_TIMED_OUT: i32 = 28;

/// A block of code: its language, and what is in it.
type Block<'r> = (&'r str, &'r str);

fn section(heading: &str) -> &'static str {
    let (_, section) = README.split_once(&format!("\n## {heading}\n")).unwrap();
    section.split("\n## ").next().unwrap()
}

fn blocks(section: &'static str) -> Vec<Block<'static>> {
    let parts: Vec<&str> = section.split("\n```").collect();
    // Text and blocks take turns.
    let blocks = parts.iter().skip(1).step_by(2);
    blocks
        .map(|block| block.split_once('\n').unwrap())
        .collect()
}

/// The commands of a block, each with the lines of comment behind it.
fn commands(block: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut open = String::new();
    for line in block.lines() {
        if let (true, Some(expected)) = (open.is_empty(), line.strip_prefix("# ")) {
            commands.last_mut().unwrap().1 += expected;
            continue;
        }
        open += line;
        open.push('\n');
        // A comment may have an apostrophe.
        let code = open.lines().map(|line| line.split("  # ").next().unwrap());
        let quotes: usize = code.map(|code| code.matches('\'').count()).sum();
        let is_whole = quotes.is_multiple_of(2) && !line.trim_end().ends_with('|');
        if is_whole {
            commands.push((std::mem::take(&mut open), String::new()));
        }
    }
    assert_eq!(open, "", "every command has an end");
    commands
}

fn shell(folder: &Path, url: &str, script: &str) -> Output {
    let programs = Path::new(ONELOG).parent().unwrap().display();
    let path = std::env::var("PATH").unwrap();
    Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .env("PATH", format!("{programs}:{path}"))
        .env("ONELOG_URL", url)
        .env("U", url)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// The answer is what the README shows: `...` is anything, and each id is another one.
#[track_caller]
fn assert_shown(answer: &str, shown: &str) {
    let without_id = |text: &str| match text.split_once("\"id\":\"") {
        Some((before, rest)) if rest.find('"') == Some(36) => format!("{before}{}", &rest[37..]),
        _ => text.to_owned(),
    };
    let answer = without_id(answer);
    let shown = without_id(&shown.replace('\n', ""));
    let mut rest = &answer[..];
    for piece in shown
        .split("...")
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
    {
        let piece = piece.trim_end_matches(',').trim_start_matches(',').trim();
        let Some(at) = rest.find(piece) else {
            panic!("'{piece}' is not in the answer: {answer}");
        };
        rest = &rest[at + piece.len()..];
    }
}

#[test]
fn the_five_minutes_with_curl_are_as_the_readme_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    let file = folder.path().join("reports.sqlite");
    let file = file.to_str().unwrap();
    let mut blocks = blocks(section("Five minutes with curl")).into_iter();
    let (_, setup) = blocks.next().unwrap();
    assert!(
        setup.starts_with("cargo install --locked --path crates/cli "),
        "{setup}"
    );
    assert!(setup.contains("\nonelog serve --folder data &"), "{setup}");
    let mut last = String::new();
    let mut shown = 0;
    for (language, block) in blocks {
        let commands = match language {
            "sh" => commands(block),
            // What the command before answers when it is sent again.
            _ => vec![(last.clone(), block.to_owned())],
        };
        for (command, expected) in commands {
            let is_live = command.starts_with("curl -N");
            let script = command
                .replace("curl -N", LIVE)
                .replace("reports.sqlite", file);
            let output = shell(folder.path(), &server.url, &script);
            let ran = Ran::of(output);
            let end = if is_live { CURL_TIMED_OUT } else { 0 };
            assert_eq!(ran.status, end, "{command}: {ran:?}");
            let refused = ran.out.contains("\"error\":");
            assert_eq!(
                refused,
                expected.contains("\"error\":"),
                "{command}: {ran:?}"
            );
            if !expected.is_empty() {
                assert_shown(&ran.out, &expected);
                shown += 1;
            }
            last = command;
        }
    }
    assert!(shown >= 4, "the answers that the README shows: {shown}");
}

#[test]
fn the_three_nodes_of_the_readme_start_and_survive_the_one_that_leads() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = blocks(section("Three nodes"));
    let [("sh", start), ("sh", go_on)] = blocks[..] else {
        panic!("three commands, then others: {blocks:?}");
    };
    assert_eq!(start.lines().count(), 3, "{start}");
    // The reader looks whether they are there; then goes on.
    let all_there =
        "until onelog cluster --url http://127.0.0.1:7083 2>&1 | grep -q 'voters 3'; do :; done";
    let mut script = format!("{start}\n{all_there}\n{go_on}\n");
    let ports: Vec<Port> = (0..6).map(|_| Port::take()).collect();
    let shown = [7081, 7082, 7083, 7181, 7182, 7183];
    for (shown, port) in shown.iter().zip(&ports) {
        let (shown, here) = (format!(":{shown}"), format!(":{}", port.number()));
        assert!(script.contains(&shown), "{shown}");
        script = script.replace(&shown, &here);
    }
    let ends = "trap 'kill $(jobs -p); wait' EXIT";
    let ran = Ran::of(shell(folder.path(), "", &format!("{ends}\n{script}")));
    assert!(ran.out.contains("leads, term 1, voters 3"), "{ran:?}");
    assert!(ran.out.contains("\n300000\n"), "{ran:?}");
    assert!(ran.out.contains("connected 2 of 3"), "{ran:?}");
}

#[test]
fn an_old_position_is_answered_as_the_readme_says() {
    // Given a server that keeps old states no longer than its checkpoints need
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--snapshot-age-ms-max",
        "1",
        "--checkpoint-interval-ms",
        "1",
    ];
    let server = Server::start(folder.path(), &flags);
    server.run(&["tables", "create", "shop.stock"]).good();
    for count in 0..3 {
        let value = count.to_string();
        server.run(&["put", "shop.stock", "apple", &value]).good();
    }
    let readable_from = || server.run(&["status", "--json"]).json()["readable_from"].as_u64();
    // When the checkpoint behind it is made
    while readable_from() < Some(4) {
        server.run(&["put", "shop.stock", "apple", "9"]).good();
    }
    // Then the answer says how recent a position must be.
    let old = server.run(&["get", "shop.stock", "apple", "--at", "2"]);
    assert!(old.err.contains("snapshot_age_ms_max"), "{old:?}");
    assert!(old.err.contains("the oldest that can be is"), "{old:?}");
    old.fails(1, "at most 0.001 s behind the first one");
}

#[test]
fn the_stores_of_the_readme_follow_and_its_commands_run() {
    require!(Kind::Postgres, Kind::Redis, Kind::OpenSearch);
    let (postgres, redis, search) = (Postgres::start(), Redis::start(), OpenSearch::start());
    let folder = tempfile::tempdir().unwrap();
    let blocks = blocks(section("Stores that follow"));
    let [("toml", config), ("sh", script), ("sh", import)] = blocks[..] else {
        panic!("a configuration, commands, an import: {blocks:?}");
    };
    let password = "postgres://onelog:${REPORTS_PASSWORD}@127.0.0.1/shop";
    assert!(config.contains(password), "{config}");
    let config = config
        .replace(password, &postgres.url())
        .replace("redis://127.0.0.1", &redis.url())
        .replace("http://127.0.0.1:9200", &search.url());
    let file = folder.path().join("onelog.toml");
    std::fs::write(&file, config).unwrap();
    let server = Server::start(
        &folder.path().join("data"),
        &["--config", file.to_str().unwrap()],
    );
    let said = Ran::of(shell(folder.path(), &server.url, script)).good();
    for sink in ["reports", "cache", "search"] {
        assert!(
            said.contains(&format!("sink '{sink}'")),
            "the dry run of {sink}: {said}"
        );
        assert!(
            said.contains(&format!("name = \"{sink}\"")),
            "the export of {sink}: {said}"
        );
    }
    let import = import.replace("scripts/", &format!("{ROOT}/scripts/"));
    let (list, import) = import.split_once('\n').unwrap();
    if !shell(folder.path(), &server.url, list).status.success() {
        let sample = format!("{}/tests/data/packages.ndjson", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(sample, folder.path().join("packages.ndjson")).unwrap();
    }
    let said = Ran::of(shell(folder.path(), &server.url, import)).good();
    assert!(said.starts_with("imported "), "{said}");
}

#[test]
fn every_command_and_flag_of_the_readme_is_there() {
    let help = |args: &[&str]| Ran::of(onelog().args(args).arg("--help").output().unwrap()).good();
    let demo = help(&["demo"]);
    let (_, line) = README.split_once("on your stores: demo ").unwrap();
    for flag in line
        .lines()
        .next()
        .unwrap()
        .split(' ')
        .filter(|word| word.starts_with("--"))
    {
        assert!(demo.contains(flag), "{flag}: {demo}");
    }
    let (_, list) = README
        .split_once("The same from the command line: `onelog ")
        .unwrap();
    let (list, _) = list.split_once("each with `--help`").unwrap();
    let commands = list
        .split('`')
        .filter(|word| word.chars().all(|c| c.is_ascii_lowercase()));
    let mut count = 0;
    for command in commands.filter(|command| !command.is_empty()) {
        assert!(help(&[command]).contains("--json"), "{command}");
        count += 1;
    }
    assert!(count > 10, "{list}");
}

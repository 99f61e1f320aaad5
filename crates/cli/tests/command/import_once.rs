//! `onelog import` of what is read once: pipes with a name, standard input and its names among the
//! devices.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::server::{Ran, Server};

const TWO: &str = "{\"id\":\"a\",\"n\":1.50}\n{\"id\":\"b\",\"n\":2}\n";

struct Place {
    folder: tempfile::TempDir,
    server: Server,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), &[]);
        Self { folder, server }
    }

    /// A pipe with a name, into which these bytes are written once they are read.
    fn pipe(&self, name: &str, bytes: Vec<u8>) -> PathBuf {
        let path = self.folder.path().join(name);
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let into = path.clone();
        // Its reader may leave early.
        thread::spawn(move || File::create(into).unwrap().write_all(&bytes));
        path
    }

    fn import(&self, table: &str, path: &Path, stdin: Stdio, more: &[&str]) -> Ran {
        let path = path.to_str().unwrap();
        let args = ["import", table, path, "--key", "id", "--create", "--json"];
        self.server.run_with(&[&args, more].concat(), |command| {
            command.stdin(stdin);
        })
    }

    fn values(&self, table: &str) -> String {
        self.server.run(&["export", table, "--values"]).good()
    }
}

fn forms() -> [(&'static str, Vec<u8>, &'static [&'static str]); 5] {
    let array = "[{\"id\":\"a\",\"n\":1.50},{\"id\":\"b\",\"n\":2}]";
    let csv = "id,n\na,1.50\nb,2\n";
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(TWO.as_bytes()).unwrap();
    [
        ("lines", TWO.into(), &[]),
        ("array", array.into(), &[]),
        ("csv", csv.into(), &["--format", "csv", "--numbers", "n"]),
        ("gzip", packed.finish().unwrap(), &[]),
        ("zstd", zstd::encode_all(TWO.as_bytes(), 1).unwrap(), &[]),
    ]
}

#[test]
fn a_pipe_is_read_once_from_its_beginning_by_whatever_name() {
    let place = Place::new();
    for (name, bytes, more) in forms() {
        let named = place.pipe(name, bytes.clone());
        let table = format!("t.{name}");
        let summary = place.import(&table, &named, Stdio::null(), more).json();
        assert_eq!(summary["records"], 2, "{name}: {summary}");
        assert_eq!(place.values(&table), TWO, "{name}");
        let record = format!("{}.onelog-import", named.display());
        assert!(!Path::new(&record).exists(), "{name}");

        for (n, stdin) in ["-", "/dev/stdin", "/dev/fd/0"].iter().enumerate() {
            let fed = File::open(place.pipe(&format!("{name}{n}"), bytes.clone())).unwrap();
            let table = format!("t.{name}{n}");
            let ran = place.import(&table, Path::new(stdin), fed.into(), more);
            assert_eq!(ran.json()["records"], 2, "{name} {stdin}");
            assert_eq!(place.values(&table), TWO, "{name} {stdin}");
        }
    }
}

#[test]
fn a_file_as_standard_input_is_read_once_and_leaves_no_record() {
    let place = Place::new();
    let file = place.folder.path().join("rows");
    fs::write(&file, TWO).unwrap();
    let stdin = || Stdio::from(File::open(&file).unwrap());
    for name in ["/dev/stdin", "/proc/self/fd/0", "/proc/thread-self/fd/0"] {
        let ran = place.import("t.rows", Path::new(name), stdin(), &[]);
        assert_eq!(ran.json()["records"], 2, "{name}");
        assert!(!Path::new("/dev/stdin.onelog-import").exists(), "{name}");
    }
    let nothing = place.import("t.rows", Path::new("/dev/null"), Stdio::null(), &[]);
    assert_eq!(nothing.json()["records"], 0);
}

#[test]
fn a_pipe_that_fails_behind_what_was_committed_says_that_it_is_begun_anew() {
    // Given a pipe whose third line is bad,
    let place = Place::new();
    let rows = format!("{TWO}nope\n");
    // when it is imported, then that says what is committed, and that there is no place to go on
    let ran = place.import(
        "t.rows",
        &place.pipe("first", rows.clone().into()),
        Stdio::null(),
        &["--batch-records", "1"],
    );
    // (the batch before the bad line may still be on its way),
    assert!(ran.err.contains("committed so far: "), "{ran:?}");
    assert!(!ran.err.contains("run the same command again"), "{ran:?}");
    ran.fails(
        1,
        "a pipe is read once, so that no place is kept to go on from",
    );
    // from; the next import begins anew.
    let again = place.import(
        "t.rows",
        &place.pipe("second", rows.into()),
        Stdio::null(),
        &["--skip-bad"],
    );
    let again = again.json();
    assert_eq!(
        (&again["records"], &again["bad_lines"], &again["resumed"]),
        (&json!(2), &json!(1), &json!(false)),
        "{again}"
    );
    assert_eq!(place.values("t.rows"), TWO);
}

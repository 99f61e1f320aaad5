//! `onelog import` of everything that is not plain NDJSON, and of what cannot be read.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use onelog_terminal::thousands;
use serde_json::{Value, json};

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

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn import(&self, table: &str, path: &Path, more: &[&str]) -> Ran {
        let path = path.to_str().unwrap();
        let args = ["import", table, path, "--key", "id", "--create", "--json"];
        self.server.run(&[&args, more].concat())
    }

    fn values(&self, table: &str) -> String {
        self.server.run(&["export", table, "--values"]).good()
    }

    fn tables(&self) -> usize {
        let listed = self.server.run(&["tables", "--json"]).json();
        let tables = listed["tables"].as_array().unwrap().iter();
        tables
            .filter(|table| !table["name"].as_str().unwrap().starts_with("onelog."))
            .count()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// More than what is read of a file before its import begins.
fn many_rows() -> String {
    let line = |n: u32| {
        format!(
            "{{\"id\":\"k{n:05}\",\"n\":{}}}\n",
            n.wrapping_mul(2_654_435_761)
        )
    };
    (0..20_000).map(line).collect()
}

fn utf16(text: &str) -> Vec<u8> {
    let units = std::iter::once(0xfeff).chain(text.encode_utf16());
    units.flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_record() {
    let place = Place::new();
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    bytes.extend_from_slice(TWO.as_bytes());
    let file = place.file("rows.ndjson", &bytes);
    let summary = place.import("t.rows", &file, &[]).json();
    assert_eq!(summary["records"], 2, "{summary}");
    assert_eq!(place.values("t.rows"), TWO);
}

#[test]
fn an_import_that_wrote_nothing_leaves_nothing_to_go_on_with() {
    let place = Place::new();
    let bad = place.file("rows.ndjson", b"nope\n");
    place
        .import("t.rows", &bad, &[])
        .fails(1, "line 1: not JSON");
    let record = place.folder.path().join("rows.ndjson.onelog-import");
    assert!(!record.exists());
    place
        .import("t.other", &bad, &[])
        .fails(1, "line 1: not JSON");

    // Nor does one whose table is not there, although its first batch was sent.
    let file = place.file("rows.ndjson", TWO.as_bytes());
    let path = file.to_str().unwrap();
    let import = ["import", "t.missing", path, "--key", "id", "--skip-bad"];
    place.server.run(&import).fails(1, "--create makes it");
    assert!(!record.exists());
    assert_eq!(place.import("t.rows", &file, &[]).json()["records"], 2);
}

#[test]
fn what_was_written_is_counted_and_what_had_been_is_not() {
    let place = Place::new();
    let file = place.file("rows.ndjson", TWO.as_bytes());
    assert_eq!(place.import("t.rows", &file, &[]).json()["records"], 2);
    let again = place.import("t.rows", &file, &[]).json();
    assert_eq!(
        (&again["records"], &again["repeated_records"]),
        (&json!(0), &json!(2)),
        "{again}"
    );
    let path = file.to_str().unwrap();
    let import = ["import", "t.rows", path, "--key", "id"];
    let said = place.server.run(&import).good();
    assert!(said.starts_with("imported 0 records"), "{said}");
    assert!(
        said.contains("2 records in 1 transaction had been"),
        "{said}"
    );

    let empty = place.file("empty.ndjson", b"");
    let nothing = place.import("t.rows", &empty, &[]).json();
    assert_eq!(nothing["records"], 0);
    assert_eq!(nothing["position"], again["position"], "{nothing}");
}

#[test]
fn csv_arrays_documents_and_what_is_packed_become_the_same_rows() {
    let place = Place::new();
    let array = "[ {\"id\":\"a\",\"n\":1.50} ,\n  {\"id\":\"b\",\"n\":2} ]";
    let documents = "{\"id\":\"a\",\"n\":1.50} {\"id\":\"b\",\"n\":2}";
    let csv = "id,n\r\na,1.50\r\n\"b\",2\r\n";
    let marked = format!("\u{feff}{csv}");
    let zstd = zstd::encode_all(array.as_bytes(), 1).unwrap();
    let members = [gzip(&TWO.as_bytes()[..10]), gzip(&TWO.as_bytes()[10..])].concat();
    let padded = [gzip(TWO.as_bytes()), vec![0; 10_240]].concat();
    let padded_zstd = [zstd::encode_all(csv.as_bytes(), 1).unwrap(), vec![0; 512]].concat();
    let cases: [(&str, Vec<u8>, &[&str]); 11] = [
        ("a.json", array.into(), &[]),
        ("b.json", documents.into(), &["--format", "json"]),
        ("c.csv", csv.into(), &["--numbers", "n"]),
        ("d.csv", marked.into(), &["--numbers", "n"]),
        ("e.tsv", csv.replace(',', "\t").into(), &["--numbers", "n"]),
        (
            "f.txt",
            csv.replace(',', ";").into(),
            &["--format", "csv", "--delimiter", ";", "--numbers", "n"],
        ),
        ("g.csv.gz", gzip(csv.as_bytes()), &["--numbers", "n"]),
        ("h.json.zst", zstd, &[]),
        ("i", members, &[]),
        ("j.ndjson.gz", padded, &[]),
        ("k.csv.zst", padded_zstd, &["--numbers", "n"]),
    ];
    for (n, (name, bytes, more)) in cases.into_iter().enumerate() {
        let table = format!("t.rows{n}");
        let summary = place.import(&table, &place.file(name, &bytes), more).json();
        assert_eq!(summary["records"], 2, "{name}: {summary}");
        assert_eq!(place.values(&table), TWO, "{name}");
    }
}

#[test]
fn a_packed_file_that_is_cut_off_says_what_to_do_and_the_whole_one_is_imported_then() {
    // Given a file of which the last bytes have not arrived.
    let place = Place::new();
    let rows = many_rows();
    for (name, whole) in [
        ("gz", gzip(rows.as_bytes())),
        ("zst", zstd::encode_all(rows.as_bytes(), 1).unwrap()),
    ] {
        let (table, name) = (format!("t.{name}"), format!("rows.ndjson.{name}"));
        let file = place.file(&name, &whole[..whole.len() - 20]);
        // When it is imported, then that fails with what to do and keeps what was read,
        let ran = place.import(&table, &file, &["--batch-records", "1000"]);
        let at = format!("damaged at byte {} of the packed stream", whole.len() - 20);
        assert!(ran.err.contains(&at), "{name}: {}", ran.err);
        assert!(ran.err.contains(": behind line "), "{name}: {}", ran.err);
        ran.fails(1, "cut off or damaged");
        assert!(rows.starts_with(&place.values(&table)), "{name}");
        // and the whole file, which is another one, is imported as it says.
        let file = place.file(&name, &whole);
        place.import(&table, &file, &[]).fails(1, "--again");
        place.import(&table, &file, &["--again"]).good();
        assert_eq!(place.values(&table), rows, "{name}");
    }
}

#[test]
fn a_packed_file_with_a_wrong_checksum_says_how_many_records_were_committed() {
    // Given files whose rows can all be read, and whose last bytes do not fit them.
    let place = Place::new();
    let rows = many_rows();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(rows.as_bytes()).unwrap();
    let gzip_checksum = 8;
    for (name, mut bytes, from_end) in [
        ("gz", gzip(rows.as_bytes()), gzip_checksum),
        ("zst", encoder.finish().unwrap(), 1),
    ] {
        let at = bytes.len() - from_end;
        bytes[at] ^= 0xff;
        let (table, name) = (format!("t.{name}"), format!("rows.ndjson.{name}"));
        let file = place.file(&name, &bytes);
        // When it is imported, once and again, then whole batches before the end are there,
        for _ in 0..2 {
            let ran = place.import(&table, &file, &["--batch-records", "1000"]);
            let there = place.values(&table);
            assert!(rows.starts_with(&there), "{name}");
            let count = there.lines().count() as u64;
            assert!(count > 0 && count.is_multiple_of(1_000), "{name}: {count}");
            let count = thousands(count);
            let expected = format!("committed so far: {count} records, all up to line {count}");
            ran.fails(1, &expected);
        }
        // and the record of progress, by which the next run goes on or refuses another file.
        let record = place.folder.path().join(format!("{name}.onelog-import"));
        assert!(record.exists(), "{name}");
    }
}

#[test]
fn what_is_not_read_is_named_and_makes_no_table() {
    let place = Place::new();
    let truncated = gzip(TWO.as_bytes());
    let truncated = &truncated[..truncated.len() - 12];
    let behind = [gzip(TWO.as_bytes()), TWO.as_bytes().to_vec()].concat();
    let twice = gzip(&gzip(TWO.as_bytes()));
    let both = zstd::encode_all(&gzip(TWO.as_bytes())[..], 1).unwrap();
    let (little, big): (Vec<u8>, Vec<u8>) = (
        TWO.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        TWO.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    );
    let cases: [(&str, &[u8], &str); 17] = [
        (
            "g.gz",
            &twice,
            "packed twice, gzip inside gzip; unpack it once first: gzip -dc",
        ),
        (
            "h.zst",
            &both,
            "packed twice, gzip inside zstd; unpack it once first: zstd -dc",
        ),
        ("i.gz", &behind, "is neither gzip nor zero bytes"),
        ("j.gz", &gzip(&utf16(TWO)), "UTF-16"),
        ("k.ndjson", &little, "UTF-16"),
        ("l.ndjson", &big, "UTF-16"),
        ("m.ndjson", b"\xff\xfe", "UTF-16"),
        ("n.ndjson", &[0; 5000], "it begins with zero bytes"),
        ("o.csv", &[0; 3], "it begins with zero bytes"),
        (
            "p.csv",
            b"",
            "it is empty; its first line must name the columns",
        ),
        (
            "q.csv",
            b"\xef\xbb\xbf",
            "it is empty; its first line must name the columns",
        ),
        (
            "a.ndjson",
            &utf16(TWO),
            "UTF-16, which is not read; convert it first: iconv",
        ),
        ("b.json", b"PK\x03\x04....", "a zip archive"),
        (
            "c.csv",
            b"name,n\na,1\n",
            "there is no column 'id' for the key; the header has 'name', 'n'",
        ),
        ("d.xz", b"\xfd7zXZ\0", "packed with xz"),
        ("e.parquet", b"PAR1", "Parquet"),
        ("f.gz", truncated, "its gzip data is cut off or damaged"),
    ];
    for (name, bytes, expected) in cases {
        let file = place.file(name, bytes);
        place.import("t.rows", &file, &[]).fails(1, expected);
        assert!(
            !place
                .folder
                .path()
                .join(format!("{name}.onelog-import"))
                .exists()
        );
    }
    place
        .import("t.rows", place.folder.path(), &[])
        .fails(1, "it is a folder; import each of its files by itself");
    assert_eq!(place.tables(), 0);
}

#[test]
fn of_nothing_nothing_is_imported_and_the_format_that_would_fit_is_named() {
    let place = Place::new();
    for bytes in [&b""[..], b"\xef\xbb\xbf", &gzip(b"")] {
        let empty = place.file("empty", bytes);
        assert_eq!(place.import("t.none", &empty, &[]).json()["records"], 0);
    }
    let lines = place.file("g.txt", b"id,n\na,1\n");
    place.import("t.rows", &lines, &[]).fails(1, "--format csv");
    let pretty = place.file("h.json", b"{\n  \"id\": 1\n}\n");
    place
        .import("t.rows", &pretty, &[])
        .fails(1, "--format json");
    place
        .import("t.rows", &lines, &["--numbers", "n"])
        .fails(2, "g.txt is read as ndjson");
}

#[test]
fn a_line_of_zero_bytes_and_a_mark_in_the_midst_are_named() {
    let place = Place::new();
    let zeros = place.file("zeros", &[TWO.as_bytes(), &[0; 512]].concat());
    let line = "line 3: not JSON: expected value, at byte 1; it is zero bytes";
    place.import("t.rows", &zeros, &[]).fails(1, line);
    let marked = place.file("marked", format!("{TWO}\u{feff}{TWO}").as_bytes());
    let line = "it begins with a byte order mark";
    place.import("t.rows", &marked, &["--again"]).fails(1, line);
}

#[test]
fn an_import_of_packed_rows_goes_on_behind_a_bad_row() {
    let place = Place::new();
    let mut csv = "id,n\n".to_owned();
    for n in 0..100 {
        let value = if n == 50 {
            "many".to_owned()
        } else {
            n.to_string()
        };
        csv += &format!("{n},{value}\n");
    }
    let file = place.file("rows.csv.gz", &gzip(csv.as_bytes()));
    let more = ["--numbers", "n", "--batch-records", "10"];
    place
        .import("t.rows", &file, &more)
        .fails(1, "line 52: the column 'n' is 'many', which is no number");
    place
        .import("t.rows", &file, &["--batch-records", "10"])
        .fails(
            1,
            "it was read as csv with --delimiter ',' and --numbers 'n'",
        );
    let summary = place
        .import("t.rows", &file, &[&more[..], &["--skip-bad"]].concat())
        .json();
    assert_eq!(summary["resumed"], true, "{summary}");
    assert_eq!(summary["records_in_all_runs"], 99, "{summary}");
    assert_eq!(place.values("t.rows").lines().count(), 99);
    let row: Value = serde_json::from_str(place.values("t.rows").lines().next().unwrap()).unwrap();
    assert_eq!(row, json!({"id": "0", "n": 0}));
}

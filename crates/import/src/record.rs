//! What an unfinished import has done, kept in `FILE.onelog-import` beside the imported file.
//!
//! Everything below `done_bytes` is committed. Batches that begin at or above `reserved_bytes`
//! were never sent. Between the two a batch may have been committed or not: it is sent again with
//! its old id, and with `position`, which was the log's end before any of these batches was sent,
//! so that a server that has forgotten ids since then says so instead of committing twice.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::format::Format;

/// Bytes at each end of a file that go into its identity.
const SAMPLE_BYTES: u64 = 64 << 10;

/// How a stream is cut into records, and its values into JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    pub format: Format,
    /// What is between two columns of CSV.
    pub delimiter: char,
    /// The columns of CSV whose values are numbers.
    pub numbers: Vec<String>,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            format: Format::Ndjson,
            delimiter: ',',
            numbers: Vec::new(),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            format,
            delimiter,
            numbers,
        } = self;
        f.write_str(format.name())?;
        match format {
            Format::Ndjson | Format::Json | Format::Store => Ok(()),
            Format::Csv | Format::Tsv => write!(
                f,
                " with --delimiter {delimiter:?} and --numbers '{}'",
                numbers.join(",")
            ),
        }
    }
}

/// The record of an unfinished import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Which file, and which attempt at it.
    pub identity: String,
    pub url: String,
    pub table: String,
    pub key: String,
    /// How the records are read; a record of an earlier version has none, which means lines.
    #[serde(default)]
    pub form: Form,
    /// The bounds of a batch: others would cut other batches.
    pub batch_records: usize,
    pub batch_bytes: usize,
    /// Everything below is committed.
    pub done_bytes: u64,
    /// The lines below `done_bytes`.
    pub done_lines: u64,
    pub records: u64,
    pub bad_lines: u64,
    /// Nothing at or above was ever sent.
    pub reserved_bytes: u64,
    /// The log's end before anything between `done_bytes` and `reserved_bytes` was sent.
    pub position: u64,
    /// The number of the table; unknown until the first batch has made it, and in a record of an
    /// earlier version, whose `identity` may have it.
    #[serde(default)]
    pub table_number: Option<u64>,
}

/// Where the record of a file is kept.
pub fn path_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".onelog-import");
    PathBuf::from(name)
}

/// Reads a record; `None` when there is none.
pub fn load(path: &Path) -> io::Result<Option<Progress>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a record in place of the old one; durable when `sync`.
pub fn save(path: &Path, progress: &Progress, sync: bool) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    serde_json::to_writer(&mut file, progress)?;
    file.write_all(b"\n")?;
    if sync {
        file.sync_all()?;
    }
    fs::rename(&new, path)?;
    if !sync {
        return Ok(());
    }
    // Without its name the record would be gone after a power loss, and batches be sent anew.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// What distinguishes a file from another: its size, its time of change, its first and last bytes. A file
/// that is moved stays the same, one that is changed does not.
pub fn identity(file: &mut File) -> io::Result<String> {
    let metadata = file.metadata()?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH);
    let changed_ns = changed.map_or(0, |time| time.as_nanos());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&metadata.len().to_le_bytes());
    hasher.update(&changed_ns.to_le_bytes());
    for from in [0, metadata.len().saturating_sub(SAMPLE_BYTES)] {
        file.seek(SeekFrom::Start(from))?;
        let mut sample = Vec::new();
        file.take(SAMPLE_BYTES).read_to_end(&mut sample)?;
        hasher.update(&sample);
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(&folder.path().join("data.ndjson"));
        assert!(
            path.to_string_lossy()
                .ends_with("data.ndjson.onelog-import")
        );
        assert_eq!(load(&path).unwrap(), None);
        let progress = Progress {
            identity: "i".into(),
            url: "u".into(),
            table: "t".into(),
            key: "k".into(),
            form: Form::default(),
            batch_records: 1,
            batch_bytes: 2,
            done_bytes: 3,
            done_lines: 4,
            records: 5,
            bad_lines: 6,
            reserved_bytes: 7,
            position: 8,
            table_number: Some(9),
        };
        save(&path, &progress, true).unwrap();
        assert_eq!(load(&path).unwrap(), Some(progress));
        fs::write(&path, "{").unwrap();
        assert!(load(&path).is_err());
    }

    #[test]
    fn a_record_of_an_earlier_version_is_of_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        let earlier = r#"{"identity":"i","url":"u","table":"t","key":"k","batch_records":1,
            "batch_bytes":2,"done_bytes":3,"done_lines":4,"records":5,"bad_lines":6,
            "reserved_bytes":7,"position":8}"#;
        fs::write(&path, earlier).unwrap();
        assert_eq!(load(&path).unwrap().unwrap().form, Form::default());
    }

    #[test]
    fn a_changed_file_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        let first = identity(&mut File::open(&path).unwrap()).unwrap();
        assert_eq!(first, identity(&mut File::open(&path).unwrap()).unwrap());
        fs::write(&path, "two").unwrap();
        assert_ne!(first, identity(&mut File::open(&path).unwrap()).unwrap());
    }
}

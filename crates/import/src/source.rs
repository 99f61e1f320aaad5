//! What is imported: a file, from where the last run stopped, or a stream that is read once from its
//! beginning: standard input, a pipe, a device; unpacked, and cut into records.

use std::fs::{File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use onelog_client::Client;
use onelog_command::{CommandError, is_stdin};
use onelog_store::Kinds;
use uuid::{NoContext, Timestamp, Uuid};

use crate::Args;
use crate::batch::BatchBounds;
use crate::documents::Documents;
use crate::format::{Format, Packing, Piece, mark_bytes, peek, unreadable};
use crate::lines::Lines;
use crate::record::{self, Form, Progress};
use crate::rows::{RowOptions, Rows};
use crate::stored::StoredRows;
use crate::unpack::Members;

const READ_BYTES: usize = 256 << 10;
/// What has a name here is a file of one process.
const OF_DESCRIPTORS: [&str; 2] = ["/dev/fd", "/proc"];

type Stream = BufReader<Box<dyn Read>>;

/// An opened source, and what is known of earlier runs.
#[derive(Debug)]
pub struct Source {
    /// The size of the whole stream, where it is known.
    pub size: Option<u64>,
    /// Where the record of progress is kept; not for what is read once.
    pub record: Option<PathBuf>,
    pub progress: Progress,
    /// Whether an earlier run is continued.
    pub resumed: bool,
    /// What is to be known of a store's table that was read.
    pub note: Option<String>,
}

/// The records of a source, behind those that an earlier run has done.
pub struct Pieces {
    records: Records,
    done_bytes: u64,
}

enum Records {
    Lines(Lines<Stream>),
    Documents(Documents<Stream>),
    Rows(Box<Rows<Stream>>),
    Stored(StoredRows),
}

impl Iterator for Pieces {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let piece = match &mut self.records {
                Records::Lines(lines) => lines.next(),
                Records::Documents(documents) => documents.next(),
                Records::Rows(rows) => rows.next(),
                Records::Stored(rows) => rows.next(),
            };
            match piece {
                Some(Ok(piece)) if piece.end <= self.done_bytes => {}
                other => return other,
            }
        }
    }
}

/// A stream that is unpacked, and what its first bytes say.
struct Unpacked {
    stream: Box<dyn Read>,
    head: Vec<u8>,
    packing: Packing,
}

fn unpack(stream: Box<dyn Read>, path: &Path) -> Result<Unpacked, CommandError> {
    let fail = |source| read_error(path, source);
    let (head, stream) = peek(stream).map_err(fail)?;
    let packing = Packing::of_head(&head);
    let (head, stream) = match packing {
        Packing::Plain => (head, stream),
        Packing::Gzip | Packing::Zstd => {
            peek(Box::new(Members::new(stream, packing))).map_err(fail)?
        }
    };
    let refuse = |why: &str| {
        let path = path.display();
        Err(CommandError::Failed(format!("cannot import {path}: {why}")))
    };
    let inner = Packing::of_head(&head);
    if packing != Packing::Plain && inner != Packing::Plain {
        return refuse(&format!(
            "it is packed twice, {} inside {}; unpack it once first: {}",
            inner.name(),
            packing.name(),
            packing.unpacker()
        ));
    }
    match unreadable(&head) {
        Some(why) => refuse(why),
        None => Ok(Unpacked {
            stream,
            head,
            packing,
        }),
    }
}

fn read_error(path: &Path, source: io::Error) -> CommandError {
    CommandError::Read {
        path: path.to_owned(),
        source,
    }
}

/// Opens the source. `position` is the log's end now.
pub fn open(
    args: &Args,
    client: &Client,
    position: u64,
    kinds: Kinds,
) -> Result<(Source, Pieces), CommandError> {
    if args.from_store {
        let form = Form {
            format: Format::Store,
            ..Form::default()
        };
        let mut rows = StoredRows::open(args, kinds)?;
        let mut source = Source::once(new_progress(args, client, position, form));
        source.note = rows.unfillable.take();
        let pieces = Pieces {
            records: Records::Stored(rows),
            done_bytes: 0,
        };
        return Ok((source, pieces));
    }
    if is_stdin(&args.file) {
        return open_once(args, client, position, Box::new(io::stdin()));
    }
    let fail = |source| read_error(&args.file, source);
    let mut file = File::open(&args.file).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_dir() {
        return Err(CommandError::Failed(format!(
            "cannot import {}: it is a folder; import each of its files by itself",
            args.file.display()
        )));
    }
    if !is_kept(&args.file, &metadata) {
        return open_once(args, client, position, Box::new(file));
    }
    let identity = record::identity(&mut file).map_err(fail)?;
    let size = metadata.len();
    let unpacked = unpack(Box::new(file), &args.file)?;
    let mut progress = new_progress(args, client, position, form(args, &unpacked)?);
    progress.identity = identity;
    let path = record::path_of(&args.file);
    let earlier = load(&path)?;
    let mut resumed = false;
    if args.again {
        progress
            .identity
            .push_str(&format!(" again {}", new_identity()));
    } else if let Some(earlier) = earlier {
        check_same(&earlier, &progress, &path)?;
        progress = earlier;
        resumed = true;
    }
    let source = Source {
        size: (unpacked.packing == Packing::Plain).then_some(size),
        record: Some(path),
        progress,
        resumed,
        note: None,
    };
    let pieces = pieces(args, unpacked, &source.progress)?;
    Ok((source, pieces))
}

/// A stream of which nothing is there any more when it was read.
fn open_once(
    args: &Args,
    client: &Client,
    position: u64,
    stream: Box<dyn Read>,
) -> Result<(Source, Pieces), CommandError> {
    let unpacked = unpack(stream, &args.file)?;
    let form = form(args, &unpacked)?;
    let source = Source::once(new_progress(args, client, position, form));
    let pieces = pieces(args, unpacked, &source.progress)?;
    Ok((source, pieces))
}

/// Whether the next run finds the same bytes under this name, and can begin in the midst of them.
fn is_kept(path: &Path, metadata: &Metadata) -> bool {
    let is_descriptor = OF_DESCRIPTORS.iter().any(|folder| path.starts_with(folder));
    metadata.is_file() && !is_descriptor
}

fn new_progress(args: &Args, client: &Client, position: u64, form: Form) -> Progress {
    Progress {
        identity: String::new(),
        url: client.base().to_owned(),
        table: args.table.clone(),
        key: args.key().as_str().to_owned(),
        form,
        batch_records: args.batch_records,
        batch_bytes: args.batch_bytes,
        done_bytes: 0,
        done_lines: 0,
        records: 0,
        bad_lines: 0,
        reserved_bytes: 0,
        position,
        table_number: None,
    }
}

/// How the records are read: as the arguments say, or as name and content show.
fn form(args: &Args, unpacked: &Unpacked) -> Result<Form, CommandError> {
    let format = args
        .format
        .unwrap_or_else(|| Format::find(&args.file, &unpacked.head));
    let is_rows = matches!(format, Format::Csv | Format::Tsv);
    if !is_rows && (args.delimiter.is_some() || !args.numbers.is_empty()) {
        return Err(CommandError::Usage(format!(
            "--delimiter and --numbers are for CSV, and {} is read as {}; --format csv says otherwise",
            args.file.display(),
            format.name()
        )));
    }
    let usual = match format {
        Format::Tsv => '\t',
        _ => ',',
    };
    Ok(Form {
        format,
        delimiter: args.delimiter.unwrap_or(usual),
        numbers: args.numbers.clone(),
    })
}

/// Cuts a stream into records, behind those that are done.
fn pieces(args: &Args, unpacked: Unpacked, progress: &Progress) -> Result<Pieces, CommandError> {
    let fail = |source| read_error(&args.file, source);
    let (form, done) = (&progress.form, progress.done_bytes);
    let mark = mark_bytes(&unpacked.head);
    let is_seekable = unpacked.packing == Packing::Plain && !is_stdin(&args.file);
    if form.format == Format::Ndjson && done > 0 && is_seekable {
        let mut file = File::open(&args.file).map_err(fail)?;
        file.seek(SeekFrom::Start(done)).map_err(fail)?;
        let stream = buffered(Box::new(file));
        return Ok(Pieces {
            records: Records::Lines(Lines::new(stream, progress.done_lines, done)),
            done_bytes: done,
        });
    }
    let mut stream = buffered(unpacked.stream);
    if mark > 0 {
        stream.fill_buf().map_err(fail)?;
        stream.consume(mark);
    }
    let at = mark as u64;
    let records = match form.format {
        // Rows of a store are opened elsewhere.
        Format::Ndjson | Format::Store => Records::Lines(Lines::new(stream, 0, at)),
        Format::Json => Records::Documents(Documents::new(stream, at)),
        Format::Csv | Format::Tsv => {
            let options = RowOptions {
                delimiter: form.delimiter as u8,
                numbers: form.numbers.clone(),
                key: args.key(),
            };
            let rows = Rows::open(stream, at, &options).map_err(|why| {
                CommandError::Failed(format!("cannot import {}: {why}", args.file.display()))
            })?;
            Records::Rows(Box::new(rows))
        }
    };
    Ok(Pieces {
        records,
        done_bytes: done,
    })
}

fn buffered(stream: Box<dyn Read>) -> Stream {
    BufReader::with_capacity(READ_BYTES, stream)
}

fn load(path: &Path) -> Result<Option<Progress>, CommandError> {
    record::load(path).map_err(|error| {
        CommandError::Failed(format!(
            "cannot read the record of the unfinished import {}: {error}; --again starts from the beginning",
            path.display()
        ))
    })
}

/// An unfinished import is only continued as what it was.
fn check_same(earlier: &Progress, now: &Progress, path: &Path) -> Result<(), CommandError> {
    let base = earlier.identity.split(' ').next().unwrap_or_default();
    let what = if base != now.identity {
        "the file has changed since".to_owned()
    } else if earlier.table != now.table {
        format!("it was into table '{}'", earlier.table)
    } else if earlier.url != now.url {
        format!("it was into the server {}", earlier.url)
    } else if earlier.key != now.key {
        format!("its key was the field '{}'", earlier.key)
    } else if earlier.form != now.form {
        format!("it was read as {}", earlier.form)
    } else {
        return Ok(());
    };
    Err(unlike(&what, path))
}

fn unlike(what: &str, path: &Path) -> CommandError {
    CommandError::Failed(format!(
        "an earlier import of this file is unfinished, and {what} (recorded in {}); finish that one, or start from the beginning with --again",
        path.display()
    ))
}

/// An identity that no other run has, whatever the clock says.
fn new_identity() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let since_1970 = since_1970.unwrap_or_default();
    let at = Timestamp::from_unix(NoContext, since_1970.as_secs(), since_1970.subsec_nanos());
    Uuid::new_v7(at).to_string()
}

impl Source {
    /// One that is not gone on with: its next run cannot be known to be the same.
    fn once(progress: Progress) -> Self {
        Self {
            size: None,
            record: None,
            progress: Progress {
                identity: new_identity(),
                ..progress
            },
            resumed: false,
            note: None,
        }
    }

    /// Ties the import to a log and to a table in it, by their numbers: names and addresses come
    /// again for others, which have nothing of what was written. A table that the first batch makes
    /// has no number yet; the record has it from the first answer on.
    pub fn bind(&mut self, log_id: &str, table: Option<u64>) -> Result<(), CommandError> {
        let progress = &mut self.progress;
        let Some(path) = self.record.as_deref().filter(|_| self.resumed) else {
            let number = table.map_or_else(|| "new".to_owned(), |id| id.to_string());
            progress
                .identity
                .push_str(&format!(" in {log_id}/{number}"));
            progress.table_number = table;
            return Ok(());
        };
        let place = progress.identity.rsplit_once(" in ");
        let Some((log, number)) = place.and_then(|(_, place)| place.split_once('/')) else {
            return Err(unlike("it is not recorded which log it was into", path));
        };
        if log != log_id {
            let what = "it was into another log, which the server had then";
            return Err(unlike(what, path));
        }
        let earlier = progress.table_number.or_else(|| number.parse().ok());
        let has_written = earlier.is_some() || progress.records > 0;
        match (earlier, table) {
            (_, None) if has_written => Err(unlike("the table was deleted since", path)),
            (Some(earlier), Some(table)) if earlier != table => {
                Err(unlike("the table was deleted and made again since", path))
            }
            _ => {
                progress.table_number = table;
                Ok(())
            }
        }
    }

    /// The bounds by which batches are cut: those of the run that is continued.
    pub const fn bounds(&self) -> BatchBounds {
        BatchBounds {
            records_max: self.progress.batch_records,
            bytes_max: self.progress.batch_bytes,
        }
    }
}

//! One run of an import.

use std::io;
use std::sync::mpsc::{Receiver, Sender as Channel, channel};
use std::thread;
use std::time::{Duration, Instant};

use onelog_client::{Client, ClientError, segment};
use onelog_command::{CommandError, Context};
use onelog_record::code;
use onelog_store::Kinds;
use onelog_terminal::{Out, counted, thousands};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Args;
use crate::bar::{Bar, rate};
use crate::batch::{Batch, Batcher};
use crate::job::{Job, UnderWay};
use crate::record;
use crate::sender::{Sender, Sent};
use crate::source::{self, Pieces, Source};

/// How far ahead of what is done batches may be sent before the record says so.
const RESERVE_BYTES: u64 = 64 << 20;
/// How often the record is written in between.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// What follows for a stream that is read once.
const READ_ONCE: &str = "; a pipe is read once, so that no place is kept to go on from: an import of the same from its beginning writes all of it again (a keyed table gets the same values, a stream table gets these records twice)";
/// How many bad lines are shown one by one.
const BAD_SHOWN_MAX: u64 = 10;

pub struct Import<'a> {
    args: &'a Args,
    as_json: bool,
    client: Client,
    source: Source,
    connections: usize,
    /// The log's end when the import was opened.
    position: u64,
}

/// A stream that failed, and the last record that was read of it.
#[derive(Debug, thiserror::Error)]
#[error("behind {unit} {number}: {source}")]
struct BehindRecord {
    unit: &'static str,
    number: u64,
    source: io::Error,
}

impl BehindRecord {
    /// A document that is not written as it should be says its place itself.
    fn of(source: io::Error, unit: &'static str, number: u64) -> io::Error {
        let says_place = unit == "document" && source.kind() == io::ErrorKind::InvalidData;
        if number == 0 || says_place {
            return source;
        }
        let behind = Self {
            unit,
            number,
            source,
        };
        io::Error::new(behind.source.kind(), behind)
    }
}

/// What a run has counted.
#[derive(Debug, Default)]
struct Tally {
    batches: u64,
    records: u64,
    /// What an earlier run had committed.
    repeated_batches: u64,
    repeated_records: u64,
    bad_lines: u64,
    position: u64,
}

/// A run under way. Only this thread touches it.
struct Run<'a> {
    import: &'a Import<'a>,
    record: record::Progress,
    tally: Tally,
    under_way: UnderWay,
    flying: usize,
    next_number: u64,
    latest: u64,
    saved: Instant,
    can_save: bool,
    failure: Option<CommandError>,
    /// Whether a batch was sent of which it is not known that it was refused.
    is_unclear: bool,
    bar: Bar,
}

impl<'a> Import<'a> {
    /// Requests the table of the server and opens the source.
    pub fn open(
        args: &'a Args,
        context: &Context,
        kinds: Kinds,
    ) -> Result<(Self, Pieces), CommandError> {
        let client = context.client()?;
        let status = client.get("/v1/status", &[])?;
        let position = status["position"]
            .as_u64()
            .ok_or_else(|| client.unexpected("its status has no position".to_owned()))?;
        let log_id = status["log_id"].as_str().unwrap_or_default();
        let (mut source, pieces) = source::open(args, &client, position, kinds)?;
        if args.from_store && !args.again {
            check_empty(&client, &args.table)?;
        }
        // What cannot be read makes no table.
        if args.create {
            let table = json!({"name": args.table, "kind": "keyed", "value": "json"});
            client.post("/v1/tables", &table)?;
        }
        // A server with create_tables makes the table with the first batch; any other refuses it.
        let table = look_up(&client, &args.table)?;
        source.bind(log_id, table.as_ref().and_then(number_of))?;
        // The order of a stream's records matters, and which of two lines has a unique value.
        let is_ordered =
            table.is_some_and(|table| table["kind"] == "stream" || table["unique"].is_array());
        let connections = match is_ordered {
            true => 1,
            false => args.connections as usize,
        };
        let import = Self {
            args,
            as_json: context.json,
            source,
            client,
            connections,
            position,
        };
        Ok((import, pieces))
    }

    /// Imports everything and prints what was done.
    pub fn run(self, pieces: Pieces) -> Result<(), CommandError> {
        let started = Instant::now();
        let progress = &self.source.progress;
        if self.source.resumed && !self.as_json {
            eprintln!(
                "going on behind {} {}, {} records are there already",
                progress.form.format.unit(),
                thousands(progress.done_lines),
                thousands(progress.records)
            );
        }
        let bar = Bar::new(self.source.size, progress.done_bytes, !self.as_json);
        let sender = Sender {
            identity: progress.identity.clone(),
            table: self.args.table.clone(),
            patience: self.args.retry_for,
        };
        let mut run = Run {
            record: progress.clone(),
            tally: Tally::default(),
            under_way: UnderWay::default(),
            flying: 0,
            next_number: 0,
            latest: self.position,
            saved: Instant::now(),
            can_save: self.source.record.is_some(),
            failure: None,
            is_unclear: false,
            bar,
            import: &self,
        };
        let (jobs, queue) = channel::<Job>();
        let (results, answers) = channel::<(Job, Sent)>();
        let queue = Mutex::new(queue);
        thread::scope(|scope| {
            for _ in 0..self.connections {
                let (queue, results) = (&queue, results.clone());
                let (sender, client) = (&sender, &self.client);
                scope.spawn(move || work(queue, &results, sender, client));
            }
            drop(results);
            run.feed(pieces, &jobs, &answers);
            drop(jobs);
        });
        run.bar.finish();
        run.finish(started.elapsed())
    }
}

/// The table as the server describes it, if it is there.
fn look_up(client: &Client, table: &str) -> Result<Option<Value>, ClientError> {
    let path = format!("/v1/tables/{}", segment(table.as_bytes()));
    match client.get(&path, &[]) {
        Ok(table) => Ok(Some(table)),
        Err(error) if error.server().is_some_and(|e| e.status == 404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn number_of(table: &Value) -> Option<u64> {
    table["id"].as_u64()
}

/// The first content of a table, not more of it.
fn check_empty(client: &Client, table: &str) -> Result<(), CommandError> {
    let path = format!("/v1/tables/{}/keys", segment(table.as_bytes()));
    match client.get(&path, &[("limit", "1".to_owned())]) {
        Ok(page) if page["rows"].as_array().is_some_and(Vec::is_empty) => Ok(()),
        Ok(_) => Err(CommandError::Failed(format!(
            "the table '{table}' has keys already, so the rows of the store are not its first content; --again writes them all the same, over the keys that both have"
        ))),
        Err(error) if error.server().is_some_and(|e| e.status == 404) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sends jobs until there are no more.
fn work(
    queue: &Mutex<Receiver<Job>>,
    results: &Channel<(Job, Sent)>,
    sender: &Sender,
    client: &Client,
) {
    loop {
        let job = queue.lock().recv();
        let Ok(job) = job else { return };
        let sent = sender.send(client, &job.batch, job.read_position);
        if results.send((job, sent)).is_err() {
            return;
        }
    }
}

impl Run<'_> {
    fn feed(&mut self, pieces: Pieces, jobs: &Channel<Job>, answers: &Receiver<(Job, Sent)>) {
        let key = self.import.args.key();
        let mut batcher = Batcher::new(key, self.unit(), self.import.source.bounds());
        let mut behind = 0;
        for piece in pieces {
            let piece = match piece {
                Ok(piece) => piece,
                Err(source) => {
                    let unit = self.unit();
                    let path = self.import.args.file.clone();
                    let source = BehindRecord::of(source, unit, behind);
                    self.fail(CommandError::Read { path, source });
                    break;
                }
            };
            behind = piece.number;
            let (ready, pushed) = batcher.push(piece);
            if let Some(batch) = ready {
                self.dispatch(batch, jobs, answers);
            }
            if let Err(bad) = pushed {
                self.bad_line(&bad.to_string());
            }
            if self.failure.is_some() {
                break;
            }
        }
        // After a fault the open batch is left: the next run begins with it.
        if let Some(batch) = batcher.finish().filter(|_| self.failure.is_none()) {
            self.dispatch(batch, jobs, answers);
        }
        while self.flying > 0 {
            self.receive(jobs, answers);
        }
    }

    fn dispatch(&mut self, batch: Batch, jobs: &Channel<Job>, answers: &Receiver<(Job, Sent)>) {
        let is_behind_reserve = batch.start >= self.record.reserved_bytes;
        while self.flying > 0
            && (is_behind_reserve
                || self.flying >= self.import.connections
                || self.under_way.collides(&batch))
        {
            self.receive(jobs, answers);
        }
        if self.failure.is_some() {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let read_position = self.reserve(&batch);
        self.under_way.add(number, &batch);
        if batch.rows.is_empty() {
            self.done(number);
            return;
        }
        self.flying += 1;
        self.send(
            Job {
                number,
                batch,
                read_position,
            },
            jobs,
        );
    }

    fn send(&mut self, job: Job, jobs: &Channel<Job>) {
        if jobs.send(job).is_err() {
            self.flying -= 1;
            self.fail(CommandError::Failed(
                "the sending threads have ended".to_owned(),
            ));
        }
    }

    /// Notes, before a batch is sent, that it may have been.
    fn reserve(&mut self, batch: &Batch) -> u64 {
        if batch.start >= self.record.reserved_bytes {
            assert_eq!(
                self.flying, 0,
                "a position is good for all that is under way"
            );
            self.record.reserved_bytes = batch.end + RESERVE_BYTES;
            self.record.position = self.latest;
            self.save(true);
        }
        self.record.position
    }

    fn receive(&mut self, jobs: &Channel<Job>, answers: &Receiver<(Job, Sent)>) {
        let Ok((job, sent)) = answers.recv() else {
            self.flying = 0;
            self.fail(CommandError::Failed(
                "the sending threads have ended".to_owned(),
            ));
            return;
        };
        match sent {
            Sent::Committed { position, repeated } => {
                self.flying -= 1;
                let records = job.batch.rows.len() as u64;
                if repeated {
                    self.tally.repeated_batches += 1;
                    self.tally.repeated_records += records;
                } else {
                    self.tally.batches += 1;
                    self.tally.records += records;
                }
                self.tally.position = self.tally.position.max(position.unwrap_or(0));
                self.latest = self.latest.max(position.unwrap_or(0));
                self.learn_table();
                self.done(job.number);
            }
            Sent::BadRow(row, message) => self.bad_row(job, row, &message, jobs),
            Sent::Failed(error) => {
                self.flying -= 1;
                let is_refused = error
                    .server()
                    .is_some_and(|e| (400..500).contains(&e.status));
                self.is_unclear |= !is_refused;
                let line = job.batch.rows.first().map_or(0, |row| row.line);
                let advice = self.advice(&error);
                let unit = self.unit();
                self.fail(CommandError::Failed(format!(
                    "at {unit} {line}: {error}{advice}"
                )));
            }
        }
    }

    /// Notes the number of the table that a batch has made, before anything is recorded as done: by it
    /// the next run knows another table of that name.
    fn learn_table(&mut self) {
        if !self.can_save || self.record.table_number.is_some() {
            return;
        }
        // An error says nothing about what was committed; the next batch asks again.
        let Ok(Some(table)) = look_up(&self.import.client, &self.import.args.table) else {
            return;
        };
        self.record.table_number = number_of(&table);
        self.save(true);
    }

    fn advice(&self, error: &ClientError) -> &'static str {
        match error.server().map(|error| error.error.as_str()) {
            Some(code::ID_EXPIRED) => {
                "; the server has forgotten whether an earlier run committed these lines: look them up, then --again writes everything again"
            }
            Some("unknown_table") => "; --create makes it",
            Some("reserved_table") => "",
            _ if self.import.args.from_store => {
                "; --again begins anew, and writes the same rows under the same keys"
            }
            _ if self.can_save => "; run the same command again to go on",
            _ => "",
        }
    }

    fn unit(&self) -> &'static str {
        self.import.source.progress.form.format.unit()
    }

    fn bad_row(&mut self, mut job: Job, row: usize, message: &str, jobs: &Channel<Job>) {
        let line = job.batch.rows.remove(row).line;
        self.under_way.pass_over(job.number);
        self.bad_line(&format!("{} {line}: {message}", self.unit()));
        if self.failure.is_some() {
            self.flying -= 1;
        } else if job.batch.rows.is_empty() {
            self.flying -= 1;
            self.done(job.number);
        } else {
            self.send(job, jobs);
        }
    }

    fn bad_line(&mut self, text: &str) {
        if !self.import.args.skip_bad {
            self.fail(CommandError::Failed(format!(
                "{text}; --skip-bad passes over such {}s",
                self.unit()
            )));
            return;
        }
        self.tally.bad_lines += 1;
        match self.tally.bad_lines {
            n if n < BAD_SHOWN_MAX => self.bar.warn(&format!("passed over {text}")),
            BAD_SHOWN_MAX => self.bar.warn(&format!(
                "passed over {text}; further ones are only counted"
            )),
            _ => {}
        }
    }

    fn done(&mut self, number: u64) {
        if let Some(reached) = self.under_way.done(number) {
            self.record.done_bytes = reached.end;
            self.record.done_lines = reached.last_line;
            self.record.records += reached.records;
            self.record.bad_lines += reached.bad_lines;
            if self.saved.elapsed() >= SAVE_EVERY {
                self.save(false);
            }
        }
        let records = self.tally.records + self.tally.repeated_records;
        self.bar.show(self.record.done_bytes, records);
    }

    fn save(&mut self, sync: bool) {
        self.saved = Instant::now();
        let Some(path) = self.import.source.record.as_ref().filter(|_| self.can_save) else {
            return;
        };
        if let Err(error) = record::save(path, &self.record, sync) {
            self.can_save = false;
            self.bar.warn(&format!(
                "warning: cannot keep the progress in {}: {error}; if this import is interrupted, the next one starts from the beginning (what is committed is not written twice)",
                path.display()
            ));
        }
    }

    /// Whether it is certain that no run has written anything, so that there is nothing to go on
    /// with.
    const fn has_written_nothing(&self) -> bool {
        let committed = self.tally.batches + self.tally.repeated_batches;
        committed == 0 && !self.is_unclear && !self.import.source.resumed
    }

    fn forget(&self) {
        if let Some(path) = &self.import.source.record {
            // Nothing is lost when it stays: the next run finds nothing left to do.
            let _ = std::fs::remove_file(path);
        }
    }

    fn fail(&mut self, error: CommandError) {
        if self.failure.is_none() {
            self.failure = Some(error);
        }
    }

    fn finish(mut self, elapsed: Duration) -> Result<(), CommandError> {
        if let Some(failure) = self.failure.take() {
            match self.has_written_nothing() {
                true => self.forget(),
                false => self.save(true),
            }
            return Err(self.with_committed(failure));
        }
        self.forget();
        let summary = self.summary(elapsed);
        let mut out = Out::new();
        if self.import.as_json {
            out.json(&summary)?;
            return Ok(out.flush()?);
        }
        let seconds = elapsed.as_secs_f64();
        out.line(&format!(
            "imported {} in {}, {seconds:.1} s, {} records/s, position {}",
            counted(self.tally.records, "record"),
            counted(self.tally.batches, "transaction"),
            thousands(rate(self.tally.records, seconds)),
            thousands(self.position()),
        ))?;
        if self.tally.repeated_batches > 0 {
            out.line(&format!(
                "{} in {} had been committed by an earlier attempt and not written again (--again would)",
                counted(self.tally.repeated_records, "record"),
                counted(self.tally.repeated_batches, "transaction")
            ))?;
        }
        if self.record.bad_lines > 0 {
            out.line(&format!(
                "passed over {}",
                counted(self.record.bad_lines, &format!("bad {}", self.unit()))
            ))?;
        }
        if let Some(note) = &self.import.source.note {
            out.line(note)?;
        }
        Ok(out.flush()?)
    }

    /// The failure, and how much was committed before it by this run and by those it goes on with.
    fn with_committed(&self, failure: CommandError) -> CommandError {
        let earlier = self.import.source.progress.records;
        let committed = earlier + self.tally.records + self.tally.repeated_records;
        if committed == 0 {
            return failure;
        }
        let least = if self.is_unclear { "at least " } else { "" };
        let source = &self.import.source;
        let is_read_once = source.record.is_none() && !self.import.args.from_store;
        let advice = if is_read_once { READ_ONCE } else { "" };
        CommandError::Failed(format!(
            "{failure}; committed so far: {least}{}, all up to {} {}{advice}",
            counted(committed, "record"),
            self.unit(),
            thousands(self.record.done_lines)
        ))
    }

    /// Everything that was imported is below it.
    fn position(&self) -> u64 {
        self.tally.position.max(self.import.position)
    }

    fn summary(&self, elapsed: Duration) -> Value {
        json!({
            "table": self.import.args.table,
            "records": self.tally.records,
            "transactions": self.tally.batches,
            "repeated_records": self.tally.repeated_records,
            "repeated_transactions": self.tally.repeated_batches,
            "bad_lines": self.record.bad_lines,
            "resumed": self.import.source.resumed,
            "records_in_all_runs": self.record.records,
            "format": self.import.source.progress.form.format.name(),
            "position": self.position(),
            "seconds": elapsed.as_secs_f64(),
        })
    }
}

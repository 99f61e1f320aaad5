//! A replica on simulated disks, driven by lines of text: on the left what happens, on the right
//! what the replica wants done and answers because of it.
//!
//! ```text
//! start                 begins and leads as far as it comes without a job
//! turn                  ends a turn
//! define T as N         sends the definition of table T under ticket N; `drop T as N` its end
//! put K in T as N       sends a write of key K; `put K in #7` names the table by its number
//! barrier as N          requests a read barrier
//! flushed F             runs flush F and reports it; `checkpointed`, `prepared`, `retained` and
//!                       `saved` likewise
//! free BYTES            reports how much room the disk has
//! idle, stop, close     reports silence, or the end
//! wait MS               lets time pass
//! ```

use std::sync::Arc;

use bytes::Bytes;
use onelog_engine::{Prepared, Submission};
use onelog_log::{CrashMode, Flush, Prepare, Retain, SaveWatermark, SimulatedDisk};
use onelog_record::{CommitRequest, Compression, Operation, Refusal, TableId, TxnId, Write};
use onelog_replica::{
    Answer, CheckpointJob, Creation, Event, FOUNDER, Failure, Job, NewTable, Now, Outbox,
    Recovered, Replica, ReplicaOptions, Request, StartProgress, creation, removal,
};

pub struct Story {
    pub log: SimulatedDisk,
    pub state: SimulatedDisk,
    pub options: ReplicaOptions,
    pub now: Now,
    pub replica: Option<Replica<u32, ()>>,
    out: Outbox<u32>,
    flushes: Vec<Flush>,
    checkpoint: Option<CheckpointJob>,
    prepare: Option<Prepare>,
    retain: Option<Retain>,
    save: Option<SaveWatermark>,
}

pub fn options() -> ReplicaOptions {
    ReplicaOptions {
        node: FOUNDER,
        election_ms: onelog_replica::ELECTION_MS,
        new_log_id: 7,
        segment_bytes: 8 << 10,
        index_every_bytes: 1 << 10,
        memtable_bytes: 1 << 20,
        memtable_bytes_max: 4 << 20,
        cache_bytes: 1 << 20,
        checkpoint_interval_ms: 30_000,
        snapshot_age_ms_max: u64::MAX,
        retain_bytes: None,
        retain_ms: None,
        retain_past_followers: false,
        disk_reserve_bytes: 0,
        disk_warning_bytes: 0,
        compression: Compression::None,
        flushes_in_flight: 4,
        ids_max: 1_000,
        window_writes_max: 1_000,
    }
}

impl Story {
    pub fn new(options: ReplicaOptions) -> Self {
        Self {
            log: SimulatedDisk::new(1),
            state: SimulatedDisk::new(2),
            options,
            now: Now {
                monotonic_ms: 0,
                unix_ms: 1_000_000,
            },
            replica: None,
            out: Outbox::default(),
            flushes: Vec::new(),
            checkpoint: None,
            prepare: None,
            retain: None,
            save: None,
        }
    }

    /// A replica that leads, with nothing under way.
    pub fn leading(options: ReplicaOptions) -> Self {
        let mut story = Self::new(options);
        story.tell(
            "
            start        | flush 1
            flushed 1    |
            turn         | prepare
            prepared     |
            ",
        );
        story
    }

    /// Runs each line and compares what comes of it.
    #[track_caller]
    pub fn tell(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (left, right) = line.split_once('|').expect("a line has two sides");
            let failure = self.step(left.trim()).err();
            let mut got = self.taken_out();
            got.extend(failure.map(|failure| format!("fails: {failure}")));
            assert_eq!(got.join(", "), right.trim(), "{}", left.trim());
        }
    }

    /// Ends a turn; answers what comes of it.
    pub fn step_turn(&mut self) -> Vec<String> {
        self.step("turn").expect("a turn ends well");
        self.taken_out()
    }

    /// Ends the preparation of a segment, if one is under way.
    pub fn end_preparation(&mut self) {
        if self.prepare.is_some() {
            self.tell("prepared | ");
        }
    }

    /// Runs a line that must fail; answers why.
    pub fn fails(&mut self, line: &str) -> String {
        self.step(line).expect_err("the disk fails").to_string()
    }

    /// Power fails: what was not flushed is gone, and so is the replica.
    pub fn crash(&mut self) {
        self.log.crash(CrashMode::LoseAll);
        self.state.crash(CrashMode::LoseAll);
        self.end();
    }

    pub fn end(&mut self) {
        self.replica = None;
        self.out = Outbox::default();
        self.flushes.clear();
        (self.checkpoint, self.prepare) = (None, None);
        (self.retain, self.save) = (None, None);
    }

    pub fn replica(&mut self) -> &mut Replica<u32, ()> {
        self.replica.as_mut().expect("the replica was started")
    }

    /// Runs a line, whatever comes of it: see [`Story::taken_out`].
    pub fn step(&mut self, line: &str) -> Result<(), Failure> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["start"] => self.start(),
            ["turn"] => {
                let (now, out) = (self.now, &mut self.out);
                let replica = self.replica.as_mut().expect("the replica was started");
                replica.end_turn(now, out).map(drop)
            }
            ["wait", ms] => {
                let ms: u64 = ms.parse().expect("a number");
                self.now.monotonic_ms += ms;
                self.now.unix_ms += ms;
                Ok(())
            }
            ["define", name, "as", ticket] => {
                let replica = self.replica();
                let position = replica.applied().position;
                let creation = creation(position, replica.catalog(), &NewTable::keyed(name));
                let Ok(Creation::Commit(_, request)) = creation else {
                    panic!("{name} cannot be defined: {creation:?}");
                };
                self.submit(ticket, *request)
            }
            ["drop", name, "as", ticket] => {
                let request = removal(self.replica().catalog(), name);
                self.submit(ticket, request.expect("the table is there"))
            }
            ["put", key, "in", table, "as", ticket] => {
                let table = self.table(table);
                self.submit(ticket, put(table, key, "1"))
            }
            ["barrier", "as", ticket] => self.handle(Event::ReadBarrier(number(ticket))),
            ["flushed", wanted] => {
                let place = self
                    .flushes
                    .iter()
                    .position(|flush| flush.number.to_string() == wanted)
                    .expect("the flush is under way");
                let flush = self.flushes.remove(place);
                self.handle(Event::Flushed {
                    number: flush.number,
                    result: flush.run(),
                })
            }
            [job @ ("checkpointed" | "prepared" | "retained" | "saved")] => self.ended(job),
            ["free", bytes] => {
                let bytes = bytes.parse().expect("a number");
                self.handle(Event::FreeSpace(bytes))
            }
            ["idle"] => self.handle(Event::Idle),
            ["stop"] => self.handle(Event::Stop),
            ["close"] => self.replica().close(),
            _ => panic!("what is '{line}'?"),
        }
    }

    /// Runs a job that is under way and reports it.
    fn ended(&mut self, job: &str) -> Result<(), Failure> {
        let event = match job {
            "checkpointed" => {
                let checkpoint = self.checkpoint.take().expect("one is under way");
                Event::Checkpointed(Box::new(checkpoint.run()))
            }
            "prepared" => {
                let prepare = self.prepare.take().expect("one is under way");
                Event::Prepared(prepare.run())
            }
            "retained" => {
                let retain = self.retain.take().expect("one is under way");
                Event::Retained(retain.run())
            }
            _ => {
                let save = self.save.take().expect("one is under way");
                Event::WatermarkSaved(save.run())
            }
        };
        self.handle(event)
    }

    fn start(&mut self) -> Result<(), Failure> {
        if self.replica.is_none() {
            let disks = (Arc::new(self.log.clone()), Arc::new(self.state.clone()));
            let recovered = Recovered::open(disks.0, disks.1, self.options.clone());
            let replica = recovered.expect("the disks are whole");
            let replica = replica.begin((), Arc::default(), self.now);
            self.replica = Some(replica.expect("the tables can be read"));
        }
        let (now, out) = (self.now, &mut self.out);
        let replica = self.replica.as_mut().expect("it was just made");
        while replica.start_more(now, out).expect("it can start") == StartProgress::More {}
        Ok(())
    }

    pub fn submit(&mut self, ticket: &str, request: CommitRequest) -> Result<(), Failure> {
        let queued_at_ms = self.now.monotonic_ms;
        self.submit_queued(ticket, request, queued_at_ms)
    }

    pub fn submit_queued(
        &mut self,
        ticket: &str,
        request: CommitRequest,
        queued_at_ms: u64,
    ) -> Result<(), Failure> {
        let ticket = number(ticket);
        let request = Request {
            bytes: request.size(),
            submission: Submission {
                id: request.id.unwrap_or(TxnId(u128::from(ticket))),
                fingerprint: request.fingerprint(),
                request,
                prepared: Prepared::default(),
                ticket,
            },
            queued_at_ms,
        };
        self.handle(Event::Submitted(Box::new(request)))
    }

    pub fn handle(&mut self, event: Event<u32>) -> Result<(), Failure> {
        let replica = self.replica.as_mut().expect("the replica was started");
        replica.handle(event, self.now, &mut self.out)
    }

    pub fn table(&mut self, name: &str) -> TableId {
        if let Some(number) = name.strip_prefix('#') {
            return TableId(number.parse().expect("a table's number"));
        }
        let catalog = self.replica().catalog();
        catalog.by_name(name).expect("the table is there").id
    }

    /// What the replica wants and answers, as text; its jobs are kept until they are to end.
    pub fn taken_out(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for job in self.out.jobs.drain(..) {
            match job {
                Job::Flush(flush) => {
                    lines.push(format!("flush {}", flush.number));
                    self.flushes.push(flush);
                }
                Job::Checkpoint(checkpoint) => {
                    lines.push("checkpoint".to_owned());
                    self.checkpoint = Some(checkpoint);
                }
                Job::Prepare(prepare) => {
                    lines.push("prepare".to_owned());
                    self.prepare = Some(prepare);
                }
                Job::Retain(retain) => {
                    lines.push("retain".to_owned());
                    self.retain = Some(retain);
                }
                Job::SaveWatermark(save) => {
                    lines.push("save".to_owned());
                    self.save = Some(save);
                }
                Job::Release(_) => lines.push("release".to_owned()),
                Job::Send(_) | Job::Fetch(_) | Job::SendSnapshot(_) => {
                    panic!("one node has no others")
                }
            }
        }
        for answer in self.out.answers.drain(..) {
            lines.push(match answer {
                Answer::Decided(ticket, Ok(committed)) => {
                    format!("{ticket} committed at {}", committed.position)
                }
                Answer::Decided(ticket, Err(refusal)) => {
                    format!("{ticket} refused {}", name(&refusal))
                }
                Answer::Readable(ticket, position) => format!("{ticket} readable at {position}"),
                Answer::Members(..) | Answer::Transferred(..) => {
                    panic!("nothing like it is requested")
                }
            });
        }
        lines
    }
}

pub fn put(table: TableId, key: &str, value: &str) -> CommitRequest {
    CommitRequest {
        writes: vec![Write {
            table,
            key: Bytes::copy_from_slice(key.as_bytes()),
            operation: Operation::Put(Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
        }],
        ..CommitRequest::default()
    }
}

fn number(ticket: &str) -> u32 {
    ticket.parse().expect("a ticket is a number")
}

/// The refusal's variant.
fn name(refusal: &Refusal) -> String {
    let text = format!("{refusal:?}");
    text.chars().take_while(|c| c.is_alphanumeric()).collect()
}

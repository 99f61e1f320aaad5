//! The engine over a consensus that does what the test says: leadership is lost, won again, and
//! what was in flight is replaced. What no single voter can show.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use onelog_commit::ValidatorOptions;
use onelog_engine::{
    Applied, Consensus, ConsensusError, Effect, Engine, EngineOptions, Members, Prepared, Progress,
    Submission,
};
use onelog_record::{
    CommitRequest, Committed, Compression, Entry, EntryHeader, EntryKind, Index, Offset, Operation,
    Position, Refusal, Term, TxnId, Write,
};

use crate::support::{Nothing, OneTable, TABLE, rules};

#[derive(Debug, Default)]
struct Script {
    term: Term,
    leads: bool,
    committed: Index,
    end: Position,
    proposed: Vec<Vec<u8>>,
    barriers: Vec<u64>,
    next: VecDeque<Progress>,
}

/// A consensus whose every step the test writes.
#[derive(Clone, Debug, Default)]
struct Scripted(Rc<RefCell<Script>>);

impl Consensus for Scripted {
    fn term(&self) -> Term {
        self.0.borrow().term
    }

    fn leads(&self) -> bool {
        self.0.borrow().leads
    }

    fn may_propose(&self) -> bool {
        self.leads()
    }

    fn committed(&self) -> Index {
        self.0.borrow().committed
    }

    fn end(&self) -> Position {
        self.0.borrow().end
    }

    fn campaign(&mut self) -> Result<(), ConsensusError> {
        Ok(())
    }

    fn tick(&mut self) -> Result<(), ConsensusError> {
        Ok(())
    }

    fn propose(&mut self, payload: Vec<u8>) -> Result<(), ConsensusError> {
        self.0.borrow_mut().proposed.push(payload);
        Ok(())
    }

    fn stored(&mut self, _index: Index) {}

    fn is_alone(&self) -> bool {
        true
    }

    fn read_barrier(&mut self, token: u64) {
        self.0.borrow_mut().barriers.push(token);
    }

    fn poll(&mut self) -> Result<Option<Progress>, ConsensusError> {
        Ok(self.0.borrow_mut().next.pop_front())
    }

    fn change_members(&mut self, _entry: &Entry) -> Result<Members, ConsensusError> {
        Ok(Members::default())
    }

    fn applied(&mut self, index: Index) {
        self.0.borrow_mut().committed = index;
    }
}

struct Node {
    engine: Engine<u32, Scripted>,
    consensus: Scripted,
    rules: OneTable,
    answers: Vec<(u32, Result<Committed, Refusal>)>,
    readable: Vec<(u32, Position)>,
}

impl Node {
    /// A leader of term 1 whose first entry is applied.
    fn leading() -> Self {
        let consensus = Scripted::default();
        let options = EngineOptions {
            compression: Compression::None,
            validator: ValidatorOptions::default(),
        };
        let mut node = Self {
            engine: Engine::new(
                options,
                consensus.clone(),
                Applied::default(),
                std::iter::empty(),
            ),
            consensus,
            rules: rules(),
            answers: Vec::new(),
            readable: Vec::new(),
        };
        node.wins(Term(1));
        node.meets(Progress {
            entries: vec![no_op(1, 1, 0)],
            committed: vec![no_op(1, 1, 0)],
            ..Progress::default()
        });
        assert!(node.engine.admits());
        node
    }

    fn wins(&mut self, term: Term) {
        let mut script = self.consensus.0.borrow_mut();
        (script.term, script.leads) = (term, true);
    }

    fn loses_to(&mut self, term: Term, end: Position) {
        let mut script = self.consensus.0.borrow_mut();
        (script.term, script.leads, script.end) = (term, false, end);
    }

    fn meets(&mut self, progress: Progress) {
        self.consensus.0.borrow_mut().next.push_back(progress);
        let mut effects = Vec::new();
        self.engine.tick(&mut effects).unwrap();
        self.carry_out(effects);
    }

    fn puts(&mut self, ticket: u32) {
        let request = CommitRequest {
            writes: vec![Write {
                table: TABLE,
                key: Bytes::from(format!("key {ticket}")),
                operation: Operation::Put(Bytes::from_static(b"1")),
                headers: Vec::new(),
            }],
            ..CommitRequest::default()
        };
        let submission = Submission {
            request,
            prepared: Prepared::default(),
            id: TxnId(u128::from(ticket)),
            fingerprint: 0,
            ticket,
        };
        let mut effects = Vec::new();
        let view = Nothing(self.engine.applied().position);
        self.engine
            .submit(submission, &view, &self.rules, &mut effects)
            .unwrap();
        self.carry_out(effects);
    }

    /// Seals what is open; answers it as the entry at `index`, appended.
    fn appends(&mut self, term: u64, index: u64) -> Entry {
        let mut effects = Vec::new();
        self.engine.seal(1_000, &mut effects).unwrap();
        self.carry_out(effects);
        let payload = self.consensus.0.borrow_mut().proposed.pop().unwrap();
        let entry = Entry::from_payload(Term(term), Index(index), &payload.into()).unwrap();
        self.consensus.0.borrow_mut().end = entry.header.end();
        self.meets(Progress {
            entries: vec![entry.clone()],
            ..Progress::default()
        });
        entry
    }

    fn carry_out(&mut self, effects: Vec<Effect<u32>>) {
        for effect in effects {
            match effect {
                Effect::Reply(ticket, answer) => self.answers.push((ticket, answer)),
                Effect::Readable(ticket, position) => self.readable.push((ticket, position)),
                Effect::SaveVote(..) | Effect::Append(_) | Effect::Apply(..) => {}
                other => panic!("the script has no {other:?}"),
            }
        }
    }

    fn outcomes(&mut self) -> Vec<(u32, bool)> {
        let answers = std::mem::take(&mut self.answers);
        answers
            .into_iter()
            .map(|(ticket, answer)| (ticket, answer.is_ok()))
            .collect()
    }
}

fn no_op(term: u64, index: u64, at: u64) -> Entry {
    Entry {
        term: Term(term),
        index: Index(index),
        header: EntryHeader::empty(EntryKind::NoOp, Offset(at)),
        body: Bytes::new(),
    }
}

#[test]
fn what_is_in_flight_when_the_leadership_ends_is_never_acknowledged() {
    let mut node = Node::leading();
    node.puts(1);
    node.appends(1, 2);
    node.puts(2);
    // The next leader's own entry takes index 2, and an entry of its own the positions.
    node.loses_to(Term(2), Position(1));
    let mut theirs = Node::leading();
    theirs.puts(7);
    let replacing = Entry {
        term: Term(2),
        index: Index(3),
        ..theirs.appends(1, 2)
    };
    node.meets(Progress {
        lost_leadership: Some(Term(1)),
        entries: vec![no_op(2, 2, 0), replacing.clone()],
        committed: vec![no_op(2, 2, 0), replacing],
        ..Progress::default()
    });
    assert_eq!(node.outcomes(), [(1, false), (2, false)]);
    assert_eq!(node.engine.waiting(), 0);
    assert!(
        !node.engine.has_open(),
        "what was decided and not proposed is gone, too"
    );
}

#[test]
fn a_leader_that_lost_and_won_again_decides_anew() {
    let mut node = Node::leading();
    node.puts(1);
    node.appends(1, 2);
    // Between two polls it lost term 1 and won term 3; what it had appended is gone.
    node.loses_to(Term(3), Position(0));
    node.wins(Term(3));
    node.meets(Progress {
        lost_leadership: Some(Term(1)),
        entries: vec![no_op(3, 2, 0)],
        ..Progress::default()
    });
    assert_eq!(node.outcomes(), [(1, false)]);
    node.puts(2);
    assert_eq!(
        node.outcomes(),
        [(2, false)],
        "its own entry is not applied yet"
    );
    node.meets(Progress {
        committed: vec![no_op(3, 2, 0)],
        ..Progress::default()
    });
    node.puts(3);
    let entry = node.appends(3, 3);
    assert_eq!(
        entry.header.base_offset,
        Offset(0),
        "the lost offset is given out again"
    );
    node.meets(Progress {
        committed: vec![entry],
        ..Progress::default()
    });
    assert_eq!(node.outcomes(), [(3, true)]);
}

#[test]
fn a_barrier_is_answered_when_its_index_is_applied_in_whatever_order() {
    let mut node = Node::leading();
    node.puts(1);
    let entry = node.appends(1, 2);
    let mut effects = Vec::new();
    node.engine.read_barrier(10, &mut effects).unwrap();
    node.engine.read_barrier(11, &mut effects).unwrap();
    let tokens = node.consensus.0.borrow().barriers.clone();
    node.meets(Progress {
        barriers: vec![(tokens[1], Index(1)), (tokens[0], Index(2))],
        ..Progress::default()
    });
    assert_eq!(node.readable, [(11, Position(0))]);
    node.meets(Progress {
        committed: vec![entry],
        ..Progress::default()
    });
    assert_eq!(node.readable, [(11, Position(0)), (10, Position(1))]);
}

#[test]
fn a_barrier_that_is_open_when_the_leadership_ends_is_refused() {
    let mut node = Node::leading();
    let mut effects = Vec::new();
    node.engine.read_barrier(10, &mut effects).unwrap();
    node.loses_to(Term(2), Position(0));
    node.meets(Progress {
        lost_leadership: Some(Term(1)),
        ..Progress::default()
    });
    assert_eq!(node.outcomes(), [(10, false)]);
    assert_eq!(node.readable, []);
}

//! The seam to consensus: what the engine needs of whatever orders its entries.
//!
//! ```text
//!            propose ──▶ ┌───────────┐ ──▶ leadership lost             (poll, in this order)
//!             stored ──▶ │           │ ──▶ vote, snapshot, cut, entries to append
//!               tick ──▶ │ Consensus │ ──▶ messages, reads of the log
//!       read_barrier ──▶ │           │ ──▶ entries that are committed
//!            applied ──▶ └───────────┘ ──▶ read barriers that are passed
//!
//!   1 ───────── committed ───────── end
//!   │  decided, never replaced  │  appended, may be lost with the leadership  │
//! ```
//!
//! The trait speaks of the log as this node sees it and of nothing that only one kind of consensus
//! has: [`crate::Raft`] gets its majority from voters that flush, an order that comes from outside
//! (a ledger) gets it from the ledger. Input that only one of them has, such as messages of peers or
//! answers of a ledger, is a method of that type and not of the trait; what it leads to comes out of
//! [`Consensus::poll`] like everything else. No implementation does I/O, starts threads or reads
//! a clock.

use std::fmt::Debug;

use onelog_record::{Entry, Index, NodeId, PayloadError, Position, Term};

use crate::raft::{Fetch, Members, Message, SnapshotMark};

/// Orders entries and says when they are decided.
///
/// - What is committed MUST never be replaced, and MUST come out of [`Consensus::poll`] once, in
///   order and without a gap.
/// - An entry MUST be reported as appended before it is reported as committed.
/// - A leader of term T MUST begin with an entry of its own term that carries no transactions
///   ([`onelog_record::EntryKind::NoOp`]): when that is committed, all that any earlier leader may
///   have acknowledged is below it.
/// - An implementation SHOULD do nothing between two calls: the same calls give the same answers.
pub trait Consensus: Debug {
    /// The highest term seen. MUST never go down.
    fn term(&self) -> Term;

    /// Whether this node leads in [`Consensus::term`] as far as it knows.
    fn leads(&self) -> bool;

    /// Whether [`Consensus::propose`] would be taken now: this node leads, is not handing the
    /// leadership on, and what it proposed before and is not committed yet leaves room.
    fn may_propose(&self) -> bool;

    /// The highest index known to be committed.
    fn committed(&self) -> Index;

    /// The position behind the last entry that was appended, committed or not. Records that are
    /// proposed next are numbered from here on.
    fn end(&self) -> Position;

    /// Seeks the leadership.
    ///
    /// # Errors
    /// Final, like every error here.
    fn campaign(&mut self) -> Result<(), ConsensusError>;

    /// A fixed while has passed. The driver MUST call it about as often as it said it would; timers
    /// of elections and of silence count these calls and nothing else.
    ///
    /// # Errors
    /// Final.
    fn tick(&mut self) -> Result<(), ConsensusError>;

    /// Proposes a sealed payload. MUST only be called while this node leads. The payload MUST be
    /// appended in this term directly behind [`Consensus::end`], or never: it MUST NOT be handed on
    /// to another leader, who has not validated it.
    ///
    /// # Errors
    /// Final: the payload may or may not be in the log.
    fn propose(&mut self, payload: Vec<u8>) -> Result<(), ConsensusError>;

    /// Everything up to `index` is durable on this node, of the entries as they were reported last:
    /// while a [`Progress::cut`] is still to be carried out, nothing MUST be reported.
    fn stored(&mut self, index: Index);

    /// Asks from which index on a read is linearizable: with what is applied up to there it shows
    /// everything that any node had acknowledged before this call. Answered by `token` in
    /// [`Progress::barriers`], in any order. MUST only be called while this node leads and the first
    /// entry of its own term is applied. A barrier that is open when the leadership is lost is never
    /// answered.
    fn read_barrier(&mut self, token: u64);

    /// Whether this node is the only voter: while it leads, nothing is acknowledged elsewhere.
    fn is_alone(&self) -> bool;

    /// What is to be done next; `None` when there is nothing. MUST be called after every other
    /// call, until it answers `None`.
    ///
    /// # Errors
    /// Final.
    fn poll(&mut self) -> Result<Option<Progress>, ConsensusError>;

    /// A committed change of the members is being applied. MUST be called before
    /// [`Consensus::applied`] with its index. Answers the members from there on.
    ///
    /// # Errors
    /// Final.
    fn change_members(&mut self, entry: &Entry) -> Result<Members, ConsensusError>;

    /// The entry at `index` and all before it are applied; the implementation MAY forget them.
    fn applied(&mut self, index: Index);
}

/// What consensus wants done, in the order of the fields.
#[derive(Debug, Default)]
pub struct Progress {
    /// The leadership of this term has ended. MUST come before anything of a later term: what this
    /// node had appended may be replaced by it. MUST be reported as well when this node has been
    /// elected again in the meantime.
    pub lost_leadership: Option<Term>,
    /// The term and vote to flush before anything else leaves this node.
    pub vote: Option<(Term, u64)>,
    /// The state and the log are to be replaced by this snapshot, which is here already.
    pub install: Option<SnapshotMark>,
    /// The log's entries from here on are to be removed: a later leader has others.
    pub cut: Option<Index>,
    /// Entries to append to the log and to flush. [`Consensus::stored`] answers them.
    pub entries: Vec<Entry>,
    /// To be sent, in any order; any of them may get lost.
    pub messages: Vec<Message>,
    /// Entries to be read from the log for a follower.
    pub fetches: Vec<Fetch>,
    /// Entries that are committed now.
    pub committed: Vec<Entry>,
    /// Read barriers that are answered: token, and the index that must be applied first.
    pub barriers: Vec<(u64, Index)>,
}

impl Progress {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            lost_leadership,
            vote,
            install,
            cut,
            entries,
            messages,
            fetches,
            committed,
            barriers,
        } = self;
        let nothing = lost_leadership.is_none() && vote.is_none() && install.is_none();
        let nothing = nothing && cut.is_none() && entries.is_empty() && messages.is_empty();
        nothing && fetches.is_empty() && committed.is_empty() && barriers.is_empty()
    }
}

/// Consensus could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The implementation refused a step.
    #[error("consensus refused: {0}")]
    Refused(Box<dyn std::error::Error + Send + Sync>),
    /// An entry that consensus carried is malformed.
    #[error("entry {index} is malformed: {cause}")]
    Payload { index: Index, cause: PayloadError },
    /// A change of the members cannot be read.
    #[error("the change of members in entry {index} is malformed: {cause}")]
    Members {
        index: Index,
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cluster counts on entries of this node that it does not have.
    #[error(
        "the leader knows that this node had the log up to index {committed}, but it ends at {last}: the disk has lost acknowledged entries; remove this node from the cluster and add it again, empty and under a new number"
    )]
    LostTail { committed: Index, last: Index },
    /// The leader's log has something else where this node's is committed.
    #[error(
        "entry {index} is committed on this node with term {own}, but node {leader}, which leads, has it with term {theirs}: a majority of the voters has lost acknowledged entries, for example by earlier copies of folders that were put back. What was lost is in the folder of this node: keep it; {DIVERGED_ADVICE}"
    )]
    CommitReplaced {
        leader: NodeId,
        index: Index,
        own: Term,
        theirs: Term,
    },
    /// A follower's log goes on, committed, where that of this node, which leads, ends.
    #[error(
        "node {node} has the log up to index {confirmed}, but that of this node, which leads, ends at {last}: a majority of the voters has lost acknowledged entries, for example by earlier copies of folders that were put back. What was lost is in the folder of node {node}: keep it; {DIVERGED_ADVICE}"
    )]
    FollowerAhead {
        node: NodeId,
        confirmed: Index,
        last: Index,
    },
}

/// What to do when the logs of two nodes are no longer one.
const DIVERGED_ADVICE: &str =
    "see 'An earlier copy of a folder' in docs/operations.md before anything is started again";

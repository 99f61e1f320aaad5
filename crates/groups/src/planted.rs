//! Bugs planted on purpose, behind the feature `planted-bugs`: a test turns one on and asserts that
//! the simulation then fails.

onelog_record::planted_bugs! {
    /// A member of a former generation is served.
    AnyGenerationCommits = 1,
    /// An offset commit is answered at once, and lost with the coordinator.
    AnswerBeforeStored = 2,
    /// The leader's assignment is handed out before it is stored.
    AssignBeforeStored = 3,
    /// A request that is repeated leaves the former one without an answer.
    ReplacedRequestUnanswered = 4,
}

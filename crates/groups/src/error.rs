//! What a request is answered with, in the numbers that Kafka's clients know.

/// The discriminants are Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(i16)]
pub enum ErrorCode {
    #[error("no error")]
    None = 0,
    #[error("the server could not do it, and the client should not try again")]
    UnknownServerError = -1,
    #[error("there is no such topic or partition")]
    UnknownTopicOrPartition = 3,
    #[error("the text stored with an offset is too long")]
    OffsetMetadataTooLarge = 12,
    #[error("the coordinator is still reading what it stored")]
    CoordinatorLoadInProgress = 14,
    #[error("the coordinator cannot serve now, the client should try again")]
    CoordinatorNotAvailable = 15,
    #[error("this node does not coordinate the group")]
    NotCoordinator = 16,
    #[error("the group is in another generation")]
    IllegalGeneration = 22,
    #[error("the group has members with other protocols")]
    InconsistentGroupProtocol = 23,
    #[error("the group's id is empty or too long")]
    InvalidGroupId = 24,
    #[error("the group has no such member")]
    UnknownMemberId = 25,
    #[error("the session time-out is outside the bounds of the server")]
    InvalidSessionTimeout = 26,
    #[error("the group is rebalancing, the member has to join again")]
    RebalanceInProgress = 27,
    #[error("the commit has too many offsets, or they take too much room")]
    InvalidCommitOffsetSize = 28,
    #[error("a field is outside the bounds of the server")]
    InvalidRequest = 42,
    #[error("the group has members")]
    NonEmptyGroup = 68,
    #[error("there is no such group")]
    GroupIdNotFound = 69,
    #[error("the member has to join again with the id that it is given")]
    MemberIdRequired = 79,
    #[error("the group, or the server, has as many members as it may have")]
    GroupMaxSizeReached = 81,
    #[error("another member has the instance id now")]
    FencedInstanceId = 82,
    #[error("members of the group read the topic")]
    GroupSubscribedToTopic = 86,
}

impl ErrorCode {
    pub fn number(self) -> i16 {
        self as i16
    }
}

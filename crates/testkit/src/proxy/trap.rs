//! What a proxy waits for in the bytes that pass through, to cut at an exact place.

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// Armed by a test, springs once.
#[derive(Debug)]
pub(crate) enum Trap {
    /// Cut every connection when so many more bytes went this way.
    AfterBytes { direction: Direction, left: usize },
    /// Let the request pass in which these bytes are; keep its answer.
    AnswerAfter { pattern: Vec<u8> },
}

/// What happens to a piece of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// Pass so many bytes on, then cut every connection.
    PassAndCutAll(usize),
    /// Pass it on and keep what this connection's server answers from now on.
    PassAndKeepAnswer,
}

/// Judges a piece of data and clears the trap when it springs. `seen` are the last bytes that went
/// this way on the same connection: a pattern may come in pieces.
pub(crate) fn judge(
    trap: &mut Option<Trap>,
    seen: &mut Vec<u8>,
    going: Direction,
    data: &[u8],
) -> Verdict {
    match trap {
        Some(Trap::AfterBytes { direction, left }) if *direction == going => {
            if data.len() < *left {
                *left -= data.len();
                return Verdict::Pass;
            }
            let passed = *left;
            *trap = None;
            Verdict::PassAndCutAll(passed)
        }
        Some(Trap::AnswerAfter { pattern }) if going == Direction::ToServer => {
            seen.extend_from_slice(data);
            if seen.windows(pattern.len()).any(|window| window == pattern) {
                *trap = None;
                return Verdict::PassAndKeepAnswer;
            }
            let kept = seen.len().min(pattern.len() - 1);
            seen.drain(..seen.len() - kept);
            Verdict::Pass
        }
        _ => {
            seen.clear();
            Verdict::Pass
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_in_pieces_and_only_once() {
        let pattern = b"COMMIT".to_vec();
        let mut trap = Some(Trap::AnswerAfter { pattern });
        let mut seen = Vec::new();
        let mut judge = |data: &[u8]| judge(&mut trap, &mut seen, Direction::ToServer, data);
        assert_eq!(judge(b"BEGIN; COM"), Verdict::Pass);
        assert_eq!(judge(b"M"), Verdict::Pass);
        assert_eq!(judge(b"IT;"), Verdict::PassAndKeepAnswer);
        assert_eq!(judge(b"COMMIT"), Verdict::Pass);
    }

    #[test]
    fn answers_do_not_contain_the_pattern_of_a_request() {
        let pattern = b"COMMIT".to_vec();
        let mut trap = Some(Trap::AnswerAfter { pattern });
        let verdict = judge(&mut trap, &mut Vec::new(), Direction::ToClient, b"COMMIT");
        assert_eq!(verdict, Verdict::Pass);
        assert!(trap.is_some());
    }

    #[test]
    fn bytes_are_counted_in_one_direction() {
        let direction = Direction::ToClient;
        let mut trap = Some(Trap::AfterBytes { direction, left: 5 });
        let mut judge = |going, data: &[u8]| judge(&mut trap, &mut Vec::new(), going, data);
        assert_eq!(judge(Direction::ToServer, b"123456"), Verdict::Pass);
        assert_eq!(judge(Direction::ToClient, b"1234"), Verdict::Pass);
        assert_eq!(judge(Direction::ToClient, b"56"), Verdict::PassAndCutAll(1));
        assert_eq!(judge(Direction::ToClient, b"78"), Verdict::Pass);
    }
}

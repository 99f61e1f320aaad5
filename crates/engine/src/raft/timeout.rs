//! How long a node waits before it seeks the leadership: drawn from a seed, so that a simulation
//! repeats itself.

use super::ELECTION_TICKS;

#[derive(Debug)]
pub(super) struct ElectionTimeout {
    state: u64,
    ticks: usize,
}

impl ElectionTimeout {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            state: seed,
            ticks: ELECTION_TICKS,
        }
    }

    /// The timeout in force, from one up to two times [`ELECTION_TICKS`]; another one each time that
    /// the waiting begins anew.
    pub(super) const fn ticks(&mut self, begins_anew: bool) -> usize {
        if begins_anew {
            self.ticks = ELECTION_TICKS + (self.next() % ELECTION_TICKS as u64) as usize;
        }
        self.ticks
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_differ_stay_in_their_bounds_and_repeat_with_the_seed() {
        let drawn = |seed| {
            let mut timeout = ElectionTimeout::new(seed);
            (0..100).map(|_| timeout.ticks(true)).collect::<Vec<_>>()
        };
        let ticks = drawn(7);
        assert!(
            ticks
                .iter()
                .all(|ticks| (ELECTION_TICKS..2 * ELECTION_TICKS).contains(ticks))
        );
        assert!(ticks.iter().any(|other| *other != ticks[0]));
        assert_eq!(ticks, drawn(7));
        assert_ne!(ticks, drawn(8));
        let mut timeout = ElectionTimeout::new(7);
        let first = timeout.ticks(true);
        assert_eq!(timeout.ticks(false), first);
    }
}

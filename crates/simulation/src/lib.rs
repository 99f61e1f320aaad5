//! Simulated crashes and history checkers: seeded, in one thread

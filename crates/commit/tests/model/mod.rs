//! A brute-force model of what a commit must answer, and a driver that sets it against the
//! validator on random transactions.

pub mod driver;
pub mod generate;
pub mod oracle;
pub mod values;
pub mod world;

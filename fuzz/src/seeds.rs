//! Seeds: valid inputs to start from. They are made by the targets themselves, so that they always
//! have the present format.

use std::path::PathBuf;

/// Names the folder into which a target writes its seeds, instead of fuzzing.
pub const SEEDS_INTO: &str = "ONELOG_FUZZ_SEEDS_INTO";

/// Writes `seeds` and ends the process, when that is what it was started for.
pub fn hand_out(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os(SEEDS_INTO).map(PathBuf::from) else {
        return;
    };
    std::fs::create_dir_all(&folder).expect("the folder of the seeds can be made");
    for (number, seed) in seeds().into_iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), seed)
            .expect("a seed can be written");
    }
    std::process::exit(0);
}

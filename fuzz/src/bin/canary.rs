//! Must fail: proves that coverage guides the fuzzer and that a panic ends it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onelog_fuzz::seeds::hand_out;

fuzz_target!(init: hand_out(|| vec![vec![0; 8]]), |data: &[u8]| {
    let mut right = 0;
    for (found, wanted) in data.iter().zip(b"log!") {
        if found != wanted {
            return;
        }
        right += 1;
        match right {
            1 => std::hint::black_box(1),
            2 => std::hint::black_box(2),
            3 => std::hint::black_box(3),
            _ => panic!("the canary sings"),
        };
    }
});

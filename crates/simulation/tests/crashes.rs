//! A whole node on simulated disks, crashed at every step.

use onelog_log::CrashMode;
use onelog_simulation::machine::{MachineOptions, World, survey};
use onelog_simulation::workloads;

const SEED: u64 = 7;

fn world() -> World {
    World::new(SEED, MachineOptions::default(), workloads::all())
}

#[test]
fn a_run_without_faults_is_proved() {
    let start = std::time::Instant::now();
    let (points, report) = survey(&world).unwrap();
    println!("{} points, {:?}\n{report}", points.len(), start.elapsed());
    let log = points
        .iter()
        .filter(|p| p.which == onelog_simulation::machine::Which::Log)
        .count();
    println!("log {log}");
    assert!(report.is_clean(), "{report}");
}

#[test]
fn probe() {
    let (points, _) = survey(&world).unwrap();
    let start = std::time::Instant::now();
    let mut n = 0;
    for point in points.iter().step_by(40) {
        for mode in CrashMode::ALL {
            let report = onelog_simulation::machine::crash_at(&world, *point, mode);
            n += 1;
            assert!(report.is_clean(), "{point:?} {mode:?}\n{report}");
        }
    }
    println!("{n} in {:?}", start.elapsed());
}

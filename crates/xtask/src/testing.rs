//! `tests`: every test of the workspace. Cargo compiles them and runs their binaries one behind the
//! other, though most of them wait for servers, disks and elections; here several run at once. The
//! largest come first, so that none of them is alone at the end. What a binary prints is shown when
//! it has ended; one that does not end is stopped and named.
//!
//! Threads: one for each binary that runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::{Error, files};

/// Binaries at once for each processor.
const AT_ONCE_PER_PROCESSOR: usize = 2;
/// The slowest takes some minutes; `--full` takes hours.
const BINARY_SECONDS_MAX: u64 = 30 * 60;
const FULL_BINARY_SECONDS_MAX: u64 = 12 * 60 * 60;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A line of `cargo test --message-format=json` that names an executable.
#[derive(Debug, Deserialize)]
struct Artifact {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    executable: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
    target: Option<Target>,
}

#[derive(Debug, Default, Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Debug, Deserialize)]
struct Target {
    src_path: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Binary {
    executable: PathBuf,
    /// Where its tests find their files, as with cargo.
    folder: PathBuf,
    pub source: String,
    bytes: u64,
}

/// How binaries are run.
#[derive(Debug)]
pub struct Limits {
    pub at_once: usize,
    /// One that does not end by then is stopped.
    pub seconds_max: u64,
}

/// How a run of a binary of tests ended, and all that it printed.
#[derive(Debug)]
pub struct Ran {
    pub passed: bool,
    pub output: String,
    pub seconds: f64,
}

/// Whether all tests passed.
pub fn run() -> Result<bool, Error> {
    let root = files::root();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = Limits {
        at_once: processors * AT_ONCE_PER_PROCESSOR,
        seconds_max: seconds_max(),
    };
    let ran = run_all(compile(&root, &["--workspace"])?, &limits, |binary, ran| {
        let Ran {
            output, seconds, ..
        } = ran;
        println!("     Running {} ({seconds:.1} s)\n{output}", binary.source);
    })?;
    let mut failed: Vec<String> = ran
        .into_iter()
        .filter(|(_, ran)| !ran.passed)
        .map(|(binary, _)| binary.source)
        .collect();
    let documented = files::cargo(&root)
        .args(["test", "--workspace", "--locked", "--doc"])
        .status()
        .map_err(|source| Error::Io {
            context: "cargo test --doc".to_owned(),
            source,
        })?;
    if !documented.success() {
        failed.push("the examples in the documentation".to_owned());
    }
    for source in &failed {
        println!("FAILED: {source}");
    }
    Ok(failed.is_empty())
}

/// The test binaries of what is selected.
pub fn compile(root: &Path, selected: &[&str]) -> Result<Vec<Binary>, Error> {
    let text = files::run(
        files::cargo(root)
            .args(["test", "--locked", "--no-run"])
            .args(selected)
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit()),
        "cargo test --no-run",
    )?;
    let binaries: Vec<Binary> = text
        .lines()
        .filter_map(|line| binary_of(line, root))
        .collect();
    if binaries.is_empty() {
        return Err(Error::Data {
            file: "the answer of cargo test".to_owned(),
            message: "no test binary is named in it".to_owned(),
        });
    }
    Ok(binaries)
}

fn binary_of(line: &str, root: &Path) -> Option<Binary> {
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    if artifact.reason != "compiler-artifact" || !artifact.profile.test {
        return None;
    }
    let executable = artifact.executable?;
    let source = artifact.target?.src_path;
    Some(Binary {
        bytes: std::fs::metadata(&executable).map_or(0, |metadata| metadata.len()),
        executable,
        folder: artifact.manifest_path.parent()?.to_path_buf(),
        source: source
            .strip_prefix(root)
            .unwrap_or(&source)
            .display()
            .to_string(),
    })
}

/// Runs all of them, the largest first, and shows what each did when it has ended.
pub fn run_all(
    mut binaries: Vec<Binary>,
    limits: &Limits,
    show: impl Fn(&Binary, &Ran) + Sync,
) -> Result<Vec<(Binary, Ran)>, Error> {
    binaries.sort_by_key(|binary| binary.bytes);
    let waiting = Mutex::new(binaries);
    let ended = Mutex::new(Vec::new());
    let worker = || -> Result<(), Error> {
        loop {
            let next = lock(&waiting).pop();
            let Some(binary) = next else {
                return Ok(());
            };
            let ran = run_one(&binary, limits.seconds_max)?;
            let mut ended = lock(&ended);
            show(&binary, &ran);
            ended.push((binary, ran));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..limits.at_once).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| {
                Err(Error::Command {
                    command: "a test binary".to_owned(),
                    message: "the thread that waits for it panicked".to_owned(),
                })
            })
        })
    })?;
    let ended = std::mem::take(&mut *lock(&ended));
    Ok(ended)
}

/// Nothing is left half done by a panic while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn run_one(binary: &Binary, seconds_max: u64) -> Result<Ran, Error> {
    let log = binary.executable.with_extension("printed");
    let context = |source| Error::Io {
        context: binary.source.clone(),
        source,
    };
    let out = File::create(&log).map_err(context)?;
    let errors = out.try_clone().map_err(context)?;
    let start = Instant::now();
    let mut child = Command::new(&binary.executable)
        .current_dir(&binary.folder)
        .env("CARGO_MANIFEST_DIR", &binary.folder)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(errors)
        .spawn()
        .map_err(context)?;
    let mut stopped = false;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(context)? {
            break status;
        }
        if start.elapsed().as_secs() >= seconds_max && !stopped {
            child.kill().map_err(context)?;
            stopped = true;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let bytes = std::fs::read(&log).map_err(context)?;
    std::fs::remove_file(&log).map_err(context)?;
    let mut output = String::from_utf8_lossy(&bytes).into_owned();
    if stopped {
        output.push_str(&format!(
            "\nstopped: it did not end within {seconds_max} s; the tests without a result above are those that hang\n"
        ));
    }
    Ok(Ran {
        passed: status.success(),
        output,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn seconds_max() -> u64 {
    if std::env::var_os("ONELOG_TEST_FULL").is_some() {
        FULL_BINARY_SECONDS_MAX
    } else {
        BINARY_SECONDS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_cargo_prints_the_test_binaries_are_run() {
        let line = |profile: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/here/crates/log/Cargo.toml","target":{{"src_path":"/here/crates/log/tests/crash.rs"}},"profile":{{"test":{profile}}},"executable":{executable}}}"#
            )
        };
        let root = Path::new("/here");
        let binary = binary_of(&line(true, r#""/here/target/debug/deps/crash-1""#), root).unwrap();
        assert_eq!(binary.source, "crates/log/tests/crash.rs");
        assert_eq!(binary.folder, Path::new("/here/crates/log"));
        assert!(binary_of(&line(false, r#""/here/target/debug/onelog""#), root).is_none());
        assert!(binary_of(&line(true, "null"), root).is_none());
        assert!(binary_of(r#"{"reason":"build-finished","success":true}"#, root).is_none());
    }
}

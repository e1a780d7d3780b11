//! The real coordinator and real workers on a simulated network, where processes die, stand still and lose each other: whatever
//! happens, the run ends with the bytes of an undisturbed one.
//!
//! Everything that happens follows from a seed. One that fails prints its schedule; `CLIENTELE_SIM_SEED=17 cargo test --release
//! --test simulation` runs it alone and shows what was logged, `CLIENTELE_SIM_SEEDS=1000` runs more of them.

#[path = "simulation/cluster.rs"]
mod cluster;
mod common;
#[path = "simulation/schedule.rs"]
mod schedule;
#[path = "simulation/table.rs"]
mod table;
#[path = "simulation/trace.rs"]
mod trace;
#[path = "simulation/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clientele_coordinator::cluster::Fault;
use clientele_data::Folder;
use clientele_data::run_dir::{self, COMMITTED};
use clientele_protocol::jobs::JobState;
use serde_json::Value;

use cluster::{Ended, simulate};
use schedule::Schedule;
use table::Fixture;
use trace::Trace;

/// Why a seed failed, and what was logged.
struct Failure {
    why: String,
    trace: String,
}

/// Runs a seed with a rule broken or none and checks what must hold; the log comes with the end.
fn check_seed(
    fixture: &Fixture,
    seed: u64,
    broken: Option<Fault>,
) -> Result<(Ended, String), Failure> {
    let mut schedule = Schedule::of(seed);
    loop {
        let room = fixture.room();
        let trace = Trace::default();
        let ended = trace.of(|| simulate(&schedule, &room, broken));
        let checked = ended.and_then(|ended| {
            check_end(&ended, &room.out(), &fixture.expected)?;
            Ok(ended)
        });
        let ended = checked.map_err(|why| Failure {
            why: format!("seed {seed}: {why}\n{schedule}"),
            trace: trace.text(),
        })?;
        if !ended.fired.is_empty() {
            return Ok((ended, trace.text()));
        }
        schedule = schedule.earlier();
    }
}

fn check_end(ended: &Ended, out: &Path, expected: &Value) -> Result<(), String> {
    let status = &ended.status;
    if status.state != JobState::Done {
        return Err(format!("it ended {:?}: {:?}", status.state, status.error));
    }
    let summary: Value = serde_json::from_str(status.summary.as_deref().unwrap_or_default())
        .map_err(|error| format!("its summary is {:?}: {error}", status.summary))?;
    if summary != *expected {
        return Err(format!("it found {summary}, undisturbed {expected}"));
    }
    let committed = run_dir::verify(Folder::local(out)).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    list(out, "", &mut found);
    let mut names: Vec<String> = committed.files.into_keys().collect();
    names.push(COMMITTED.to_owned());
    names.sort();
    found.sort();
    match found == names {
        true => Ok(()),
        false => Err(format!("the folder holds {found:?}, committed {names:?}")),
    }
}

fn list(dir: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_string_lossy());
        match path.is_dir() {
            true => list(&path, &format!("{name}/"), found),
            false => found.push(name),
        }
    }
}

/// Runs seeds on all cores, each on one; what they ended with, by seed.
fn run_seeds(
    fixture: &Fixture,
    seeds: std::ops::Range<u64>,
    broken: Option<Fault>,
) -> BTreeMap<u64, Result<(Ended, String), Failure>> {
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = check_seed(fixture, seed, broken);
                    results.lock().unwrap().insert(seed, result);
                }
            });
        }
    });
    results.into_inner().unwrap()
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

#[test]
fn whatever_happens_the_run_ends_with_the_same_bytes() {
    let fixture = Fixture::shared();
    let alone = setting("CLIENTELE_SIM_SEED");
    let seeds = match alone {
        Some(seed) => seed..seed + 1,
        None => 0..setting("CLIENTELE_SIM_SEEDS").unwrap_or(200),
    };
    let started = Instant::now();
    let results = run_seeds(&fixture, seeds.clone(), None);
    let mut fired: BTreeMap<String, u64> = BTreeMap::new();
    let (mut n_repeated, mut simulated, mut n_failed) = (0, Duration::ZERO, 0);
    for (seed, result) in results {
        match result {
            Ok((ended, trace)) => {
                n_repeated += ended.n_repeated;
                simulated += ended.took;
                for fault in ended.fired {
                    let name = format!("{fault:?}");
                    let kind = name.split('(').next().unwrap_or_default();
                    *fired.entry(kind.to_owned()).or_default() += 1;
                }
                if alone.is_some() {
                    println!("{trace}");
                }
            }
            Err(Failure { why, trace }) => {
                n_failed += 1;
                println!("{why}");
                println!(
                    "alone: CLIENTELE_SIM_SEED={seed} cargo test --release --test simulation\n"
                );
                if alone.is_some() {
                    println!("{trace}");
                }
            }
        }
    }
    let n_seeds = seeds.end - seeds.start;
    println!(
        "{n_seeds} seeds, {:.0} s, simulated {:.0} s; {n_repeated} answers came twice; {fired:?}",
        started.elapsed().as_secs_f64(),
        simulated.as_secs_f64()
    );
    assert_eq!(n_failed, 0, "of {n_seeds} seeds");
    if n_seeds >= 100 {
        assert_eq!(fired.len(), 12, "every kind of fault has come: {fired:?}");
        assert!(n_repeated > n_seeds, "n_repeated={n_repeated}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let fixture = Fixture::shared();
    // Side by side with others, so that what depends on the test process shows.
    let traces = || {
        let results = run_seeds(&fixture, 0..12, None).into_iter();
        results.map(|(seed, result)| match result {
            Ok((_, trace)) => (seed, trace),
            Err(failure) => panic!("{}", failure.why),
        })
    };
    for ((seed, first), (_, second)) in traces().zip(traces()) {
        assert!(first.lines().count() > 20, "{first}");
        let differ = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

#[test]
fn an_answer_that_counts_each_time_it_comes_is_noticed() {
    let fixture = Fixture::shared();
    let results = run_seeds(&fixture, 0..8, Some(Fault::CountTwice));
    let n_failed = results.values().filter(|result| result.is_err()).count();
    println!("{n_failed} of {} seeds complain", results.len());
    assert!(n_failed > 0, "a broken rule went unnoticed");
}

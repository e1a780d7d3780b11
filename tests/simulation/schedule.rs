//! What a seed does to a cluster: who works how fast, and what goes wrong when.

use std::fmt;
use std::time::Duration;

use crate::common::Mix;

/// Answers after which the last fault comes; an undisturbed run has about a hundred.
const LAST_FAULT: u64 = 90;

/// All that is up to the seed.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub seed: u64,
    pub workers: Vec<WorkerPlan>,
    /// Messages take up to so long.
    pub latency: Duration,
    /// Of all answers, those that come twice.
    pub repeated: f64,
    /// In the order in which they come.
    pub faults: Vec<Planned>,
}

#[derive(Debug, Clone)]
pub struct WorkerPlan {
    /// Of a task, on average.
    pub pace: Duration,
    /// Every so many tasks one takes very long.
    pub stalls_every: u64,
    pub joins_after: Duration,
}

/// A fault and when it comes: answers rather than seconds, so that it comes while the run lasts, however fast that is.
#[derive(Debug, Clone)]
pub struct Planned {
    pub after_answers: u64,
    pub and_then: Duration,
    pub fault: Fault,
    pub lasts: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A worker's process ends, and another one is started.
    KillWorker(usize),
    /// As if its machine had lost power: nobody says goodbye for it.
    UnplugWorker(usize),
    KillCoordinator,
    UnplugCoordinator,
    /// A worker stands still: everything to and from it waits.
    PauseWorker(usize),
    PauseCoordinator,
    /// What is on the way between worker and coordinator is lost, both ways or one.
    Partition(usize),
    Deafen(usize),
    Mute(usize),
    /// A worker's messages take this many milliseconds.
    Delay(usize, u64),
    /// A worker is asked to leave, and comes back.
    Drain(usize),
    /// The client hears nothing of the coordinator.
    CutOffClient,
}

impl Schedule {
    pub fn of(seed: u64) -> Self {
        let mut mix = Mix(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let n_workers = 3 + below(&mut mix, 3);
        let workers = (0..n_workers).map(|nth| WorkerPlan {
            pace: millis(&mut mix, 20, 400),
            stalls_every: 5 + below(&mut mix, 40) as u64,
            joins_after: match nth {
                0 => Duration::ZERO,
                _ => millis(&mut mix, 0, 10_000),
            },
        });
        let workers = workers.collect();
        let latency = millis(&mut mix, 5, 120);
        let repeated = mix.next() * 0.3;
        let n_faults = 2 + below(&mut mix, 6);
        let mut faults: Vec<Planned> = (0..n_faults)
            .map(|_| planned(&mut mix, n_workers))
            .collect();
        faults.sort_by_key(|planned| planned.after_answers);
        Self {
            seed,
            workers,
            latency,
            repeated,
            faults,
        }
    }

    /// The same faults, sooner.
    pub fn earlier(mut self) -> Self {
        for planned in &mut self.faults {
            planned.after_answers /= 2;
            planned.and_then /= 2;
        }
        self
    }
}

fn planned(mix: &mut Mix, n_workers: usize) -> Planned {
    let worker = below(mix, n_workers);
    let fault = match below(mix, 16) {
        0..3 => Fault::KillWorker(worker),
        3 => Fault::UnplugWorker(worker),
        4 | 5 => Fault::KillCoordinator,
        6 => Fault::UnplugCoordinator,
        7 | 8 => Fault::PauseWorker(worker),
        9 => Fault::PauseCoordinator,
        10 => Fault::Partition(worker),
        11 => Fault::Deafen(worker),
        12 => Fault::Mute(worker),
        13 => Fault::Delay(worker, 200 + below(mix, 2_000) as u64),
        14 => Fault::Drain(worker),
        _ => Fault::CutOffClient,
    };
    Planned {
        after_answers: below(mix, LAST_FAULT as usize) as u64,
        and_then: millis(mix, 0, 500),
        fault,
        // Often longer than a lease, and often shorter.
        lasts: millis(mix, 100, 12_000),
    }
}

fn below(mix: &mut Mix, n: usize) -> usize {
    (mix.next() * n as f64) as usize
}

fn millis(mix: &mut Mix, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + (mix.next() * (to - from) as f64) as u64)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (latency, repeated) = (self.latency, self.repeated * 100.0);
        writeln!(
            f,
            "messages take up to {latency:?}; {repeated:.0} % of answers come twice"
        )?;
        for (nth, worker) in self.workers.iter().enumerate() {
            let WorkerPlan {
                pace,
                stalls_every,
                joins_after,
            } = worker;
            writeln!(
                f,
                "{}: joins after {joins_after:?}, {pace:?} a task, every {stalls_every}th very long",
                name(nth)
            )?;
        }
        for Planned {
            after_answers,
            and_then,
            fault,
            lasts,
        } in &self.faults
        {
            writeln!(
                f,
                "{after_answers} answers and {and_then:?}: {fault:?} for {lasts:?}"
            )?;
        }
        Ok(())
    }
}

/// The host of a worker.
pub fn name(worker: usize) -> String {
    format!("worker-{worker}")
}

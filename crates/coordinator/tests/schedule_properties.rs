//! The schedule against a model of a few sets: whatever workers do and in whatever order, every part counts once and the stage ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clientele_coordinator::schedule::{Counted, Fault, MAX_DEATHS, Schedule, Stage};
use clientele_protocol::{Answer, PartId, StageSeq, WorkerId};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};

/// What happens next; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Happens {
    /// A worker joins and says that it has some rows.
    Join(Vec<u32>),
    /// One that is there says again that it has opened the run.
    JoinAgain(usize),
    Leave(usize),
    Lose(usize),
    /// Nothing was heard of it for so many milliseconds.
    LoseSilent(usize, u64),
    /// A worker replies to its oldest task.
    Answer(usize),
    /// It cannot.
    Fail(usize),
    /// A reply that came before comes again.
    Again(usize),
    /// A worker that is gone had answered.
    Late(usize),
    /// A worker answers what nobody can have asked.
    Foreign(usize, u32),
    /// Milliseconds pass.
    Pass(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => prop::collection::vec(0..12_u32, 0..4).prop_map(Happens::Join),
        1 => any::<usize>().prop_map(Happens::JoinAgain),
        1 => any::<usize>().prop_map(Happens::Leave),
        1 => any::<usize>().prop_map(Happens::Lose),
        1 => (any::<usize>(), 0..8_000_u64).prop_map(|(n, ms)| Happens::LoseSilent(n, ms)),
        12 => any::<usize>().prop_map(Happens::Answer),
        1 => any::<usize>().prop_map(Happens::Fail),
        2 => any::<usize>().prop_map(Happens::Again),
        2 => any::<usize>().prop_map(Happens::Late),
        1 => (any::<usize>(), 0..20_u32).prop_map(|(n, part)| Happens::Foreign(n, part)),
        4 => (0..5_000_u64).prop_map(Happens::Pass),
    ]
}

type Task = (StageSeq, Vec<PartId>);

/// What must be true of the schedule, kept beside it.
#[derive(Default)]
struct Model {
    schedule: Schedule,
    now: Duration,
    seq: StageSeq,
    n_parts: u32,
    /// Tasks that each worker has been given and has not replied to, oldest first.
    owed: BTreeMap<WorkerId, Vec<Task>>,
    /// Tasks of workers that are gone.
    gone: Vec<(WorkerId, Task)>,
    /// Replies so far.
    replied: Vec<(WorkerId, Task)>,
    answered: BTreeSet<PartId>,
    /// Losses and failures that a part was part of.
    deaths: BTreeMap<PartId, u32>,
    n_joined: u32,
    n_stages: u32,
    /// A part has taken down so many workers that the run is over.
    is_over: bool,
}

impl Model {
    fn new(n_parts: u32, fault: Option<Fault>) -> Self {
        let mut model = Self {
            schedule: Schedule::new(true).with_fault(fault),
            ..Self::default()
        };
        model.open(n_parts);
        model
    }

    fn open(&mut self, n_parts: u32) {
        self.n_parts = n_parts;
        self.answered.clear();
        self.deaths.clear();
        let seq = self.seq.0;
        self.schedule.open_stage(Stage {
            seq: self.seq,
            name: ["statistics", "duplicates", "passes"][seq as usize % 3],
            rows: (0..n_parts).map(|part| 100 + u64::from(part)).collect(),
            keeps_homes: seq % 3 != 1,
        });
    }

    fn worker(&self, choice: usize) -> Option<WorkerId> {
        let n_workers = self.owed.len().max(1);
        self.owed.keys().nth(choice % n_workers).copied()
    }

    fn happen(&mut self, what: &Happens) {
        match what {
            Happens::Join(resident) => self.join(resident),
            Happens::Pass(ms) => self.now += Duration::from_millis(*ms),
            Happens::Again(choice) => {
                if let Some((id, task)) = nth(&self.replied, *choice) {
                    self.answer(id, task);
                }
            }
            Happens::Late(choice) => {
                if let Some((id, task)) = nth(&self.gone, *choice) {
                    self.answer(id, task);
                }
            }
            Happens::JoinAgain(choice)
            | Happens::Leave(choice)
            | Happens::Lose(choice)
            | Happens::LoseSilent(choice, _)
            | Happens::Answer(choice)
            | Happens::Fail(choice)
            | Happens::Foreign(choice, _) => {
                if let Some(id) = self.worker(*choice) {
                    self.happen_to(id, what);
                }
            }
        }
    }

    fn happen_to(&mut self, id: WorkerId, what: &Happens) {
        match what {
            Happens::JoinAgain(_) => {
                self.owed.insert(id, Vec::new());
                self.schedule.join(id, &[]);
            }
            Happens::Leave(_) => {
                self.forget(id);
                self.schedule.leave(id);
            }
            Happens::Lose(_) => {
                self.blame(&self.owed[&id].clone());
                self.forget(id);
                let lost = self.schedule.lose(id);
                self.note_poison(lost.is_err());
            }
            Happens::LoseSilent(_, ms) => {
                self.blame(&self.owed[&id].clone());
                self.forget(id);
                let heard = self.now.saturating_sub(Duration::from_millis(*ms));
                let lost = self.schedule.lose_silent(id, heard);
                self.note_poison(lost.is_err());
            }
            Happens::Answer(_) => {
                if let Some(task) = self.take_oldest(id) {
                    self.replied.push((id, task.clone()));
                    self.answer(id, task);
                }
            }
            Happens::Fail(_) => match self.take_oldest(id) {
                Some((seq, parts)) if seq == self.seq => {
                    self.blame(&[(seq, parts.clone())]);
                    let failed = self.schedule.fail(id, &parts);
                    self.note_poison(failed.is_err());
                    // The same failure again is none.
                    assert!(self.is_over || self.schedule.fail(id, &parts).is_ok());
                }
                Some((seq, parts)) => assert!(self.schedule.replied(id, seq, &parts)),
                None => {}
            },
            Happens::Foreign(_, part) => {
                let beyond = self.n_parts + part;
                let twice = part % self.n_parts;
                self.answer(id, (self.seq, vec![PartId(0), PartId(beyond)]));
                self.answer(id, (self.seq, vec![PartId(twice), PartId(twice)]));
            }
            _ => unreachable!("not of one worker: {what:?}"),
        }
    }

    fn join(&mut self, resident: &[u32]) {
        let id = WorkerId(self.n_joined);
        self.n_joined += 1;
        self.owed.insert(id, Vec::new());
        let resident: Vec<PartId> = resident.iter().copied().map(PartId).collect();
        self.schedule.join(id, &resident);
    }

    /// Gives an answer to the schedule, and compares what became of it.
    fn answer(&mut self, id: WorkerId, (seq, parts): Task) {
        let digest = blake3::hash(format!("{parts:?}").as_bytes());
        if seq != self.seq {
            let counted = self.schedule.late_answer(id, seq, &parts, digest);
            assert_eq!(counted, Counted::Repeated);
            return;
        }
        let is_asked = parts.iter().all(|part| part.0 < self.n_parts)
            && parts.iter().collect::<BTreeSet<_>>().len() == parts.len();
        let is_new = is_asked && !parts.iter().any(|part| self.answered.contains(part));
        let answer = Answer::Weigh(vec![parts.len() as u64]);
        let elapsed = Duration::from_millis(10 * parts.len() as u64);
        let counted = self.schedule.answer(id, &parts, answer, digest, elapsed);
        let expected = match is_new {
            true => Counted::New,
            false => Counted::Repeated,
        };
        assert_eq!(counted, Ok(expected), "{id:?} {parts:?}");
        if is_new {
            self.answered.extend(parts);
        }
    }

    fn take_oldest(&mut self, id: WorkerId) -> Option<Task> {
        let tasks = self.owed.get_mut(&id)?;
        (!tasks.is_empty()).then(|| tasks.remove(0))
    }

    fn forget(&mut self, id: WorkerId) {
        let tasks = self.owed.remove(&id).unwrap_or_default();
        self.gone.extend(tasks.into_iter().map(|task| (id, task)));
    }

    fn blame(&mut self, tasks: &[Task]) {
        let current = tasks.iter().filter(|(seq, _)| *seq == self.seq);
        for part in current.flat_map(|(_, parts)| parts) {
            *self.deaths.entry(*part).or_default() += 1;
        }
    }

    fn note_poison(&mut self, is_poisonous: bool) {
        let most = self.deaths.values().copied().max().unwrap_or(0);
        assert!(!is_poisonous || most >= MAX_DEATHS, "{:?}", self.deaths);
        self.is_over |= is_poisonous;
    }

    /// Takes what the schedule grants, and opens the next stage when this one is done.
    fn go_on(&mut self) {
        for (id, parts) in self.schedule.grant(self.now) {
            let owed = &self.owed[&id];
            assert!(owed.is_empty(), "{id:?} owes {owed:?}");
            assert!(!parts.is_empty());
            for part in &parts {
                assert!(part.0 < self.n_parts, "{part:?}");
                assert!(!self.answered.contains(part), "{part:?} is answered");
            }
            let distinct: BTreeSet<_> = parts.iter().collect();
            assert_eq!(distinct.len(), parts.len(), "{parts:?}");
            self.owed.insert(id, vec![(self.seq, parts)]);
        }
        let (n_done, n_parts) = self.schedule.progress();
        assert_eq!(
            (n_done, n_parts),
            (self.answered.len(), self.n_parts as usize)
        );
        match self.schedule.finish() {
            Some(answer) => {
                assert_eq!(n_done, n_parts, "it ended with {:?}", self.answered);
                assert_eq!(answer, Answer::Weigh(vec![n_parts as u64]));
                self.seq = StageSeq(self.seq.0 + 1);
                self.n_stages += 1;
                self.open(1 + (self.n_parts * 7 + 3) % 13);
            }
            None => assert_ne!(n_done, n_parts, "it does not end"),
        }
    }
}

fn nth<T: Clone>(all: &[T], choice: usize) -> Option<T> {
    all.get(choice % all.len().max(1)).cloned()
}

fn play(n_parts: u32, events: &[Happens], fault: Option<Fault>) -> Model {
    let mut model = Model::new(n_parts, fault);
    for event in events {
        if !model.is_over {
            model.happen(event);
            model.go_on();
        }
    }
    model
}

/// Runs 1,000 cases of up to so many events.
fn check(
    n_events: usize,
    case: impl Fn(u32, Vec<Happens>) -> TestCaseResult,
) -> Result<(), impl std::fmt::Debug> {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let events = prop::collection::vec(happens(), 0..n_events);
    runner.run(&(1..12_u32, events), |(n_parts, events)| {
        case(n_parts, events)
    })
}

#[test]
fn every_part_counts_once_and_nobody_who_owes_an_answer_gets_another_task() {
    let checked = check(120, |n_parts, events| {
        play(n_parts, &events, None);
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn an_answer_that_counts_each_time_it_comes_is_noticed() {
    let checked = check(120, |n_parts, events| {
        play(n_parts, &events, Some(Fault::CountTwice));
        Ok(())
    });
    checked.unwrap_err();
}

#[test]
fn two_workers_end_a_stage_beside_one_that_is_stuck() {
    let checked = check(60, |n_parts, events| {
        let mut model = play(n_parts, &events, None);
        if model.is_over {
            return Ok(());
        }
        // One of those that are there lives and never says a word again; the others leave.
        while model.owed.len() > 1 {
            model.happen(&Happens::Leave(0));
        }
        let first_alive = model.owed.len();
        model.join(&[]);
        model.join(&[]);
        model.go_on();
        let n_before = model.n_stages;
        for _ in 0..600 {
            for worker in [first_alive, first_alive + 1] {
                model.happen(&Happens::Answer(worker));
                model.go_on();
            }
            model.happen(&Happens::Pass(100));
            if model.n_stages > n_before + 3 {
                return Ok(());
            }
        }
        let (n_done, n_parts) = model.schedule.progress();
        Err(TestCaseError::fail(format!(
            "{n_done} of {n_parts} parts of stage {} after a minute",
            model.seq.0
        )))
    });
    checked.unwrap();
}

//! Who works on what: the parts of the current stage, leased to workers and answered once each.
//!
//! Plain data and ordered collections; the clock is an argument. Whatever happens to a worker, a part is open, leased or
//! answered, and only an answer that is new, of this stage and whole moves it to the last.

mod choose;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clientele_protocol::cluster::Digest;
use clientele_protocol::{Answer, Mismatch, PartId, StageSeq, WorkerId};

/// Workers a part may take down before the run blames the part.
pub const MAX_DEATHS: u32 = 3;

/// Weight of the last lease in a worker's speed.
const SPEED_WEIGHT: f64 = 0.5;
/// Stages whose late answers are still compared with what was counted.
const REMEMBERED_STAGES: u64 = 2;

/// Where the shards live and what the current stage still lacks.
#[derive(Debug, Default)]
pub struct Schedule {
    workers: BTreeMap<WorkerId, Member>,
    /// Where a part's rows were last computed on, and are likely resident. Ranges of hashes have no home.
    homes: BTreeMap<PartId, WorkerId>,
    /// All workers that are likely to have a part's rows.
    resident: BTreeMap<PartId, BTreeSet<WorkerId>>,
    stage: Stage,
    open: BTreeSet<PartId>,
    /// Those of `open` that somebody has had before.
    reopened: BTreeSet<PartId>,
    answered: BTreeSet<PartId>,
    /// Parts that must travel alone, because an answer that merged them with an already counted one was refused.
    alone: BTreeSet<PartId>,
    /// Workers that each part has taken down in this stage, or been leased together with what did.
    deaths: BTreeMap<PartId, u32>,
    merged: Option<Answer>,
    /// What was counted in this stage and the last ones, so that a twin that differs is noticed.
    counted: BTreeMap<(StageSeq, Vec<PartId>), Digest>,
    /// Whether late leases are given to idle workers as well. In one process, where a worker's silence means nothing, they are not.
    gives_twins: bool,
    fault: Option<Fault>,
    totals: Totals,
}

/// What became of parts, over all stages: `n_leased` is the sum of the others and what is being computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Given to a worker.
    pub n_leased: u64,
    /// Answered.
    pub n_counted: u64,
    /// Given again, since a worker died, left or failed.
    pub n_reopened: u64,
    /// Given to a second worker, since the first was late.
    pub n_twins: u64,
}

impl Totals {
    /// The sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            n_leased: self.n_leased + other.n_leased,
            n_counted: self.n_counted + other.n_counted,
            n_reopened: self.n_reopened + other.n_reopened,
            n_twins: self.n_twins + other.n_twins,
        }
    }
}

/// A rule that is broken on purpose, so that tests can show that they would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An answer counts each time it comes.
    CountTwice,
}

/// What is being asked.
#[derive(Debug, Default)]
pub struct Stage {
    /// Its number.
    pub seq: StageSeq,
    /// Its name; speeds are kept by it.
    pub name: &'static str,
    /// [n_parts] rows of each.
    pub rows: Vec<u64>,
    /// Whether parts are shards of rows, which have a worker they are resident on.
    pub keeps_homes: bool,
}

#[derive(Debug, Default)]
struct Member {
    lease: Option<Lease>,
    /// Tasks it has been given and not replied to. One that still works on a part that another has answered gets nothing new.
    owed: Vec<(StageSeq, Vec<PartId>)>,
    /// Rows a second, by stage.
    speeds: BTreeMap<&'static str, f64>,
}

#[derive(Debug, Clone)]
struct Lease {
    parts: Vec<PartId>,
    since: Duration,
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Counted {
    /// New: it counts.
    New,
    /// Some or all of it had been counted before; what had not is open again.
    Repeated,
    /// It had been counted before, with another content: one of two workers computes wrongly.
    Differs,
}

/// A part that no worker survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poisonous {
    /// The part.
    pub part: PartId,
}

/// A worker, for people.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Shards at home there.
    pub n_homes: u64,
    /// Parts leased to it.
    pub n_leased: u64,
    /// Rows a second in the current stage, or 0.
    pub rows_per_second: f64,
}

impl Schedule {
    /// Without workers; with `gives_twins`, an idle worker gets what another is late with.
    pub fn new(gives_twins: bool) -> Self {
        Self {
            gives_twins,
            ..Self::default()
        }
    }

    /// With a rule broken.
    pub fn with_fault(self, fault: Option<Fault>) -> Self {
        Self { fault, ..self }
    }

    /// Opens a stage; its parts are numbered from 0.
    pub fn open_stage(&mut self, stage: Stage) {
        self.open = (0..).take(stage.rows.len()).map(PartId).collect();
        self.answered.clear();
        self.reopened.clear();
        self.alone.clear();
        self.deaths.clear();
        self.merged = None;
        self.workers.values_mut().for_each(|w| w.lease = None);
        let oldest = stage.seq.0.saturating_sub(REMEMBERED_STAGES);
        self.counted.retain(|(seq, _), _| seq.0 >= oldest);
        self.stage = stage;
    }

    /// A worker is ready, and has the rows of some shards already.
    pub fn join(&mut self, id: WorkerId, resident: &[PartId]) {
        // One that says so twice starts anew.
        self.leave(id);
        self.workers.insert(id, Member::default());
        for part in resident {
            self.homes.entry(*part).or_insert(id);
            self.resident.entry(*part).or_default().insert(id);
        }
    }

    /// A worker leaves as it should; what it had not answered is open again, and nobody is to blame.
    pub fn leave(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        self.homes.retain(|_, home| *home != id);
        for holders in self.resident.values_mut() {
            holders.remove(&id);
        }
        for part in worker.lease.into_iter().flat_map(|lease| lease.parts) {
            self.reopen(part);
        }
    }

    /// Forgets a worker that died; what it had not answered is open again.
    ///
    /// # Errors
    /// [`Poisonous`] when a part it held has now taken down [`MAX_DEATHS`] workers.
    pub fn lose(&mut self, id: WorkerId) -> Result<(), Poisonous> {
        let held = self.workers.get(&id).and_then(|w| w.lease.clone());
        self.leave(id);
        let parts = held.map(|lease| lease.parts).unwrap_or_default();
        self.blame(&parts)
    }

    /// As [`Schedule::lose`], of a worker that was silent since `heard`: parts it was given after that it has never seen, as when the
    /// network is away and they go from one lost worker to the next.
    ///
    /// # Errors
    /// As [`Schedule::lose`].
    pub fn lose_silent(&mut self, id: WorkerId, heard: Duration) -> Result<(), Poisonous> {
        let lease = self.workers.get(&id).and_then(|w| w.lease.as_ref());
        match lease.is_some_and(|lease| lease.since > heard) {
            true => {
                self.leave(id);
                Ok(())
            }
            false => self.lose(id),
        }
    }

    /// A worker could not answer `parts` this time; they are open again.
    ///
    /// # Errors
    /// As [`Schedule::lose`].
    pub fn fail(&mut self, id: WorkerId, parts: &[PartId]) -> Result<(), Poisonous> {
        if !self.replied(id, self.stage.seq, parts) {
            return Ok(());
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.lease.take_if(|lease| lease.parts == parts);
        }
        parts.iter().for_each(|part| self.reopen(*part));
        self.blame(parts)
    }

    fn blame(&mut self, parts: &[PartId]) -> Result<(), Poisonous> {
        for part in parts {
            if self.answered.contains(part) {
                continue;
            }
            // The culprit is found by leasing the suspects one at a time.
            self.alone.insert(*part);
            let deaths = self.deaths.entry(*part).or_default();
            *deaths += 1;
            if *deaths >= MAX_DEATHS {
                return Err(Poisonous { part: *part });
            }
        }
        Ok(())
    }

    /// Workers there are.
    pub fn n_workers(&self) -> usize {
        self.workers.len()
    }

    /// What became of parts so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What a worker has to do.
    pub fn load(&self, id: WorkerId) -> Load {
        let Some(worker) = self.workers.get(&id) else {
            return Load::default();
        };
        Load {
            n_homes: self.homes.values().filter(|home| **home == id).count() as u64,
            n_leased: worker.lease.as_ref().map_or(0, |l| l.parts.len() as u64),
            rows_per_second: self.speed(id, self.stage.name).unwrap_or(0.0),
        }
    }

    /// Parts answered, parts in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.answered.len(), self.stage.rows.len())
    }

    /// Leases open parts to idle workers: what is at home there, what has no home, what is better done there than at home, and
    /// what another is late with.
    pub fn grant(&mut self, now: Duration) -> Vec<(WorkerId, Vec<PartId>)> {
        let idle: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, w)| w.lease.is_none() && w.owed.is_empty())
            .map(|(id, _)| *id)
            .collect();
        let mut grants = Vec::new();
        for id in idle {
            let parts = self.choose(id, now);
            if parts.is_empty() {
                continue;
            }
            self.totals.n_leased += parts.len() as u64;
            for part in &parts {
                // What is not open is another worker's as well.
                self.totals.n_twins += u64::from(!self.open.remove(part));
                self.totals.n_reopened += u64::from(self.reopened.remove(part));
            }
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.owed.push((self.stage.seq, parts.clone()));
                let parts = parts.clone();
                worker.lease = Some(Lease { parts, since: now });
            }
            grants.push((id, parts));
        }
        grants
    }

    /// Takes an answer for `parts` of the current stage from `id`, which took `elapsed` to compute it.
    ///
    /// # Errors
    /// [`Mismatch`] when it cannot be added to the answers before it.
    pub fn answer(
        &mut self,
        id: WorkerId,
        parts: &[PartId],
        answer: Answer,
        digest: Digest,
        elapsed: Duration,
    ) -> Result<Counted, Mismatch> {
        self.replied(id, self.stage.seq, parts);
        if !self.asks(parts) {
            return Ok(Counted::Repeated);
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.lease.take_if(|lease| lease.parts == parts);
        }
        self.note_speed(id, parts, elapsed);
        let key = (self.stage.seq, parts.to_vec());
        if self.fault == Some(Fault::CountTwice) {
            return self.count(id, parts, answer, digest);
        }
        if let Some(counted) = self.counted.get(&key) {
            return Ok(if *counted == digest {
                Counted::Repeated
            } else {
                Counted::Differs
            });
        }
        if parts.iter().any(|part| self.answered.contains(part)) {
            for part in parts {
                if !self.answered.contains(part) {
                    self.alone.insert(*part);
                    self.reopen(*part);
                }
            }
            return Ok(Counted::Repeated);
        }
        self.count(id, parts, answer, digest)
    }

    fn count(
        &mut self,
        id: WorkerId,
        parts: &[PartId],
        answer: Answer,
        digest: Digest,
    ) -> Result<Counted, Mismatch> {
        match &mut self.merged {
            Some(merged) => merged.merge(answer)?,
            none => *none = Some(answer),
        }
        let key = (self.stage.seq, parts.to_vec());
        self.counted.insert(key, digest);
        for part in parts {
            self.totals.n_counted += u64::from(self.answered.insert(*part));
            self.open.remove(part);
            // Whoever had it answers before it is given again.
            self.reopened.remove(part);
            self.alone.remove(part);
            if self.stage.keeps_homes && self.workers.contains_key(&id) {
                self.homes.insert(*part, id);
                self.resident.entry(*part).or_default().insert(id);
            }
        }
        self.withdraw(parts);
        Ok(Counted::New)
    }

    /// Takes an answer to an earlier stage; whether it is what was counted then, if that is still known.
    pub fn late_answer(
        &mut self,
        id: WorkerId,
        seq: StageSeq,
        parts: &[PartId],
        digest: Digest,
    ) -> Counted {
        self.replied(id, seq, parts);
        match self.counted.get(&(seq, parts.to_vec())) {
            Some(counted) if *counted != digest => Counted::Differs,
            _ => Counted::Repeated,
        }
    }

    /// A worker has replied to one of its tasks, with whatever. False for a reply that comes again, or from a worker that is gone.
    pub fn replied(&mut self, id: WorkerId, seq: StageSeq, parts: &[PartId]) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else {
            return false;
        };
        let n_owed = worker.owed.len();
        worker
            .owed
            .retain(|(owed_seq, owed)| *owed_seq != seq || owed != parts);
        worker.owed.len() < n_owed
    }

    /// Whether `parts` are of this stage, each once.
    fn asks(&self, parts: &[PartId]) -> bool {
        let n_parts = self.stage.rows.len();
        let distinct: BTreeSet<&PartId> = parts.iter().collect();
        distinct.len() == parts.len() && parts.iter().all(|part| (part.0 as usize) < n_parts)
    }

    /// Takes parts that a late worker has answered after all from the lease of whoever got them next.
    fn withdraw(&mut self, parts: &[PartId]) {
        for worker in self.workers.values_mut() {
            worker
                .lease
                .take_if(|lease| lease.parts.iter().all(|part| parts.contains(part)));
        }
    }

    /// Opens a part again, unless it is answered or another worker has it too.
    fn reopen(&mut self, part: PartId) {
        let is_leased = self.workers.values().any(|worker| {
            let lease = worker.lease.as_ref();
            lease.is_some_and(|lease| lease.parts.contains(&part))
        });
        if !is_leased && !self.answered.contains(&part) {
            self.open.insert(part);
            self.reopened.insert(part);
        }
    }

    /// The sum of all answers, once every part is answered.
    pub fn finish(&mut self) -> Option<Answer> {
        match self.answered.len() == self.stage.rows.len() {
            true => self.merged.take(),
            false => None,
        }
    }

    fn rows(&self, parts: &[PartId]) -> u64 {
        let of = |part: &PartId| self.stage.rows.get(part.0 as usize).copied().unwrap_or(0);
        parts.iter().map(of).sum()
    }

    fn speed(&self, id: WorkerId, stage: &str) -> Option<f64> {
        self.workers.get(&id)?.speeds.get(stage).copied()
    }

    fn note_speed(&mut self, id: WorkerId, parts: &[PartId], elapsed: Duration) {
        let measured = self.rows(parts) as f64 / elapsed.as_secs_f64().max(1e-6);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker
                .speeds
                .entry(self.stage.name)
                .and_modify(|known| *known += (measured - *known) * SPEED_WEIGHT)
                .or_insert(measured);
        }
    }
}

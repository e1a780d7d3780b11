//! Who works on what: the parts of the current stage, leased to workers and answered once each.
//!
//! Plain data and ordered collections; the clock is an argument. Whatever happens to a worker, a part is open, leased or
//! answered, and only an answer that is new, of this stage and whole moves it to the last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clientele_protocol::cluster::Digest;
use clientele_protocol::{Answer, Mismatch, PartId, StageSeq, WorkerId};

/// Workers a part may take down before the run blames the part.
pub const MAX_DEATHS: u32 = 3;

/// A lease is late when it takes this many times what was expected, and at least [`LATE_AFTER`]; then an idle worker gets it too.
const LATE_FACTOR: f64 = 2.0;
const LATE_AFTER: Duration = Duration::from_secs(1);
/// A lease is late after this, where neither worker has ever answered such a stage.
const LATE_UNKNOWN: Duration = Duration::from_secs(6);

/// Passes over which reading a shard anew, on the worker it moves to, must pay.
const PAYBACK_PASSES: f64 = 5.0;
/// How much sooner a shard must be done elsewhere to be moved: measured speeds are noisy, and every move reads the shard anew.
const MOVE_GAIN: f64 = 1.2;
/// Workers whose shares end within this factor of each other get them in one piece: one answer a pass.
const EVEN_FACTOR: f64 = 1.2;
/// How much faster a pass over resident rows is than reading them, where it has not been measured.
const INGEST_FACTOR: f64 = 8.0;
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
    /// Open again, since a worker died, left or failed.
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

    fn choose(&self, id: WorkerId, now: Duration) -> Vec<PartId> {
        if let Some(single) = self.open.iter().find(|part| self.alone.contains(part)) {
            return vec![*single];
        }
        let at_home = self.open_at(Some(id));
        if !at_home.is_empty() {
            return match self.is_even() {
                true => at_home,
                false => self.batch(at_home, 1.0),
            };
        }
        let homeless = self.open_at(None);
        if !homeless.is_empty() {
            return self.batch(homeless, self.share(id));
        }
        let moved = self.move_here(id, now);
        if !moved.is_empty() {
            return moved;
        }
        match self.gives_twins {
            true => self.twin(id, now),
            false => Vec::new(),
        }
    }

    /// Whether all workers would end this stage at about the same time with what is at home there.
    fn is_even(&self) -> bool {
        let mut rows: BTreeMap<WorkerId, u64> = self.workers.keys().map(|id| (*id, 0)).collect();
        for (part, home) in &self.homes {
            *rows.entry(*home).or_default() += self.rows(&[*part]);
        }
        let seconds = |(id, n_rows): (&WorkerId, &u64)| {
            let speed = self.speed(*id, self.stage.name)?;
            Some(*n_rows as f64 / speed)
        };
        let Some(seconds) = rows.iter().map(seconds).collect::<Option<Vec<f64>>>() else {
            return false;
        };
        let first = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let last = seconds.iter().copied().fold(0.0, f64::max);
        last <= first * EVEN_FACTOR
    }

    /// Open parts whose home is `home`.
    fn open_at(&self, home: Option<WorkerId>) -> Vec<PartId> {
        let home_of = |part: &PartId| match self.stage.keeps_homes {
            true => self.homes.get(part).copied(),
            false => None,
        };
        // Nobody knows when a worker will be free that still works on what another has answered.
        let home_of = |part: &PartId| home_of(part).filter(|home| !self.is_behind(*home));
        let open = self.open.iter().copied();
        open.filter(|part| home_of(part) == home).collect()
    }

    fn is_behind(&self, id: WorkerId) -> bool {
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| worker.lease.is_none() && !worker.owed.is_empty())
    }

    /// The first of `parts`: half of a worker's share, so that what is left can still go elsewhere. The only one in a process takes all.
    fn batch(&self, parts: Vec<PartId>, share: f64) -> Vec<PartId> {
        let half = if self.gives_twins || self.workers.len() > 1 {
            0.5
        } else {
            1.0
        };
        let wanted = self.rows(&parts) as f64 * share * half;
        self.take_rows(parts.into_iter(), wanted, true)
    }

    /// Parts from the front while they fit into `wanted` rows; with `at_least_one`, one in any case.
    fn take_rows(
        &self,
        parts: impl Iterator<Item = PartId>,
        wanted: f64,
        at_least_one: bool,
    ) -> Vec<PartId> {
        let mut taken = Vec::new();
        let mut n_rows = 0.0;
        for part in parts {
            let more = self.rows(&[part]) as f64;
            let fits = n_rows + more <= wanted * (1.0 + 1e-9);
            let is_needed = taken.is_empty() && at_least_one;
            if !fits && !is_needed {
                break;
            }
            n_rows += more;
            taken.push(part);
        }
        taken
    }

    /// The share of the cluster's speed that is this worker's.
    fn share(&self, id: WorkerId) -> f64 {
        let known: Vec<f64> = self
            .workers
            .keys()
            .filter_map(|id| self.speed(*id, self.stage.name))
            .collect();
        let mean = match known.len() {
            0 => 1.0,
            n => known.iter().sum::<f64>() / n as f64,
        };
        let speed = |id: WorkerId| self.speed(id, self.stage.name).unwrap_or(mean);
        let total: f64 = self.workers.keys().map(|id| speed(*id)).sum();
        speed(id) / total
    }

    /// Open parts that are at home elsewhere, if they would be done sooner here: as many as make both workers end together.
    fn move_here(&self, id: WorkerId, now: Duration) -> Vec<PartId> {
        let busiest = self
            .workers
            .keys()
            .filter(|other| **other != id)
            .map(|other| (*other, self.open_at(Some(*other))))
            .filter(|(_, open)| !open.is_empty())
            .map(|(other, open)| (self.rows_left(other, &open, now), other, open))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((rows_left, other, open)) = busiest else {
            return Vec::new();
        };
        let (mine, theirs) = (
            self.speed(id, self.stage.name),
            self.speed(other, self.stage.name),
        );
        // Two workers of which nothing is known are alike.
        let mine = mine.or(theirs).unwrap_or(1.0);
        let theirs = theirs.unwrap_or(mine);
        let ingest = self.speed(id, "ingest").unwrap_or(mine / INGEST_FACTOR);
        let is_resident = |part: &PartId| {
            let holders = self.resident.get(part);
            holders.is_some_and(|holders| holders.contains(&id))
        };
        let seconds_a_row = |part: &PartId| match is_resident(part) {
            true => 1.0 / mine,
            false => 1.0 / mine + 1.0 / (ingest * PAYBACK_PASSES),
        };
        // What is here already goes first, then what the other would come to last.
        let mut candidates: Vec<PartId> = open.into_iter().rev().collect();
        candidates.sort_by_key(|part| !is_resident(part));
        let cost = seconds_a_row(&candidates[0]);
        let fair = rows_left / (1.0 + theirs * cost);
        let moved = self.take_rows(candidates.into_iter(), fair, true);
        let here = self.rows(&moved) as f64 * cost;
        match rows_left / theirs > here * MOVE_GAIN {
            true => moved,
            false => Vec::new(),
        }
    }

    /// Rows that a worker has still before it: `open` ones, and what is left of its lease.
    fn rows_left(&self, id: WorkerId, open: &[PartId], now: Duration) -> f64 {
        let lease = self.workers.get(&id).and_then(|w| w.lease.as_ref());
        let leased = lease.map_or(0.0, |lease| {
            let elapsed = now.saturating_sub(lease.since).as_secs_f64();
            let done = elapsed * self.speed(id, self.stage.name).unwrap_or(0.0);
            (self.rows(&lease.parts) as f64 - done).max(0.0)
        });
        self.rows(open) as f64 + leased
    }

    /// The lease that is latest, if it is late and would have been done here by now: both workers may answer, and must agree.
    fn twin(&self, id: WorkerId, now: Duration) -> Vec<PartId> {
        let speed = self.speed(id, self.stage.name);
        let late = self.workers.iter().filter_map(|(other, worker)| {
            let lease = worker.lease.as_ref().filter(|_| *other != id)?;
            let elapsed = now.saturating_sub(lease.since);
            let known = self.speed(*other, self.stage.name).or(speed);
            let is_late = match known {
                Some(known) => {
                    let expected = self.rows(&lease.parts) as f64 / known * LATE_FACTOR;
                    elapsed >= LATE_AFTER && elapsed.as_secs_f64() > expected
                }
                None => elapsed >= LATE_UNKNOWN,
            };
            // An answer that merges what is counted already would be refused.
            let is_wanted = |part: &&PartId| !self.answered.contains(part);
            let wanted: Vec<PartId> = lease.parts.iter().filter(is_wanted).copied().collect();
            let has_twin = self.workers.iter().any(|(third, w)| {
                let theirs = w.lease.iter().flat_map(|lease| &lease.parts);
                third != other && theirs.into_iter().any(|part| wanted.contains(part))
            });
            (is_late && !has_twin && !wanted.is_empty()).then_some((elapsed, wanted))
        });
        let latest = late.max_by_key(|(elapsed, _)| *elapsed);
        latest.map(|(_, parts)| parts).unwrap_or_default()
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
            self.totals.n_reopened += 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);

    /// Part `n` of every stage has `rows[n]` rows.
    fn open(schedule: &mut Schedule, seq: u64, rows: &[u64]) {
        schedule.open_stage(Stage {
            seq: StageSeq(seq),
            name: "passes",
            rows: rows.to_vec(),
            keeps_homes: true,
        });
    }

    fn schedule(n_parts: usize) -> Schedule {
        let mut schedule = Schedule::new(true);
        schedule.join(A, &[]);
        schedule.join(B, &[]);
        open(&mut schedule, 0, &vec![100; n_parts]);
        schedule
    }

    /// The right answer, after the time that an even speed gives.
    fn answer(schedule: &mut Schedule, id: WorkerId, parts: &[PartId]) -> Counted {
        let elapsed = Duration::from_millis(parts.len() as u64 * 100);
        answer_with(schedule, id, parts, 0, elapsed)
    }

    fn answer_with(
        schedule: &mut Schedule,
        id: WorkerId,
        parts: &[PartId],
        content: u8,
        elapsed: Duration,
    ) -> Counted {
        let digest = blake3::hash(&[content]);
        let counted = schedule.answer(id, parts, count(parts), digest, elapsed);
        counted.unwrap()
    }

    fn grant(schedule: &mut Schedule) -> Vec<(WorkerId, Vec<PartId>)> {
        schedule.grant(Duration::ZERO)
    }

    fn count(parts: &[PartId]) -> Answer {
        Answer::Weigh(vec![parts.len() as u64])
    }

    /// Grants and answers until the stage is done; what the answers add up to.
    fn run_out(schedule: &mut Schedule) -> u64 {
        for _ in 0..100 {
            let held = schedule.workers.iter().filter_map(|(id, worker)| {
                let lease = worker.lease.as_ref()?;
                Some((*id, lease.parts.clone()))
            });
            let held: Vec<_> = held.collect();
            for (id, parts) in held.into_iter().chain(grant(schedule)) {
                answer(schedule, id, &parts);
            }
            if let Some(Answer::Weigh(total)) = schedule.finish() {
                return total[0];
            }
        }
        panic!("the stage never ends");
    }

    #[test]
    fn every_part_counts_once() {
        assert_eq!(run_out(&mut schedule(17)), 17);
    }

    #[test]
    fn parts_go_home_in_the_next_stage() {
        let mut schedule = schedule(8);
        run_out(&mut schedule);
        let homes = schedule.homes.clone();
        open(&mut schedule, 1, &[100; 8]);
        for (id, parts) in grant(&mut schedule) {
            assert!(parts.iter().all(|part| homes[part] == id));
        }
    }

    #[test]
    fn a_lost_worker_loses_only_what_it_had_not_answered() {
        let mut schedule = schedule(8);
        let grants = grant(&mut schedule);
        let lost = grants[0].1.clone();
        schedule.lose(A).unwrap();
        answer(&mut schedule, B, &grants[1].1);
        assert!(lost.iter().all(|part| schedule.open.contains(part)));
        assert_eq!(run_out(&mut schedule), 8);
    }

    #[test]
    fn a_worker_that_leaves_is_not_to_blame() {
        let mut schedule = schedule(1);
        for n in 2..2 + 2 * MAX_DEATHS {
            let grants = grant(&mut schedule);
            schedule.leave(grants[0].0);
            schedule.join(WorkerId(n), &[]);
        }
        assert!(schedule.deaths.is_empty());
        assert_eq!(run_out(&mut schedule), 1);
    }

    #[test]
    fn a_late_answer_of_a_lost_worker_counts_once_or_not_at_all() {
        let mut schedule = schedule(8);
        let grants = grant(&mut schedule);
        let late = grants[0].1.clone();
        schedule.lose(A).unwrap();
        assert_eq!(answer(&mut schedule, A, &late), Counted::New);
        assert_eq!(answer(&mut schedule, A, &late), Counted::Repeated);
        answer(&mut schedule, B, &grants[1].1);
        assert_eq!(run_out(&mut schedule), 8);
    }

    #[test]
    fn an_answer_that_merges_counted_parts_is_refused_and_its_rest_comes_singly() {
        let mut schedule = schedule(4);
        let mine = grant(&mut schedule)[0].1.clone();
        let mut more = mine.clone();
        more.push(PartId(3));
        answer(&mut schedule, A, &mine);
        assert_eq!(answer(&mut schedule, A, &more), Counted::Repeated);
        assert!(schedule.alone.contains(&PartId(3)));
        schedule.lose(B).unwrap();
        assert_eq!(run_out(&mut schedule), 4);
    }

    #[test]
    fn an_answer_that_differs_from_the_counted_one_is_noticed_also_when_it_is_late() {
        let mut schedule = schedule(4);
        let mine = grant(&mut schedule)[0].1.clone();
        answer(&mut schedule, A, &mine);
        let wrong = answer_with(&mut schedule, B, &mine, 1, Duration::ZERO);
        assert_eq!(wrong, Counted::Differs);
        for seq in 1..=REMEMBERED_STAGES {
            open(&mut schedule, seq, &[100; 4]);
            let mut late =
                |content: u8| schedule.late_answer(B, StageSeq(0), &mine, blake3::hash(&[content]));
            assert_eq!(late(0), Counted::Repeated);
            assert_eq!(late(1), Counted::Differs);
        }
    }

    #[test]
    fn a_part_that_kills_three_workers_is_named_and_the_others_are_answered() {
        let mut schedule = Schedule::new(false);
        open(&mut schedule, 0, &[100; 5]);
        let mut culprits = Vec::new();
        for n in 0..MAX_DEATHS {
            schedule.join(WorkerId(n), &[]);
            // Until it gets the part that it dies of, the worker answers.
            while let Some((id, parts)) = grant(&mut schedule).pop() {
                if parts.contains(&PartId(2)) {
                    culprits.extend(schedule.lose(id).err());
                } else {
                    answer(&mut schedule, id, &parts);
                }
            }
        }
        assert_eq!(culprits, [Poisonous { part: PartId(2) }]);
        let others: Vec<u32> = schedule
            .open
            .iter()
            .map(|part| part.0)
            .chain(schedule.answered.iter().map(|part| part.0))
            .collect();
        assert!((0..5).all(|part| others.contains(&part)));
    }

    #[test]
    fn deaths_in_different_stages_do_not_add_up_to_a_culprit() {
        let mut schedule = Schedule::new(false);
        for n in 0..3 * MAX_DEATHS {
            open(&mut schedule, u64::from(n), &[100; 4]);
            schedule.join(WorkerId(n), &[]);
            assert_eq!(grant(&mut schedule).len(), 1);
            assert_eq!(schedule.lose(WorkerId(n)), Ok(()));
        }
    }

    #[test]
    fn a_worker_that_has_rows_already_is_their_home() {
        let mut schedule = Schedule::new(true);
        let mine = [PartId(5), PartId(6), PartId(7)];
        schedule.join(A, &[]);
        schedule.join(B, &mine);
        open(&mut schedule, 0, &[100; 8]);
        let grants = grant(&mut schedule);
        assert!(grants[0].1.iter().all(|part| !mine.contains(part)));
        assert!(grants[1].1.iter().all(|part| mine.contains(part)));
        assert_eq!(run_out(&mut schedule), 8);
    }

    #[test]
    fn what_a_worker_is_late_with_goes_to_an_idle_one_too_and_the_first_answer_counts() {
        let mut schedule = schedule(2);
        let grants = grant(&mut schedule);
        answer(&mut schedule, A, &grants[0].1);
        // What was expected took 0.1 s.
        let late = grants[1].1.clone();
        assert_eq!(schedule.grant(Duration::from_millis(900)), []);
        assert_eq!(schedule.grant(Duration::from_secs(2)), [(A, late.clone())]);
        assert_eq!(answer(&mut schedule, A, &late), Counted::New);
        assert!(schedule.finish().is_some());
        // The late one gets nothing new before it has replied.
        open(&mut schedule, 1, &[100; 20]);
        let granted = schedule.grant(Duration::from_secs(2));
        assert!(granted.iter().all(|(id, _)| *id == A), "{granted:?}");
        schedule.late_answer(B, StageSeq(0), &late, blake3::hash(&[0]));
        assert_eq!(schedule.grant(Duration::from_secs(2))[0].0, B);
    }

    /// Plays a pass with workers of some speeds, in rows a second over resident rows; how long each was busy, in seconds.
    fn play(
        schedule: &mut Schedule,
        seq: u64,
        n_parts: usize,
        speeds: &BTreeMap<WorkerId, f64>,
    ) -> BTreeMap<WorkerId, f64> {
        open(schedule, seq, &vec![1_000; n_parts]);
        let mut now = 0.0;
        let mut due: Vec<(f64, WorkerId, Vec<PartId>, f64)> = Vec::new();
        let mut ended = BTreeMap::new();
        loop {
            for (id, parts) in schedule.grant(Duration::from_secs_f64(now)) {
                let is_new = |part: &&PartId| {
                    let holders = schedule.resident.get(part);
                    !holders.is_some_and(|holders| holders.contains(&id))
                };
                let n_new = parts.iter().filter(is_new).count() as f64;
                let n_rows = schedule.rows(&parts) as f64;
                let seconds = n_rows / speeds[&id] + n_new * 1_000.0 * 5.0 / speeds[&id];
                due.push((now + seconds, id, parts, seconds));
            }
            due.sort_by(|a, b| b.0.total_cmp(&a.0));
            let Some((at, id, parts, seconds)) = due.pop() else {
                panic!("the pass never ends");
            };
            now = at;
            ended.insert(id, now);
            let elapsed = Duration::from_secs_f64(seconds);
            answer_with(schedule, id, &parts, 0, elapsed);
            if schedule.finish().is_some() {
                // What is late is replied to in its time.
                for (_, id, parts, _) in &due {
                    schedule.replied(*id, StageSeq(seq), parts);
                }
                return ended;
            }
        }
    }

    /// The first to end, as a share of the last.
    fn evenness(ended: &BTreeMap<WorkerId, f64>) -> f64 {
        let first = ended.values().copied().fold(f64::INFINITY, f64::min);
        let last = ended.values().copied().fold(0.0, f64::max);
        first / last
    }

    #[test]
    fn workers_of_different_speed_end_a_pass_together_within_20_percent() {
        for (a, b, c) in [(1e4, 1e4, 1e4), (1e4, 3e4, 1e4), (1e5, 1e4, 2e4)] {
            let ids = [A, B, WorkerId(2)];
            let speeds: BTreeMap<WorkerId, f64> = ids.into_iter().zip([a, b, c]).collect();
            let mut schedule = Schedule::new(true);
            ids.iter().for_each(|id| schedule.join(*id, &[]));
            let passes: Vec<_> = (0..12)
                .map(|seq| play(&mut schedule, seq, 120, &speeds))
                .collect();
            assert!(evenness(&passes[11]) > 0.8, "{passes:?}");
        }
    }

    #[test]
    fn a_worker_that_joins_gets_a_share_that_evens_out_the_ends() {
        let mut speeds = BTreeMap::from([(A, 1e4), (B, 1e4)]);
        let mut schedule = schedule(1);
        let alone = (0..3).map(|seq| play(&mut schedule, seq, 120, &speeds));
        let before = alone.last().map(|ended| ended[&A]).unwrap();
        speeds.insert(WorkerId(2), 2e4);
        schedule.join(WorkerId(2), &[]);
        let passes: Vec<_> = (3..14)
            .map(|seq| play(&mut schedule, seq, 120, &speeds))
            .collect();
        let last = &passes[10];
        assert!(evenness(last) > 0.8, "{passes:?}");
        assert!(last[&A] < before * 0.65, "{before}: {passes:?}");
    }

    #[test]
    fn shards_stay_where_they_are_when_workers_are_alike() {
        let speeds = BTreeMap::from([(A, 1e4), (B, 1.1e4)]);
        let mut schedule = schedule(1);
        play(&mut schedule, 0, 40, &speeds);
        play(&mut schedule, 1, 40, &speeds);
        let homes = schedule.homes.clone();
        play(&mut schedule, 2, 40, &speeds);
        assert_eq!(homes, schedule.homes);
    }
}

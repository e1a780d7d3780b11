//! Who works on what: the parts of the current stage, leased to workers and answered once each.
//!
//! Plain data and ordered collections; the clock is an argument. Whatever happens to a worker, a part is open, leased or
//! answered, and only an answer that is new, of this stage and whole moves it to the last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clientele_protocol::{Answer, Mismatch, PartId, WorkerId};

/// A worker that says nothing for this long has lost its parts to the others.
pub const LEASE: Duration = Duration::from_secs(6);

/// Workers a part may take down before the run blames the part.
pub const MAX_DEATHS: u32 = 3;

/// Where the shards live and what the current stage still lacks.
#[derive(Debug, Default)]
pub struct Schedule {
    workers: BTreeMap<WorkerId, Worker>,
    /// Where a part's rows were last computed on, and are likely resident. Ranges of hashes have no home.
    homes: BTreeMap<PartId, WorkerId>,
    open: BTreeSet<PartId>,
    answered: BTreeSet<PartId>,
    /// Parts that must travel alone, because an answer that merged them with an already counted one was refused.
    alone: BTreeSet<PartId>,
    /// Workers that each part has taken down in this stage, or been leased together with what did.
    deaths: BTreeMap<PartId, u32>,
    merged: Option<Answer>,
    keeps_homes: bool,
}

#[derive(Debug, Default)]
struct Worker {
    lease: Option<Vec<PartId>>,
    /// When it was last heard of.
    heard: Duration,
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Counted {
    /// New: it counts.
    New,
    /// Some or all of it had been counted before; what had not is open again.
    Repeated,
}

/// A part that no worker survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poisonous {
    /// The part.
    pub part: PartId,
}

impl Schedule {
    /// Opens a stage of `n_parts` parts; `keeps_homes` for stages whose parts are shards of rows.
    pub fn open_stage(&mut self, n_parts: u32, keeps_homes: bool) {
        self.open = (0..n_parts).map(PartId).collect();
        self.answered.clear();
        self.alone.clear();
        self.deaths.clear();
        self.merged = None;
        self.keeps_homes = keeps_homes;
        self.workers.values_mut().for_each(|w| w.lease = None);
    }

    /// A worker is ready.
    pub fn join(&mut self, id: WorkerId, now: Duration) {
        self.workers.insert(
            id,
            Worker {
                lease: None,
                heard: now,
            },
        );
    }

    /// A worker lives.
    pub fn heard(&mut self, id: WorkerId, now: Duration) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.heard = now;
        }
    }

    /// Forgets a worker; what it had not answered is open again.
    ///
    /// # Errors
    /// [`Poisonous`] when a part it held has now taken down [`MAX_DEATHS`] workers.
    pub fn lose(&mut self, id: WorkerId) -> Result<(), Poisonous> {
        let Some(worker) = self.workers.remove(&id) else {
            return Ok(());
        };
        self.homes.retain(|_, home| *home != id);
        for part in worker.lease.into_iter().flatten() {
            if self.answered.contains(&part) {
                continue;
            }
            self.open.insert(part);
            // The culprit is found by leasing the suspects one at a time.
            self.alone.insert(part);
            let deaths = self.deaths.entry(part).or_default();
            *deaths += 1;
            if *deaths >= MAX_DEATHS {
                return Err(Poisonous { part });
            }
        }
        Ok(())
    }

    /// Workers not heard of within [`LEASE`].
    pub fn silent(&self, now: Duration) -> Vec<WorkerId> {
        self.workers
            .iter()
            .filter(|(_, w)| now.saturating_sub(w.heard) > LEASE)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Workers there are.
    pub fn n_workers(&self) -> usize {
        self.workers.len()
    }

    /// Parts answered, parts in all.
    pub fn progress(&self) -> (usize, usize) {
        let leased: usize = self
            .workers
            .values()
            .filter_map(|w| w.lease.as_ref())
            .map(Vec::len)
            .sum();
        (
            self.answered.len(),
            self.answered.len() + self.open.len() + leased,
        )
    }

    /// Leases open parts to idle workers: first what is at home there, then what has no home.
    pub fn grant(&mut self) -> Vec<(WorkerId, Vec<PartId>)> {
        let idle: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, w)| w.lease.is_none())
            .map(|(id, _)| *id)
            .collect();
        let mut grants = Vec::new();
        for (nth, &id) in idle.iter().enumerate() {
            let parts = self.choose(id, idle.len() - nth);
            if !parts.is_empty() {
                parts.iter().for_each(|part| {
                    self.open.remove(part);
                });
                self.workers
                    .entry(id)
                    .and_modify(|w| w.lease = Some(parts.clone()));
                grants.push((id, parts));
            }
        }
        grants
    }

    fn choose(&self, id: WorkerId, n_idle: usize) -> Vec<PartId> {
        if let Some(single) = self.open.iter().find(|part| self.alone.contains(part)) {
            return vec![*single];
        }
        let at_home: Vec<PartId> = if self.keeps_homes {
            self.open
                .iter()
                .filter(|part| self.homes.get(part) == Some(&id))
                .copied()
                .collect()
        } else {
            Vec::new()
        };
        if !at_home.is_empty() {
            return at_home;
        }
        let homeless: Vec<PartId> = self
            .open
            .iter()
            .filter(|part| !self.keeps_homes || !self.homes.contains_key(part))
            .copied()
            .collect();
        let share = homeless.len().div_ceil(n_idle);
        homeless.into_iter().take(share).collect()
    }

    /// Takes an answer for `parts` from `id`.
    ///
    /// # Errors
    /// [`Mismatch`] when it cannot be added to the answers before it.
    pub fn answer(
        &mut self,
        id: WorkerId,
        parts: &[PartId],
        answer: Answer,
    ) -> Result<Counted, Mismatch> {
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.lease.as_deref() == Some(parts)
        {
            worker.lease = None;
        }
        if parts.iter().any(|part| self.answered.contains(part)) {
            for part in parts.iter().filter(|part| !self.answered.contains(part)) {
                self.open.insert(*part);
                self.alone.insert(*part);
            }
            return Ok(Counted::Repeated);
        }
        match &mut self.merged {
            Some(merged) => merged.merge(answer)?,
            none => *none = Some(answer),
        }
        for part in parts {
            self.answered.insert(*part);
            self.open.remove(part);
            self.alone.remove(part);
            if self.keeps_homes {
                self.homes.insert(*part, id);
            }
        }
        self.withdraw(parts);
        Ok(Counted::New)
    }

    /// Takes parts that a late worker has answered after all from the lease of whoever got them next.
    fn withdraw(&mut self, parts: &[PartId]) {
        for worker in self.workers.values_mut() {
            if let Some(lease) = &worker.lease
                && lease.iter().all(|part| parts.contains(part))
            {
                worker.lease = None;
            }
        }
    }

    /// The sum of all answers, once every part is answered.
    pub fn finish(&mut self) -> Option<Answer> {
        let all_idle = self.workers.values().all(|w| w.lease.is_none());
        if self.open.is_empty() && all_idle {
            self.merged.take()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);

    fn schedule(n_parts: u32) -> Schedule {
        let mut schedule = Schedule::default();
        schedule.join(A, Duration::ZERO);
        schedule.join(B, Duration::ZERO);
        schedule.open_stage(n_parts, true);
        schedule
    }

    fn count(parts: &[PartId]) -> Answer {
        Answer::Weigh(vec![parts.len() as u64])
    }

    /// Grants and answers until the stage is done; what the answers add up to.
    fn run_out(schedule: &mut Schedule) -> u64 {
        for _ in 0..100 {
            for (id, parts) in schedule.grant() {
                schedule.answer(id, &parts, count(&parts)).unwrap();
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
        schedule.open_stage(8, true);
        for (id, parts) in schedule.grant() {
            assert!(parts.iter().all(|part| homes[part] == id));
        }
    }

    #[test]
    fn a_lost_worker_loses_only_what_it_had_not_answered() {
        let mut schedule = schedule(8);
        let grants = schedule.grant();
        let lost = grants[0].1.clone();
        schedule.lose(A).unwrap();
        schedule
            .answer(B, &grants[1].1, count(&grants[1].1))
            .unwrap();
        assert!(lost.iter().all(|part| schedule.open.contains(part)));
        assert_eq!(run_out(&mut schedule), 8);
    }

    #[test]
    fn a_late_answer_of_a_lost_worker_counts_once_or_not_at_all() {
        let mut schedule = schedule(8);
        let grants = schedule.grant();
        let late = grants[0].1.clone();
        schedule.lose(A).unwrap();
        assert_eq!(schedule.answer(A, &late, count(&late)), Ok(Counted::New));
        assert_eq!(
            schedule.answer(A, &late, count(&late)),
            Ok(Counted::Repeated)
        );
        schedule
            .answer(B, &grants[1].1, count(&grants[1].1))
            .unwrap();
        assert_eq!(run_out(&mut schedule), 8);
    }

    #[test]
    fn an_answer_that_merges_counted_parts_is_refused_and_its_rest_comes_singly() {
        let mut schedule = schedule(4);
        let mine = schedule.grant()[0].1.clone();
        let mut more = mine.clone();
        more.push(PartId(3));
        schedule.answer(A, &mine, count(&mine)).unwrap();
        assert_eq!(
            schedule.answer(A, &more, count(&more)),
            Ok(Counted::Repeated)
        );
        assert!(schedule.alone.contains(&PartId(3)));
        schedule.lose(B).unwrap();
        assert_eq!(run_out(&mut schedule), 4);
    }

    #[test]
    fn a_part_that_kills_three_workers_is_named_and_the_others_are_answered() {
        let mut schedule = Schedule::default();
        schedule.open_stage(5, true);
        let mut culprits = Vec::new();
        for n in 0..MAX_DEATHS {
            schedule.join(WorkerId(n), Duration::ZERO);
            // Until it gets the part that it dies of, the worker answers.
            while let Some((id, parts)) = schedule.grant().pop() {
                if parts.contains(&PartId(2)) {
                    culprits.extend(schedule.lose(id).err());
                } else {
                    schedule.answer(id, &parts, count(&parts)).unwrap();
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
        let mut schedule = Schedule::default();
        for n in 0..3 * MAX_DEATHS {
            schedule.open_stage(4, true);
            schedule.join(WorkerId(n), Duration::ZERO);
            assert_eq!(schedule.grant().len(), 1);
            assert_eq!(schedule.lose(WorkerId(n)), Ok(()));
        }
    }

    #[test]
    fn silence_longer_than_a_lease_is_noticed() {
        let mut schedule = schedule(1);
        schedule.heard(B, Duration::from_secs(5));
        assert_eq!(schedule.silent(Duration::from_secs(7)), vec![A]);
    }
}

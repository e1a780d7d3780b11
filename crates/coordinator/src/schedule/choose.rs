//! Which parts an idle worker gets: what is at home there, what has no home, what is done sooner there than at home, and what another
//! is late with.

use std::collections::BTreeMap;
use std::time::Duration;

use clientele_protocol::{PartId, WorkerId};

use super::Schedule;

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

impl Schedule {
    /// Parts for an idle worker; none when there is nothing that it had better do.
    pub(super) fn choose(&self, id: WorkerId, now: Duration) -> Vec<PartId> {
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
}

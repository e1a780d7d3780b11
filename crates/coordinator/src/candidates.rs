//! The models being fitted at once, one for each number of clusters and restart.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use clientele_kmeans::lloyd::{Candidate, Step, StopReason, inertia};
use clientele_kmeans::relocate::{FarthestRows, drop_empty};
use clientele_kmeans::{Centroids, Partial, Totals, quality};
use clientele_protocol::{CandidateId, RelocateRequest};

use crate::FitError;
use crate::halving::{self, GivenUp, Standing};
use crate::model::CandidateSummary;

/// All candidates of a fit, in the order of their ids.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    by_id: BTreeMap<CandidateId, Entry>,
}

#[derive(Debug)]
struct Entry {
    n_clusters: usize,
    restart: u32,
    machine: Candidate,
    /// Of the last pass; empty before the first.
    sizes: Vec<u64>,
    /// Of the last pass, in grid steps squared.
    inertia: i128,
    /// How much lower that is than the pass before; none before the second pass, and after a round in which clusters came out empty.
    decrease: Option<i128>,
    /// Whether the last pass was one with the final centroids.
    is_settled: bool,
    /// Why it takes part in no more passes, though it has not stopped.
    set_aside: Option<SetAside>,
}

#[derive(Debug, Clone, Copy)]
enum SetAside {
    /// It has the centroids of this one, and would have them for ever: whatever becomes of that one becomes of it.
    SameAs(CandidateId),
    /// It can no longer win.
    GivenUp(GivenUp),
}

impl Candidates {
    pub(crate) fn add(&mut self, restart: u32, machine: Candidate) {
        let id = CandidateId(u32::try_from(self.by_id.len()).expect("limited by MAX_PASS_VALUES"));
        let n_clusters = machine.centroids().n_clusters();
        let entry = Entry {
            n_clusters,
            restart,
            machine,
            sizes: Vec::new(),
            inertia: 0,
            decrease: None,
            is_settled: false,
            set_aside: None,
        };
        self.by_id.insert(id, entry);
    }

    /// Candidates that passes are made for.
    pub(crate) fn n_live(&self) -> usize {
        self.which(Entry::is_live).len()
    }

    /// The smallest inertia of the last pass, in grid steps squared; none before the first.
    pub(crate) fn best_inertia(&self) -> Option<i128> {
        let seen = self.by_id.values().filter(|entry| !entry.sizes.is_empty());
        seen.map(|entry| entry.inertia).min()
    }

    /// Who wants a pass: the live ones, then those that stopped on the move, to be measured where they stopped.
    pub(crate) fn wanting_a_pass(&self) -> Vec<CandidateId> {
        let live = self.which(Entry::is_live);
        if live.is_empty() {
            self.which(|entry| !entry.is_settled && entry.set_aside.is_none())
        } else {
            live
        }
    }

    pub(crate) fn centroids(&self, id: CandidateId) -> &Centroids {
        self.by_id[&id].machine.centroids()
    }

    /// Takes the partials of a pass over all rows for `ids`; answers what has to be asked before the next one.
    ///
    /// # Errors
    /// [`FitError::Bug`] when the pass did not see every row.
    pub(crate) fn absorb(
        &mut self,
        ids: &[CandidateId],
        partials: &[Partial],
        totals: &Totals,
    ) -> Result<Vec<RelocateRequest>, FitError> {
        let mut requests = Vec::new();
        for (id, partial) in ids.iter().zip(partials) {
            let (n_seen, n_rows) = (partial.n_rows(), totals.n_rows);
            if n_seen != n_rows {
                return Err(FitError::Bug(format!(
                    "a pass saw {n_seen} of {n_rows} rows"
                )));
            }
            let entry = self.entry(*id);
            let centroids = entry.machine.centroids().clone();
            let before = (!entry.sizes.is_empty()).then_some(entry.inertia);
            entry.sizes.clone_from(&partial.counts);
            entry.inertia = inertia(totals.squares, partial, &centroids);
            entry.decrease = before.map(|before| before - entry.inertia);
            tracing::debug!(
                n_clusters = entry.n_clusters,
                restart = entry.restart,
                n_iter = entry.machine.n_iter(),
                inertia = entry.inertia,
                "a pass"
            );
            if !entry.is_live() {
                entry.is_settled = true;
                continue;
            }
            let step = entry.machine.absorb(partial, totals.squares);
            entry.note(step);
            if let Step::NeedsRows { limit } = step {
                // The rows it is given may lower its inertia by any amount.
                entry.decrease = None;
                requests.push(RelocateRequest {
                    candidate: *id,
                    centroids,
                    limit,
                });
            }
        }
        Ok(requests)
    }

    /// Fills the empty clusters of those that asked for rows.
    pub(crate) fn relocate(&mut self, requests: &[RelocateRequest], rows: &[FarthestRows]) {
        for (request, rows) in requests.iter().zip(rows) {
            let entry = self.entry(request.candidate);
            let step = entry.machine.relocate(rows);
            entry.note(step);
        }
    }

    /// Has one pass do for all candidates that have come to the same centroids in the same round: they would never part again. Nothing
    /// but the number of passes changes.
    pub(crate) fn merge_twins(&mut self) {
        let mut firsts: BTreeMap<(usize, &[i32]), CandidateId> = BTreeMap::new();
        let mut twins = Vec::new();
        for (id, entry) in self.by_id.iter().filter(|(_, entry)| entry.is_live()) {
            let centroids = entry.machine.centroids().values();
            let first = *firsts.entry((entry.n_clusters, centroids)).or_insert(*id);
            if first != *id {
                twins.push((*id, first));
            }
        }
        for (id, first) in twins {
            self.entry(id).set_aside = Some(SetAside::SameAs(first));
        }
    }

    /// Gives up those that can no longer win against others of as many clusters, after pass `n_passes` of `max_iter`; twins are one.
    pub(crate) fn halve(&mut self, n_passes: u32, max_iter: u32) {
        if !halving::is_due(n_passes) {
            return;
        }
        let mut fields: BTreeMap<usize, Vec<CandidateId>> = BTreeMap::new();
        for (id, entry) in self.by_id.iter().filter(|(_, e)| e.set_aside.is_none()) {
            fields.entry(entry.n_clusters).or_default().push(*id);
        }
        for ids in fields.values() {
            let standings: Vec<Standing> = ids.iter().map(|id| self.by_id[id].standing()).collect();
            let n_rounds_left = max_iter.saturating_sub(n_passes);
            for (idx, why) in halving::given_up(&standings, n_rounds_left) {
                self.entry(ids[idx]).set_aside = Some(SetAside::GivenUp(why));
            }
        }
    }

    /// One summary a candidate, in order; inertia also in units of `grid_step`.
    pub(crate) fn summaries(&self, totals: &Totals, grid_step: f64) -> Vec<CandidateSummary> {
        let summary = |entry: &Entry| {
            let restart = entry.restart;
            let entry = self.followed(entry);
            let filled = || entry.sizes.iter().copied().filter(|n| *n > 0);
            let n_clusters = filled().count();
            let (stop_reason, given_up) = match entry.set_aside {
                Some(SetAside::GivenUp(why)) => (StopReason::GivenUp, Some(why)),
                _ => {
                    let reason = entry.machine.stop_reason();
                    (reason.unwrap_or(StopReason::MaxIter), None)
                }
            };
            CandidateSummary {
                n_clusters,
                restart,
                inertia: entry.inertia as f64 * grid_step * grid_step,
                inertia_grid: entry.inertia,
                n_iter: entry.machine.n_iter(),
                stop_reason,
                smallest_size: filled().min().unwrap_or(0),
                calinski_harabasz: quality::calinski_harabasz(totals, entry.inertia, n_clusters),
                given_up,
            }
        };
        self.by_id.values().map(summary).collect()
    }

    /// The candidate whose passes are this one's: itself, unless it has a twin.
    fn followed<'a>(&'a self, entry: &'a Entry) -> &'a Entry {
        match entry.set_aside {
            Some(SetAside::SameAs(first)) => self.followed(&self.by_id[&first]),
            _ => entry,
        }
    }

    /// Centroids of the candidate at `idx` that have rows, and how many it had in all.
    pub(crate) fn without_empty(&self, idx: usize) -> Option<(Centroids, usize)> {
        let entry = self.followed(self.by_id.values().nth(idx)?);
        let (centroids, _) = drop_empty(entry.machine.centroids(), &entry.sizes);
        Some((centroids, entry.n_clusters))
    }

    fn which(&self, wants: impl Fn(&Entry) -> bool) -> Vec<CandidateId> {
        self.by_id
            .iter()
            .filter(|(_, entry)| wants(entry))
            .map(|(id, _)| *id)
            .collect()
    }

    fn entry(&mut self, id: CandidateId) -> &mut Entry {
        self.by_id
            .get_mut(&id)
            .expect("only known candidates are asked about")
    }
}

impl Entry {
    fn is_live(&self) -> bool {
        self.machine.stop_reason().is_none() && self.set_aside.is_none()
    }

    fn standing(&self) -> Standing {
        Standing {
            restart: self.restart,
            inertia: self.inertia,
            decrease: self.decrease.filter(|_| self.is_live()),
        }
    }

    fn note(&mut self, step: Step) {
        // With no shift the pass that found it was one with the final centroids.
        self.is_settled = step == Step::Done(StopReason::Converged);
    }
}

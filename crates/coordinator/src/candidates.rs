//! The models being fitted at once, one for each number of clusters and restart.

use std::collections::BTreeMap;

use clientele_kmeans::lloyd::{Candidate, Step, StopReason, inertia};
use clientele_kmeans::relocate::{FarthestRows, drop_empty};
use clientele_kmeans::{Centroids, Partial, Totals, quality};
use clientele_protocol::{CandidateId, RelocateRequest};

use crate::FitError;
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
    /// Whether the last pass was one with the final centroids.
    is_settled: bool,
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
            is_settled: false,
        };
        self.by_id.insert(id, entry);
    }

    /// Candidates that have not stopped.
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
            self.which(|entry| !entry.is_settled)
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
            entry.sizes.clone_from(&partial.counts);
            entry.inertia = inertia(totals.squares, partial, &centroids);
            if !entry.is_live() {
                entry.is_settled = true;
                continue;
            }
            let step = entry.machine.absorb(partial, totals.squares);
            entry.note(step);
            if let Step::NeedsRows { limit } = step {
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

    /// One summary a candidate, in order; inertia also in units of `grid_step`.
    pub(crate) fn summaries(&self, totals: &Totals, grid_step: f64) -> Vec<CandidateSummary> {
        let summary = |entry: &Entry| {
            let filled = || entry.sizes.iter().copied().filter(|n| *n > 0);
            let n_clusters = filled().count();
            CandidateSummary {
                n_clusters,
                restart: entry.restart,
                inertia: entry.inertia as f64 * grid_step * grid_step,
                inertia_grid: entry.inertia,
                n_iter: entry.machine.n_iter(),
                stop_reason: entry.machine.stop_reason().unwrap_or(StopReason::MaxIter),
                smallest_size: filled().min().unwrap_or(0),
                calinski_harabasz: quality::calinski_harabasz(totals, entry.inertia, n_clusters),
            }
        };
        self.by_id.values().map(summary).collect()
    }

    /// Centroids of the candidate at `idx` that have rows, and how many it had in all.
    pub(crate) fn without_empty(&self, idx: usize) -> Option<(Centroids, usize)> {
        let entry = self.by_id.values().nth(idx)?;
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
        self.machine.stop_reason().is_none()
    }

    fn note(&mut self, step: Step) {
        // With no shift the pass that found it was one with the final centroids.
        self.is_settled = step == Step::Done(StopReason::Converged);
    }
}

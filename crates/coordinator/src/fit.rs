//! The fit as a list of questions: which stage comes next, given the answers so far. Knows nothing of workers or time.

use std::sync::Arc;

use clientele_data::duplicates::Duplicates;
use clientele_data::ingest::IngestPartial;
use clientele_data::manifest::Manifest;
use clientele_data::stats::StatsPlanner;
use clientele_data::transform::Transform;
use clientele_kmeans::lloyd::{Candidate, StopReason, shift_threshold};
use clientele_kmeans::seeding::{Seeding, recluster};
use clientele_kmeans::{Centroids, Partial, Totals, quality};
use clientele_protocol::{Answer, CandidateId, FinalPartial, FitSpec, RelocateRequest, Stage};

use crate::FitError;
use crate::candidates::Candidates;
use crate::model::CandidateSummary;

/// Everything that was found out; exact, and free of how it was computed.
#[derive(Debug)]
pub struct Fitted {
    /// Frozen.
    pub transform: Arc<Transform>,
    /// What putting the rows on the grid counted.
    pub ingest: IngestPartial,
    /// Totals of the rows on the grid.
    pub totals: Totals,
    /// The chosen model, without empty clusters.
    pub centroids: Centroids,
    /// Its rounds.
    pub n_iter: u32,
    /// Why they ended.
    pub stop_reason: StopReason,
    /// Everything fitted, by number of clusters and restart.
    pub candidates: Vec<CandidateSummary>,
    /// Which of `candidates` was chosen.
    pub chosen_idx: usize,
    /// Labels' totals.
    pub labels: FinalPartial,
    /// What the user should know, as sentences.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
enum Phase {
    Statistics(Box<StatsPlanner>),
    Ingest,
    Duplicates {
        n_ranges: u32,
    },
    Seed(Box<Seeding>),
    Weigh(Arc<Centroids>),
    Pass(Vec<CandidateId>),
    Relocate(Vec<RelocateRequest>),
    Final {
        chosen: usize,
        centroids: Arc<Centroids>,
    },
}

/// The fit's state.
#[derive(Debug)]
pub struct Fit {
    spec: FitSpec,
    manifest: Arc<Manifest>,
    phase: Phase,
    transform: Option<Arc<Transform>>,
    ingest: Option<IngestPartial>,
    /// Of all rows on the grid; from `ingest`.
    totals: Option<Totals>,
    candidates: Candidates,
    warnings: Vec<String>,
    /// Passes over the rows on behalf of candidates.
    n_passes: u32,
    last_moved: Option<u64>,
}

/// What follows an answer.
#[derive(Debug)]
pub enum Next {
    /// Another stage: [`Fit::stage`].
    Stage,
    /// The end.
    Done(Box<Fitted>),
}

impl Fit {
    /// A fit of the rows in `manifest`.
    ///
    /// # Errors
    /// As [`FitSpec::check`]; also when the models are too large for one pass.
    pub fn new(spec: FitSpec, manifest: Arc<Manifest>) -> Result<Self, FitError> {
        spec.check()?;
        spec.check_size(manifest.n_features(), manifest.n_rows())?;
        let planner = StatsPlanner::new(&manifest, spec.transform);
        Ok(Self {
            spec,
            manifest,
            phase: Phase::Statistics(Box::new(planner)),
            transform: None,
            ingest: None,
            totals: None,
            candidates: Candidates::default(),
            warnings: Vec::new(),
            n_passes: 0,
            last_moved: None,
        })
    }

    /// The question of the moment, and the number of parts it is asked of.
    pub fn stage(&self) -> (Stage, u32) {
        let n_shards = self.manifest.n_shards();
        let transform = || {
            self.transform
                .clone()
                .expect("every stage after the statistics has a transform")
        };
        let stage = match &self.phase {
            Phase::Statistics(planner) => Stage::Statistics(
                planner
                    .request()
                    .expect("the statistics stage ends with the last request"),
            ),
            Phase::Ingest => Stage::Ingest {
                transform: transform(),
                fingerprints: self.manifest.has_id(),
            },
            Phase::Duplicates { n_ranges } => {
                return (
                    Stage::Duplicates {
                        n_ranges: *n_ranges,
                        n_shards,
                    },
                    *n_ranges,
                );
            }
            Phase::Seed(seeding) => Stage::Seed {
                transform: transform(),
                round: seeding
                    .request()
                    .expect("the seeding stage ends with the last request"),
            },
            Phase::Weigh(candidates) => Stage::Weigh {
                transform: transform(),
                candidates: candidates.clone(),
            },
            Phase::Pass(ids) => Stage::Pass {
                transform: transform(),
                ids: ids.clone(),
                centroids: ids
                    .iter()
                    .map(|id| self.candidates.centroids(*id).clone())
                    .collect(),
            },
            Phase::Relocate(requests) => Stage::Relocate {
                transform: transform(),
                requests: requests.clone(),
            },
            Phase::Final { centroids, .. } => Stage::Final {
                transform: transform(),
                centroids: centroids.clone(),
            },
        };
        (stage, n_shards)
    }

    /// Passes so far, for people.
    pub fn n_passes(&self) -> u32 {
        self.n_passes
    }

    /// Rows that changed cluster in the last pass, over all candidates, if counted.
    pub fn n_moved(&self) -> Option<u64> {
        self.last_moved
    }

    /// Candidates still being fitted.
    pub fn n_live(&self) -> usize {
        self.candidates.n_live()
    }

    /// The smallest inertia of the last pass, in clustered units squared.
    pub fn best_inertia(&self) -> Option<f64> {
        let step = self.transform.as_ref()?.grid_step();
        let best = self.candidates.best_inertia()?;
        Some(best as f64 * step * step)
    }

    /// Takes the merged answer to [`Fit::stage`].
    ///
    /// # Errors
    /// When the data do not allow the fit, or the answer is not one to this stage.
    pub fn absorb(&mut self, answer: Answer) -> Result<Next, FitError> {
        let phase = std::mem::replace(&mut self.phase, Phase::Ingest);
        match (phase, answer) {
            (Phase::Statistics(planner), Answer::Statistics(partial)) => {
                self.after_statistics(planner, *partial)
            }
            (Phase::Ingest, Answer::Ingest(partial)) => self.after_ingest(*partial),
            (Phase::Duplicates { .. }, Answer::Duplicates(found)) => self.after_duplicates(&found),
            (Phase::Seed(mut seeding), Answer::Seed(race)) => {
                seeding.absorb(race);
                self.seed(seeding)
            }
            (Phase::Weigh(candidates), Answer::Weigh(weights)) => {
                self.after_weighing(&candidates, &weights)
            }
            (Phase::Pass(ids), Answer::Pass(partials)) => self.after_pass(&ids, &partials),
            (Phase::Relocate(requests), Answer::Relocate(rows)) => {
                self.candidates.relocate(&requests, &rows);
                self.next_pass()
            }
            (Phase::Final { chosen, centroids }, Answer::Final(labels)) => {
                self.finish(chosen, &centroids, *labels)
            }
            _ => Err(FitError::Bug(
                "an answer is not one to the stage that was asked".into(),
            )),
        }
    }

    fn after_statistics(
        &mut self,
        mut planner: Box<StatsPlanner>,
        partial: clientele_data::stats::StatsPartial,
    ) -> Result<Next, FitError> {
        planner.absorb(partial)?;
        if planner.request().is_some() {
            self.phase = Phase::Statistics(planner);
        } else {
            let transform = planner.finish()?;
            self.warnings.extend(transform.warnings().iter().cloned());
            self.transform = Some(Arc::new(transform));
            self.phase = Phase::Ingest;
        }
        Ok(Next::Stage)
    }

    fn after_ingest(&mut self, partial: IngestPartial) -> Result<Next, FitError> {
        if partial.n_rows == 0 {
            return Err(FitError::Input(
                "no rows are left: every row has a null in some feature".into(),
            ));
        }
        let transform = self.transform.as_ref().expect("set before ingest");
        self.warnings.extend(partial.coarse_features(transform));
        self.totals = Some(totals(&partial)?);
        self.ingest = Some(partial);
        if self.manifest.has_id() {
            let n_ranges = clientele_data::duplicates::n_ranges(self.manifest.n_rows());
            self.phase = Phase::Duplicates { n_ranges };
            return Ok(Next::Stage);
        }
        self.start_seeding()
    }

    fn after_duplicates(&mut self, found: &Duplicates) -> Result<Next, FitError> {
        if found.n_surplus > 0 {
            return Err(FitError::Input(format!(
                "customer ids are not unique: {} surplus rows; hashed examples: {}",
                found.n_surplus,
                found.examples.join(", ")
            )));
        }
        self.start_seeding()
    }

    fn start_seeding(&mut self) -> Result<Next, FitError> {
        let n_features = self.manifest.n_features();
        if let Some(init) = &self.spec.init {
            let transform = self.transform.as_ref().expect("set before seeding");
            let values = init
                .iter()
                .flat_map(|row| transform.row_to_grid(row))
                .collect();
            self.add_candidate(0, Centroids::new(n_features, values));
            return self.next_pass();
        }
        let (_, k_max) = self.spec.k_range;
        let k_max = k_max.min(usize::try_from(self.totals().n_rows).unwrap_or(usize::MAX));
        self.seed(Box::new(Seeding::new(k_max, self.totals(), self.spec.seed)))
    }

    fn seed(&mut self, seeding: Box<Seeding>) -> Result<Next, FitError> {
        self.phase = if seeding.request().is_some() {
            Phase::Seed(seeding)
        } else {
            Phase::Weigh(Arc::new(seeding.candidates().clone()))
        };
        Ok(Next::Stage)
    }

    fn after_weighing(
        &mut self,
        candidates: &Centroids,
        weights: &[u64],
    ) -> Result<Next, FitError> {
        let (low, high) = self.spec.k_range;
        let n_distinct = candidates.n_clusters();
        if high > n_distinct {
            // Seeding ends below k_max candidates only when every row coincides with one of them.
            self.warnings.push(format!(
                "there are only {n_distinct} distinct customers in these features, so no model has more than {n_distinct} personas"
            ));
        }
        for n_clusters in low.min(n_distinct)..=high.min(n_distinct) {
            for restart in 0..self.spec.n_restarts {
                let initial = recluster(candidates, weights, n_clusters, self.spec.seed, restart);
                self.add_candidate(restart, initial);
            }
        }
        self.next_pass()
    }

    fn add_candidate(&mut self, restart: u32, initial: Centroids) {
        let threshold = shift_threshold(self.spec.tol, self.totals());
        let machine = Candidate::new(initial, threshold, self.spec.max_iter);
        self.candidates.add(restart, machine);
    }

    fn after_pass(&mut self, ids: &[CandidateId], partials: &[Partial]) -> Result<Next, FitError> {
        self.n_passes += 1;
        self.last_moved = partials.iter().map(|p| p.n_moved).sum();
        let totals = self.totals.as_ref().expect("set before seeding");
        let requests = self.candidates.absorb(ids, partials, totals)?;
        if requests.is_empty() {
            return self.next_pass();
        }
        self.phase = Phase::Relocate(requests);
        Ok(Next::Stage)
    }

    fn next_pass(&mut self) -> Result<Next, FitError> {
        self.candidates.merge_twins();
        if self.spec.halving {
            self.candidates.halve(self.n_passes, self.spec.max_iter);
        }
        let ids = self.candidates.wanting_a_pass();
        if ids.is_empty() {
            return self.choose();
        }
        self.phase = Phase::Pass(ids);
        Ok(Next::Stage)
    }

    fn choose(&mut self) -> Result<Next, FitError> {
        let summaries = self.summaries();
        // One that was given up has a better one of as many clusters beside it.
        let (standing, fits): (Vec<usize>, Vec<quality::FitSummary>) = summaries
            .iter()
            .enumerate()
            .filter(|(_, summary)| summary.given_up.is_none())
            .map(|(idx, summary)| (idx, summary.quality(self.totals().n_rows)))
            .unzip();
        let chosen = quality::choose(&fits)
            .map(|nth| standing[nth])
            .ok_or_else(|| FitError::Bug("no candidate was fitted".into()))?;
        if summaries[chosen].stop_reason == StopReason::MaxIter {
            self.warnings.push(format!(
                "the chosen model was still moving after {} rounds; a larger --max-iter may improve it",
                summaries[chosen].n_iter
            ));
        }
        let (centroids, n_clusters) = self
            .candidates
            .without_empty(chosen)
            .ok_or_else(|| FitError::Bug("the chosen candidate is not there".into()))?;
        let n_empty = n_clusters - centroids.n_clusters();
        if n_empty > 0 {
            self.warnings.push(format!(
                "{n_empty} of {n_clusters} clusters stayed empty and were dropped: there are no more distinct customers to fill them"
            ));
        }
        self.phase = Phase::Final {
            chosen,
            centroids: Arc::new(centroids),
        };
        Ok(Next::Stage)
    }

    fn summaries(&self) -> Vec<CandidateSummary> {
        let transform = self.transform.as_ref().expect("set before passes");
        self.candidates
            .summaries(self.totals(), transform.grid_step())
    }

    fn finish(
        &mut self,
        chosen_idx: usize,
        centroids: &Centroids,
        labels: FinalPartial,
    ) -> Result<Next, FitError> {
        let candidates = self.summaries();
        let summary = &candidates[chosen_idx];
        // Two roads to one integer: the sum of exact distances, and Q - 2 c.S + N |c|^2.
        if i128::try_from(labels.inertia) != Ok(summary.inertia_grid) {
            return Err(FitError::Bug(format!(
                "the final distances add up to {}, the final pass to {}",
                labels.inertia, summary.inertia_grid
            )));
        }
        let (n_iter, stop_reason) = (summary.n_iter, summary.stop_reason);
        Ok(Next::Done(Box::new(Fitted {
            transform: self.transform.clone().expect("set before passes"),
            ingest: self.ingest.take().expect("set before passes"),
            totals: self.totals.take().expect("set before passes"),
            centroids: centroids.clone(),
            n_iter,
            stop_reason,
            candidates,
            chosen_idx,
            labels,
            warnings: std::mem::take(&mut self.warnings),
        })))
    }

    fn totals(&self) -> &Totals {
        self.totals.as_ref().expect("set before seeding")
    }
}

/// What the algorithm needs of the rows on the grid.
fn totals(partial: &IngestPartial) -> Result<Totals, FitError> {
    let sum = |sum: &i128| {
        i64::try_from(*sum)
            .map_err(|_| FitError::Limit(format!("too many rows: {}", partial.n_rows)))
    };
    Ok(Totals {
        n_rows: partial.n_rows,
        sums: partial.sums.iter().map(sum).collect::<Result<_, _>>()?,
        squares: partial.total_squares,
    })
}

//! The answers, and how they add up.

use clientele_data::ErrorKind;
use clientele_data::duplicates::Duplicates;
use clientele_data::ingest::IngestPartial;
use clientele_data::stats::StatsPartial;
use clientele_kmeans::relocate::FarthestRows;
use clientele_kmeans::seeding::Race;
use clientele_kmeans::{Centroids, Partial};

use crate::{Histograms, RelocateRequest, Stage};

/// Bins of [`FinalPartial::margins`]: twentieths of `(d2 - d1) / d2`.
pub const MARGIN_BINS: usize = 20;

/// The answer to a [`Stage`], over some of its parts.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`Stage::Statistics`].
    Statistics(Box<StatsPartial>),
    /// To [`Stage::Ingest`].
    Ingest(Box<IngestPartial>),
    /// To [`Stage::Duplicates`].
    Duplicates(Duplicates),
    /// To [`Stage::Seed`].
    Seed(Race),
    /// To [`Stage::Weigh`]: [n_candidates] rows nearest to each.
    Weigh(Vec<u64>),
    /// To [`Stage::Pass`]: one a candidate, in the order asked.
    Pass(Vec<Partial>),
    /// To [`Stage::Relocate`]: one a request, in the order asked.
    Relocate(Vec<FarthestRows>),
    /// To [`Stage::Final`].
    Final(Box<FinalPartial>),
}

/// What the final pass tells of the rows it labelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalPartial {
    /// [n_clusters] rows.
    pub sizes: Vec<u64>,
    /// Sum of squared distances, in grid steps squared.
    pub inertia: u128,
    /// [n_clusters x n_clusters] rows of a cluster (row) whose second nearest is another (column).
    pub seconds: Vec<u64>,
    /// [n_clusters x MARGIN_BINS] rows by how clear their choice was.
    pub margins: Vec<u64>,
    /// [n_clusters] sums of the value column, in 1/10,000 of its unit; empty without one.
    pub values: Vec<i128>,
    /// Exact histograms of every feature in every cluster.
    pub histograms: Histograms,
    /// Of the canonical assignment rows.
    pub row_hashes: RowHashSum,
    /// Rows with a value in the value column, by cluster; empty without one.
    pub valued: Vec<u64>,
}

impl FinalPartial {
    /// No rows seen yet.
    pub fn zero(n_clusters: usize, n_features: usize, has_values: bool) -> Self {
        let n_values = if has_values { n_clusters } else { 0 };
        Self {
            sizes: vec![0; n_clusters],
            inertia: 0,
            seconds: vec![0; n_clusters * n_clusters],
            margins: vec![0; n_clusters * MARGIN_BINS],
            values: vec![0; n_values],
            histograms: Histograms::zero(n_clusters, n_features),
            row_hashes: RowHashSum::default(),
            valued: vec![0; n_values],
        }
    }

    /// Adds what `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.sizes, &other.sizes);
        self.inertia += other.inertia;
        add(&mut self.seconds, &other.seconds);
        add(&mut self.margins, &other.margins);
        self.values
            .iter_mut()
            .zip(&other.values)
            .for_each(|(a, b)| *a += b);
        self.histograms.merge(&other.histograms);
        self.row_hashes.merge(&other.row_hashes);
        add(&mut self.valued, &other.valued);
    }
}

/// Sum modulo 2^256 of the rows' BLAKE3 hashes: the same for the same set of rows, whatever their order or file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowHashSum([u64; 4]);

impl RowHashSum {
    /// Adds one row's hash.
    pub fn add(&mut self, hash: &blake3::Hash) {
        self.merge(&Self::from_le_bytes(*hash.as_bytes()));
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        let mut carry = false;
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            let (sum, first) = a.overflowing_add(*b);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *a = sum;
            carry = first || second;
        }
    }

    /// The sum as 32 bytes, least significant first.
    pub fn to_le_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(&self.0) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What [`RowHashSum::to_le_bytes`] gave.
    pub fn from_le_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        }
        Self(words)
    }

    /// 64 hexadecimal digits, most significant first.
    pub fn to_hex(&self) -> String {
        self.0
            .iter()
            .rev()
            .map(|word| format!("{word:016x}"))
            .collect()
    }
}

/// Why a worker has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TaskError {
    /// Decides about retrying and the exit code.
    pub kind: ErrorKind,
    /// The fact.
    pub message: String,
    /// Its causes, outermost first.
    pub causes: Vec<String>,
    /// A way out, if one is known.
    pub hint: Option<String>,
}

impl From<clientele_data::DataError> for TaskError {
    fn from(error: clientele_data::DataError) -> Self {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            causes.push(inner.to_string());
            cause = inner.source();
        }
        Self {
            kind: error.kind(),
            message: error.to_string(),
            causes,
            hint: error.hint(),
        }
    }
}

/// Two answers that should be of one stage are not.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a worker answered `{got}` where `{expected}` was expected")]
pub struct Mismatch {
    /// What the stage asks for.
    pub expected: &'static str,
    /// What came.
    pub got: &'static str,
}

impl Answer {
    /// Adds the answer for other parts of the same stage.
    ///
    /// # Errors
    /// [`Mismatch`] when they are of different stages.
    pub fn merge(&mut self, other: Self) -> Result<(), Mismatch> {
        match (&mut *self, other) {
            (Self::Statistics(a), Self::Statistics(b)) => a.merge(&b),
            (Self::Ingest(a), Self::Ingest(b)) => a.merge(&b),
            (Self::Duplicates(a), Self::Duplicates(b)) => a.merge(b),
            (Self::Seed(a), Self::Seed(b)) => a.merge(b),
            (Self::Weigh(a), Self::Weigh(b)) => add(a, &b),
            (Self::Pass(a), Self::Pass(b)) => a.iter_mut().zip(&b).for_each(|(a, b)| a.merge(b)),
            (Self::Relocate(a), Self::Relocate(b)) => {
                a.iter_mut().zip(b).for_each(|(a, b)| a.merge(b))
            }
            (Self::Final(a), Self::Final(b)) => a.merge(&b),
            (a, b) => {
                return Err(Mismatch {
                    expected: a.name(),
                    got: b.name(),
                });
            }
        }
        Ok(())
    }

    /// Whether this is an answer to `stage`, of its shape: what merging and all that follows take for granted.
    ///
    /// # Errors
    /// [`Mismatch`] when it is not.
    pub fn check(&self, stage: &Stage) -> Result<(), Mismatch> {
        let fits = match (self, stage) {
            (Self::Statistics(partial), Stage::Statistics(request)) => {
                partial.features.len() == request.features.len()
                    && partial
                        .features
                        .iter()
                        .zip(&request.features)
                        .all(|(seen, asked)| seen.histograms.len() == asked.digits.len())
            }
            (Self::Ingest(partial), Stage::Ingest { transform, .. }) => {
                let IngestPartial { sums, squares, .. } = &**partial;
                let counts = [
                    &partial.clipped_low,
                    &partial.clipped_high,
                    &partial.imputed,
                ];
                [sums.len(), squares.len()] == [transform.n_features(); 2]
                    && counts.map(Vec::len) == [transform.n_features(); 3]
            }
            (Self::Duplicates(_), Stage::Duplicates { .. }) => true,
            (Self::Seed(race), Stage::Seed { transform, round }) => {
                race.limit() == round.limit
                    && race
                        .entries()
                        .all(|entry| entry.row.len() == transform.n_features())
            }
            (Self::Weigh(counts), Stage::Weigh { candidates, .. }) => {
                counts.len() == candidates.n_clusters()
            }
            (Self::Pass(partials), Stage::Pass { centroids, .. }) => {
                partials.len() == centroids.len()
                    && partials.iter().zip(centroids).all(|(p, c)| {
                        p.counts.len() == c.n_clusters() && p.sums.len() == c.values().len()
                    })
            }
            (Self::Relocate(lists), Stage::Relocate { requests, .. }) => {
                lists.len() == requests.len()
                    && lists
                        .iter()
                        .zip(requests)
                        .all(|(rows, request)| fits_request(rows, request))
            }
            (Self::Final(partial), Stage::Final { centroids, .. }) => {
                fits_model(partial, centroids)
            }
            _ => false,
        };
        if fits {
            Ok(())
        } else {
            Err(Mismatch {
                expected: stage.name(),
                got: self.name(),
            })
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Statistics(_) => "statistics",
            Self::Ingest(_) => "ingest",
            Self::Duplicates(_) => "duplicates",
            Self::Seed(_) => "seed",
            Self::Weigh(_) => "weigh",
            Self::Pass(_) => "pass",
            Self::Relocate(_) => "relocate",
            Self::Final(_) => "final",
        }
    }
}

fn fits_request(rows: &FarthestRows, request: &RelocateRequest) -> bool {
    let (n_clusters, n_features) = (
        request.centroids.n_clusters(),
        request.centroids.n_features(),
    );
    rows.limit() == request.limit
        && rows
            .rows()
            .all(|far| usize::from(far.donor) < n_clusters && far.row.len() == n_features)
}

fn fits_model(partial: &FinalPartial, centroids: &Centroids) -> bool {
    let (n_clusters, n_features) = (centroids.n_clusters(), centroids.n_features());
    let n_values = match partial.values.is_empty() {
        true => 0,
        false => n_clusters,
    };
    let lens = [
        &partial.sizes,
        &partial.seconds,
        &partial.margins,
        &partial.valued,
    ]
    .map(Vec::len);
    let (n_counts, n_bins) = (
        partial.histograms.raw().0.len(),
        partial.histograms.n_bins(),
    );
    lens == [
        n_clusters,
        n_clusters * n_clusters,
        n_clusters * MARGIN_BINS,
        n_values,
    ] && partial.values.len() == n_values
        && partial.histograms.n_features() == n_features
        && n_counts == n_clusters * n_features * n_bins
}

fn add(to: &mut [u64], from: &[u64]) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CandidateId;
    use clientele_data::stats::{FeatureRequest, StatsRequest};
    use clientele_data::transform::Transform;
    use clientele_kmeans::relocate::FarRow;
    use clientele_kmeans::seeding::{RaceEntry, SeedRound};
    use std::sync::Arc;

    fn transform() -> Arc<Transform> {
        let feature = |name| {
            format!(
                r#"{{"name":"{name}","kind":"identity","clip_low":0,"clip_high":1,"mean":0,"sd":1,"impute":null,"offset":0}}"#
            )
        };
        let (a, b) = (feature("a"), feature("b"));
        let json = format!(
            r#"{{"kind":"none","grid_step_exponent":-20,"features":[{a},{b}],"warnings":[]}}"#
        );
        Arc::new(serde_json::from_str(&json).unwrap())
    }

    #[track_caller]
    fn check_fits(stage: &Stage, good: Answer, bad: impl IntoIterator<Item = Answer>) {
        assert_eq!(good.check(stage), Ok(()));
        for (i, bad) in bad.into_iter().enumerate() {
            assert!(bad.check(stage).is_err(), "bad answer {i} passed");
        }
    }

    #[test]
    fn statistics_are_of_the_features_asked_for() {
        let request = |n_features| StatsRequest {
            round: 1,
            features: vec![FeatureRequest::default(); n_features],
        };
        let answer =
            |n_features| Answer::Statistics(Box::new(StatsPartial::zero(&request(n_features))));
        check_fits(
            &Stage::Statistics(request(2)),
            answer(2),
            [answer(1), answer(3)],
        );
        let ingest = Stage::Ingest {
            transform: transform(),
            fingerprints: false,
        };
        let answer = |n_features| Answer::Ingest(Box::new(IngestPartial::zero(n_features)));
        check_fits(&ingest, answer(2), [answer(1), Answer::Weigh(vec![])]);
    }

    #[test]
    fn rows_are_of_the_space_and_the_model() {
        let race = |limit, row| {
            let mut race = Race::new(limit);
            let (e, d2, key) = (1, 1, 1);
            race.offer(RaceEntry { e, d2, key, row });
            Answer::Seed(race)
        };
        let stage = Stage::Seed {
            transform: transform(),
            round: SeedRound {
                round: 0,
                seed: 0,
                candidates: None,
                limit: 4,
            },
        };
        check_fits(&stage, race(4, &[1, 2]), [race(3, &[1, 2]), race(4, &[1])]);

        let far = |limit, donor, row| {
            let mut far = FarthestRows::new(limit);
            let (d2, key) = (1, 1);
            far.offer(FarRow {
                d2,
                key,
                donor,
                row,
            });
            Answer::Relocate(vec![far])
        };
        let stage = Stage::Relocate {
            transform: transform(),
            requests: vec![RelocateRequest {
                candidate: CandidateId(0),
                centroids: Centroids::new(2, vec![0; 6]),
                limit: 3,
            }],
        };
        check_fits(
            &stage,
            far(3, 2, &[1, 2]),
            [
                far(3, 3, &[1, 2]),
                far(2, 0, &[1, 2]),
                far(3, 0, &[1]),
                Answer::Relocate(vec![]),
            ],
        );
    }

    #[test]
    fn the_outcome_is_of_the_model() {
        let stage = Stage::Final {
            transform: transform(),
            centroids: Arc::new(Centroids::new(2, vec![0; 6])),
        };
        let answer = |n_clusters, n_features, has_values| {
            Answer::Final(Box::new(FinalPartial::zero(
                n_clusters, n_features, has_values,
            )))
        };
        let mut halved = FinalPartial::zero(3, 2, true);
        halved.valued.clear();
        check_fits(
            &stage,
            answer(3, 2, false),
            [answer(2, 2, false), answer(3, 1, true)],
        );
        check_fits(
            &stage,
            answer(3, 2, true),
            [Answer::Final(Box::new(halved))],
        );
    }

    #[test]
    fn row_hashes_add_up_in_any_order_and_carry() {
        let hashes: Vec<_> = (0..50_u32)
            .map(|i| blake3::hash(&i.to_le_bytes()))
            .collect();
        let (mut forwards, mut backwards) = (RowHashSum::default(), RowHashSum::default());
        hashes.iter().for_each(|h| forwards.add(h));
        hashes.iter().rev().for_each(|h| backwards.add(h));
        assert_eq!(forwards, backwards);
        let mut carried = RowHashSum([u64::MAX, u64::MAX, 0, 0]);
        carried.merge(&RowHashSum([1, 0, 0, 0]));
        assert_eq!(carried, RowHashSum([0, 0, 1, 0]));
        forwards.add(&hashes[0]);
        assert_ne!(forwards, backwards);
    }
}

//! The answers, and how they add up.

use clientele_data::ErrorKind;
use clientele_data::duplicates::Duplicates;
use clientele_data::ingest::IngestPartial;
use clientele_data::stats::StatsPartial;
use clientele_kmeans::Partial;
use clientele_kmeans::relocate::FarthestRows;
use clientele_kmeans::seeding::Race;

use crate::{Histograms, Stage};

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

    /// Whether this is an answer to `stage`, of its shape.
    ///
    /// # Errors
    /// [`Mismatch`] when it is not.
    pub fn check(&self, stage: &Stage) -> Result<(), Mismatch> {
        let fits = match (self, stage) {
            (Self::Weigh(counts), Stage::Weigh { candidates, .. }) => {
                counts.len() == candidates.n_clusters()
            }
            (Self::Pass(partials), Stage::Pass { centroids, .. }) => {
                partials.len() == centroids.len()
                    && partials.iter().zip(centroids).all(|(p, c)| {
                        p.counts.len() == c.n_clusters() && p.sums.len() == c.values().len()
                    })
            }
            (Self::Relocate(rows), Stage::Relocate { requests, .. }) => {
                rows.len() == requests.len()
            }
            (Self::Final(partial), Stage::Final { centroids, .. }) => {
                partial.sizes.len() == centroids.n_clusters()
            }
            (Self::Statistics(_), Stage::Statistics(_))
            | (Self::Ingest(_), Stage::Ingest { .. })
            | (Self::Duplicates(_), Stage::Duplicates { .. })
            | (Self::Seed(_), Stage::Seed { .. }) => true,
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

fn add(to: &mut [u64], from: &[u64]) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
}

#[cfg(test)]
mod tests {
    use super::*;

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

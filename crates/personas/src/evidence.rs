//! What was counted and measured about a clustering: the only input of this crate.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Equal bins of [`ClusterEvidence::margin_histogram`] on `[0, 1]`; the last one includes 1.
pub const MARGIN_BINS: usize = 20;

/// Everything a board is made of. Holds no customer, host, time or device, so it is the same wherever it was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Heading of the board.
    pub title: String,
    /// Customers that were clustered: the sum of the cluster sizes.
    pub n_customers: u64,
    /// Written before amounts of money, "$" or "EUR"; may be empty.
    #[serde(default)]
    pub currency: String,
    /// What `value_total` of the clusters adds up; without it personas are ranked by size.
    #[serde(default)]
    pub value: Option<ValueInfo>,
    /// The features that were clustered, in model order.
    pub features: Vec<FeatureEvidence>,
    /// The clusters; the position is the cluster index.
    pub clusters: Vec<ClusterEvidence>,
    /// How the model came about, for the section "How this was made".
    #[serde(default)]
    pub run: RunFacts,
}

/// The column that says what a customer is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueInfo {
    /// Column name.
    pub name: String,
    /// Words for people: "spend", "revenue".
    pub label: String,
    /// Unit of the totals.
    #[serde(default = "money")]
    pub unit: Unit,
}

fn money() -> Unit {
    Unit::Money
}

/// One feature: what it is, how it is distributed over everyone and in each cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureEvidence {
    /// Name, label, unit and words.
    pub info: FeatureInfo,
    /// How raw values became clustered units, in words: "log1p, clipped, z".
    #[serde(default)]
    pub transform: String,
    /// Bin edges in raw units, ascending, one more than there are bins; empty when there are no histograms. Bins are drawn equally
    /// wide, so space the edges evenly in the *clustered* units (that is what makes the axis logarithmic where the transform is).
    /// Values outside count in the first and last bin.
    #[serde(default)]
    pub edges: Vec<f64>,
    /// Customers whose value was missing and filled in.
    #[serde(default)]
    pub n_imputed: u64,
    /// Customers whose value was clipped.
    #[serde(default)]
    pub n_clipped: u64,
    /// Everyone.
    pub overall: Distribution,
    /// One a cluster, by cluster index.
    pub clusters: Vec<Distribution>,
}

/// What people are told about a feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureInfo {
    /// Column name.
    pub name: String,
    /// Label for people, "Days since last purchase"; empty: the name.
    #[serde(default)]
    pub label: String,
    /// Unit of the raw values.
    #[serde(default)]
    pub unit: Unit,
    /// Adjective for a group that is high in it: "frequent". None: `high LABEL`.
    #[serde(default)]
    pub high_word: Option<String>,
    /// Adjective for a group that is low in it: "occasional". None: `low LABEL`.
    #[serde(default)]
    pub low_word: Option<String>,
    /// Adjective for a group whose upper quartile is exactly 1: "one-time". None: as `low_word`.
    #[serde(default)]
    pub one_word: Option<String>,
    /// One sentence on how it is computed.
    #[serde(default)]
    pub description: String,
}

impl FeatureInfo {
    /// The label, or the column name where there is none.
    pub fn label(&self) -> &str {
        if self.label.trim().is_empty() {
            &self.name
        } else {
            &self.label
        }
    }
}

/// Unit of a feature's raw values; decides how numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Days.
    Days,
    /// A number of things.
    Count,
    /// An amount of [`Evidence::currency`].
    Money,
    /// A fraction of one, written in percent.
    Share,
    /// Any other number.
    #[default]
    Number,
}

/// One feature over a set of customers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Customers with a value.
    pub n: u64,
    /// Lower quartile, raw units; of no meaning when `n` is 0, as the next two.
    pub q25: f64,
    /// Median, raw units.
    pub median: f64,
    /// Upper quartile, raw units.
    pub q75: f64,
    /// (mean here - mean of everyone) / standard deviation of everyone, in clustered units before weights; 0 for a constant feature.
    #[serde(default)]
    pub mean_z: f64,
    /// Customers in each bin of [`FeatureEvidence::edges`]; empty when there are no edges.
    #[serde(default)]
    pub histogram: Vec<u64>,
}

/// One cluster: its size, worth and neighbourhood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterEvidence {
    /// Customers in it.
    pub size: u64,
    /// Sum of the value column; present exactly when [`Evidence::value`] is.
    #[serde(default)]
    pub value_total: Option<Amount>,
    /// `[n_clusters]` for how many of its customers cluster j is the second nearest; empty when unknown or k = 1.
    #[serde(default)]
    pub second_choice: Vec<u64>,
    /// [`MARGIN_BINS`] equal bins of `margin = (d2 - d1) / d2` (squared distances to second nearest and own centre); empty when k = 1.
    #[serde(default)]
    pub margin_histogram: Vec<u64>,
    /// The name the user gave it; taken as it is.
    #[serde(default)]
    pub given_name: Option<String>,
    /// Lines the user wrote about it; shown as told by you.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Facts about the run. Only what the model means and what went in: no host, time, backend or worker count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    /// Where the rows came from, a line each: "transactions: 69,659 lines", "as of 1998-07-01".
    pub sources: Vec<String>,
    /// Rows left out, by reason.
    pub dropped: Vec<Counted>,
    /// Hash of the model, hexadecimal.
    pub model_hash: String,
    /// Name of the arithmetic.
    pub algorithm_version: String,
    /// Seed of the run.
    pub seed: Option<u64>,
    /// Rounds of the chosen candidate.
    pub n_iter: Option<u32>,
    /// Why it stopped: "fixed_point", "tolerance", "max_iter".
    pub stop_reason: String,
    /// Why this number of personas, as a sentence.
    pub k_reason: String,
    /// True while the choice of k has not been assessed for stability.
    pub k_provisional: bool,
    /// The best candidate of each number of clusters.
    pub candidates: Vec<CandidateFacts>,
    /// What the reader should know before relying on it.
    pub warnings: Vec<String>,
}

/// So many of something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Of what: "customers with fewer than 12 baskets".
    pub what: String,
    /// How many.
    pub count: u64,
}

/// One number of clusters that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateFacts {
    /// Number of clusters.
    pub n_clusters: u32,
    /// Sum of squared distances, clustered units.
    pub inertia: f64,
    /// Calinski-Harabasz index; none for one cluster.
    #[serde(default)]
    pub calinski_harabasz: Option<f64>,
    /// Share of customers in the smallest cluster.
    pub smallest_share: f64,
    /// Whether this is the model shown.
    #[serde(default)]
    pub chosen: bool,
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Counted in the data.
    Measured,
    /// Depends on the clustering or another model.
    Modelled,
    /// Written by the user.
    ToldByYou,
    /// Not in the data.
    Unknown,
}

/// An exact decimal amount with four places; in JSON a string such as `"2497617.8200"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

impl Amount {
    /// From ten-thousandths of the unit.
    pub fn from_ten_thousandths(units: i128) -> Self {
        Self(units)
    }

    /// In ten-thousandths of the unit.
    pub fn ten_thousandths(self) -> i128 {
        self.0
    }

    /// As a float, for shares and display.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 10_000.0
    }

    /// The sum; amounts too large for 128 bits stay at the limit.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let magnitude = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        serializer.collect_str(&format_args!(
            "{sign}{}.{:04}",
            magnitude / 10_000,
            magnitude % 10_000
        ))
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (whole, places) = text.split_once('.').unwrap_or((&text, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let decimal =
            digits(whole.strip_prefix('-').unwrap_or(whole)) && digits(places) && places.len() <= 4;
        let units = if decimal {
            format!("{whole}{places:0<4}").parse().ok()
        } else {
            None
        };
        let wrong = || {
            D::Error::custom(format_args!(
                "`{text}` is not a decimal amount with at most 4 places"
            ))
        };
        units.map(Self).ok_or_else(wrong)
    }
}

/// Evidence whose parts do not fit together.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// No clusters.
    #[error("there are no clusters to describe")]
    NoClusters,
    /// Sizes do not add up.
    #[error("cluster sizes add up to {sum}, but n_customers={n_customers}")]
    Sizes {
        /// Sum of the sizes.
        sum: u128,
        /// Stated customers.
        n_customers: u64,
    },
    /// A list has the wrong length.
    #[error("{what} has {len} entries, expected {expected}")]
    Length {
        /// Which list.
        what: String,
        /// Its length.
        len: usize,
        /// The length it must have.
        expected: usize,
    },
    /// A value total without a value column, or the reverse.
    #[error("cluster {cluster_idx} must have a value_total exactly when there is a value column")]
    ValueTotal {
        /// Index of the cluster.
        cluster_idx: usize,
    },
    /// Bin edges out of order.
    #[error("bin edges of feature `{feature}` are not ascending finite numbers")]
    Edges {
        /// Name of the feature.
        feature: String,
    },
    /// Quartiles or mean not finite, or quartiles out of order.
    #[error("feature `{feature}` has quartiles or a mean that are not finite and in order")]
    Quartiles {
        /// Name of the feature.
        feature: String,
    },
}

impl Evidence {
    /// Checks that lengths, sums and order fit together, so that everything after it may index freely.
    ///
    /// # Errors
    /// [`EvidenceError`] names the first part that does not fit.
    pub fn check(&self) -> Result<(), EvidenceError> {
        let n_clusters = self.clusters.len();
        if n_clusters == 0 {
            return Err(EvidenceError::NoClusters);
        }
        let sum: u128 = self
            .clusters
            .iter()
            .map(|cluster| u128::from(cluster.size))
            .sum();
        if sum != u128::from(self.n_customers) {
            return Err(EvidenceError::Sizes {
                sum,
                n_customers: self.n_customers,
            });
        }
        for (cluster_idx, cluster) in self.clusters.iter().enumerate() {
            if cluster.value_total.is_some() != self.value.is_some() {
                return Err(EvidenceError::ValueTotal { cluster_idx });
            }
            let name = || format!("second_choice of cluster {cluster_idx}");
            empty_or_len(&cluster.second_choice, n_clusters, name)?;
            let name = || format!("margin_histogram of cluster {cluster_idx}");
            empty_or_len(&cluster.margin_histogram, MARGIN_BINS, name)?;
        }
        self.features
            .iter()
            .try_for_each(|feature| feature.check(n_clusters))
    }

    /// Sum of the value column over all clusters; none without a value column.
    pub fn value_total(&self) -> Option<Amount> {
        let total = |sum: Amount, cluster: &ClusterEvidence| {
            sum.saturating_add(cluster.value_total.unwrap_or_default())
        };
        self.value
            .as_ref()
            .map(|_| self.clusters.iter().fold(Amount::default(), total))
    }
}

impl FeatureEvidence {
    fn check(&self, n_clusters: usize) -> Result<(), EvidenceError> {
        let feature = || self.info.name.clone();
        let len = self.clusters.len();
        if len != n_clusters {
            let what = format!("clusters of feature `{}`", self.info.name);
            return Err(EvidenceError::Length {
                what,
                len,
                expected: n_clusters,
            });
        }
        let ascending = self.edges.windows(2).all(|pair| pair[0] <= pair[1]);
        if !ascending || self.edges.iter().any(|edge| !edge.is_finite()) {
            return Err(EvidenceError::Edges { feature: feature() });
        }
        for distribution in std::iter::once(&self.overall).chain(&self.clusters) {
            let expected = self.edges.len().saturating_sub(1);
            let name = || format!("histogram of feature `{}`", self.info.name);
            empty_or_len(&distribution.histogram, expected, name)?;
            let Distribution {
                n,
                q25,
                median,
                q75,
                mean_z,
                ..
            } = *distribution;
            let finite = [q25, median, q75, mean_z]
                .iter()
                .all(|value| value.is_finite());
            if n > 0 && !(finite && q25 <= median && median <= q75) {
                return Err(EvidenceError::Quartiles { feature: feature() });
            }
        }
        Ok(())
    }
}

fn empty_or_len(
    list: &[u64],
    expected: usize,
    what: impl Fn() -> String,
) -> Result<(), EvidenceError> {
    if list.is_empty() || list.len() == expected {
        return Ok(());
    }
    Err(EvidenceError::Length {
        what: what(),
        len: list.len(),
        expected,
    })
}

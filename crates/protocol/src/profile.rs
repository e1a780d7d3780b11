//! Exact histograms of the clusters' rows, from which profiles are drawn.

/// [n_clusters x n_features x n_bins] counts, and the sum of the grid values in each bin. Bins cut the features' grid ranges into
/// equal widths; where a bin holds one distinct value, as with counts, `sum / count` is that value exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histograms {
    n_features: usize,
    n_bins: usize,
    /// Rows a bin.
    counts: Vec<u64>,
    /// Sums of grid values a bin.
    sums: Vec<i64>,
}

/// Bins for each feature of each cluster: 1,024 unless the model is so large that an answer would not be a small message.
pub fn profile_bins(n_clusters: usize, n_features: usize) -> usize {
    let cells = (n_clusters * n_features).max(1);
    ((1 << 22) / cells).clamp(16, 1_024)
}

impl Histograms {
    /// No rows seen yet.
    pub fn zero(n_clusters: usize, n_features: usize) -> Self {
        let len = n_clusters * n_features * profile_bins(n_clusters, n_features);
        Self::from_raw(n_clusters, n_features, vec![0; len], vec![0; len])
    }

    /// Histograms from their counts and sums, each [n_clusters x n_features x n_bins]: what [`Histograms::raw`] gave.
    ///
    /// # Panics
    /// When a length is another one.
    pub fn from_raw(
        n_clusters: usize,
        n_features: usize,
        counts: Vec<u64>,
        sums: Vec<i64>,
    ) -> Self {
        let n_bins = profile_bins(n_clusters, n_features);
        let len = n_clusters * n_features * n_bins;
        assert_eq!((counts.len(), sums.len()), (len, len), "a bin each");
        Self {
            n_features,
            n_bins,
            counts,
            sums,
        }
    }

    /// Features of each cluster.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// Bins a feature.
    pub fn n_bins(&self) -> usize {
        self.n_bins
    }

    /// Counts one value `q` of a feature whose grid values lie in `low..=high`.
    #[inline]
    pub fn add(&mut self, cluster_idx: usize, feature_idx: usize, q: i32, low: i32, high: i32) {
        let width = i64::from(high) - i64::from(low) + 1;
        let bin = (i64::from(q) - i64::from(low)) * self.n_bins as i64 / width;
        let at = (cluster_idx * self.n_features + feature_idx) * self.n_bins
            + bin.clamp(0, self.n_bins as i64 - 1) as usize;
        self.counts[at] += 1;
        self.sums[at] += i64::from(q);
    }

    /// Counts `count` values of one bin that add up to `sum`: as [`Histograms::add`] of each of them.
    pub fn add_bin(
        &mut self,
        cluster_idx: usize,
        feature_idx: usize,
        bin: usize,
        count: u64,
        sum: i64,
    ) {
        assert!(bin < self.n_bins, "a bin of the histograms");
        let at = (cluster_idx * self.n_features + feature_idx) * self.n_bins + bin;
        self.counts[at] += count;
        self.sums[at] += sum;
    }

    /// Adds what `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(a, b)| *a += b);
        self.sums
            .iter_mut()
            .zip(&other.sums)
            .for_each(|(a, b)| *a += b);
    }

    /// [n_bins] rows of one feature of one cluster.
    pub fn counts(&self, cluster_idx: usize, feature_idx: usize) -> &[u64] {
        &self.counts[(cluster_idx * self.n_features + feature_idx) * self.n_bins..][..self.n_bins]
    }

    /// [n_clusters x n_features x n_bins] all counts and sums, for digests and the wire.
    pub fn raw(&self) -> (&[u64], &[i64]) {
        (&self.counts, &self.sums)
    }

    /// Counts and sums of one feature over some clusters together.
    pub fn feature(
        &self,
        clusters: impl Iterator<Item = usize>,
        feature_idx: usize,
    ) -> FeatureHistogram {
        let mut total = FeatureHistogram {
            counts: vec![0; self.n_bins],
            sums: vec![0; self.n_bins],
        };
        for cluster_idx in clusters {
            let at = (cluster_idx * self.n_features + feature_idx) * self.n_bins;
            total
                .counts
                .iter_mut()
                .zip(&self.counts[at..][..self.n_bins])
                .for_each(|(a, b)| *a += b);
            total
                .sums
                .iter_mut()
                .zip(&self.sums[at..][..self.n_bins])
                .for_each(|(a, b)| *a += b);
        }
        total
    }
}

/// One feature's histogram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureHistogram {
    /// [n_bins] rows.
    pub counts: Vec<u64>,
    /// [n_bins] sums of grid values.
    pub sums: Vec<i64>,
}

impl FeatureHistogram {
    /// The grid value at quantile `p` (lower order statistic), to the width of a bin: the mean of the bin that holds it.
    /// `None` when there are no rows.
    pub fn quantile(&self, p: f64) -> Option<f64> {
        let n: u64 = self.counts.iter().sum();
        let rank = ((n.checked_sub(1)?) as f64 * p).floor() as u64;
        let mut seen = 0;
        for (count, sum) in self.counts.iter().zip(&self.sums) {
            seen += count;
            if seen > rank {
                return Some(*sum as f64 / *count as f64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_discrete_values_are_exact() {
        let mut histograms = Histograms::zero(2, 1);
        for (value, times) in [(-4_000_000, 7), (10, 2), (4_000_000, 1)] {
            for i in 0..times {
                histograms.add(i % 2, 0, value, -4_000_000, 4_000_000);
            }
        }
        let both = histograms.feature(0..2, 0);
        assert_eq!(both.quantile(0.5), Some(-4_000_000.0));
        assert_eq!(both.quantile(0.8), Some(10.0));
        assert_eq!(both.quantile(1.0), Some(4_000_000.0));
        assert_eq!(Histograms::zero(1, 1).feature(0..1, 0).quantile(0.5), None);
    }

    #[test]
    fn a_huge_model_has_coarser_bins() {
        assert_eq!(profile_bins(5, 10), 1_024);
        assert_eq!(profile_bins(4_096, 300), 16);
    }
}

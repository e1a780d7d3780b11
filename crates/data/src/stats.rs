//! Exact statistics of columns, asked for in rounds and merged as integers.
//!
//! A round is one read of the data: the planner asks ([`StatsPlanner::request`]), every shard answers with a [`StatsPartial`], the
//! partials are merged in any order, and the planner takes the sum ([`StatsPlanner::absorb`]). Order statistics are found digit
//! by digit in the order-preserving bits of the values, means and variances are sums of integers on a provisional grid; so
//! neither the order of the rows nor the way they are cut can change a bit of the transform.
//!
//! | transform | reads, without nulls |
//! |---|---|
//! | `none` | 1: smallest and largest values |
//! | `zscore` | 2: moments as well |
//! | `auto` | 2 to 5: quantiles before moments; 3 for `f32`, counts and short decimals |
//!
//! Columns that are settled are not read again.

mod digits;
mod moments;
mod planner;

use std::collections::BTreeMap;

use crate::read::{ColumnCounts, Projection, RawBlock};

pub use digits::{Bucket, Digit, MAX_DIGIT_VALUES};
pub use moments::{MomentGrid, Moments};
pub use planner::StatsPlanner;

pub(crate) use moments::variance;

use digits::{FIRST_DIGIT_BITS, ordered_bits};

/// What one round asks of every shard.
#[derive(Debug, Clone, PartialEq)]
pub struct StatsRequest {
    /// Counted from 1.
    pub round: u32,
    /// [n_features] what is wanted of each.
    pub features: Vec<FeatureRequest>,
}

/// What one round asks of one feature; nothing when both are empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeatureRequest {
    /// Histograms of a digit among the values that share the digits above it.
    pub digits: Vec<Digit>,
    /// Sums on a provisional grid.
    pub moments: Option<MomentGrid>,
}

impl StatsRequest {
    /// The columns to read.
    pub fn projection(&self) -> Projection {
        let wanted = |f: &FeatureRequest| !f.digits.is_empty() || f.moments.is_some();
        Projection {
            features: self.features.iter().map(wanted).collect(),
            ids: false,
            value: false,
        }
    }
}

/// What some rows answer to a [`StatsRequest`].
#[derive(Debug, Clone, PartialEq)]
pub struct StatsPartial {
    /// Rows, without dropped ones.
    pub n_rows: u64,
    /// Rows dropped for their nulls.
    pub n_dropped: u64,
    /// [n_features]
    pub features: Vec<FeatureStats>,
    scratch: Scratch,
}

/// What some rows answer of one feature.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeatureStats {
    /// Nulls, NaN and infinities, of dropped rows as well.
    pub counts: ColumnCounts,
    /// One histogram a [`Digit`] asked for: which digits occur.
    pub histograms: Vec<BTreeMap<u32, Bucket>>,
    /// The sums, zero when not asked for.
    pub moments: Moments,
}

impl StatsPartial {
    /// No rows seen yet.
    pub fn zero(request: &StatsRequest) -> Self {
        let features = request.features.iter().map(|feature| FeatureStats {
            histograms: vec![BTreeMap::new(); feature.digits.len()],
            ..FeatureStats::default()
        });
        Self::from_parts(0, 0, features.collect())
    }

    /// What [`StatsPartial::n_rows`], [`StatsPartial::n_dropped`] and [`StatsPartial::features`] said elsewhere.
    pub fn from_parts(n_rows: u64, n_dropped: u64, features: Vec<FeatureStats>) -> Self {
        Self {
            n_rows,
            n_dropped,
            features,
            scratch: Scratch::default(),
        }
    }

    /// Adds the rows of `raw`, which holds the columns of [`StatsRequest::projection`].
    pub fn add_block(&mut self, request: &StatsRequest, raw: &RawBlock) {
        self.n_rows += raw.n_rows as u64;
        self.n_dropped += raw.n_dropped as u64;
        for (feature_idx, (asked, seen)) in
            request.features.iter().zip(&mut self.features).enumerate()
        {
            let column = &raw.columns[feature_idx];
            seen.counts.merge(&raw.counts[feature_idx]);
            for (digit, histogram) in asked.digits.iter().zip(&mut seen.histograms) {
                match digit.is_first() {
                    true => self.scratch.count(column, histogram),
                    false => digit.count(column, histogram),
                }
            }
            if let Some(grid) = &asked.moments {
                seen.moments.add(grid, column);
            }
        }
    }

    /// Adds the rows that `other` has seen; both answer one request.
    pub fn merge(&mut self, other: &Self) {
        self.n_rows += other.n_rows;
        self.n_dropped += other.n_dropped;
        assert_eq!(
            self.features.len(),
            other.features.len(),
            "partials of one request"
        );
        for (mine, theirs) in self.features.iter_mut().zip(&other.features) {
            mine.counts.merge(&theirs.counts);
            mine.moments.merge(&theirs.moments);
            for (mine, theirs) in mine.histograms.iter_mut().zip(&theirs.histograms) {
                for (digit, bucket) in theirs {
                    mine.entry(*digit).or_default().merge(bucket);
                }
            }
        }
    }
}

/// Room for one histogram of the first digit, in which every value of a column has a place: a map would be too slow.
#[derive(Debug, Clone, Default)]
struct Scratch {
    buckets: Vec<Bucket>,
    used: Vec<u32>,
}

impl PartialEq for Scratch {
    /// Holds nothing between blocks.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Scratch {
    fn count(&mut self, column: &[f64], histogram: &mut BTreeMap<u32, Bucket>) {
        self.buckets
            .resize(1 << FIRST_DIGIT_BITS, Bucket::default());
        for x in column.iter().filter(|x| !x.is_nan()) {
            let bits = ordered_bits(*x);
            let digit = (bits >> (64 - FIRST_DIGIT_BITS)) as u32;
            let bucket = &mut self.buckets[digit as usize];
            if bucket.n_values == 0 {
                self.used.push(digit);
            }
            bucket.add(bits);
        }
        for digit in self.used.drain(..) {
            let bucket = std::mem::take(&mut self.buckets[digit as usize]);
            histogram.entry(digit).or_default().merge(&bucket);
        }
    }
}

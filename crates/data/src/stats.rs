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
//! Columns that are settled are not read again. Nulls ask for medians: with `none`, four rounds more at most, of those columns.

mod buckets;
mod digits;
mod moments;
mod planner;

use std::collections::BTreeMap;

use crate::read::{ColumnCounts, Projection, RawBlock};

pub use digits::{Bucket, Digit, MAX_DIGIT_VALUES};
pub use moments::{MomentGrid, Moments};
pub use planner::StatsPlanner;

pub(crate) use moments::variance;

pub(crate) use buckets::Scratch;

use crate::decode::Values;

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
        Projection {
            features: self
                .features
                .iter()
                .map(FeatureRequest::is_wanted)
                .collect(),
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
        let features = request.features.iter().zip(&mut self.features);
        for (feature_idx, (asked, seen)) in features.enumerate() {
            let (values, counts) = (
                Values::Wide(&raw.columns[feature_idx]),
                &raw.counts[feature_idx],
            );
            seen.add(asked, &mut self.scratch, values, counts);
            seen.drain(asked, &mut self.scratch);
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

/// Values made `f64` at a time, so that they stay in cache.
const WIDENED_ROWS: usize = 1 << 12;

impl FeatureStats {
    /// Adds some values of the feature. What falls into the first digit is in `scratch` until [`FeatureStats::drain`].
    pub(crate) fn add(
        &mut self,
        asked: &FeatureRequest,
        scratch: &mut Scratch,
        values: Values<'_>,
        counts: &ColumnCounts,
    ) {
        self.counts.merge(counts);
        if asked.asks_first_digit() {
            match values {
                Values::Narrow(values) => scratch.count_narrow(values),
                Values::Wide(values) => scratch.count(values),
            }
        }
        if asked.asks_ends() {
            let digits = asked.digits.iter().zip(&mut self.histograms);
            for (_, histogram) in digits.filter(|(digit, _)| digit.is_none()) {
                match values {
                    Values::Narrow(values) => digits::count_ends(values, histogram),
                    Values::Wide(values) => digits::count_ends(values, histogram),
                }
            }
        }
        match values {
            _ if !asked.needs_values() => {}
            Values::Wide(values) => self.add_wide(asked, values),
            Values::Narrow(values) => {
                let mut wide = [0.0; WIDENED_ROWS];
                for values in values.chunks(WIDENED_ROWS) {
                    let wide = &mut wide[..values.len()];
                    wide.iter_mut()
                        .zip(values)
                        .for_each(|(wide, x)| *wide = f64::from(*x));
                    self.add_wide(asked, wide);
                }
            }
        }
    }

    /// What is wanted beside the first digit.
    pub(crate) fn add_wide(&mut self, asked: &FeatureRequest, values: &[f64]) {
        let digits = asked.digits.iter().zip(&mut self.histograms);
        for (digit, histogram) in digits.filter(|(digit, _)| digit.is_below_another()) {
            digit.count(values, histogram);
        }
        if let Some(grid) = &asked.moments {
            self.moments.add(grid, values);
        }
    }

    /// Takes what was counted of the first digit, after the last values.
    pub(crate) fn drain(&mut self, asked: &FeatureRequest, scratch: &mut Scratch) {
        let digits = asked.digits.iter().zip(&mut self.histograms);
        for (_, histogram) in digits.filter(|(digit, _)| digit.is_first()) {
            scratch.drain(histogram);
        }
    }
}

impl FeatureRequest {
    /// Whether something is asked for at all.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.digits.is_empty() || self.moments.is_some()
    }

    pub(crate) fn asks_first_digit(&self) -> bool {
        self.digits.iter().any(|digit| digit.is_first())
    }

    pub(crate) fn asks_ends(&self) -> bool {
        self.digits.iter().any(|digit| digit.is_none())
    }

    /// Whether more than the first digit and the ends is asked for.
    pub(crate) fn needs_values(&self) -> bool {
        self.moments.is_some() || self.digits.iter().any(|digit| digit.is_below_another())
    }
}

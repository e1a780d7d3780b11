//! Statistics of columns.

use std::collections::BTreeMap;

use clientele_data::read::ColumnCounts;
use clientele_data::stats::{Bucket, FeatureStats, MAX_DIGIT_VALUES, Moments, StatsPartial};

use crate::check::{self, ROWS};
use crate::{WireError, v1, wide};

/// Places on a provisional grid are below this in magnitude.
const PLACE_LIMIT: i128 = 1 << 40;

impl From<&StatsPartial> for v1::StatisticsAnswer {
    fn from(partial: &StatsPartial) -> Self {
        Self {
            n_rows: partial.n_rows,
            n_dropped: partial.n_dropped,
            features: partial.features.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::StatisticsAnswer> for StatsPartial {
    type Error = WireError;

    fn try_from(message: v1::StatisticsAnswer) -> Result<Self, WireError> {
        let v1::StatisticsAnswer {
            n_rows,
            n_dropped,
            features,
        } = message;
        check::within("n_rows", n_rows, ROWS)?;
        check::within("n_dropped", n_dropped, ROWS)?;
        check::within("n_features", features.len() as u64, check::FEATURES)?;
        let features = features.into_iter().map(TryInto::try_into);
        Ok(Self::from_parts(
            n_rows,
            n_dropped,
            features.collect::<Result<_, _>>()?,
        ))
    }
}

impl From<&FeatureStats> for v1::FeatureStats {
    fn from(stats: &FeatureStats) -> Self {
        let counts = stats.counts;
        Self {
            n_nulls: counts.nulls,
            n_nans: counts.nans,
            n_pos_inf: counts.pos_inf,
            n_neg_inf: counts.neg_inf,
            histograms: stats.histograms.iter().map(histogram_to_wire).collect(),
            moments: (stats.moments != Moments::default()).then(|| (&stats.moments).into()),
        }
    }
}

impl TryFrom<v1::FeatureStats> for FeatureStats {
    type Error = WireError;

    fn try_from(message: v1::FeatureStats) -> Result<Self, WireError> {
        let counts = ColumnCounts {
            nulls: check::within("n_nulls", message.n_nulls, ROWS)?,
            nans: check::within("n_nans", message.n_nans, ROWS)?,
            pos_inf: check::within("n_pos_inf", message.n_pos_inf, ROWS)?,
            neg_inf: check::within("n_neg_inf", message.n_neg_inf, ROWS)?,
        };
        let histograms = message.histograms.into_iter().map(histogram_from_wire);
        let moments = message.moments.map(Moments::try_from).transpose()?;
        Ok(Self {
            counts,
            histograms: histograms.collect::<Result<_, _>>()?,
            moments: moments.unwrap_or_default(),
        })
    }
}

fn histogram_to_wire(histogram: &BTreeMap<u32, Bucket>) -> v1::DigitHistogram {
    let mut next = 0;
    let gaps = histogram.keys().map(|digit| {
        let gap = digit - next;
        next = digit + 1;
        gap
    });
    v1::DigitHistogram {
        gaps: gaps.collect(),
        n_values: histogram.values().map(|bucket| bucket.n_values).collect(),
        mins: histogram.values().map(|bucket| bucket.min).collect(),
        spans: histogram
            .values()
            .map(|bucket| bucket.max.wrapping_sub(bucket.min))
            .collect(),
    }
}

fn histogram_from_wire(message: v1::DigitHistogram) -> Result<BTreeMap<u32, Bucket>, WireError> {
    let n_buckets = message.gaps.len();
    check::shape("n_values", message.n_values.len(), n_buckets)?;
    check::shape("mins", message.mins.len(), n_buckets)?;
    check::shape("spans", message.spans.len(), n_buckets)?;
    check::all_within("n_values", &message.n_values, 1..=*ROWS.end())?;
    let mut histogram = BTreeMap::new();
    let mut next = 0_u64;
    for (bucket_idx, gap) in message.gaps.iter().enumerate() {
        let digit = next + u64::from(*gap);
        check::within("gaps", digit, 0..=i128::from(MAX_DIGIT_VALUES) - 1)?;
        let (min, span) = (message.mins[bucket_idx], message.spans[bucket_idx]);
        check::within("spans", span, 0..=i128::from(u64::MAX - min))?;
        let bucket = Bucket {
            n_values: message.n_values[bucket_idx],
            min,
            max: min + span,
        };
        histogram.insert(digit as u32, bucket);
        next = digit + 1;
    }
    Ok(histogram)
}

impl From<&Moments> for v1::Moments {
    fn from(moments: &Moments) -> Self {
        Self {
            n_values: moments.n_values,
            sum: wide::bytes(&[moments.sum]),
            squares: wide::bytes(&[moments.squares]),
        }
    }
}

impl TryFrom<v1::Moments> for Moments {
    type Error = WireError;

    fn try_from(message: v1::Moments) -> Result<Self, WireError> {
        let moments = Self {
            n_values: check::within("n_values", message.n_values, ROWS)?,
            sum: wide::one("sum", &message.sum)?,
            squares: wide::one("squares", &message.squares)?,
        };
        check::sum("sum", moments.sum, moments.n_values, PLACE_LIMIT)?;
        check::sum(
            "squares",
            moments.squares,
            moments.n_values,
            PLACE_LIMIT * PLACE_LIMIT,
        )?;
        Ok(moments)
    }
}

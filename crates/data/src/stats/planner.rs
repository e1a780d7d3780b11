//! Which statistics are needed next, given those that are known.

use super::digits::{Digit, OrderStatistic, from_ordered_bits};
use super::{FeatureRequest, FeatureStats, MomentGrid, Moments, StatsPartial, StatsRequest};
use crate::manifest::{Manifest, NullPolicy};
use crate::read::ColumnCounts;
use crate::transform::{Shape, Summary, Transform, TransformKind};
use crate::{ColumnCount, DataError};

/// Histogram entries that one round may need, about 100 MB in a partial; what is beyond waits for the next round.
const MAX_ENTRIES: u64 = 1 << 21;

/// Asks for statistics in rounds and freezes the transform; does no reading itself.
#[derive(Debug, Clone)]
pub struct StatsPlanner {
    kind: TransformKind,
    nulls: NullPolicy,
    features: Vec<Feature>,
    n_rows: u64,
    pending: Option<StatsRequest>,
}

/// What is known of a feature.
#[derive(Debug, Clone)]
struct Feature {
    name: String,
    counts: ColumnCounts,
    /// Values among the rows that are kept.
    n_values: u64,
    /// Kept rows without one.
    n_imputed: u64,
    min: f64,
    max: f64,
    shape: Shape,
    low: OrderStatistic,
    high: OrderStatistic,
    /// Needed only where something is imputed.
    median: Option<OrderStatistic>,
    needs_moments: bool,
    moments: Option<(MomentGrid, Moments)>,
}

impl StatsPlanner {
    /// Begins with the first request.
    pub fn new(manifest: &Manifest, kind: TransformKind) -> Self {
        let names = manifest.features().iter().map(|column| column.name.clone());
        let features: Vec<Feature> = names.map(Feature::new).collect();
        // Without a transform the ends are all that is asked of most features.
        let digit = match kind {
            TransformKind::None => Digit::NONE,
            _ => Digit::FIRST,
        };
        let first = FeatureRequest {
            digits: vec![digit],
            moments: None,
        };
        let pending = Some(StatsRequest {
            round: 1,
            features: vec![first; features.len()],
        });
        Self {
            kind,
            nulls: manifest.nulls(),
            features,
            n_rows: 0,
            pending,
        }
    }

    /// What to ask of every shard next; `None` when everything is known.
    pub fn request(&self) -> Option<StatsRequest> {
        self.pending.clone()
    }

    /// Takes the answer to [`StatsPlanner::request`], merged over all shards.
    ///
    /// # Errors
    /// [`DataError::Infinite`]; [`DataError::Nulls`] where none are allowed; [`DataError::NoValues`] for an empty column;
    /// [`DataError::AllDropped`]; [`DataError::StatsShape`] when it is the answer to another question.
    pub fn absorb(&mut self, partial: StatsPartial) -> Result<(), DataError> {
        let Some(request) = self.pending.take() else {
            return Ok(());
        };
        check_shape(&request, &partial)?;
        if request.round == 1 {
            self.begin(&partial)?;
        } else {
            for ((feature, asked), seen) in self
                .features
                .iter_mut()
                .zip(&request.features)
                .zip(&partial.features)
            {
                feature.absorb(asked, seen);
            }
        }
        self.pending = self.plan(request.round + 1);
        Ok(())
    }

    /// Freezes the transform, once nothing more is asked for.
    ///
    /// # Errors
    /// [`DataError::StatsShape`] when requests are still open.
    pub fn finish(self) -> Result<Transform, DataError> {
        let expected = self.features.len();
        let kind = self.kind;
        let summaries: Vec<Summary> = self
            .features
            .into_iter()
            .filter_map(|f| f.summary(kind))
            .collect();
        match (self.pending, summaries.len()) {
            (None, found) if found == expected => Ok(Transform::freeze(kind, summaries)),
            (_, found) => Err(DataError::StatsShape { expected, found }),
        }
    }

    fn begin(&mut self, partial: &StatsPartial) -> Result<(), DataError> {
        for (feature, seen) in self.features.iter_mut().zip(&partial.features) {
            feature.counts = seen.counts;
        }
        self.check_infinite()?;
        self.check_nulls()?;
        self.n_rows = partial.n_rows;
        if self.n_rows == 0 {
            return Err(DataError::AllDropped {
                n_rows: partial.n_dropped,
            });
        }
        for (feature, seen) in self.features.iter_mut().zip(&partial.features) {
            feature.begin(self.kind, self.n_rows, seen)?;
        }
        Ok(())
    }

    fn check_infinite(&self) -> Result<(), DataError> {
        let columns = self.list(|counts| vec![("+inf", counts.pos_inf), ("-inf", counts.neg_inf)]);
        match columns.is_empty() {
            true => Ok(()),
            false => Err(DataError::Infinite { columns }),
        }
    }

    fn check_nulls(&self) -> Result<(), DataError> {
        let columns = self.list(|counts| vec![("nulls", counts.nulls), ("NaN", counts.nans)]);
        match columns.is_empty() || self.nulls != NullPolicy::Fail {
            true => Ok(()),
            false => Err(DataError::Nulls { columns }),
        }
    }

    /// Features with any such count.
    fn list(
        &self,
        counts_of: impl Fn(&ColumnCounts) -> Vec<(&'static str, u64)>,
    ) -> Vec<ColumnCount> {
        let columns = self.features.iter().map(|feature| {
            let mut counts = counts_of(&feature.counts);
            counts.retain(|(_, n)| *n > 0);
            ColumnCount {
                column: feature.name.clone(),
                counts,
            }
        });
        columns.filter(|column| !column.counts.is_empty()).collect()
    }

    fn plan(&self, round: u32) -> Option<StatsRequest> {
        let mut n_entries = 0;
        let features = self
            .features
            .iter()
            .map(|feature| feature.request(&mut n_entries));
        let features: Vec<FeatureRequest> = features.collect();
        let is_empty = features
            .iter()
            .all(|f| f.digits.is_empty() && f.moments.is_none());
        (!is_empty).then_some(StatsRequest { round, features })
    }
}

fn check_shape(request: &StatsRequest, partial: &StatsPartial) -> Result<(), DataError> {
    let pairs = request.features.iter().zip(&partial.features);
    let n_fitting = pairs
        .filter(|(asked, seen)| asked.digits.len() == seen.histograms.len())
        .count();
    let (expected, found) = (
        request.features.len(),
        n_fitting.min(partial.features.len()),
    );
    match expected == found && expected == partial.features.len() {
        true => Ok(()),
        false => Err(DataError::StatsShape { expected, found }),
    }
}

impl Feature {
    fn new(name: String) -> Self {
        let unknown = OrderStatistic::new(0, 0);
        Self {
            name,
            counts: ColumnCounts::default(),
            n_values: 0,
            n_imputed: 0,
            min: 0.0,
            max: 0.0,
            shape: Shape::Identity,
            low: unknown,
            high: unknown,
            median: None,
            needs_moments: false,
            moments: None,
        }
    }

    /// The first round: range, shape, and how deep to look for order statistics.
    fn begin(
        &mut self,
        kind: TransformKind,
        n_rows: u64,
        seen: &FeatureStats,
    ) -> Result<(), DataError> {
        let histogram = &seen.histograms[0];
        self.n_values = histogram.values().map(|bucket| bucket.n_values).sum();
        let (Some(first), Some(last)) = (histogram.values().next(), histogram.values().next_back())
        else {
            return Err(DataError::NoValues {
                column: self.name.clone(),
                n_rows,
            });
        };
        (self.min, self.max) = (from_ordered_bits(first.min), from_ordered_bits(last.max));
        let at = |rank| OrderStatistic::new(rank, self.n_values).descend(histogram);
        let median_rank = (self.n_values - 1) / 2;
        self.n_imputed = n_rows - self.n_values;
        if self.n_imputed > 0 {
            self.median = Some(match kind {
                TransformKind::None => OrderStatistic::new(median_rank, self.n_values),
                _ => at(median_rank),
            });
        }
        (self.low, self.high) = match kind {
            TransformKind::Auto => (at(self.rank(5)), at(self.rank(995))),
            _ => (
                OrderStatistic::Known(self.min),
                OrderStatistic::Known(self.max),
            ),
        };
        if kind == TransformKind::Auto {
            let coarse = |rank| coarse_order_statistic(histogram, rank);
            let quantiles = [self.rank(5), median_rank, self.rank(995)].map(coarse);
            self.shape = choose_shape(self.min, quantiles);
        }
        self.needs_moments = kind != TransformKind::None;
        Ok(())
    }

    /// Rank of the lower order statistic at a share in thousandths.
    fn rank(&self, thousandths: u64) -> u64 {
        let rank = u128::from(self.n_values - 1) * u128::from(thousandths) / 1_000;
        rank as u64
    }

    fn open_statistics(&mut self) -> impl Iterator<Item = &mut OrderStatistic> {
        let all = [&mut self.low, &mut self.high]
            .into_iter()
            .chain(&mut self.median);
        all.filter(|statistic| statistic.known().is_none())
    }

    fn request(&self, n_entries: &mut u64) -> FeatureRequest {
        let mut request = FeatureRequest::default();
        for statistic in [Some(self.low), Some(self.high), self.median]
            .into_iter()
            .flatten()
        {
            let OrderStatistic::Open {
                digit, n_values, ..
            } = statistic
            else {
                continue;
            };
            let cost = n_values.min(digit.n_values());
            let is_new = !request.digits.contains(&digit);
            if is_new && (*n_entries == 0 || *n_entries + cost <= MAX_ENTRIES) {
                *n_entries += cost;
                request.digits.push(digit);
            }
        }
        if let (true, None, Some(low), Some(high)) = (
            self.needs_moments,
            &self.moments,
            self.low.known(),
            self.high.known(),
        ) {
            // A constant has no spread to measure.
            request.moments = (low < high).then(|| MomentGrid::new(self.shape, low, high));
        }
        request
    }

    fn absorb(&mut self, asked: &FeatureRequest, seen: &FeatureStats) {
        for statistic in self.open_statistics() {
            let OrderStatistic::Open { digit, .. } = *statistic else {
                continue;
            };
            if let Some(at) = asked.digits.iter().position(|asked| *asked == digit) {
                *statistic = statistic.descend(&seen.histograms[at]);
            }
        }
        if let Some(grid) = asked.moments {
            self.moments = Some((grid, seen.moments));
        }
    }

    /// `None` while something is still unknown.
    fn summary(self, kind: TransformKind) -> Option<Summary> {
        let (low, high) = (self.low.known()?, self.high.known()?);
        let impute = match self.median {
            Some(median) => Some(median.known()?),
            None => None,
        };
        let (mean, sd) = match (kind, self.moments) {
            (TransformKind::None, _) => (0.0, 1.0),
            (_, Some((grid, mut moments))) => {
                if let Some(median) = impute {
                    moments.add_repeated(grid.place(median), self.n_imputed);
                }
                grid.mean_and_sd(&moments)
            }
            (_, None) if low == high => (self.shape.apply(low), 0.0),
            (_, None) => return None,
        };
        let (name, shape, min, max) = (self.name, self.shape, self.min, self.max);
        Some(Summary {
            name,
            shape,
            low,
            high,
            min,
            max,
            mean,
            sd,
            impute,
        })
    }
}

/// The smallest value in the bucket that holds value number `rank`: within 1/64 of it, and known after one round.
fn coarse_order_statistic(
    histogram: &std::collections::BTreeMap<u32, super::Bucket>,
    mut rank: u64,
) -> f64 {
    for bucket in histogram.values() {
        if rank < bucket.n_values {
            return from_ordered_bits(bucket.min);
        }
        rank -= bucket.n_values;
    }
    unreachable!("a rank is below the number of values")
}

/// `log1p` for values that are never negative and whose upper tail is at least three times as long as the lower one, as with
/// money, counts and days between purchases. The second condition keeps shares as they are: over 0..=1 `log1p` hardly bends, and
/// 1 + x cannot grow by 2.5. An exponential distribution has a ratio of tails of 6.7, a normal one of 1.
fn choose_shape(min: f64, [low, median, high]: [f64; 3]) -> Shape {
    let has_long_tail = high - median >= 3.0 * (median - low);
    let spans_scales = 1.0 + high >= 2.5 * (1.0 + median);
    match min >= 0.0 && has_long_tail && spans_scales {
        true => Shape::Log1p,
        false => Shape::Identity,
    }
}

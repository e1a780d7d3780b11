//! From raw values to grid integers and back, frozen before the first row is placed.

use clientele_kmeans::GRID_LIMIT;
use serde::{Deserialize, Serialize};

/// How columns become comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransformKind {
    /// Long right tails through `log1p`, clipped at the 0.5 % and 99.5 % order statistics, then z-scores.
    #[default]
    Auto,
    /// z-scores (ddof 0), nothing else.
    Zscore,
    /// As they are.
    None,
}

/// What happens to a value before it is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Nothing.
    #[default]
    Identity,
    /// `ln(1 + x)`.
    Log1p,
}

impl Shape {
    /// Applies the shape, by `libm`: the same bits on every machine.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::Identity => x,
            Self::Log1p => libm::log1p(x),
        }
    }

    /// Undoes [`Shape::apply`].
    pub fn invert(self, t: f64) -> f64 {
        match self {
            Self::Identity => t,
            Self::Log1p => libm::expm1(t),
        }
    }
}

/// One feature: `q = round_ties_even(((shape(clip(x)) - mean) / sd - offset) / grid_step)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureTransform {
    /// Column.
    pub name: String,
    /// Before scaling.
    pub kind: Shape,
    /// Lowest raw value; lower ones become it.
    pub clip_low: f64,
    /// Highest raw value; higher ones become it.
    pub clip_high: f64,
    /// After clipping and shaping; 0 when the feature is not scaled.
    pub mean: f64,
    /// Standard deviation (ddof 0) after clipping and shaping; 1 when the feature is not scaled, 0 when it is constant.
    pub sd: f64,
    /// Raw value in the place of nulls: the lower median. `None` when there were none.
    pub impute: Option<f64>,
    /// In clustered units, a multiple of the grid step.
    pub offset: f64,
}

impl FeatureTransform {
    /// Whether all rows have the same value: it is 0 on the grid.
    pub fn is_constant(&self) -> bool {
        self.clip_low == self.clip_high || self.sd == 0.0
    }

    /// A raw value in the units that distances are in; NaN is imputed, and without an imputed value the middle of the range.
    pub fn to_clustered(&self, x: f64) -> f64 {
        let x = match (x.is_nan(), self.impute) {
            (false, _) => x,
            (true, Some(median)) => median,
            (true, None) => return self.offset,
        };
        let clipped = x.clamp(self.clip_low, self.clip_high);
        if self.is_constant() {
            return self.constant();
        }
        (self.kind.apply(clipped) - self.mean) / self.sd
    }

    /// The one clustered value of a constant feature: 0, or the raw value when features are not scaled.
    fn constant(&self) -> f64 {
        match self.sd == 0.0 {
            true => 0.0,
            false => self.kind.apply(self.clip_low) - self.mean,
        }
    }
}

/// The frozen way to the grid: everything that decides which integer a raw value becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    kind: TransformKind,
    /// The step is 2 to this power, in clustered units, the same for all features.
    grid_step_exponent: i32,
    features: Vec<FeatureTransform>,
    /// For people; follows from the rest and the data.
    #[serde(default)]
    warnings: Vec<String>,
}

/// What the statistics know of a feature; [`Transform::freeze`] adds the grid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
    pub(crate) sd: f64,
    pub(crate) impute: Option<f64>,
}

/// Steps on either side of the offset: two below the limit, for the rounding of the offset and of the value.
const HALF_RANGE_STEPS: f64 = (GRID_LIMIT - 2) as f64;
/// Smaller steps have no exact reciprocal in f64.
const SMALLEST_EXPONENT: i32 = -1_000;

impl Transform {
    /// BLAKE3 of its JSON: what tells two transforms apart.
    pub fn hash(&self) -> blake3::Hash {
        crate::hash_json(self)
    }

    /// Chooses the grid: the smallest power-of-two step at which the widest feature fits.
    pub(crate) fn freeze(kind: TransformKind, summaries: Vec<Summary>) -> Self {
        let mut warnings = Vec::new();
        let mut features: Vec<FeatureTransform> = Vec::with_capacity(summaries.len());
        let mut half_range = 0.0_f64;
        let mut middles = Vec::with_capacity(summaries.len());
        for summary in summaries {
            let feature = FeatureTransform {
                name: summary.name,
                kind: summary.shape,
                clip_low: summary.low,
                clip_high: summary.high,
                mean: summary.mean,
                sd: summary.sd,
                impute: summary.impute,
                offset: 0.0,
            };
            if feature.is_constant() {
                warnings.push(constant_warning(&feature, summary.min, summary.max));
                middles.push(feature.constant());
            } else {
                let (low, high) = (
                    feature.to_clustered(summary.low),
                    feature.to_clustered(summary.high),
                );
                // Halved first: the range itself may overflow.
                half_range = half_range.max(high / 2.0 - low / 2.0);
                middles.push(low / 2.0 + high / 2.0);
            }
            features.push(feature);
        }
        let grid_step_exponent = step_exponent(half_range, HALF_RANGE_STEPS);
        let step = power_of_two(grid_step_exponent);
        for (feature, middle) in features.iter_mut().zip(middles) {
            feature.offset = (middle / step).round_ties_even() * step;
            // Above 2^1023 steps the quotient overflows, but then the middle is a multiple of the step as it is.
            if !feature.offset.is_finite() {
                feature.offset = middle;
            }
        }
        Self {
            kind,
            grid_step_exponent,
            features,
            warnings,
        }
    }

    /// As asked for.
    pub fn kind(&self) -> TransformKind {
        self.kind
    }

    /// The grid's step in clustered units, a power of two.
    pub fn grid_step(&self) -> f64 {
        power_of_two(self.grid_step_exponent)
    }

    /// Features, in order.
    pub fn features(&self) -> &[FeatureTransform] {
        &self.features
    }

    /// Columns.
    pub fn n_features(&self) -> usize {
        self.features.len()
    }

    /// What the user should know, as sentences.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The grid value of raw value `x` of feature `feature_idx`; NaN is imputed.
    pub fn to_grid(&self, feature_idx: usize, x: f64) -> i32 {
        let feature = &self.features[feature_idx];
        if feature.is_constant() {
            return 0;
        }
        let steps = (feature.to_clustered(x) - feature.offset) * self.steps_per_unit();
        steps.round_ties_even() as i32
    }

    /// [n_features] raw values to [n_features] grid values.
    pub fn row_to_grid(&self, row: &[f64]) -> Vec<i32> {
        row.iter()
            .enumerate()
            .map(|(feature_idx, x)| self.to_grid(feature_idx, *x))
            .collect()
    }

    /// A place on the grid, whole or between, in clustered units.
    pub fn clustered(&self, feature_idx: usize, q: f64) -> f64 {
        let feature = &self.features[feature_idx];
        match feature.is_constant() {
            true => feature.constant(),
            false => feature.offset + q * self.grid_step(),
        }
    }

    /// A place on the grid, whole or between, in raw units: the inverse of [`Transform::to_grid`] up to half a step, and never
    /// outside the feature's range.
    pub fn from_grid(&self, feature_idx: usize, q: f64) -> f64 {
        let feature = &self.features[feature_idx];
        match feature.is_constant() {
            true => feature.clip_low,
            false => {
                let shaped = self.clustered(feature_idx, q) * feature.sd + feature.mean;
                feature
                    .kind
                    .invert(shaped)
                    .clamp(feature.clip_low, feature.clip_high)
            }
        }
    }

    /// [n_features] grid values in clustered units.
    pub fn row_to_clustered(&self, row: &[i32]) -> Vec<f64> {
        row.iter()
            .enumerate()
            .map(|(feature_idx, q)| self.clustered(feature_idx, f64::from(*q)))
            .collect()
    }

    /// [n_features] grid values in raw units.
    pub fn row_to_raw(&self, row: &[i32]) -> Vec<f64> {
        row.iter()
            .enumerate()
            .map(|(feature_idx, q)| self.from_grid(feature_idx, f64::from(*q)))
            .collect()
    }

    /// The lowest and highest grid value of a feature.
    pub fn grid_range(&self, feature_idx: usize) -> (i32, i32) {
        let feature = &self.features[feature_idx];
        (
            self.to_grid(feature_idx, feature.clip_low),
            self.to_grid(feature_idx, feature.clip_high),
        )
    }

    /// Exact, as both are powers of two.
    pub(crate) fn steps_per_unit(&self) -> f64 {
        power_of_two(-self.grid_step_exponent)
    }
}

fn constant_warning(feature: &FeatureTransform, min: f64, max: f64) -> String {
    let (name, value) = (&feature.name, feature.clip_low);
    if min == max {
        return format!(
            "feature `{name}` is {value} in every row and tells customers apart in nothing"
        );
    }
    format!(
        "feature `{name}` is {value} in at least 99 % of the rows; clipped at 0.5 % and 99.5 % it tells customers apart in nothing"
    )
}

/// The smallest exponent at which `half_range` is at most `half_steps` steps of 2^exponent.
pub(crate) fn step_exponent(half_range: f64, half_steps: f64) -> i32 {
    if half_range == 0.0 {
        return 0;
    }
    // One below what the exponents of both say, then up to what fits.
    let estimate = libm::ilogb(half_range) - libm::ilogb(half_steps) - 1;
    let mut exponent = estimate.max(SMALLEST_EXPONENT);
    while half_range / power_of_two(exponent) > half_steps {
        exponent += 1;
    }
    exponent
}

/// Exact for every exponent in -1022..=1023.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    libm::ldexp(1.0, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(shape: Shape, low: f64, high: f64, mean: f64, sd: f64) -> Summary {
        let name = "x".to_owned();
        Summary {
            name,
            shape,
            low,
            high,
            min: low,
            max: high,
            mean,
            sd,
            impute: Some(low),
        }
    }

    fn frozen(summaries: Vec<Summary>) -> Transform {
        Transform::freeze(TransformKind::None, summaries)
    }

    #[test]
    fn every_value_in_range_is_on_the_grid_and_comes_back_within_half_a_step() {
        let ranges = [
            (0.0, 1.0),
            (-1e300, 1e300),
            (f64::MIN, f64::MAX),
            (1e15, 1e15 + 1.0),
            (3e6 - 2e3, 3e6 + 2e3),
            (-1e-300, 2e-300),
            (5e-324, 1e-320),
            (-7.0, -7.0),
            (1.7e18, 1.8e18),
        ];
        for (low, high) in ranges {
            let transform = frozen(vec![summary(Shape::Identity, low, high, 0.0, 1.0)]);
            let step = transform.grid_step();
            assert_eq!(transform.features()[0].offset % step, 0.0, "{low}..{high}");
            for share in [0.0, 0.1, 0.5, 0.77, 1.0] {
                let x = low * (1.0 - share) + high * share;
                let q = transform.to_grid(0, x);
                assert!(q.abs() < GRID_LIMIT, "{low}..{high}: {q}");
                let back = transform.from_grid(0, q.into());
                assert!(
                    (back - x).abs() <= step * 0.5 + x.abs() * 1e-15,
                    "{low}..{high}: {x} {back}"
                );
            }
        }
    }

    #[test]
    fn the_widest_feature_uses_at_least_half_of_the_grid() {
        for width in [1.0, 1.9, 2.0, 2.1, 1e-9, 12_345.678] {
            let transform = frozen(vec![summary(Shape::Identity, 5.0, 5.0 + width, 0.0, 1.0)]);
            let (low, high) = transform.grid_range(0);
            assert!(high - low > GRID_LIMIT - 8, "{width}: {low}..{high}");
        }
    }

    #[test]
    fn one_step_serves_all_features() {
        let narrow = summary(Shape::Identity, 0.0, 1.0, 0.0, 1.0);
        let wide = summary(Shape::Identity, 0.0, 1_000.0, 0.0, 1.0);
        let transform = frozen(vec![narrow, wide]);
        let (low, high) = transform.grid_range(0);
        assert_eq!(
            f64::from(high - low),
            (1.0 / transform.grid_step()).round_ties_even()
        );
    }

    #[test]
    fn a_constant_feature_is_zero_on_the_grid_and_itself_in_raw_units() {
        let transform = frozen(vec![
            summary(Shape::Identity, 0.1, 0.1, 0.0, 1.0),
            summary(Shape::Identity, 0.3, 0.3, 0.3, 0.0),
            summary(Shape::Identity, 0.0, 9.0, 0.0, 1.0),
        ]);
        assert_eq!(transform.row_to_grid(&[77.0, 0.3, 0.0])[..2], [0, 0]);
        assert_eq!(
            (transform.from_grid(0, 0.0), transform.from_grid(1, 0.0)),
            (0.1, 0.3)
        );
        assert_eq!(
            (transform.clustered(0, 0.0), transform.clustered(1, 0.0)),
            (0.1, 0.0)
        );
        assert_eq!(transform.warnings().len(), 2);
    }

    #[test]
    fn values_beyond_the_range_are_clipped_and_nan_is_imputed() {
        let transform = frozen(vec![summary(Shape::Log1p, 0.0, 50.0, 1.5, 0.8)]);
        let (low, high) = transform.grid_range(0);
        assert_eq!(transform.row_to_grid(&[-3.0]), [low]);
        assert_eq!(transform.row_to_grid(&[f64::INFINITY]), [high]);
        assert_eq!(transform.row_to_grid(&[f64::NAN]), [low]);
        assert!((transform.from_grid(0, high.into()) - 50.0).abs() < 1e-4);
    }

    #[test]
    fn a_transform_survives_json_to_the_bit() {
        let summaries = (1..200).map(|i| {
            let x = f64::from(i).sqrt() * 1e-3;
            summary(Shape::Log1p, x / 3.0, x * 7.0, x / 11.0, x / 13.0)
        });
        let transform = frozen(summaries.collect());
        let json = serde_json::to_string(&transform).unwrap();
        let back: Transform = serde_json::from_str(&json).unwrap();
        assert_eq!(back, transform);
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
    }
}

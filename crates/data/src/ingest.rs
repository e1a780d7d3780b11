//! Raw blocks to rows on the grid, in one pass, straight into the layout that kernels read.

use clientele_kmeans::{Block, LANES, Tiles};

use crate::DataError;
use crate::grid::{Gridder, Seen};
use crate::ids::row_key;
use crate::read::{NO_VALUE, RawBlock};
use crate::transform::{FeatureTransform, Transform};

/// A block on the grid and what else of its rows is needed later.
#[derive(Debug, Clone, PartialEq)]
pub struct GridBlock {
    /// The rows; its id is the [`BlockId`](crate::BlockId).
    pub block: Block,
    /// [n_rows] values in 1/10,000 of their unit, [`NO_VALUE`] for null; `None` without a value column.
    pub values: Option<Vec<i64>>,
    /// [n_rows] places in the block as it lies in the input; `None` when no row was dropped.
    pub source_rows: Option<Vec<u32>>,
}

impl GridBlock {
    /// Bytes of memory it takes.
    pub fn size_bytes(&self) -> usize {
        let values = self
            .values
            .as_ref()
            .map_or(0, |v| v.len() * size_of::<i64>());
        let rows = self
            .source_rows
            .as_ref()
            .map_or(0, |r| r.len() * size_of::<u32>());
        self.block.size_bytes() + values + rows
    }
}

/// What the rows that were put on the grid add up to. Integers only: merged in any order they are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestPartial {
    /// Rows on the grid.
    pub n_rows: u64,
    /// Rows left out for their nulls.
    pub n_dropped: u64,
    /// Sum over rows and features of the squared grid value.
    pub total_squares: i128,
    /// [n_features] sums of grid values.
    pub sums: Vec<i128>,
    /// [n_features] sums of squared grid values.
    pub squares: Vec<i128>,
    /// [n_features] values below the range, which became its end.
    pub clipped_low: Vec<u64>,
    /// [n_features] values above the range, which became its end.
    pub clipped_high: Vec<u64>,
    /// [n_features] nulls and NaN that were imputed.
    pub imputed: Vec<u64>,
    /// Sum of the value column, in 1/10,000 of its unit.
    pub value_total: i128,
    /// Rows with a value in the value column.
    pub n_valued: u64,
}

impl IngestPartial {
    /// No rows seen yet.
    pub fn zero(n_features: usize) -> Self {
        Self {
            n_rows: 0,
            n_dropped: 0,
            total_squares: 0,
            sums: vec![0; n_features],
            squares: vec![0; n_features],
            clipped_low: vec![0; n_features],
            clipped_high: vec![0; n_features],
            imputed: vec![0; n_features],
            value_total: 0,
            n_valued: 0,
        }
    }

    /// Adds the rows that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.n_rows += other.n_rows;
        self.n_dropped += other.n_dropped;
        self.total_squares += other.total_squares;
        add(&mut self.sums, &other.sums);
        add(&mut self.squares, &other.squares);
        add(&mut self.clipped_low, &other.clipped_low);
        add(&mut self.clipped_high, &other.clipped_high);
        add(&mut self.imputed, &other.imputed);
        self.value_total += other.value_total;
        self.n_valued += other.n_valued;
    }

    /// Features whose rows lie so close together that the grid is coarse for them, as sentences: a standard deviation under 64
    /// steps. Complete only when all rows are in.
    pub fn coarse_features(&self, transform: &Transform) -> Vec<String> {
        const ENOUGH_STEPS: f64 = 64.0;
        let features = transform.features().iter().enumerate();
        let coarse = features.filter_map(|(feature_idx, feature)| {
            let sd = self.sd_steps(feature_idx);
            (!feature.is_constant() && sd < ENOUGH_STEPS).then(|| {
                format!(
                    "feature `{}` varies by {sd:.1} grid steps only, because another feature is so much wider; \
                     scale the features or use `--transform auto`",
                    feature.name
                )
            })
        });
        coarse.collect()
    }

    /// Standard deviation (ddof 0) of a feature in grid steps; 0 without rows.
    pub fn sd_steps(&self, feature_idx: usize) -> f64 {
        crate::stats::variance(
            self.n_rows,
            self.sums[feature_idx],
            self.squares[feature_idx],
        )
        .sqrt()
    }

    pub(crate) fn add_feature(&mut self, feature_idx: usize, seen: &Seen) {
        self.sums[feature_idx] += i128::from(seen.sum);
        self.squares[feature_idx] += i128::from(seen.squares);
        self.total_squares += i128::from(seen.squares);
        self.clipped_low[feature_idx] += seen.n_low;
        self.clipped_high[feature_idx] += seen.n_high;
        self.imputed[feature_idx] += seen.n_imputed;
    }
}

impl IngestPartial {
    /// Adds what is in the value column of some rows.
    pub(crate) fn add_values(&mut self, values: Option<&[i64]>) {
        let valued = values.unwrap_or_default().iter();
        for value in valued.filter(|value| **value != NO_VALUE) {
            self.value_total += i128::from(*value);
            self.n_valued += 1;
        }
    }
}

fn add<T: Copy + std::ops::AddAssign>(to: &mut [T], from: &[T]) {
    assert_eq!(to.len(), from.len(), "partials of one table");
    to.iter_mut().zip(from).for_each(|(a, b)| *a += *b);
}

/// Puts the rows of `raw` on the grid and adds them to `partial`. `raw` must hold all features and the ids; its values are taken.
///
/// # Errors
/// [`DataError::Nulls`] when a feature has nulls but the transform no value to impute: only with rows it was not made from.
///
/// # Panics
/// When `raw` or `partial` are of another table than `transform`.
pub fn ingest(
    raw: &mut RawBlock,
    transform: &Transform,
    partial: &mut IngestPartial,
) -> Result<GridBlock, DataError> {
    let n_features = transform.n_features();
    assert_eq!(raw.columns.len(), n_features, "a block with all features");
    let mut tiles = Tiles::zeroed(raw.n_rows.div_ceil(LANES) * n_features);
    // Of a block whose rows were all dropped there is nothing to place.
    let features = transform.features().iter().take(match raw.n_rows {
        0 => 0,
        _ => n_features,
    });
    for (feature_idx, feature) in features.enumerate() {
        let column = &raw.columns[feature_idx];
        let mut seen = Seen::default();
        if raw.counts[feature_idx].missing() > 0 {
            seen.n_imputed = column.iter().filter(|x| x.is_nan()).count() as u64;
        }
        check_impute(feature, seen.n_imputed)?;
        let gridder = Gridder::new(feature, transform.steps_per_unit());
        let out = &mut tiles[feature_idx * LANES..];
        gridder.place(Some(column), out, n_features * LANES, raw.n_rows, &mut seen);
        partial.add_feature(feature_idx, &seen);
    }
    partial.n_rows += raw.n_rows as u64;
    partial.n_dropped += raw.n_dropped as u64;
    let values = raw.values.take();
    partial.add_values(values.as_deref());
    let keys = raw
        .ids
        .iter()
        .map(|fingerprint| row_key(*fingerprint))
        .collect();
    let block = Block::from_tiles(u64::from(raw.id.0), n_features, tiles, keys)
        .expect("the transform's range keeps every value on the grid, and every row has an id");
    Ok(GridBlock {
        block,
        values,
        source_rows: raw.source_rows.take(),
    })
}

/// Refuses values to impute where the transform has none.
pub(crate) fn check_impute(feature: &FeatureTransform, n_imputed: u64) -> Result<(), DataError> {
    if n_imputed == 0 || feature.impute.is_some() || feature.is_constant() {
        return Ok(());
    }
    let column = feature.name.clone();
    let counts = vec![("nulls", n_imputed)];
    Err(DataError::Nulls {
        columns: vec![crate::ColumnCount { column, counts }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BlockId;
    use crate::transform::{Shape, Summary, TransformKind};

    fn transform(shapes: &[Shape]) -> Transform {
        let summaries = shapes.iter().map(|shape| Summary {
            name: "x".to_owned(),
            shape: *shape,
            low: 0.5,
            high: 40.0,
            mean: 2.0,
            sd: 1.7,
            impute: Some(3.0),
            ..Summary::default()
        });
        Transform::freeze(TransformKind::Auto, summaries.collect())
    }

    fn raw(n_rows: usize, n_features: usize) -> RawBlock {
        let value = |i: usize| match i % 97 {
            13 => f64::NAN,
            _ => (i * 7_919 % 1_000) as f64 / 20.0,
        };
        let columns: Vec<Vec<f64>> = (0..n_features)
            .map(|f| (0..n_rows).map(|r| value(r * 31 + f * 17)).collect())
            .collect();
        let counts = columns.iter().map(|column| {
            let nulls = column.iter().filter(|x| x.is_nan()).count() as u64;
            crate::read::ColumnCounts {
                nulls,
                ..Default::default()
            }
        });
        RawBlock {
            id: BlockId(3),
            n_rows,
            counts: counts.collect(),
            columns,
            ids: (0..n_rows as u128).map(|i| i << 64).collect(),
            values: Some(
                (0..n_rows as i64)
                    .map(|i| if i == 5 { NO_VALUE } else { i })
                    .collect(),
            ),
            source_rows: None,
            n_dropped: 0,
        }
    }

    #[test]
    fn every_row_lands_where_the_transform_says_and_sums_are_those_of_the_rows() {
        let transform = transform(&[Shape::Identity, Shape::Log1p, Shape::Identity]);
        for n_rows in [1, 15, 16, 17, 4_095, 4_096, 4_097, 9_001] {
            let original = raw(n_rows, 3);
            let mut partial = IngestPartial::zero(3);
            let grid = ingest(&mut original.clone(), &transform, &mut partial).unwrap();
            let mut expected = IngestPartial::zero(3);
            for feature_idx in 0..3 {
                for (row_idx, &x) in original.columns[feature_idx].iter().enumerate() {
                    let q = transform.to_grid(feature_idx, x);
                    assert_eq!(grid.block.value(row_idx, feature_idx), q);
                    expected.sums[feature_idx] += i128::from(q);
                    expected.squares[feature_idx] += i128::from(q).pow(2);
                    expected.clipped_low[feature_idx] += u64::from(x < 0.5);
                    expected.clipped_high[feature_idx] += u64::from(x > 40.0);
                    expected.imputed[feature_idx] += u64::from(x.is_nan());
                }
            }
            expected.total_squares = expected.squares.iter().sum();
            expected.n_rows = n_rows as u64;
            expected.value_total = partial.value_total;
            expected.n_valued = n_rows as u64 - u64::from(n_rows > 5);
            assert_eq!(partial, expected);
            assert_eq!(
                (grid.block.id(), grid.block.keys().last()),
                (3, Some(&(n_rows as u64 - 1)))
            );
        }
    }

    #[test]
    fn partials_add_up_in_any_order() {
        let transform = transform(&[Shape::Log1p; 2]);
        let parts: Vec<IngestPartial> = [100, 33, 4_100]
            .iter()
            .map(|n_rows| {
                let mut partial = IngestPartial::zero(2);
                ingest(&mut raw(*n_rows, 2), &transform, &mut partial).unwrap();
                partial
            })
            .collect();
        let total = |order: [usize; 3]| {
            let mut sum = IngestPartial::zero(2);
            order.iter().for_each(|i| sum.merge(&parts[*i]));
            sum
        };
        assert_eq!(total([0, 1, 2]), total([2, 0, 1]));
        assert_ne!(total([0, 1, 2]), total([0, 1, 1]));
    }

    #[test]
    fn nulls_without_a_value_to_impute_are_refused() {
        let mut summary = Summary {
            name: "x".to_owned(),
            high: 40.0,
            sd: 1.0,
            ..Summary::default()
        };
        summary.impute = None;
        let transform = Transform::freeze(TransformKind::None, vec![summary]);
        let refused = ingest(&mut raw(100, 1), &transform, &mut IngestPartial::zero(1));
        assert!(
            matches!(refused, Err(DataError::Nulls { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_feature_dwarfed_by_another_is_named() {
        let feature = |name: &str, high| Summary {
            name: name.to_owned(),
            high,
            sd: 1.0,
            ..Summary::default()
        };
        let transform = Transform::freeze(
            TransformKind::None,
            vec![feature("share", 1.0), feature("spend", 1e6)],
        );
        let mut raw = raw(1_000, 2);
        raw.columns = vec![
            (0..1_000).map(|i| f64::from(i) / 1e3).collect(),
            (0..1_000).map(|i| f64::from(i) * 1e3).collect(),
        ];
        raw.counts = vec![Default::default(); 2];
        let mut partial = IngestPartial::zero(2);
        ingest(&mut raw, &transform, &mut partial).unwrap();
        let warnings = partial.coarse_features(&transform);
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("feature `share` varies by 2.3 grid steps"),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_block_whose_rows_were_all_dropped_is_empty() {
        let transform = transform(&[Shape::Identity, Shape::Log1p]);
        let mut empty = raw(0, 2);
        empty.n_dropped = 40;
        // What was dropped was counted before.
        empty.counts.iter_mut().for_each(|counts| counts.nulls = 40);
        let mut partial = IngestPartial::zero(2);
        let grid = ingest(&mut empty, &transform, &mut partial).unwrap();
        assert_eq!((grid.block.n_rows(), partial.n_dropped), (0, 40));
    }
}

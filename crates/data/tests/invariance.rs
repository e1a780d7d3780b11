//! Neither the order of customers nor the way they are cut into files changes the transform or the rows on the grid.

mod support;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Float32Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use clientele_data::Manifest;
use clientele_data::transform::{Shape, Transform, TransformKind};
use support::*;

/// Integers that look random and are the same everywhere.
fn noise(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ x >> 29
}

fn uniform(seed: u64) -> f64 {
    ((noise(seed) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// Money with nulls, f32 shares, counts, something symmetric, something constant.
fn customers(n_rows: u64) -> RecordBatch {
    let column = |f: &dyn Fn(u64) -> f64| (0..n_rows).map(f).collect::<Vec<f64>>();
    let spend = column(&|i| (-uniform(i).ln() * 10_000.0).round() / 100.0);
    let spend = spend
        .iter()
        .zip(0..)
        .map(|(x, i)| (i % 41 != 7).then_some(*x));
    let share = Float32Array::from_iter_values(
        column(&|i| uniform(i + 1_000_000).powi(3))
            .iter()
            .map(|x| *x as f32),
    );
    let visits = Int64Array::from_iter_values(
        (0..n_rows).map(|i| (-uniform(i + 2_000_000).ln() * 6.0) as i64),
    );
    let balance = column(&|i| {
        uniform(i + 3_000_000) + uniform(i + 4_000_000)
            - uniform(i + 5_000_000)
            - uniform(i + 6_000_000)
    });
    RecordBatch::try_from_iter_with_nullable([
        ("id", ints((0..n_rows as i64).map(|i| i * 17)), true),
        ("spend", floats(spend), true),
        ("share", Arc::new(share), true),
        ("visits", Arc::new(visits), true),
        ("balance", floats(balance.into_iter().map(Some)), true),
        ("constant", floats((0..n_rows).map(|_| Some(4.0))), true),
    ])
    .unwrap()
}

fn shuffled(batch: &RecordBatch, seed: u64) -> RecordBatch {
    let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
    order.sort_by_key(|i| noise(u64::from(*i) ^ seed << 32));
    take_record_batch(batch, &UInt32Array::from(order)).unwrap()
}

fn cut(batch: &RecordBatch, folder: &Path, n_files: usize, group_rows: usize) {
    let n_rows = batch.num_rows();
    for i in 0..n_files {
        let (start, end) = (n_rows * i / n_files, n_rows * (i + 1) / n_files);
        // Names whose order is not that of the rows.
        let path = folder.join(format!("{:03}.parquet", i * 37 % 101));
        write_batch(&path, &batch.slice(start, end - start), group_rows);
    }
}

fn results(
    batch: &RecordBatch,
    kind: TransformKind,
    n_files: usize,
    group_rows: usize,
) -> (String, Vec<GridRow>, String) {
    let folder = tempfile::tempdir().unwrap();
    cut(batch, folder.path(), n_files, group_rows);
    let mut spec = spec(folder.path());
    spec.value = Some("spend".to_owned());
    let manifest = Manifest::plan(&spec).unwrap();
    let (transform, _) = statistics(&manifest, kind).unwrap();
    let (rows, total) = grid_rows(&manifest, &transform).unwrap();
    (
        serde_json::to_string(&transform).unwrap(),
        rows,
        format!("{total:?}"),
    )
}

#[test]
fn shuffled_and_recut_customers_give_the_same_transform_and_rows() {
    let batch = customers(20_000);
    for kind in [
        TransformKind::Auto,
        TransformKind::Zscore,
        TransformKind::None,
    ] {
        let expected = results(&batch, kind, 1, 1_000_000);
        for (n_files, group_rows) in [(1, 1_000), (7, 1_000_000), (50, 333)] {
            let found = results(&shuffled(&batch, n_files as u64), kind, n_files, group_rows);
            assert_eq!(
                found.0, expected.0,
                "{kind:?}, {n_files} files of row groups of {group_rows}"
            );
            assert!(
                found.1 == expected.1 && found.2 == expected.2,
                "{kind:?}, {n_files} files"
            );
        }
    }
}

#[test]
fn one_changed_value_in_20_000_customers_is_noticed() {
    let batch = customers(20_000);
    let mut columns = batch.columns().to_vec();
    let visits: &Int64Array = columns[3].as_any().downcast_ref().unwrap();
    let changed = visits
        .values()
        .iter()
        .enumerate()
        .map(|(i, v)| v + i64::from(i == 12_345));
    columns[3] = ints(changed);
    let changed = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let kind = TransformKind::Zscore;
    assert_ne!(
        results(&batch, kind, 1, 1_000_000).1,
        results(&changed, kind, 1, 1_000_000).1
    );
}

fn transform_of(batch: &RecordBatch, kind: TransformKind) -> (Transform, u32) {
    let folder = tempfile::tempdir().unwrap();
    cut(batch, folder.path(), 3, 5_000);
    statistics(&Manifest::plan(&spec(folder.path())).unwrap(), kind).unwrap()
}

fn sorted(batch: &RecordBatch, name: &str) -> Vec<f64> {
    let array = arrow::compute::cast(
        batch.column_by_name(name).unwrap(),
        &arrow::datatypes::DataType::Float64,
    )
    .unwrap();
    let array: &arrow::array::Float64Array = array.as_any().downcast_ref().unwrap();
    let mut values: Vec<f64> = array.iter().flatten().collect();
    values.sort_by(f64::total_cmp);
    values
}

#[test]
fn quantiles_medians_and_moments_are_those_of_a_sort() {
    let batch = customers(20_000);
    let (transform, _) = transform_of(&batch, TransformKind::Auto);
    for feature in transform.features() {
        let values = sorted(&batch, &feature.name);
        let last = values.len() - 1;
        let (low, high) = (values[last * 5 / 1_000], values[last * 995 / 1_000]);
        assert_eq!(
            (feature.clip_low, feature.clip_high),
            (low, high),
            "{}",
            feature.name
        );
        let median = (values.len() < 20_000).then_some(values[last / 2]);
        assert_eq!(feature.impute, median, "{}", feature.name);
        let n_missing = 20_000 - values.len();
        let imputed = std::iter::repeat_n(median.unwrap_or(0.0), n_missing);
        let shaped: Vec<f64> = values
            .iter()
            .copied()
            .chain(imputed)
            .map(|x| feature.kind.apply(x.clamp(low, high)))
            .collect();
        let mean = shaped.iter().sum::<f64>() / 20_000.0;
        let sd = (shaped.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0).sqrt();
        assert!(
            (feature.mean - mean).abs() <= 1e-11 * mean.abs().max(1.0),
            "{}: {} {mean}",
            feature.name,
            feature.mean
        );
        assert!(
            (feature.sd - sd).abs() <= 1e-10 * sd,
            "{}: {} {sd}",
            feature.name,
            feature.sd
        );
    }
}

#[test]
fn money_and_counts_are_logged_and_shares_and_symmetric_columns_are_not() {
    let (transform, _) = transform_of(&customers(20_000), TransformKind::Auto);
    let shapes: Vec<(&str, Shape)> = transform
        .features()
        .iter()
        .map(|f| (f.name.as_str(), f.kind))
        .collect();
    let expected = [
        ("spend", Shape::Log1p),
        ("share", Shape::Identity),
        ("visits", Shape::Log1p),
        ("balance", Shape::Identity),
        ("constant", Shape::Identity),
    ];
    assert_eq!(shapes, expected);
    assert_eq!(
        transform.warnings(),
        ["feature `constant` is 4 in every row and tells customers apart in nothing"]
    );
}

#[test]
fn no_more_rounds_are_asked_than_needed() {
    let batch = customers(20_000);
    let without_nulls = batch.project(&[0, 2, 3]).unwrap();
    assert_eq!(transform_of(&without_nulls, TransformKind::None).1, 1);
    assert_eq!(transform_of(&without_nulls, TransformKind::Zscore).1, 2);
    // f32 and counts: quantiles in two rounds, then moments.
    assert_eq!(transform_of(&without_nulls, TransformKind::Auto).1, 3);
    // The ends first; that medians are needed is known only then.
    assert!(transform_of(&batch, TransformKind::None).1 <= 4);
}

#[test]
fn untransformed_features_keep_their_units_and_scaled_ones_have_none() {
    let batch = customers(5_000);
    let (none, _) = transform_of(&batch, TransformKind::None);
    let balance = none
        .features()
        .iter()
        .position(|f| f.name == "balance")
        .unwrap();
    let x = 0.123_456;
    let clustered = none.clustered(balance, none.to_grid(balance, x).into());
    assert!((clustered - x).abs() <= none.grid_step() / 2.0);
    let (zscore, _) = transform_of(&batch, TransformKind::Zscore);
    let feature = &zscore.features()[balance];
    let clustered = zscore.clustered(balance, zscore.to_grid(balance, x).into());
    assert!((clustered - (x - feature.mean) / feature.sd).abs() <= zscore.grid_step() / 2.0);
}

//! What the reader makes of every type, of nulls, and of files that change or break.

mod support;

use std::fs;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Int8Type, i256};
use clientele_data::ids::{Ids, row_key};
use clientele_data::read::{NO_VALUE, Projection, RawBlock, read_ids, read_shard};
use clientele_data::transform::TransformKind;
use clientele_data::{BlockId, DataError, ErrorKind, Manifest, NullPolicy, ShardId};
use support::*;

fn decimals<T: arrow::datatypes::DecimalType>(values: [Option<i64>; 3]) -> ArrayRef
where
    T::Native: From<i32>,
{
    let values = values.map(|v| v.map(|v| T::Native::from(v as i32)));
    let array: PrimitiveArray<T> = values.into_iter().collect();
    Arc::new(array.with_precision_and_scale(9, 2).unwrap())
}

#[test]
fn every_numeric_type_becomes_the_same_floats() {
    use arrow::datatypes::{Decimal32Type, Decimal64Type, Decimal128Type};
    let small = [Some(1.0), None, Some(100.0)];
    let base: ArrayRef = Arc::new(Int8Array::from(vec![Some(1), None, Some(100)]));
    let types = [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
    ];
    let mut arrays: Vec<ArrayRef> = types.iter().map(|to| cast(&base, to).unwrap()).collect();
    arrays.push(Arc::new(
        [Some(0), None, Some(1)].into_iter().collect::<Int8Array>(),
    ));
    let last = arrays.pop().unwrap();
    let keys = last.as_primitive::<Int8Type>().clone();
    let dictionary = DictionaryArray::new(keys, Arc::new(Float64Array::from(vec![1.0, 100.0])));
    arrays.push(Arc::new(dictionary));
    let cents = [Some(100), None, Some(10_000)];
    arrays.push(decimals::<Decimal32Type>(cents));
    arrays.push(decimals::<Decimal64Type>(cents));
    arrays.push(decimals::<Decimal128Type>(cents));
    let wide: Decimal256Array = cents
        .map(|v| v.map(i256::from_i128_like))
        .into_iter()
        .collect();
    arrays.push(Arc::new(wide.with_precision_and_scale(50, 2).unwrap()));
    for array in arrays {
        let data_type = array.data_type().clone();
        let (_folder, manifest) = plan(&vec![("x", array)], |spec| spec.id = None);
        let columns = raw_columns(&manifest.unwrap()).unwrap();
        let found: Vec<Option<f64>> = columns[0]
            .iter()
            .map(|x| (!x.is_nan()).then_some(*x))
            .collect();
        assert_eq!(found, small, "{data_type}");
    }
}

/// Keeps the table of types above short.
trait FromI64 {
    fn from_i128_like(value: i64) -> Self;
}

impl FromI64 for i256 {
    fn from_i128_like(value: i64) -> Self {
        i256::from_i128(value.into())
    }
}

#[test]
fn booleans_and_half_floats_are_numbers() {
    let booleans: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]));
    let one_and_half = <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::from_f64(1.5);
    let halves: ArrayRef = Arc::new(Float16Array::from(vec![one_and_half; 3]));
    let (_folder, manifest) = plan(&vec![("loyal", booleans), ("half", halves)], |spec| {
        spec.id = None
    });
    let columns = raw_columns(&manifest.unwrap()).unwrap();
    assert_eq!(columns[0][..2], [1.0, 0.0]);
    assert!(columns[0][2].is_nan());
    assert_eq!(columns[1], [1.5; 3]);
}

fn keys(ids: ArrayRef) -> Vec<u64> {
    let n_rows = ids.len();
    let (_folder, manifest) = plan(&vec![("id", ids), ("x", ints(0..n_rows as i64))], |_| {});
    let mut keys = Vec::new();
    let manifest = manifest.unwrap();
    read_shard(
        &manifest,
        ShardId(0),
        &Projection::all(&manifest),
        &mut |raw: &mut RawBlock| {
            keys.extend(raw.ids.iter().map(|id| row_key(*id)));
            Ok::<_, DataError>(())
        },
    )
    .unwrap();
    keys
}

#[test]
fn the_row_key_does_not_depend_on_the_type_of_the_id() {
    let numbers = ints([3, 1, 4]);
    let expected = keys(numbers.clone());
    for data_type in [
        DataType::Int8,
        DataType::UInt8,
        DataType::Int32,
        DataType::UInt64,
    ] {
        assert_eq!(keys(cast(&numbers, &data_type).unwrap()), expected);
    }
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["3", "1", "4"]));
    let expected = keys(texts.clone());
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    for data_type in [DataType::LargeUtf8, DataType::Utf8View, dictionary] {
        assert_eq!(keys(cast(&texts, &data_type).unwrap()), expected);
    }
}

fn all_ids(manifest: &Manifest) -> Vec<(BlockId, Ids)> {
    let mut found = Vec::new();
    for shard in (0..manifest.n_shards()).map(ShardId) {
        let mut each = |block, ids| -> Result<(), DataError> {
            found.push((block, ids));
            Ok(())
        };
        read_ids(manifest, shard, &mut each).unwrap();
    }
    found
}

#[test]
fn ids_come_back_in_their_type_block_by_block() {
    let names: ArrayRef = Arc::new(LargeStringArray::from_iter_values(
        (0..70_000).map(|i| format!("c{i}")),
    ));
    let (_folder, manifest) = plan(&vec![("id", names), ("x", ints(0..70_000))], |_| {});
    let found = all_ids(&manifest.unwrap());
    assert_eq!(
        found
            .iter()
            .map(|(block, ids)| (block.0, ids.len()))
            .collect::<Vec<_>>(),
        [(0, 65_536), (1, 4_464)]
    );
    assert_eq!(found[1].1.array().as_string::<i64>().value(0), "c65536");
    let mut bytes = Vec::new();
    found[1].1.canonical(0, &mut bytes);
    assert_eq!(bytes, b"sc65536");
}

#[test]
fn without_an_id_rows_are_known_by_their_number_over_all_files() {
    let folder = tempfile::tempdir().unwrap();
    write(&file_in(&folder, "a.parquet"), &vec![("x", ints(0..5))], 3);
    write(&file_in(&folder, "b.parquet"), &vec![("x", ints(0..4))], 3);
    let mut spec = spec(folder.path());
    spec.id = None;
    let manifest = Manifest::plan(&spec).unwrap();
    let mut numbers = Vec::new();
    let mut fingerprints = Vec::new();
    for (_, ids) in all_ids(&manifest) {
        numbers.extend(
            ids.array()
                .as_primitive::<arrow::datatypes::Int64Type>()
                .values()
                .iter()
                .copied(),
        );
        ids.fingerprints(&mut fingerprints);
    }
    assert_eq!(numbers, (0..9).collect::<Vec<i64>>());
    let mut expected: Vec<u64> = fingerprints.into_iter().map(row_key).collect();
    expected.sort_unstable();
    let (transform, _) = statistics(&manifest, TransformKind::None).unwrap();
    let (rows, _) = grid_rows(&manifest, &transform).unwrap();
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), expected);
}

#[test]
fn customers_without_an_id_end_the_run() {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(2)]));
    let (_folder, manifest) = plan(&vec![("id", ids), ("x", ints(0..3))], |_| {});
    let manifest = manifest.unwrap();
    let (transform, _) = statistics(&manifest, TransformKind::None).unwrap();
    let error = grid_rows(&manifest, &transform).unwrap_err();
    assert!(
        matches!(error, DataError::NullIds { n_nulls: 1, .. }),
        "{error}"
    );
}

fn with_nulls(nulls: NullPolicy) -> (tempfile::TempDir, Manifest) {
    let x = floats([
        Some(1.0),
        None,
        Some(f64::NAN),
        Some(5.0),
        Some(2.0),
        Some(9.0),
    ]);
    let y = floats([Some(0.0), Some(1.0), Some(1.0), None, Some(1.0), Some(0.0)]);
    let worth = floats([Some(1.0), Some(2.0), Some(4.0), Some(8.0), None, Some(32.0)]);
    let table = vec![("id", ints(0..6)), ("x", x), ("y", y), ("worth", worth)];
    let (folder, manifest) = plan(&table, |spec| {
        spec.nulls = nulls;
        spec.value = Some("worth".to_owned());
        spec.columns = clientele_data::Columns::Named(vec!["x".to_owned(), "y".to_owned()]);
    });
    (folder, manifest.unwrap())
}

#[test]
fn nulls_are_imputed_with_the_lower_median_and_counted() {
    let (_folder, manifest) = with_nulls(NullPolicy::Impute);
    let (transform, _) = statistics(&manifest, TransformKind::Zscore).unwrap();
    assert_eq!(
        (
            transform.features()[0].impute,
            transform.features()[1].impute
        ),
        (Some(2.0), Some(1.0))
    );
    // Of 1 2 2 5 2 9: the rows as they are clustered.
    assert!((transform.features()[0].mean - 3.5).abs() < 1e-9);
    let (rows, total) = grid_rows(&manifest, &transform).unwrap();
    assert_eq!((rows.len(), total.imputed), (6, vec![2, 1]));
    assert_eq!((total.value_total, total.n_valued), (470_000, 5));
}

#[test]
fn dropped_rows_are_dropped_everywhere() {
    let (_folder, manifest) = with_nulls(NullPolicy::Drop);
    let (transform, _) = statistics(&manifest, TransformKind::None).unwrap();
    // 5 is in a row with a null elsewhere.
    assert_eq!(
        (
            transform.features()[0].clip_low,
            transform.features()[0].clip_high
        ),
        (1.0, 9.0)
    );
    let (rows, total) = grid_rows(&manifest, &transform).unwrap();
    assert_eq!(
        (rows.len(), total.n_dropped, total.imputed),
        (3, 3, vec![0, 0])
    );
    assert_eq!((total.value_total, total.n_valued), (330_000, 2));
    read_shard(
        &manifest,
        ShardId(0),
        &Projection::all(&manifest),
        &mut |raw: &mut RawBlock| {
            assert_eq!(raw.source_rows.as_deref(), Some(&[0, 4, 5][..]));
            assert_eq!(
                raw.values.as_deref(),
                Some(&[10_000, NO_VALUE, 320_000][..])
            );
            Ok::<_, DataError>(())
        },
    )
    .unwrap();
}

#[test]
fn nulls_end_the_run_when_they_shall() {
    let (_folder, manifest) = with_nulls(NullPolicy::Fail);
    let error = statistics(&manifest, TransformKind::None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "features have nulls: `x` (1 nulls, 1 NaN), `y` (1 nulls)"
    );
    assert_eq!(error.kind(), ErrorKind::Input);
}

#[test]
fn infinities_end_the_run_with_columns_and_counts() {
    let inf = f64::INFINITY;
    let table = vec![
        ("a", floats([Some(1.0), Some(2.0)])),
        ("b", floats([Some(inf), Some(-inf)])),
        ("c", floats([Some(inf); 2])),
    ];
    let (_folder, manifest) = plan(&table, |spec| spec.id = None);
    let error = statistics(&manifest.unwrap(), TransformKind::Auto).unwrap_err();
    assert_eq!(
        error.to_string(),
        "features have infinite values: `b` (1 +inf, 1 -inf), `c` (2 +inf)"
    );
}

#[test]
fn a_column_of_nulls_and_a_table_of_dropped_rows_are_refused() {
    let table = vec![
        ("id", ints(0..2)),
        ("x", floats([None, None])),
        ("y", ints(0..2)),
    ];
    for (nulls, is_right) in [
        (
            NullPolicy::Impute,
            (|e| matches!(e, DataError::NoValues { n_rows: 2, .. })) as fn(&DataError) -> bool,
        ),
        (NullPolicy::Drop, |e| {
            matches!(e, DataError::AllDropped { n_rows: 2 })
        }),
    ] {
        let (_folder, manifest) = plan(&table, |spec| spec.nulls = nulls);
        let error = statistics(&manifest.unwrap(), TransformKind::Auto).unwrap_err();
        assert!(is_right(&error), "{error}");
    }
}

#[test]
fn a_value_that_does_not_fit_ends_the_run() {
    let table = vec![
        ("id", ints(0..2)),
        ("x", ints(0..2)),
        ("worth", floats([Some(1.0), Some(1e300)])),
    ];
    let (_folder, manifest) = plan(&table, |spec| spec.value = Some("worth".to_owned()));
    let manifest = manifest.unwrap();
    let all = Projection::all(&manifest);
    let error = read_shard(&manifest, ShardId(0), &all, &mut |_: &mut RawBlock| {
        Ok::<_, DataError>(())
    })
    .unwrap_err();
    assert!(
        matches!(error, DataError::ValueRange { n_values: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_file_changed_between_plan_and_read_ends_the_run() {
    let (folder, manifest) = plan(&vec![("id", ints(0..9)), ("x", ints(0..9))], |_| {});
    let manifest = manifest.unwrap();
    statistics(&manifest, TransformKind::None).unwrap();
    write(
        &file_in(&folder, "a.parquet"),
        &vec![("id", ints(0..9)), ("x", ints(1..10))],
        4,
    );
    let error = statistics(&manifest, TransformKind::None).unwrap_err();
    assert!(matches!(error, DataError::InputChanged { .. }), "{error}");
}

#[test]
fn pages_that_do_not_decode_name_file_and_row_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_in(&folder, "a.parquet");
    write(
        &path,
        &vec![
            ("id", ints(0..4_000)),
            ("x", floats((0..4_000).map(|i| Some(f64::from(i).sqrt())))),
        ],
        4_000,
    );
    let mut bytes = fs::read(&path).unwrap();
    bytes[4..200].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let manifest = Manifest::plan(&spec(folder.path())).unwrap();
    let error = grid_rows(
        &manifest,
        &statistics(&manifest, TransformKind::None).unwrap().0,
    )
    .unwrap_err();
    assert!(
        matches!(error, DataError::Read { row_group: 0, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Input);
}

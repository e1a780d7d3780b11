//! What the manifest pins, how it cuts, and what it refuses.

mod support;

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Date32Array, Int32Array, StringArray};
use clientele_data::manifest::SHARD_ROWS;
use clientele_data::{Change, Columns, DataError, ErrorKind, Manifest, ShardId};
use support::*;

fn customers(n_rows: i64) -> Table {
    vec![
        ("id", ints(0..n_rows)),
        ("spend", floats((0..n_rows).map(|i| Some(i as f64)))),
        ("visits", ints(0..n_rows)),
    ]
}

fn refused(table: &Table, change: impl FnOnce(&mut clientele_data::TableSpec)) -> DataError {
    plan(table, change).1.expect_err("the plan is refused")
}

fn named(names: &[&str]) -> Columns {
    Columns::Named(names.iter().map(ToString::to_string).collect())
}

#[test]
fn every_numeric_column_but_the_id_is_a_feature() {
    let mut table = customers(3);
    table.push(("name", Arc::new(StringArray::from(vec!["a", "b", "c"]))));
    table.push((
        "loyal",
        Arc::new(BooleanArray::from(vec![true, false, true])),
    ));
    let manifest = plan(&table, |_| {}).1.unwrap();
    let names: Vec<&str> = manifest
        .features()
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["spend", "visits", "loyal"]);
    assert_eq!(
        (manifest.n_rows(), manifest.n_shards(), manifest.n_blocks()),
        (3, 1, 1)
    );
}

#[test]
fn columns_come_in_the_order_they_are_asked_for() {
    let manifest = plan(&customers(3), |spec| {
        spec.columns = named(&["visits", "spend"])
    })
    .1
    .unwrap();
    assert_eq!(manifest.features()[0].name, "visits");
}

#[test]
fn a_column_that_is_no_number_is_named_with_its_type_and_a_way_out() {
    let mut table = customers(1);
    table.push(("signup_date", Arc::new(Date32Array::from(vec![1]))));
    let error = refused(&table, |spec| spec.columns = named(&["signup_date"]));
    assert_eq!(
        error.to_string(),
        "column `signup_date` cannot be a feature"
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "its type is Date32; features must be numeric");
    assert_eq!(
        error.hint().unwrap(),
        "use `--columns spend,visits,...`, or let `clientele features` derive it"
    );
    assert_eq!(error.kind(), ErrorKind::Input);
}

#[test]
fn a_misspelt_column_comes_with_its_neighbours() {
    let error = refused(&customers(1), |spec| spec.columns = named(&["Spent"]));
    assert!(
        matches!(&error, DataError::MissingColumn { nearest, .. } if nearest == &["spend"]),
        "{error}"
    );
    assert_eq!(error.hint().unwrap(), "did you mean `spend`?");
}

#[test]
fn questions_that_contradict_themselves_are_usage_errors() {
    let twice = refused(&customers(1), |spec| {
        spec.columns = named(&["spend", "spend"])
    });
    assert!(matches!(twice, DataError::ColumnTwice { .. }));
    let id = refused(&customers(1), |spec| spec.columns = named(&["id"]));
    assert!(matches!(id, DataError::IdIsFeature { .. }));
    assert_eq!(
        (twice.kind(), id.kind()),
        (ErrorKind::Usage, ErrorKind::Usage)
    );
}

#[test]
fn ids_are_integers_or_text() {
    let error = refused(&customers(1), |spec| spec.id = Some("spend".to_owned()));
    assert!(matches!(error, DataError::NotAnId { .. }), "{error}");
    let table: Table = vec![("id", Arc::new(StringArray::from(vec!["a"])))];
    assert!(matches!(
        refused(&table, |_| {}),
        DataError::NoFeatures { .. }
    ));
}

#[test]
fn a_table_without_rows_is_refused() {
    let error = refused(&customers(0), |_| {});
    assert!(matches!(error, DataError::NoRows { n_files: 1 }), "{error}");
}

#[test]
fn more_features_than_the_limit_are_refused_with_both_numbers() {
    let names: Vec<&'static str> = (0..4_097).map(|i| &*format!("f{i}").leak()).collect();
    let table: Table = names.into_iter().map(|name| (name, ints(0..1))).collect();
    let error = refused(&table, |spec| spec.id = None);
    assert_eq!(
        error.to_string(),
        "n_features=4097 is above the limit of 4096"
    );
    assert_eq!(error.kind(), ErrorKind::Limit);
}

#[test]
fn all_bad_files_are_listed_at_once_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    write(&file_in(&folder, "good.parquet"), &customers(100), 10);
    let good = fs::read(file_in(&folder, "good.parquet")).unwrap();
    let mut damaged = good.clone();
    let footer_at = good.len() - 60;
    damaged[footer_at..good.len() - 8].fill(0xff);
    let bad = [
        ("cut.parquet", &good[..good.len() / 2], "truncated"),
        ("damaged.parquet", &damaged, "footer"),
        ("empty.parquet", &[], "size_bytes=0"),
        ("foreign.parquet", b"customer,spend\n1,2\n", "not Parquet"),
        ("long.parquet", b"PAR1\xff\xff\xff\x7fPAR1", "truncated"),
    ];
    for (name, bytes, _) in &bad {
        fs::write(file_in(&folder, name), bytes).unwrap();
    }
    let error = Manifest::plan(&spec(folder.path())).unwrap_err();
    let DataError::BadFiles { files, n_files: 6 } = &error else {
        panic!("{error}")
    };
    assert_eq!(files.len(), bad.len());
    for ((name, _, reason), file) in bad.iter().zip(files) {
        assert!(
            file.path.ends_with(name) && file.reason.contains(reason),
            "{file:?}"
        );
        assert!(error.to_string().contains(name));
    }
}

#[test]
fn one_file_of_many_without_a_column_or_with_another_type_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..3 {
        write(
            &file_in(&folder, &format!("{i}.parquet")),
            &customers(5),
            10,
        );
    }
    let other: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    write(
        &file_in(&folder, "3.parquet"),
        &vec![("visits", ints(0..1)), ("spend", other), ("id", ints(0..1))],
        10,
    );
    let error = Manifest::plan(&spec(folder.path())).unwrap_err();
    let DataError::ColumnTypeDiffers {
        column,
        path,
        found,
        expected,
        expected_path,
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (column.as_str(), found.as_str(), expected.as_str()),
        ("spend", "Int32", "Float64")
    );
    assert!(path.ends_with("3.parquet") && expected_path.ends_with("0.parquet"));

    write(
        &file_in(&folder, "3.parquet"),
        &vec![("id", ints(0..1)), ("spend", floats([Some(1.0)]))],
        10,
    );
    let error = Manifest::plan(&spec(folder.path())).unwrap_err();
    assert!(
        matches!(&error, DataError::MissingColumn { column, path, .. } if column == "visits" && path.ends_with("3.parquet"))
    );
}

#[test]
fn blocks_and_shards_are_cut_from_row_groups_alone() {
    let folder = tempfile::tempdir().unwrap();
    let n_rows = 2_300_000;
    let table = vec![("id", ints(0..n_rows))];
    write(&file_in(&folder, "a.parquet"), &table, 1_200_000);
    write(
        &file_in(&folder, "b.parquet"),
        &vec![("id", ints(0..10_000))],
        1_000,
    );
    let mut spec = spec(folder.path());
    spec.id = None;
    let manifest = Manifest::plan(&spec).unwrap();
    assert_eq!(manifest.n_rows(), 2_310_000);
    let shards: Vec<u64> = manifest.shards().iter().map(|shard| shard.n_rows).collect();
    // 1,200,000 and 1,100,000 rows are four runs of 4 blocks and a rest each; whole row groups are packed behind a rest that they fit.
    let runs = [SHARD_ROWS; 4];
    let expected = [
        &runs[..],
        &[1_200_000 - 4 * SHARD_ROWS],
        &runs,
        &[1_100_000 - 4 * SHARD_ROWS + 10_000],
    ]
    .concat();
    assert_eq!(shards, expected);
    let blocks = manifest.blocks();
    assert!(
        blocks
            .iter()
            .all(|block| block.n_rows <= 65_536 && block.start_row.is_multiple_of(65_536))
    );
    assert!(
        blocks
            .windows(2)
            .all(|pair| pair[0].first_row + pair[0].n_rows as u64 == pair[1].first_row)
    );
    let of_shards: Vec<u32> = (0..manifest.n_shards())
        .flat_map(|s| manifest.shard_blocks(ShardId(s)))
        .map(|b| b.0)
        .collect();
    assert_eq!(of_shards, (0..manifest.n_blocks()).collect::<Vec<_>>());
}

#[test]
fn a_manifest_survives_json() {
    let (_folder, manifest) = plan(&customers(10), |spec| spec.value = Some("spend".to_owned()));
    let manifest = manifest.unwrap();
    let json = serde_json::to_string_pretty(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
}

#[test]
fn a_file_that_is_no_longer_the_planned_one_is_noticed() {
    let rewrite = |table: &Table| {
        let folder = tempfile::tempdir().unwrap();
        let path = file_in(&folder, "a.parquet");
        write(&path, &customers(50), 10);
        let manifest = Manifest::plan(&spec(folder.path())).unwrap();
        manifest.verify_file(0).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        write(&path, table, 10);
        // The clock alone must not be what notices it.
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(modified)
            .unwrap();
        manifest.verify_file(0).unwrap_err()
    };
    let mut other = customers(50);
    other[2].1 = ints((0..50).map(|i| 49 - i));
    let (longer, other) = (rewrite(&customers(51)), rewrite(&other));
    assert!(
        matches!(
            longer,
            DataError::InputChanged {
                source: Change::Size { .. },
                ..
            }
        ),
        "{longer:?}"
    );
    assert!(
        matches!(
            other,
            DataError::InputChanged {
                source: Change::Footer | Change::Size { .. },
                ..
            }
        ),
        "{other:?}"
    );
    assert_eq!(other.kind(), ErrorKind::Changed);
}

#[test]
fn a_file_written_to_or_gone_is_noticed() {
    let (folder, manifest) = plan(&customers(50), |_| {});
    let (manifest, path) = (manifest.unwrap(), file_in(&folder, "a.parquet"));
    let file = fs::File::options().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified + std::time::Duration::from_secs(1))
        .unwrap();
    assert!(matches!(
        manifest.verify_file(0),
        Err(DataError::InputChanged {
            source: Change::Modified,
            ..
        })
    ));
    fs::remove_file(path).unwrap();
    assert!(matches!(
        manifest.verify_file(0),
        Err(DataError::InputChanged {
            source: Change::Gone,
            ..
        })
    ));
}

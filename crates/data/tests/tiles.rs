//! Columns decoded straight into tiles are what the plain reader makes of the same files, for every type, encoding and shape.

mod support;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use clientele_data::ingest::{GridBlock, IngestPartial, ingest};
use clientele_data::read::{Projection, RawBlock, read_shard};
use clientele_data::stats::{StatsPartial, StatsPlanner, StatsRequest};
use clientele_data::tiles::{RawTiles, Spread, read_statistics, read_tiles};
use clientele_data::transform::{Transform, TransformKind};
use clientele_data::{DataError, Manifest, ShardId};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{WriterProperties, WriterVersion};
use support::*;

/// A small generator: the same tables on every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// How a file is written.
#[derive(Debug, Clone, Copy)]
struct Layout {
    group_rows: usize,
    page_rows: usize,
    has_dictionary: bool,
    version: WriterVersion,
    is_nullable: bool,
}

fn layouts(noise: &mut Noise) -> Vec<Layout> {
    let mut layouts = Vec::new();
    for has_dictionary in [true, false] {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for is_nullable in [true, false] {
                layouts.push(Layout {
                    group_rows: 1 + noise.below(400) as usize,
                    page_rows: 1 + noise.below(90) as usize,
                    has_dictionary,
                    version,
                    is_nullable,
                });
            }
        }
    }
    layouts
}

fn write_as(path: &Path, table: &Table, layout: Layout) {
    let columns = table
        .iter()
        .map(|(name, array)| (*name, array.clone(), layout.is_nullable));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(layout.group_rows))
        .set_data_page_row_count_limit(layout.page_rows)
        .set_write_batch_size(layout.page_rows)
        .set_dictionary_enabled(layout.has_dictionary)
        .set_writer_version(layout.version)
        .build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// One column of each type; with nulls where they are allowed.
fn table(noise: &mut Noise, n_rows: usize, has_nulls: bool, has_specials: bool) -> Table {
    let types = [
        ("i8", DataType::Int8),
        ("i16", DataType::Int16),
        ("i32", DataType::Int32),
        ("i64", DataType::Int64),
        ("u8", DataType::UInt8),
        ("u16", DataType::UInt16),
        ("u32", DataType::UInt32),
        ("u64", DataType::UInt64),
        ("f16", DataType::Float16),
        ("f32", DataType::Float32),
        ("f64", DataType::Float64),
        ("bool", DataType::Boolean),
        ("cents", DataType::Decimal128(12, 2)),
        (
            "coded",
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Float32)),
        ),
    ];
    let mut table: Table = vec![("id", ints(0..n_rows as i64))];
    for (name, data_type) in types {
        let mut value = || match noise.below(8) {
            0 if has_nulls => None,
            1 => Some(0.0),
            _ => Some(noise.below(120) as f64),
        };
        let values: Float64Array = (0..n_rows).map(|_| value()).collect();
        let array = match &data_type {
            DataType::Dictionary(..) => {
                cast(&cast(&values, &DataType::Float32).unwrap(), &data_type)
            }
            _ => cast(&values, &data_type),
        };
        table.push((name, array.unwrap()));
    }
    let mut float = |row: usize| match (noise.below(9), has_specials && row.is_multiple_of(5)) {
        (0, true) => f32::NAN,
        (1, true) => f32::INFINITY,
        (2, true) => f32::NEG_INFINITY,
        (3, _) => -0.0,
        (4, _) => 1e-40,
        (n, _) => (n as f32 - 4.3) * 10_f32.powi(n as i32 - 5),
    };
    let floats: Vec<f32> = (0..n_rows).map(&mut float).collect();
    let wide: Vec<f64> = floats.iter().map(|x| f64::from(*x) * 1.1).collect();
    table.push(("floats", Arc::new(Float32Array::from(floats))));
    table.push(("doubles", Arc::new(Float64Array::from(wide))));
    table
}

fn shards(manifest: &Manifest) -> impl Iterator<Item = ShardId> {
    (0..manifest.n_shards()).map(ShardId)
}

fn plain(manifest: &Manifest, request: &StatsRequest) -> StatsPartial {
    let mut partial = StatsPartial::zero(request);
    for shard in shards(manifest) {
        read_shard(
            manifest,
            shard,
            &request.projection(),
            &mut |raw: &mut RawBlock| {
                partial.add_block(request, raw);
                Ok::<_, DataError>(())
            },
        )
        .unwrap();
    }
    partial
}

fn tiles(
    manifest: &Manifest,
    spread: Spread,
    mut asked: Option<(&StatsRequest, &mut StatsPartial)>,
) -> Vec<RawTiles> {
    let mut tiles = Vec::new();
    for shard in shards(manifest) {
        let asked = asked
            .as_mut()
            .map(|(request, partial)| (*request, &mut **partial));
        read_tiles(manifest, shard, spread, asked, &mut |block| {
            tiles.push(block);
            Ok::<_, DataError>(())
        })
        .unwrap();
    }
    tiles
}

/// All three ways to statistics beside the plain one, for one request.
fn check_statistics(manifest: &Manifest, request: &StatsRequest) -> StatsPartial {
    let expected = plain(manifest, request);
    for spread in [Spread::Here, Spread::Columns] {
        let mut kept = StatsPartial::zero(request);
        let blocks = tiles(manifest, spread, Some((request, &mut kept)));
        assert_eq!(kept, expected, "while decoding, {spread:?}");
        let mut again = StatsPartial::zero(request);
        blocks
            .iter()
            .for_each(|block| block.add_statistics(request, &mut again));
        assert_eq!(again, expected, "of what is kept, {spread:?}");
        let mut streamed = StatsPartial::zero(request);
        for shard in shards(manifest) {
            read_statistics(manifest, shard, spread, request, &mut streamed).unwrap();
        }
        assert_eq!(streamed, expected, "keeping nothing, {spread:?}");
    }
    expected
}

/// Blocks in order, and what they add up to.
type Placed = (Vec<GridBlock>, IngestPartial);

fn placed_plainly(manifest: &Manifest, transform: &Transform) -> Placed {
    let (mut blocks, mut total) = (Vec::new(), IngestPartial::zero(manifest.n_features()));
    for shard in shards(manifest) {
        let each = &mut |raw: &mut RawBlock| {
            blocks.push(ingest(raw, transform, &mut total)?);
            Ok::<_, DataError>(())
        };
        read_shard(manifest, shard, &Projection::all(manifest), each).unwrap();
    }
    (blocks, total)
}

fn placed(manifest: &Manifest, transform: &Transform, spread: Spread) -> Placed {
    let companions = Projection {
        features: vec![false; manifest.n_features()],
        ids: true,
        value: true,
    };
    let mut rest = Vec::new();
    for shard in shards(manifest) {
        let each = &mut |raw: &mut RawBlock| {
            rest.push((raw.id, raw.ids.clone(), raw.values.take()));
            Ok::<_, DataError>(())
        };
        read_shard(manifest, shard, &companions, each).unwrap();
    }
    let (mut blocks, mut total) = (Vec::new(), IngestPartial::zero(manifest.n_features()));
    for (block, (id, ids, values)) in tiles(manifest, spread, None).into_iter().zip(rest) {
        assert_eq!((block.id(), block.n_rows()), (id, ids.len()));
        blocks.push(block.place(&ids, values, transform, &mut total).unwrap());
    }
    (blocks, total)
}

/// Every round of statistics and then the grid; what they came to.
fn check(manifest: &Manifest, kind: TransformKind) -> (Transform, IngestPartial) {
    let mut planner = StatsPlanner::new(manifest, kind);
    while let Some(request) = planner.request() {
        planner
            .absorb(check_statistics(manifest, &request))
            .unwrap();
    }
    let transform = planner.finish().unwrap();
    let expected = placed_plainly(manifest, &transform);
    assert_eq!(placed(manifest, &transform, Spread::Here), expected);
    assert_eq!(placed(manifest, &transform, Spread::Columns), expected);
    (transform, expected.1)
}

fn planned(table: &Table, layout: Layout) -> (tempfile::TempDir, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    write_as(&folder.path().join("a.parquet"), table, layout);
    let mut spec = spec(folder.path());
    spec.value = Some("cents".to_owned());
    let manifest = Manifest::plan(&spec).unwrap();
    (folder, manifest)
}

#[test]
fn every_type_encoding_and_page_is_read_as_the_plain_reader_reads_it() {
    let mut noise = Noise(7);
    for kind in [TransformKind::None, TransformKind::Auto] {
        for layout in layouts(&mut noise) {
            let n_rows = 1 + noise.below(900) as usize;
            let table = table(&mut noise, n_rows, layout.is_nullable, false);
            let (folder, manifest) = planned(&table, layout);
            check(&manifest, kind);
            let mut spec = spec(folder.path());
            spec.id = None;
            check(&Manifest::plan(&spec).unwrap(), kind);
        }
    }
}

#[test]
fn what_is_no_number_is_counted_as_the_plain_reader_counts_it() {
    let mut noise = Noise(11);
    for layout in layouts(&mut noise) {
        let table = table(&mut noise, 700, layout.is_nullable, true);
        let (_folder, manifest) = planned(&table, layout);
        let request = StatsPlanner::new(&manifest, TransformKind::None)
            .request()
            .unwrap();
        let found = check_statistics(&manifest, &request);
        let infinite: u64 = found.features.iter().map(|f| f.counts.infinite()).sum();
        assert!(infinite > 20, "there are infinities: {infinite}");
    }
}

#[test]
fn one_row_is_a_table() {
    let mut noise = Noise(3);
    for layout in layouts(&mut noise) {
        let table = table(&mut noise, 1, false, false);
        check(&planned(&table, layout).1, TransformKind::Zscore);
    }
}

/// Row groups longer than a block, a shard and a page: blocks begin in the middle of a chunk and of a page.
#[test]
fn blocks_from_the_middle_of_a_large_row_group_are_those_of_the_plain_reader() {
    let n_rows = 330_000;
    let value = |i: usize| (i * 7_919 % 10_007) as f32 / 3.0;
    let some = |i: usize| (!i.is_multiple_of(11)).then(|| value(i));
    let table: Table = vec![
        ("id", ints(0..n_rows as i64)),
        (
            "x",
            Arc::new(
                (0..n_rows)
                    .map(value)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .collect::<Float32Array>(),
            ),
        ),
        (
            "y",
            Arc::new((0..n_rows).map(some).collect::<Float32Array>()),
        ),
        (
            "z",
            Arc::new(
                (0..n_rows)
                    .map(|i| some(i).map(|x| f64::from(x) / 7.0))
                    .collect::<Float64Array>(),
            ),
        ),
        (
            "cents",
            Arc::new(Int16Array::from_iter_values(
                (0..n_rows).map(|i| (i % 1_000) as i16),
            )),
        ),
        // Handed out a block at a time.
        (
            "flag",
            Arc::new(
                (0..n_rows)
                    .map(|i| Some(i % 37 < 5))
                    .collect::<BooleanArray>(),
            ),
        ),
    ];
    for has_dictionary in [true, false] {
        let layout = Layout {
            group_rows: n_rows,
            page_rows: 9_001,
            has_dictionary,
            version: WriterVersion::PARQUET_1_0,
            is_nullable: true,
        };
        let (_folder, manifest) = planned(&table, layout);
        assert_eq!(manifest.n_shards(), 2);
        check(&manifest, TransformKind::Auto);
    }
}

#[test]
fn one_changed_value_changes_what_is_found() {
    let mut noise = Noise(5);
    let layout = layouts(&mut noise)[0];
    let mut table = table(&mut noise, 500, false, false);
    let of = |table: &Table| check(&planned(table, layout).1, TransformKind::None).1;
    let before = of(&table);
    let at = table.iter().position(|(name, _)| *name == "f32").unwrap();
    let column = table[at].1.as_primitive::<arrow::datatypes::Float32Type>();
    let mut values: Vec<f32> = column.values().to_vec();
    values[123] = if values[123] == 50.0 { 51.0 } else { 50.0 };
    table[at].1 = Arc::new(Float32Array::from(values));
    assert_ne!(of(&table), before);
}

#[test]
fn bytes_that_do_not_decode_are_refused_as_by_the_plain_reader() {
    let mut noise = Noise(9);
    let layout = layouts(&mut noise)[2];
    let table = table(&mut noise, 3_000, false, false);
    let (folder, manifest) = planned(&table, layout);
    let path = folder.path().join("a.parquet");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let n_damaged = bytes.len() / 8;
    bytes[4..n_damaged].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    let refused = |answer: Result<(), DataError>| {
        assert!(matches!(answer, Err(DataError::Read { .. })), "{answer:?}");
    };
    let all = Projection::all(&manifest);
    refused(read_shard(&manifest, ShardId(0), &all, &mut |_| Ok(())));
    let planner = StatsPlanner::new(&manifest, TransformKind::None);
    let request = planner.request().unwrap();
    for spread in [Spread::Here, Spread::Columns] {
        let mut partial = StatsPartial::zero(&request);
        refused(read_tiles(&manifest, ShardId(0), spread, None, &mut |_| {
            Ok(())
        }));
        refused(read_statistics(
            &manifest,
            ShardId(0),
            spread,
            &request,
            &mut partial,
        ));
    }
}

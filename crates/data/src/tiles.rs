//! Raw rows kept in the places where their grid values will be, so that a file is decoded once: statistics are taken while its columns
//! are decoded, further rounds read memory, and the transform is applied in place.

use std::sync::{Mutex, PoisonError};

use clientele_kmeans::{Block, LANES, Tiles, strips};
use rayon::prelude::*;

use crate::DataError;
use crate::column::ColumnCounts;
use crate::decode::{PIECE_ROWS, Run, Scratch, Values, each_run};
use crate::grid::{Gridder, Placing, Seen};
use crate::ids::{Fingerprint, row_key};
use crate::ingest::{GridBlock, IngestPartial, check_impute};
use crate::manifest::{BlockId, Manifest, ShardId};
use crate::stats::{self, FeatureRequest, FeatureStats, StatsPartial, StatsRequest};
use crate::transform::Transform;
use crate::vectors::{self, Vectorised};

/// Bytes of tiles decoded at a time, about: a column is decoded for all blocks of a run before the next one, so all are in memory.
const RUN_BYTES: usize = 64 << 20;

/// One block as it was decoded: null is NaN.
#[derive(Debug, Clone)]
pub struct RawTiles {
    id: BlockId,
    n_rows: usize,
    n_features: usize,
    /// In the layout of [`Block`]: the raw values of features whose type fits in `f32`, zeros for the others.
    tiles: Tiles,
    /// [n_features][n_rows] raw values of the others.
    wide: Vec<Option<Vec<f64>>>,
    /// [n_features]
    counts: Vec<ColumnCounts>,
    size_bytes: usize,
}

/// Whether the columns of a shard are decoded on many threads of the pool that the caller is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// On the calling thread.
    Here,
    /// On all.
    Columns,
}

/// Adds the rows of a shard to the answer to `request`, a column at a time and without keeping any.
///
/// # Errors
/// As [`crate::read::read_shard`].
pub fn read_statistics(
    manifest: &Manifest,
    shard: ShardId,
    spread: Spread,
    request: &StatsRequest,
    partial: &mut StatsPartial,
) -> Result<(), DataError> {
    let names = names(manifest, |feature_idx| {
        request.features[feature_idx].is_wanted()
    });
    each_run(manifest, shard, &names, &mut |run| {
        let features = request
            .features
            .iter()
            .zip(&mut partial.features)
            .enumerate();
        let wanted = features.filter(|(_, (asked, _))| asked.is_wanted());
        let columns = wanted.map(|(feature_idx, (asked, seen))| Column {
            feature_idx,
            statistics: Some((asked, seen)),
            places: Vec::new(),
        });
        decode(run, spread, columns.collect())?;
        partial.n_rows += n_rows(run) as u64;
        Ok(())
    })
}

/// Decodes all features of a shard and hands out its blocks; on the way they are added to the answer to a request for statistics.
///
/// # Errors
/// As [`crate::read::read_shard`]; what `each` returns.
pub fn read_tiles<E: From<DataError>>(
    manifest: &Manifest,
    shard: ShardId,
    spread: Spread,
    mut statistics: Option<(&StatsRequest, &mut StatsPartial)>,
    each: &mut dyn FnMut(RawTiles) -> Result<(), E>,
) -> Result<(), E> {
    let names = names(manifest, |_| true);
    each_run(manifest, shard, &names, &mut |run| {
        for run in run.pieces(RUN_BYTES) {
            let mut tiles: Vec<RawTiles> = (0..run.ids.len())
                .map(|at| RawTiles::new(&run, at))
                .collect();
            let (strips, mut rest): (Vec<_>, Vec<_>) =
                tiles.iter_mut().map(RawTiles::hand_out).unzip();
            let strips = &strips;
            let column = move |feature_idx| {
                let rest = rest.iter_mut().map_while(Iterator::next);
                let places = strips.iter().zip(rest);
                let places = places.map(|(strips, (wide, counts))| Places {
                    strips,
                    n_features: manifest.n_features(),
                    feature_idx,
                    wide,
                    counts,
                });
                Column {
                    feature_idx,
                    statistics: None,
                    places: places.collect(),
                }
            };
            let mut columns: Vec<Column<'_>> = (0..manifest.n_features()).map(column).collect();
            if let Some((request, partial)) = &mut statistics {
                let features = request.features.iter().zip(&mut partial.features);
                for (column, (asked, seen)) in columns.iter_mut().zip(features) {
                    // An answer says nothing of what was not asked for, whoever gives it.
                    column.statistics = asked.is_wanted().then_some((asked, seen));
                }
                partial.n_rows += n_rows(&run) as u64;
            }
            decode(&run, spread, columns)?;
            tiles.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    })
}

/// Bytes of memory that a shard's blocks take, before they are put on the grid or after, whichever is more.
pub fn size_bytes(manifest: &Manifest, shard: ShardId) -> usize {
    let blocks = manifest.shard_blocks(shard);
    let rows = blocks.map(|id| manifest.blocks()[id.0 as usize].n_rows);
    rows.map(|n_rows| block_bytes(manifest, n_rows)).sum()
}

fn block_bytes(manifest: &Manifest, n_rows: usize) -> usize {
    let columns = manifest.features().iter();
    let widths = columns.map(|column| match column.column_type.fits_f32() {
        true => size_of::<f32>(),
        false => size_of::<f64>() + size_of::<f32>(),
    });
    let value_bytes = match manifest.value() {
        Some(_) => size_of::<i64>(),
        None => 0,
    };
    // Norms are one float for each tile.
    let n_tiles = n_rows.div_ceil(LANES);
    let tile_bytes = LANES * widths.sum::<usize>() + size_of::<f32>();
    n_tiles * tile_bytes + n_rows * (size_of::<u64>() + value_bytes)
}

fn names(manifest: &Manifest, is_wanted: impl Fn(usize) -> bool) -> Vec<&str> {
    let features = manifest.features().iter().enumerate();
    let wanted = features.filter(|(feature_idx, _)| is_wanted(*feature_idx));
    wanted.map(|(_, column)| column.name.as_str()).collect()
}

fn n_rows(run: &Run<'_>) -> usize {
    (0..run.ids.len()).map(|at| run.block(at).n_rows).sum()
}

/// One feature of a run, and where its values go.
struct Column<'a> {
    feature_idx: usize,
    statistics: Option<(&'a FeatureRequest, &'a mut FeatureStats)>,
    /// One for each block, or none.
    places: Vec<Places<'a>>,
}

/// Some tiles of a block. Columns that are decoded side by side have their places in the same ones; each is there for a moment only.
type Strip<'a> = Mutex<&'a mut [f32]>;

/// Where the values of one feature of one block go.
struct Places<'a> {
    /// [`PIECE_ROWS`] each.
    strips: &'a [Strip<'a>],
    n_features: usize,
    feature_idx: usize,
    wide: &'a mut Option<Vec<f64>>,
    counts: &'a mut ColumnCounts,
}

fn decode(run: &Run<'_>, spread: Spread, mut columns: Vec<Column<'_>>) -> Result<(), DataError> {
    let rooms = Mutex::new(Vec::new());
    let lock = || rooms.lock().unwrap_or_else(PoisonError::into_inner);
    let of_column = |column: &mut Column<'_>| {
        let room = lock().pop();
        let mut room = room.unwrap_or_default();
        column.decode(run, &mut room)?;
        lock().push(room);
        Ok(())
    };
    match spread {
        Spread::Columns => columns
            .par_iter_mut()
            .with_max_len(1)
            .try_for_each(of_column),
        Spread::Here => columns.iter_mut().try_for_each(of_column),
    }
}

impl Column<'_> {
    fn decode(
        &mut self,
        run: &Run<'_>,
        (scratch, buckets): &mut (Scratch, stats::Scratch),
    ) -> Result<(), DataError> {
        let (statistics, places) = (&mut self.statistics, &mut self.places);
        run.decode(
            self.feature_idx,
            scratch,
            &mut |at, first_row, values, counts| {
                if let Some((asked, seen)) = statistics {
                    seen.add(asked, buckets, values, &counts);
                }
                if let Some(places) = places.get_mut(at) {
                    places.put(first_row, values, counts);
                }
            },
        )?;
        if let Some((asked, seen)) = statistics {
            seen.drain(asked, buckets);
        }
        Ok(())
    }
}

impl Places<'_> {
    /// Pieces come in order, and begin with a strip.
    fn put(&mut self, first_row: usize, values: Values<'_>, counts: ColumnCounts) {
        self.counts.merge(&counts);
        match values {
            Values::Wide(values) => {
                let room = || Vec::with_capacity(self.strips.len() * PIECE_ROWS);
                self.wide.get_or_insert_with(room).extend_from_slice(values);
            }
            Values::Narrow(values) => {
                let strips = &self.strips[first_row / PIECE_ROWS..];
                for (strip, values) in strips.iter().zip(values.chunks(PIECE_ROWS)) {
                    let tiles = &mut **strip.lock().unwrap_or_else(PoisonError::into_inner);
                    vectors::run(Lines {
                        lanes: &mut tiles[self.feature_idx * LANES..],
                        stride: self.n_features * LANES,
                        values,
                    });
                }
            }
        }
    }
}

/// Copies values to their lanes, which lie far apart: the fewer stores these take, the more of them are waited for at a time.
struct Lines<'a> {
    /// From those of the first value on.
    lanes: &'a mut [f32],
    stride: usize,
    values: &'a [f32],
}

impl Vectorised for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (whole, rest) = self.values.as_chunks::<LANES>();
        let mut tiles = self.lanes.chunks_mut(self.stride);
        // Values first: a tile that is taken for none of them would be left out.
        for (values, tile) in whole.iter().zip(tiles.by_ref()) {
            tile[..LANES].copy_from_slice(values);
        }
        if let (false, Some(tile)) = (rest.is_empty(), tiles.next()) {
            tile[..rest.len()].copy_from_slice(rest);
        }
    }
}

impl RawTiles {
    fn new(run: &Run<'_>, at: usize) -> Self {
        let (n_rows, n_features) = (run.block(at).n_rows, run.manifest.n_features());
        Self {
            id: run.ids[at],
            n_rows,
            n_features,
            tiles: Tiles::zeroed(n_rows.div_ceil(LANES) * n_features),
            wide: vec![None; n_features],
            counts: vec![ColumnCounts::default(); n_features],
            size_bytes: block_bytes(run.manifest, n_rows),
        }
    }

    /// Its strips, and what else there is of each feature.
    fn hand_out(
        &mut self,
    ) -> (
        Vec<Strip<'_>>,
        impl Iterator<Item = (&mut Option<Vec<f64>>, &mut ColumnCounts)>,
    ) {
        let strips = self.tiles.chunks_mut(PIECE_ROWS * self.n_features);
        let rest = self.wide.iter_mut().zip(&mut self.counts);
        (strips.map(Mutex::new).collect(), rest)
    }

    /// Which block.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Bytes of memory it takes now or on the grid, whichever is more.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Adds the rows to the answer to `request`.
    pub fn add_statistics(&self, request: &StatsRequest, partial: &mut StatsPartial) {
        partial.n_rows += self.n_rows as u64;
        let mut buckets = stats::Scratch::default();
        let features = || {
            request
                .features
                .iter()
                .enumerate()
                .filter(|(_, asked)| asked.is_wanted())
        };
        for (feature_idx, asked) in features() {
            let seen = &mut partial.features[feature_idx];
            let counts = &self.counts[feature_idx];
            match &self.wide[feature_idx] {
                Some(values) => seen.add(asked, &mut buckets, Values::Wide(values), counts),
                None if asked.asks_first_digit() || asked.asks_ends() => {
                    let values = self.narrow_column(feature_idx);
                    seen.add(asked, &mut buckets, Values::Narrow(&values), counts);
                }
                None => seen.counts.merge(counts),
            }
            seen.drain(asked, &mut buckets);
        }
        let stride = self.n_features * LANES;
        let mut values = Vec::new();
        for strip in strips(self.n_rows.div_ceil(LANES), self.n_features) {
            let n_rows = self.n_rows.min(strip.end * LANES) - strip.start * LANES;
            let strip = &self.tiles[strip.start * stride..strip.end * stride];
            let narrow = features().filter(|(feature_idx, asked)| {
                self.wide[*feature_idx].is_none() && !asked.asks_first_digit() && !asked.asks_ends()
            });
            for (feature_idx, asked) in narrow {
                values.clear();
                for tile in strip[feature_idx * LANES..].chunks(stride) {
                    values.extend(tile[..LANES].iter().map(|x| f64::from(*x)));
                }
                partial.features[feature_idx].add_wide(asked, &values[..n_rows]);
            }
        }
    }

    fn narrow_column(&self, feature_idx: usize) -> Vec<f32> {
        let lanes = self.tiles[feature_idx * LANES..].chunks(self.n_features * LANES);
        let mut values: Vec<f32> = lanes.flat_map(|tile| &tile[..LANES]).copied().collect();
        values.truncate(self.n_rows);
        values
    }

    /// Puts the rows on the grid, in place, and adds them to `partial`. `ids` and `values` are those of the rows, one each.
    ///
    /// # Errors
    /// As [`crate::ingest::ingest`].
    ///
    /// # Panics
    /// When `ids`, `transform` or `partial` are of another table.
    pub fn place(
        self,
        ids: &[Fingerprint],
        values: Option<Vec<i64>>,
        transform: &Transform,
        partial: &mut IngestPartial,
    ) -> Result<GridBlock, DataError> {
        assert_eq!(
            transform.n_features(),
            self.n_features,
            "a transform of the same table"
        );
        let features = transform.features();
        let mut seen: Vec<Seen> = Vec::with_capacity(self.n_features);
        for (feature, counts) in features.iter().zip(&self.counts) {
            check_impute(feature, counts.missing())?;
            seen.push(Seen {
                n_imputed: counts.missing(),
                ..Seen::default()
            });
        }
        let gridders: Vec<Gridder> = features
            .iter()
            .map(|feature| Gridder::new(feature, transform.steps_per_unit()))
            .collect();
        let keys = ids
            .iter()
            .map(|fingerprint| row_key(*fingerprint))
            .collect();
        let mut placing = Placing {
            gridders: &gridders,
            wide: &self.wide,
            n_rows: self.n_rows,
            seen: &mut seen,
        };
        let id = u64::from(self.id.0);
        let block = Block::from_raw_tiles(id, self.n_features, self.tiles, keys, &mut placing)
            .expect("the transform's range keeps every value on the grid, and every row has an id");
        seen.iter()
            .enumerate()
            .for_each(|(feature_idx, seen)| partial.add_feature(feature_idx, seen));
        partial.n_rows += self.n_rows as u64;
        partial.add_values(values.as_deref());
        Ok(GridBlock {
            block,
            values,
            source_rows: None,
        })
    }
}

//! Raw numbers to grid values, sixteen rows at a time and in place, with what they add up to.

use clientele_kmeans::{LANES, PutOnGrid};

use crate::log1p::log1p_of_positive;
use crate::transform::{FeatureTransform, Shape};
use crate::vectors::{self, Vectorised};

/// Adding and taking away 1.5 x 2^52 rounds to the nearest integer, ties to even, for magnitudes below 2^51: plain IEEE additions
/// that vectorise everywhere, where `round_ties_even` is a call on processors without an instruction for it.
pub(crate) const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// Tiles between flushes: lanes add up to less than 2^44 x 2^8, exact in f64.
const FLUSH_TILES: usize = 256;

/// What one feature of one block adds up to. A block's squares stay below 2^16 x 2^44.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) sum: i64,
    pub(crate) squares: i64,
    pub(crate) n_low: u64,
    pub(crate) n_high: u64,
    pub(crate) n_imputed: u64,
}

/// One feature's way to the grid, with everything looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gridder {
    clip_low: f64,
    clip_high: f64,
    shape: Shape,
    mean: f64,
    sd: f64,
    is_scaled: bool,
    offset: f64,
    steps_per_unit: f64,
    /// In the place of NaN.
    impute: f64,
    is_constant: bool,
}

impl Gridder {
    pub(crate) fn new(feature: &FeatureTransform, steps_per_unit: f64) -> Self {
        Self {
            clip_low: feature.clip_low,
            clip_high: feature.clip_high,
            shape: feature.kind,
            mean: feature.mean,
            sd: feature.sd,
            is_scaled: feature.sd != 1.0,
            offset: feature.offset,
            steps_per_unit,
            impute: feature.impute.unwrap_or(f64::NAN),
            is_constant: feature.is_constant(),
        }
    }

    /// Puts one feature of `n_rows` rows on the grid. `tiles` begin with the feature's lanes in the first tile; the lanes of the next
    /// are `stride` floats on. Raw values come from `wide` [n_rows] or, without it, are in the tiles. Padding becomes zero.
    /// Imputed values are not counted.
    pub(crate) fn place(
        &self,
        wide: Option<&[f64]>,
        tiles: &mut [f32],
        stride: usize,
        n_rows: usize,
        seen: &mut Seen,
    ) {
        vectors::run(Place {
            gridder: self,
            wide,
            tiles,
            stride,
            n_rows,
            seen,
        });
    }

    #[inline(always)]
    fn place_lanes(&self, xs: &[f64; LANES], out: &mut [f32; LANES], lanes: &mut Lanes) {
        let is_inside = |x: &f64| (*x >= self.clip_low) & (*x <= self.clip_high);
        let mut shaped = *xs;
        // Most tiles have nothing to clip or impute, and none of a transform that clips nothing.
        if !xs.iter().fold(true, |all, x| all & is_inside(x)) {
            self.clip(&mut shaped, lanes);
        }
        if self.is_constant {
            *out = [0.0; LANES];
            return;
        }
        shape_lanes(self.shape, self.clip_low, &mut shaped);
        for x in &mut shaped {
            *x -= self.mean;
        }
        // Dividing by one would take time and change nothing.
        if self.is_scaled {
            for x in &mut shaped {
                *x /= self.sd;
            }
        }
        // Copies: of what may lie in one place the compiler makes no vectors.
        let (mut sum, mut squares) = (lanes.sum, lanes.squares);
        let mut placed = [0.0; LANES];
        for lane in 0..LANES {
            let steps = (shaped[lane] - self.offset) * self.steps_per_unit;
            let q = (steps + ROUNDER) - ROUNDER;
            sum[lane] += q;
            squares[lane] += q * q;
            placed[lane] = q as f32;
        }
        (lanes.sum, lanes.squares) = (sum, squares);
        *out = placed;
    }

    /// Puts what is outside of the range at its end and counts it, and the value to impute in the place of NaN.
    #[inline(always)]
    fn clip(&self, xs: &mut [f64; LANES], lanes: &mut Lanes) {
        for (lane, value) in xs.iter_mut().enumerate() {
            let x = *value;
            lanes.n_low[lane] += u64::from(x < self.clip_low);
            lanes.n_high[lane] += u64::from(x > self.clip_high);
            let x = if x.is_nan() { self.impute } else { x };
            let x = if x < self.clip_low { self.clip_low } else { x };
            *value = if x > self.clip_high {
                self.clip_high
            } else {
                x
            };
        }
    }
}

/// Applies `shape` to values that are not below `low`, or NaN.
#[inline(always)]
pub(crate) fn shape_lanes<const N: usize>(shape: Shape, low: f64, lanes: &mut [f64; N]) {
    match shape {
        Shape::Identity => {}
        Shape::Log1p if low >= 0.0 => lanes.iter_mut().for_each(|x| *x = log1p_of_positive(*x)),
        Shape::Log1p => lanes.iter_mut().for_each(|x| *x = shape.apply(*x)),
    }
}

/// All features of a block on their way to the grid: tile by tile, in the order of memory, which the processor foresees; a feature's lines
/// alone are too far apart for that.
pub(crate) struct Placing<'a> {
    /// [n_features]
    pub(crate) gridders: &'a [Gridder],
    /// [n_features][n_rows] raw values of those features that tiles do not hold.
    pub(crate) wide: &'a [Option<Vec<f64>>],
    pub(crate) n_rows: usize,
    /// [n_features]
    pub(crate) seen: &'a mut [Seen],
}

impl PutOnGrid for Placing<'_> {
    fn place(&mut self, tile_idxs: &[usize], tiles: &mut [f32]) {
        let Self {
            gridders,
            wide,
            n_rows,
            seen,
        } = self;
        place_tiles(gridders, wide, *n_rows, tile_idxs, tiles, seen);
    }

    fn try_out(&self, tile_idxs: &[usize], tiles: &mut [f32]) {
        let Self {
            gridders,
            wide,
            n_rows,
            ..
        } = *self;
        let mut seen = vec![Seen::default(); gridders.len()];
        place_tiles(gridders, wide, n_rows, tile_idxs, tiles, &mut seen);
    }
}

fn place_tiles(
    gridders: &[Gridder],
    wide: &[Option<Vec<f64>>],
    n_rows: usize,
    tile_idxs: &[usize],
    tiles: &mut [f32],
    seen: &mut [Seen],
) {
    let stride = gridders.len() * LANES;
    // Only the last tile of a block may have fewer rows.
    let n_whole = tile_idxs.partition_point(|idx| *idx < n_rows / LANES);
    let (whole, rest) = tiles.split_at_mut(n_whole * stride);
    let strips = whole.chunks_mut(FLUSH_TILES * stride);
    for (tiles, tile_idxs) in strips.zip(tile_idxs.chunks(FLUSH_TILES)) {
        vectors::run(PlaceTiles {
            gridders,
            wide,
            tiles,
            tile_idxs,
            seen,
        });
    }
    if rest.is_empty() {
        return;
    }
    let n_rest = n_rows % LANES;
    for (feature_idx, (gridder, seen)) in gridders.iter().zip(seen).enumerate() {
        let wide = wide[feature_idx]
            .as_ref()
            .map(|wide| &wide[n_rows - n_rest..]);
        let lanes = &mut rest[feature_idx * LANES..];
        gridder.place(wide, lanes, stride, n_rest, seen);
    }
}

/// Up to [`FLUSH_TILES`] whole tiles.
struct PlaceTiles<'a> {
    gridders: &'a [Gridder],
    wide: &'a [Option<Vec<f64>>],
    tiles: &'a mut [f32],
    /// Which of the block they are, or more.
    tile_idxs: &'a [usize],
    seen: &'a mut [Seen],
}

impl Vectorised for PlaceTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut all_lanes = vec![Lanes::default(); self.gridders.len()];
        let tiles = self.tiles.chunks_exact_mut(self.gridders.len() * LANES);
        for (tile, tile_idx) in tiles.zip(self.tile_idxs) {
            let features = self.gridders.iter().zip(self.wide).zip(&mut all_lanes);
            for (((gridder, wide), lanes), out) in features.zip(tile.as_chunks_mut().0) {
                let xs = match wide {
                    Some(wide) => {
                        let (xs, _) = wide[tile_idx * LANES..]
                            .split_first_chunk::<LANES>()
                            .expect("a row for each lane of a whole tile");
                        *xs
                    }
                    None => out.map(f64::from),
                };
                gridder.place_lanes(&xs, out, lanes);
            }
        }
        for (lanes, seen) in all_lanes.iter().zip(self.seen) {
            lanes.flush(seen);
        }
    }
}

struct Place<'a> {
    gridder: &'a Gridder,
    wide: Option<&'a [f64]>,
    tiles: &'a mut [f32],
    stride: usize,
    n_rows: usize,
    seen: &'a mut Seen,
}

impl Vectorised for Place<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (n_whole, n_rest) = (self.n_rows / LANES, self.n_rows % LANES);
        let mut tiles = self.tiles.chunks_mut(self.stride).map(|tile| {
            let (lanes, _) = tile
                .split_first_chunk_mut::<LANES>()
                .expect("tiles of 16 lanes");
            lanes
        });
        let mut wide = self.wide.map(|wide| wide.as_chunks::<LANES>().0.iter());
        for first in (0..n_whole).step_by(FLUSH_TILES) {
            let mut lanes = Lanes::default();
            for tile in tiles.by_ref().take((n_whole - first).min(FLUSH_TILES)) {
                let xs = match wide.as_mut().and_then(Iterator::next) {
                    Some(xs) => *xs,
                    None => tile.map(f64::from),
                };
                self.gridder.place_lanes(&xs, tile, &mut lanes);
            }
            lanes.flush(self.seen);
        }
        if n_rest > 0 {
            let tile = tiles.next().expect("a tile for the last rows");
            // The padding is neither clipped nor added.
            let mut xs = [self.gridder.clip_low; LANES];
            match self.wide {
                Some(wide) => xs[..n_rest].copy_from_slice(&wide[self.n_rows - n_rest..]),
                None => xs
                    .iter_mut()
                    .zip(&tile[..n_rest])
                    .for_each(|(x, raw)| *x = f64::from(*raw)),
            }
            let mut lanes = Lanes::default();
            self.gridder.place_lanes(&xs, tile, &mut lanes);
            tile[n_rest..].fill(0.0);
            lanes.sum[n_rest..].fill(0.0);
            lanes.squares[n_rest..].fill(0.0);
            lanes.flush(self.seen);
        }
    }
}

/// Sums of up to [`FLUSH_TILES`] tiles, integers held in f64.
#[derive(Clone, Default)]
struct Lanes {
    sum: [f64; LANES],
    squares: [f64; LANES],
    n_low: [u64; LANES],
    n_high: [u64; LANES],
}

impl Lanes {
    #[inline(always)]
    fn flush(&self, seen: &mut Seen) {
        seen.sum += self.sum.iter().map(|v| *v as i64).sum::<i64>();
        seen.squares += self.squares.iter().map(|v| *v as i64).sum::<i64>();
        seen.n_low += self.n_low.iter().sum::<u64>();
        seen.n_high += self.n_high.iter().sum::<u64>();
    }
}

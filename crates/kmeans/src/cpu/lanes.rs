//! Sixteen `f32` side by side: one row of a tile in each lane.

use super::Vectorised;
use crate::LANES;
use crate::split::{CutChunk, CutPair};

/// What a kernel does to sixteen lanes. One implementation an instruction set; `assign` is written once against it.
///
/// # Safety
/// Every method may execute instructions of its set: call them only on a processor that has it, and inline them (hence
/// `#[inline(always)]` on all) into a function compiled with that `target_feature`, or they become calls.
pub(crate) trait Lanes: Copy {
    /// All lanes `value`.
    unsafe fn splat(value: f32) -> Self;
    /// One value a lane.
    unsafe fn load(values: &[f32; LANES]) -> Self;
    /// Asks for the cache line of `values`, where the instruction set has a way to ask.
    unsafe fn prefetch(values: &[f32; LANES]);
    /// One value a lane.
    unsafe fn store(self, values: &mut [f32; LANES]);
    /// `self - x * c`, with one rounding or two.
    unsafe fn minus_product(self, x: Self, c: Self) -> Self;
    /// The smaller; no lane is NaN.
    unsafe fn min(self, other: Self) -> Self;
    /// The larger; no lane is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// `then` where `self < bound`, `otherwise` elsewhere.
    unsafe fn if_less(self, bound: Self, then: Self, otherwise: Self) -> Self;
    /// Whether `self - low <= gap` in any lane.
    unsafe fn any_within(self, low: Self, gap: f32) -> bool;

    /// Runs `work` in a function of its own, which has all registers to itself.
    #[inline(always)]
    unsafe fn apart<W: Vectorised>(work: W) -> W::Output {
        // SAFETY: passed on to the caller.
        unsafe { work.run::<Self>() }
    }

    /// A bit for each row that `a` and `b` have other labels for.
    #[inline(always)]
    unsafe fn differing(a: &[u16; LANES], b: &[u16; LANES]) -> u32 {
        let mut differing = 0;
        for lane in 0..LANES {
            differing |= u32::from(a[lane] != b[lane]) << lane;
        }
        differing
    }

    /// What `few` has for each label, all of which must be of clusters that are there.
    #[inline(always)]
    unsafe fn look_up(few: &[u16; FEW_CLUSTERS], labels: &[u16; LANES]) -> [u16; LANES] {
        let mut of_rows = [0; LANES];
        for (of_row, label) in of_rows.iter_mut().zip(labels) {
            *of_row = few[usize::from(*label) % FEW_CLUSTERS];
        }
        of_rows
    }

    /// Puts two features of a tile together, as [`CutPair::join`] does.
    #[inline(always)]
    unsafe fn join(cut: CutPair<'_>, out: &mut [[f32; LANES]; 2]) {
        *out = cut.join();
    }

    /// The first four words of each of sixteen rows, `width` words apart, as columns.
    #[inline(always)]
    unsafe fn turn_quads(rows: &[i32], width: usize, columns: &mut [[i32; LANES]; LANES / 4]) {
        for lane in 0..LANES {
            for (column, quad) in columns.iter_mut().zip(&rows[lane * width..]) {
                column[lane] = *quad;
            }
        }
    }

    /// Writes sixteen features as integers, row by row: those of row `lane` to `rows[lane * stride]`.
    #[inline(always)]
    unsafe fn turn_cut(chunk: CutChunk<'_>, rows: &mut [[i32; LANES]], stride: usize) {
        for lane in 0..LANES {
            rows[lane * stride] = chunk.row(lane);
        }
    }

    /// Grid values of four features as integers, row by row.
    #[inline(always)]
    unsafe fn transpose_four(columns: [&[f32; 4]; 4]) -> [[i32; 4]; 4] {
        let mut rows = [[0; 4]; 4];
        for (feature_idx, column) in columns.into_iter().enumerate() {
            for (row, &value) in rows.iter_mut().zip(column) {
                row[feature_idx] = value as i32;
            }
        }
        rows
    }

    /// Writes grid values of sixteen features as integers, row by row: those of row `lane` to `rows[lane * stride]`.
    #[inline(always)]
    unsafe fn transpose(columns: &[[f32; LANES]; LANES], rows: &mut [[i32; LANES]], stride: usize) {
        for (four_idx, four) in columns.as_chunks::<4>().0.iter().enumerate() {
            for first_lane in (0..LANES).step_by(4) {
                let [a, b, c, d] = four.each_ref().map(|column| column.as_chunks::<4>().0);
                let block_idx = first_lane / 4;
                let block = [&a[block_idx], &b[block_idx], &c[block_idx], &d[block_idx]];
                // SAFETY: passed on to the caller.
                let transposed = unsafe { Self::transpose_four(block) };
                for (lane, values) in (first_lane..).zip(transposed) {
                    rows[lane * stride].as_chunks_mut::<4>().0[four_idx] = values;
                }
            }
        }
    }
}

/// As many numbers as are looked up in two registers.
pub(super) const FEW_CLUSTERS: usize = 64;

/// A number for each cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct OfClusters {
    /// [n_clusters]
    pub(super) all: Vec<u16>,
    /// The same, filled up, where there are no more than that.
    few: Option<Box<[u16; FEW_CLUSTERS]>>,
}

impl OfClusters {
    /// `all` [n_clusters]
    pub(super) fn new(all: Vec<u16>) -> Self {
        let few = (all.len() <= FEW_CLUSTERS).then(|| {
            let mut few = Box::new([0; FEW_CLUSTERS]);
            few[..all.len()].copy_from_slice(&all);
            few
        });
        Self { all, few }
    }

    /// That of the cluster `label`.
    #[inline(always)]
    pub(super) fn of(&self, label: u16) -> u16 {
        self.all[usize::from(label)]
    }

    /// Those of the clusters of sixteen rows.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub(super) unsafe fn of_labels<L: Lanes>(&self, labels: &[u16; LANES]) -> [u16; LANES] {
        if let Some(few) = &self.few {
            // SAFETY: passed on to the caller.
            return unsafe { L::look_up(few, labels) };
        }
        let mut of_rows = [0; LANES];
        for (of_row, label) in of_rows.iter_mut().zip(labels) {
            *of_row = self.of(*label);
        }
        of_rows
    }
}

/// Plain Rust, for any processor; the compiler makes of it what it can.
#[derive(Clone, Copy)]
pub(crate) struct Scalar([f32; LANES]);

impl Scalar {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        Self(out)
    }
}

impl Lanes for Scalar {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(values: &[f32; LANES]) -> Self {
        Self(*values)
    }

    #[inline(always)]
    unsafe fn prefetch(_: &[f32; LANES]) {}

    #[inline(always)]
    unsafe fn store(self, values: &mut [f32; LANES]) {
        *values = self.0;
    }

    /// Two roundings: without the instruction, `mul_add` is a slow call.
    #[inline(always)]
    unsafe fn minus_product(self, x: Self, c: Self) -> Self {
        self.zip(x.zip(c, |x, c| x * c), |score, product| score - product)
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn if_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
        let mut out = otherwise.0;
        for (lane, out) in out.iter_mut().enumerate() {
            if self.0[lane] < bound.0[lane] {
                *out = then.0[lane];
            }
        }
        Self(out)
    }

    #[inline(always)]
    unsafe fn any_within(self, low: Self, gap: f32) -> bool {
        let mut any = false;
        for lane in 0..LANES {
            any |= self.0[lane] - low.0[lane] <= gap;
        }
        any
    }
}

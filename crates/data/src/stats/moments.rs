//! Means and variances as sums of integers.

use crate::grid::{ROUNDER, shape_lanes};
use crate::transform::{Shape, power_of_two, step_exponent};
use crate::vectors::{self, Vectorised};

/// Steps on either side of the middle: the provisional grid has 2^40 in all.
const HALF_STEPS: f64 = ((1_u64 << 39) - 1) as f64;

/// A provisional power-of-two grid over the clipped range of one feature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MomentGrid {
    shape: Shape,
    clip_low: f64,
    clip_high: f64,
    /// After clipping and shaping.
    middle: f64,
    exponent: i32,
}

impl MomentGrid {
    /// Values are clipped to `clip_low..=clip_high`, then shaped.
    pub(super) fn new(shape: Shape, clip_low: f64, clip_high: f64) -> Self {
        let (low, high) = (shape.apply(clip_low), shape.apply(clip_high));
        Self {
            shape,
            clip_low,
            clip_high,
            middle: low / 2.0 + high / 2.0,
            exponent: step_exponent(high / 2.0 - low / 2.0, HALF_STEPS),
        }
    }

    /// The same grid again from what [`MomentGrid::shape`], [`MomentGrid::clip_low`] and [`MomentGrid::clip_high`] said; `None`
    /// where the shaped range is not one of finite numbers.
    pub fn from_parts(shape: Shape, clip_low: f64, clip_high: f64) -> Option<Self> {
        let is_range = clip_low <= clip_high
            && [clip_low, clip_high].map(|x| x.is_finite() && shape.apply(x).is_finite())
                == [true; 2];
        is_range.then(|| Self::new(shape, clip_low, clip_high))
    }

    /// What happens to clipped values.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Lowest raw value.
    pub fn clip_low(&self) -> f64 {
        self.clip_low
    }

    /// Highest raw value.
    pub fn clip_high(&self) -> f64 {
        self.clip_high
    }

    #[inline]
    fn steps(&self, x: f64, steps_per_unit: f64) -> i64 {
        let x = if x < self.clip_low { self.clip_low } else { x };
        let x = if x > self.clip_high {
            self.clip_high
        } else {
            x
        };
        let steps = (self.shape.apply(x) - self.middle) * steps_per_unit;
        (steps + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()) as i64
    }

    /// The place of one value.
    pub(super) fn place(&self, x: f64) -> i64 {
        self.steps(x, power_of_two(-self.exponent))
    }

    /// Mean and standard deviation (ddof 0), clipped and shaped, in the feature's unit.
    pub(super) fn mean_and_sd(&self, moments: &Moments) -> (f64, f64) {
        let step = power_of_two(self.exponent);
        let mean = moments.sum as f64 / moments.n_values as f64;
        let variance = variance(moments.n_values, moments.sum, moments.squares);
        (self.middle + mean * step, variance.sqrt() * step)
    }
}

/// Count, sum and sum of squares on a [`MomentGrid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moments {
    /// Values, without NaN.
    pub n_values: u64,
    /// Sum of grid values.
    pub sum: i128,
    /// Sum of squared grid values; below 2^78 each.
    pub squares: i128,
}

impl Moments {
    /// Adds the values of a column; NaN is left out.
    pub(super) fn add(&mut self, grid: &MomentGrid, column: &[f64]) {
        for rows in column.chunks(FLUSH_ROWS) {
            vectors::run(Add {
                moments: self,
                grid,
                rows,
            });
        }
    }

    /// Adds `n_values` times the value at `place`.
    pub(super) fn add_repeated(&mut self, place: i64, n_values: u64) {
        let (place, times) = (i128::from(place), i128::from(n_values));
        self.n_values += n_values;
        self.sum += place * times;
        self.squares += place * place * times;
    }

    /// Adds other values.
    pub fn merge(&mut self, other: &Self) {
        self.n_values += other.n_values;
        self.sum += other.sum;
        self.squares += other.squares;
    }
}

/// Rows between flushes: halves of squares add up to less than 2^40 x 2^12 a lane, exact in f64.
const FLUSH_ROWS: usize = 1 << 12;
const N_LANES: usize = 16;
/// What a place on the grid is cut at: both halves are at most 2^19 in magnitude, and a half.
const HALF: f64 = (1_u64 << 20) as f64;

/// Up to [`FLUSH_ROWS`] rows on their way into the moments. `(h 2^20 + l)^2` is taken apart, so that everything is an exact integer
/// in `f64` and vectorises.
struct Add<'a> {
    moments: &'a mut Moments,
    grid: &'a MomentGrid,
    rows: &'a [f64],
}

#[derive(Default)]
struct Lanes {
    n_values: [f64; N_LANES],
    sum: [f64; N_LANES],
    high: [f64; N_LANES],
    mixed: [f64; N_LANES],
    low: [f64; N_LANES],
}

impl Vectorised for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let steps_per_unit = power_of_two(-self.grid.exponent);
        let mut lanes = Lanes::default();
        let (chunks, rest) = self.rows.as_chunks::<N_LANES>();
        for xs in chunks {
            lanes.add(self.grid, steps_per_unit, xs);
        }
        let mut padded = [f64::NAN; N_LANES];
        padded[..rest.len()].copy_from_slice(rest);
        lanes.add(self.grid, steps_per_unit, &padded);
        lanes.flush(self.moments);
    }
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, grid: &MomentGrid, steps_per_unit: f64, xs: &[f64; N_LANES]) {
        let mut shaped = [0.0; N_LANES];
        for lane in 0..N_LANES {
            let x = xs[lane];
            let x = if x < grid.clip_low { grid.clip_low } else { x };
            shaped[lane] = if x > grid.clip_high {
                grid.clip_high
            } else {
                x
            };
        }
        shape_lanes(grid.shape, grid.clip_low, &mut shaped);
        for lane in 0..N_LANES {
            let is_there = !xs[lane].is_nan();
            let steps = (shaped[lane] - grid.middle) * steps_per_unit;
            let steps = (steps + ROUNDER) - ROUNDER;
            let steps = if is_there { steps } else { 0.0 };
            let high = (steps * (1.0 / HALF) + ROUNDER) - ROUNDER;
            let low = steps - high * HALF;
            self.n_values[lane] += if is_there { 1.0 } else { 0.0 };
            self.sum[lane] += steps;
            self.high[lane] += high * high;
            self.mixed[lane] += high * low;
            self.low[lane] += low * low;
        }
    }

    #[inline(always)]
    fn flush(&self, moments: &mut Moments) {
        let total = |lanes: &[f64; N_LANES]| lanes.iter().map(|v| *v as i64).sum::<i64>();
        let [high, mixed, low] =
            [&self.high, &self.mixed, &self.low].map(|lanes| i128::from(total(lanes)));
        moments.n_values += total(&self.n_values) as u64;
        moments.sum += i128::from(total(&self.sum));
        moments.squares += (high << 40) + (mixed << 21) + low;
    }
}

/// Variance (ddof 0) of integers from their count, sum and sum of squares. The nearest integer to the mean is taken away exactly
/// before anything is rounded, so nothing cancels.
pub(crate) fn variance(n_values: u64, sum: i128, squares: i128) -> f64 {
    if n_values == 0 {
        return 0.0;
    }
    let n = i128::from(n_values);
    let middle = (sum + n / 2).div_euclid(n);
    let rest = sum - n * middle;
    let centred = squares - 2 * middle * sum + n * middle * middle;
    let n = n_values as f64;
    let rest = rest as f64;
    ((centred as f64 - rest * rest / n) / n).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_numpy() {
        // numpy 2: np.mean, np.std of [1, 2, 4, 8, 100] after clipping to 1..10, and of log1p of that.
        let column = [1.0, 2.0, 4.0, 8.0, 100.0, f64::NAN];
        for (shape, mean, sd) in [
            (Shape::Identity, 5.0, 3.464_101_615_137_754_4),
            (Shape::Log1p, 1.599_263_446_359_349, 0.642_988_661_947_348_2),
        ] {
            let grid = MomentGrid::new(shape, 1.0, 10.0);
            let mut moments = Moments::default();
            moments.add(&grid, &column);
            let (found_mean, found_sd) = grid.mean_and_sd(&moments);
            assert!((found_mean - mean).abs() < 1e-11, "{found_mean}");
            assert!((found_sd - sd).abs() < 1e-11, "{found_sd}");
        }
    }

    #[test]
    fn a_large_common_offset_cancels_nothing() {
        let column: Vec<f64> = (0..1_000).map(|i| 1e15 + f64::from(i % 2)).collect();
        let grid = MomentGrid::new(Shape::Identity, 1e15, 1e15 + 1.0);
        let mut moments = Moments::default();
        moments.add(&grid, &column);
        assert_eq!(grid.mean_and_sd(&moments), (1e15 + 0.5, 0.5));
    }

    #[test]
    fn one_value_many_times_is_the_same_as_many_values() {
        let grid = MomentGrid::new(Shape::Log1p, 0.0, 9.0);
        let (mut one_by_one, mut at_once) = (Moments::default(), Moments::default());
        one_by_one.add(&grid, &[3.0; 7]);
        at_once.add_repeated(grid.place(3.0), 7);
        assert_eq!(one_by_one, at_once);
    }

    #[test]
    fn the_widest_range_does_not_overflow() {
        let grid = MomentGrid::new(Shape::Identity, f64::MIN, f64::MAX);
        let mut moments = Moments::default();
        moments.add(&grid, &[f64::MIN, f64::MAX]);
        assert_eq!(grid.mean_and_sd(&moments).0, 0.0);
        assert!(grid.mean_and_sd(&moments).1 > 1e308);
    }
}

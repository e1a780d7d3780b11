//! Lloyd's iteration in integers, as a state machine that asks for passes (Lloyd 1982; counted as scikit-learn counts).

use crate::relocate::{FarthestRows, relocate};
use crate::{Centroids, Partial, Totals, exact::squared_distance};

/// The centroids that `partial` calls for, and how far they moved: `round_ties_even(S / N)` in integers.
///
/// An empty cluster keeps its centroid. The shift is `sum_j |c_j - c'_j|^2`, in grid steps squared.
pub fn update(partial: &Partial, old: &Centroids) -> (Centroids, u128) {
    let n_features = old.n_features();
    let mut values = Vec::with_capacity(old.values().len());
    let mut center_shift = 0;
    for ((old, sums), &count) in old
        .rows()
        .zip(partial.sums.chunks_exact(n_features))
        .zip(&partial.counts)
    {
        let from = values.len();
        match i64::try_from(count) {
            Ok(count) if count > 0 => {
                values.extend(sums.iter().map(|&sum| mean_ties_even(sum, count)));
            }
            _ => values.extend_from_slice(old),
        }
        center_shift += u128::from(squared_distance(old, &values[from..]));
    }
    (Centroids::new(n_features, values), center_shift)
}

/// `sum / count`, rounded to the nearest integer, halves to the even one; `count > 0` and the mean is on the grid.
fn mean_ties_even(sum: i64, count: i64) -> i32 {
    let (floor, rest) = (sum.div_euclid(count), sum.rem_euclid(count));
    let round_up = match (2 * rest).cmp(&count) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => floor & 1,
        std::cmp::Ordering::Greater => 1,
    };
    (floor + round_up) as i32
}

/// Sum over rows of the squared distance to their centroid, exact: `Q - 2 c.S + N |c|^2`, in grid steps squared.
///
/// `total_squares` is [`Totals::squares`]; `partial` is what a pass with these very `centroids` found over all rows.
pub fn inertia(total_squares: i128, partial: &Partial, centroids: &Centroids) -> i128 {
    let mut inertia = total_squares;
    for ((centroid, sums), &count) in centroids
        .rows()
        .zip(partial.sums.chunks_exact(centroids.n_features()))
        .zip(&partial.counts)
    {
        for (&c, &sum) in centroid.iter().zip(sums) {
            let c = i128::from(c);
            inertia += c * (i128::from(count) * c - 2 * i128::from(sum));
        }
    }
    inertia
}

/// The squared centroid shift at which a fit may stop: `floor(tol x mean variance of the features)`, in grid steps squared.
///
/// scikit-learn's meaning of `tol`. The scatter is an exact integer; the few operations after it are IEEE and in fixed order.
pub fn shift_threshold(tol: f64, totals: &Totals) -> u128 {
    let n_rows = totals.n_rows.max(1) as f64;
    let n_features = totals.sums.len().max(1) as f64;
    let mean_variance = totals.scatter() as f64 / n_rows / n_rows / n_features;
    // `as` saturates, and turns a NaN tolerance into 0.
    (tol * mean_variance).floor() as u128
}

/// Why a fit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Nothing moved: a fixed point.
    Converged,
    /// The centroids moved no further than the threshold.
    Tolerance,
    /// `max_iter` iterations were made.
    MaxIter,
    /// Another start of as many clusters was out of reach. Whoever runs several says so, never a [`Candidate`] of itself.
    GivenUp,
}

/// What a candidate wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Another pass with the new [`Candidate::centroids`].
    Continue,
    /// Clusters came out empty: the `limit` farthest rows under the unchanged [`Candidate::centroids`], handed to
    /// [`Candidate::relocate`].
    NeedsRows {
        /// Rows to keep in [`FarthestRows`].
        limit: usize,
    },
    /// Nothing. [`Candidate::centroids`] are final; one more, uncounted pass gives labels, sizes and inertia.
    Done(StopReason),
}

/// One (n_clusters, restart) model being fitted.
#[derive(Debug, Clone)]
pub struct Candidate {
    centroids: Centroids,
    threshold: u128,
    max_iter: u32,
    n_iter: u32,
    inertia: Option<i128>,
    center_shift: Option<u128>,
    n_relocated: u64,
    awaiting_rows: Option<Partial>,
    stopped: Option<StopReason>,
}

impl Candidate {
    /// Starts at `initial`; stops at a squared shift of `threshold` ([`shift_threshold`]) or after `max_iter` iterations (at least
    /// one is made). Integer rounding can in theory cycle; `max_iter` ends that too.
    pub fn new(initial: Centroids, threshold: u128, max_iter: u32) -> Self {
        Self {
            centroids: initial,
            threshold,
            max_iter: max_iter.max(1),
            n_iter: 0,
            inertia: None,
            center_shift: None,
            n_relocated: 0,
            awaiting_rows: None,
            stopped: None,
        }
    }

    /// What the next pass assigns to.
    pub fn centroids(&self) -> &Centroids {
        &self.centroids
    }

    /// Iterations made: passes absorbed, the one that finds the fixed point included.
    pub fn n_iter(&self) -> u32 {
        self.n_iter
    }

    /// Inertia that the last absorbed pass found, under the centroids it was made with, in grid steps squared.
    pub fn inertia(&self) -> Option<i128> {
        self.inertia
    }

    /// How far the last update moved the centroids: the sum of squares, in grid steps squared.
    pub fn center_shift(&self) -> Option<u128> {
        self.center_shift
    }

    /// Rows given to empty clusters so far.
    pub fn n_relocated(&self) -> u64 {
        self.n_relocated
    }

    /// Why the fit ended, once it has.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stopped
    }

    /// Takes the sums of one pass over all rows with [`Candidate::centroids`]; `total_squares` is [`Totals::squares`].
    ///
    /// # Panics
    /// When the candidate is done or waits for rows, or the shape of `partial` is not its own.
    pub fn absorb(&mut self, partial: &Partial, total_squares: i128) -> Step {
        assert!(
            self.stopped.is_none() && self.awaiting_rows.is_none(),
            "a pass was not asked for"
        );
        assert_eq!(
            (partial.counts.len(), partial.sums.len()),
            (self.centroids.n_clusters(), self.centroids.values().len()),
            "partial of this candidate"
        );
        self.n_iter += 1;
        self.inertia = Some(inertia(total_squares, partial, &self.centroids));
        if partial.counts.contains(&0) {
            self.awaiting_rows = Some(partial.clone());
            return Step::NeedsRows {
                limit: FarthestRows::limit_for(self.centroids.n_clusters()),
            };
        }
        self.advance(partial, 0)
    }

    /// Takes the rows asked for by [`Step::NeedsRows`] and finishes the iteration.
    ///
    /// # Panics
    /// When no rows were asked for.
    pub fn relocate(&mut self, rows: &FarthestRows) -> Step {
        let Some(mut partial) = self.awaiting_rows.take() else {
            panic!("rows were not asked for");
        };
        let n_relocated = relocate(&mut partial, self.centroids.n_features(), rows);
        self.n_relocated += n_relocated;
        self.advance(&partial, n_relocated)
    }

    fn advance(&mut self, partial: &Partial, n_relocated: u64) -> Step {
        let (centroids, center_shift) = update(partial, &self.centroids);
        self.centroids = centroids;
        self.center_shift = Some(center_shift);
        // A cluster that has just been given a row has not settled, however short its way was. One that is still empty because no
        // row is left to give (more clusters than distinct rows) must not keep the fit going.
        let settled = n_relocated == 0;
        self.stopped = match center_shift {
            0 if settled => Some(StopReason::Converged),
            shift if settled && shift <= self.threshold => Some(StopReason::Tolerance),
            _ if self.n_iter >= self.max_iter => Some(StopReason::MaxIter),
            _ => None,
        };
        self.stopped.map_or(Step::Continue, Step::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_round_halves_to_even_on_both_sides_of_zero() {
        let cases = [
            (5, 2, 2),
            (7, 2, 4),
            (-5, 2, -2),
            (-7, 2, -4),
            (7, 3, 2),
            (-7, 3, -2),
            (8, 3, 3),
        ];
        for (sum, count, expected) in cases {
            assert_eq!(mean_ties_even(sum, count), expected, "{sum} / {count}");
        }
    }

    #[test]
    fn the_threshold_is_tol_times_the_mean_variance() {
        // Feature 0: 0, 4 has variance 4; feature 1: 10, 10 has variance 0; the mean is 2.
        let totals = Totals {
            n_rows: 2,
            sums: vec![4, 20],
            squares: 16 + 200,
        };
        assert_eq!(totals.scatter(), 16);
        assert_eq!(shift_threshold(1.0, &totals), 2);
        assert_eq!(shift_threshold(0.49, &totals), 0);
        assert_eq!(shift_threshold(f64::NAN, &totals), 0);
        assert_eq!(shift_threshold(1e-4, &Totals::zero(2)), 0);
    }
}

//! How far the centroids of a candidate have come, and what that does to bounds on rows.

use std::sync::atomic::{AtomicU64, Ordering};

use super::centroids::{PackedCentroids, PanelWidths};
use crate::{Centroids, exact};

/// Bounds are 16-bit numbers of units; the widest gap there can be at the start of an epoch is this many of them.
const UNITS_OF_WIDEST_GAP: f64 = 8192.0;
/// An epoch ends, and with it all bounds, when centroids have travelled this many units: little room is left in 16 bits.
const LAST_UNIT: f64 = 60_000.0;
/// Sums of `f64` and roots are a few parts in 10^16 off.
const ROUND_UP: f64 = 1.0 + 1e-12;

/// Numbers epochs, so that no bound is ever held against a travel it does not come from. 0 is that of no bounds.
static EPOCHS: AtomicU64 = AtomicU64::new(1);

/// How far centroids have come, in whole units: for bounds that are kept elsewhere than in a [`BlockMemory`](super::BlockMemory).
///
/// A row that has a gap of g grid steps to any other centroid than its own may be given the bound `of_cluster[label].0 + floor(g / unit)`,
/// g rounded down by 2^-20 of it at least. It need not be looked at while `of_cluster[label].1` is below that. Of many rows, let `left` be
/// the least difference of the two: none need be looked at while `most` is below what it is now plus `left`.
#[derive(Debug, Clone, PartialEq)]
pub struct TravelUnits {
    /// Bounds of another epoch mean nothing.
    pub epoch: u64,
    /// Moves of the centroids in this epoch. Bounds of a later one mean nothing.
    pub n_steps: u64,
    /// Grid steps in a unit.
    pub unit: f64,
    /// [n_clusters] how much the gap of a row of each cluster may have shrunk since the epoch began, rounded down and rounded up.
    pub of_cluster: Vec<(u16, u16)>,
    /// As `of_cluster`, of a row that may have belonged to any cluster, rounded down.
    pub most: u16,
    /// What the last move added to `most` before it was rounded; infinite before the first.
    pub last: f64,
}

impl TravelUnits {
    /// The widest gap there can be at the start of an epoch.
    pub const WIDEST_GAP: f64 = UNITS_OF_WIDEST_GAP;
}

/// The centroids of one candidate from pass to pass, and how far they have come.
#[derive(Clone)]
pub struct Travel {
    centroids: Centroids,
    packed: PackedCentroids,
    widths: PanelWidths,
    pub(super) keeps_bounds: bool,
    /// Bounds of another epoch mean nothing.
    pub(super) epoch: u64,
    /// Moves of the centroids in this epoch.
    pub(super) n_steps: u64,
    /// Grid steps in a unit.
    pub(super) unit: f64,
    /// [n_clusters] how much the gap of a row of each cluster may have shrunk since the epoch began, in grid steps.
    pub(super) shrunk: Vec<f64>,
    /// As `shrunk`, of a row that may have belonged to any cluster.
    pub(super) most_shrunk: f64,
    /// What the last move added to `most_shrunk`; infinite before the first.
    last_shrunk: f64,
    /// [n_clusters] `shrunk` in units, rounded up.
    pub(super) shrunk_units: Vec<u16>,
}

impl Travel {
    pub(super) fn new(centroids: Centroids, widths: PanelWidths) -> Self {
        let mut travel = Self {
            packed: PackedCentroids::new(&centroids, widths),
            centroids,
            widths,
            keeps_bounds: false,
            epoch: 0,
            n_steps: 0,
            unit: 1.0,
            shrunk: Vec::new(),
            most_shrunk: 0.0,
            last_shrunk: f64::INFINITY,
            shrunk_units: Vec::new(),
        };
        travel.begin_epoch();
        travel
    }

    /// Where the centroids are.
    pub fn centroids(&self) -> &Centroids {
        &self.centroids
    }

    /// How far they have come.
    pub fn units(&self) -> TravelUnits {
        let units = self.shrunk.iter().map(|shrunk| shrunk / self.unit);
        TravelUnits {
            epoch: self.epoch,
            n_steps: self.n_steps,
            unit: self.unit,
            of_cluster: units
                .map(|units| (units as u16, units.ceil() as u16))
                .collect(),
            most: self.most_units() as u16,
            last: self.last_shrunk / self.unit,
        }
    }

    pub(super) fn packed(&self) -> &PackedCentroids {
        &self.packed
    }

    /// The next pass is one with the centroids `to`. With `keeps_bounds` it leaves bounds behind, which costs it a few cycles a row: a tenth of
    /// a pass over 64 clusters, half of one over 8. Without, those there are get dropped.
    pub fn advance(&mut self, to: &Centroids, keeps_bounds: bool) {
        self.keeps_bounds = keeps_bounds;
        if *to == self.centroids {
            return;
        }
        let same_shape = to.n_clusters() == self.centroids.n_clusters();
        let steps: Vec<f64> = self
            .centroids
            .rows()
            .zip(to.rows())
            .map(|(from, to)| (exact::squared_distance(from, to) as f64).sqrt() * ROUND_UP)
            .collect();
        self.packed = PackedCentroids::new(to, self.widths);
        self.centroids = to.clone();
        if !same_shape {
            self.last_shrunk = f64::INFINITY;
            return self.begin_epoch();
        }
        self.n_steps += 1;
        let (mut first, mut first_idx, mut second) = (0.0, usize::MAX, 0.0);
        for (idx, &step) in steps.iter().enumerate() {
            if step > first {
                (second, first, first_idx) = (first, step, idx);
            } else if step > second {
                second = step;
            }
        }
        self.last_shrunk = first + first;
        self.most_shrunk = (self.most_shrunk + first + first) * ROUND_UP;
        for (idx, (shrunk, step)) in self.shrunk.iter_mut().zip(steps).enumerate() {
            let other = if idx == first_idx { second } else { first };
            *shrunk = (*shrunk + step + other) * ROUND_UP;
        }
        if self.most_shrunk / self.unit > LAST_UNIT {
            self.begin_epoch();
        } else {
            self.count_units();
        }
    }

    fn begin_epoch(&mut self) {
        self.epoch = EPOCHS.fetch_add(1, Ordering::Relaxed);
        self.n_steps = 0;
        // No gap is wider than two centroids are apart.
        let widest = 2.0 * self.packed.max_norm_from_mean();
        self.unit = (widest / UNITS_OF_WIDEST_GAP).max(1e-3);
        self.most_shrunk = 0.0;
        self.shrunk = vec![0.0; self.centroids.n_clusters()];
        self.count_units();
    }

    pub(super) fn count_units(&mut self) {
        let units = self.shrunk.iter().map(|shrunk| shrunk / self.unit);
        self.shrunk_units = units.map(|units| units.ceil() as u16).collect();
    }

    /// `most_shrunk` in units.
    pub(super) fn most_units(&self) -> f64 {
        self.most_shrunk / self.unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;

    #[test]
    fn an_epoch_ends_before_its_numbers_do() {
        let backend = CpuBackend::new();
        let mut travel = backend.travel(Centroids::new(1, vec![0, 100]));
        let epoch = travel.epoch;
        let mut n_epochs = 0;
        let mut last = epoch;
        for pass in 1..2_000 {
            travel.advance(
                &Centroids::new(1, vec![pass % 2 * 3, 100 + pass % 2 * 3]),
                true,
            );
            assert!(travel.most_units() <= LAST_UNIT);
            let units = travel.units();
            assert!(f64::from(units.most) <= travel.most_units());
            let is_between = |((low, high), real): (&(u16, u16), &f64)| {
                f64::from(*low) <= real / units.unit && real / units.unit <= f64::from(*high)
            };
            assert!(units.of_cluster.iter().zip(&travel.shrunk).all(is_between));
            n_epochs += usize::from(travel.epoch != last);
            last = travel.epoch;
        }
        assert!(n_epochs > 2, "{n_epochs}");
    }
}

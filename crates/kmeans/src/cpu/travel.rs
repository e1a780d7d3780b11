//! How far the centroids of a candidate have come, and what that does to bounds on rows.

use std::sync::atomic::{AtomicU64, Ordering};

use super::centroids::{PackedCentroids, PanelWidths};
use super::lanes::OfClusters;
use crate::{Centroids, exact};

/// Bounds are 16-bit numbers of units, of which the widest gap there can be is this many at first.
const UNITS_OF_WIDEST_GAP: f64 = 8192.0;
/// Once bounds are kept, a unit is the share of a move that makes it so many of them, and a finer one is taken when a move is no more than so few:
/// a row gets no bound from a gap of less than two units, and would be looked at in every pass. Gaps too wide for 16 bits are cut off.
const UNITS_OF_MOVE: f64 = 64.0;
const FEWEST_UNITS_OF_MOVE: f64 = 4.0;
/// An epoch ends when centroids have travelled this many units: little room is left in 16 bits.
const LAST_UNIT: f64 = 60_000.0;
/// Steps, in a whole number, of the ratio of two units.
const RATIO_BITS: u32 = 16;
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
    /// The share that the last move took of the widest gap there was when the epoch began; infinite before the first.
    pub last_share: f64,
}

/// An epoch that is over, and what becomes of its bounds in the next.
#[derive(Clone)]
pub(super) struct PastEpoch {
    epoch: u64,
    /// As those of [`Travel`], at its end.
    shrunk_units: Vec<u16>,
    most_units: u16,
    /// Its unit by that of the next epoch, rounded down, in steps of 2^-[`RATIO_BITS`].
    ratio: u64,
}

impl PastEpoch {
    /// What is left of the bound of a row with this label, in units of the next epoch, none of which had been travelled then.
    #[inline(always)]
    pub(super) fn carried(&self, bound: u16, label: u16) -> u16 {
        self.in_next(bound.saturating_sub(self.shrunk_units[usize::from(label)]))
    }

    /// As [`PastEpoch::carried`], of a bound against any cluster.
    pub(super) fn carried_of_any(&self, bound: u16) -> u16 {
        self.in_next(bound.saturating_sub(self.most_units))
    }

    /// Rounded down.
    #[inline(always)]
    fn in_next(&self, left: u16) -> u16 {
        let left = (u64::from(left) * self.ratio) >> RATIO_BITS;
        left.min(u16::MAX.into()) as u16
    }
}

/// The centroids of one candidate from pass to pass, and how far they have come.
#[derive(Clone)]
pub struct Travel {
    centroids: Centroids,
    packed: PackedCentroids,
    widths: PanelWidths,
    pub(super) keeps_bounds: bool,
    /// Bounds of another epoch mean nothing, but those of the ones in `past` are carried on.
    pub(super) epoch: u64,
    /// Epochs since bounds were last begun, in order.
    past: Vec<PastEpoch>,
    /// Moves of the centroids in this epoch.
    pub(super) n_steps: u64,
    /// Grid steps in a unit.
    pub(super) unit: f64,
    /// The widest gap there could be when the epoch began, in grid steps.
    widest: f64,
    /// [n_clusters] how much the gap of a row of each cluster may have shrunk since the epoch began, in grid steps.
    pub(super) shrunk: Vec<f64>,
    /// As `shrunk`, of a row that may have belonged to any cluster.
    pub(super) most_shrunk: f64,
    /// What the last move added to `most_shrunk`; infinite before the first.
    last_shrunk: f64,
    /// [n_clusters] `shrunk` in units, rounded up.
    pub(super) shrunk_units: OfClusters,
}

impl Travel {
    pub(super) fn new(centroids: Centroids, widths: PanelWidths) -> Self {
        let mut travel = Self {
            packed: PackedCentroids::new(&centroids, widths),
            centroids,
            widths,
            keeps_bounds: false,
            epoch: 0,
            past: Vec::new(),
            n_steps: 0,
            unit: 1.0,
            widest: 0.0,
            shrunk: Vec::new(),
            most_shrunk: 0.0,
            last_shrunk: f64::INFINITY,
            shrunk_units: OfClusters::default(),
        };
        travel.begin_bounds(f64::INFINITY);
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
            last_share: self.last_shrunk / self.widest,
        }
    }

    pub(super) fn packed(&self) -> &PackedCentroids {
        &self.packed
    }

    /// The epochs from `epoch` to the one before this, in order; `None` if bounds of that epoch mean nothing.
    pub(super) fn epochs_since(&self, epoch: u64) -> Option<&[PastEpoch]> {
        if epoch == self.epoch {
            return Some(&[]);
        }
        let first = self.past.iter().position(|past| past.epoch == epoch)?;
        Some(&self.past[first..])
    }

    /// What the last move took off a bound at most, in units.
    pub(super) fn last_units(&self) -> f64 {
        self.last_shrunk / self.unit
    }

    /// The next pass is one with the centroids `to`. With `keeps_bounds` it leaves bounds behind, which costs it a few cycles a row: a tenth of
    /// a pass over 64 clusters, half of one over 8. Without, those there are get dropped.
    pub fn advance(&mut self, to: &Centroids, keeps_bounds: bool) {
        let begins = keeps_bounds && !self.keeps_bounds;
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
            return self.begin_bounds(f64::INFINITY);
        }
        let (mut first, mut first_idx, mut second) = (0.0, usize::MAX, 0.0);
        for (idx, &step) in steps.iter().enumerate() {
            if step > first {
                (second, first, first_idx) = (first, step, idx);
            } else if step > second {
                second = step;
            }
        }
        self.last_shrunk = first + first;
        let in_units = |shrunk: f64| shrunk * ROUND_UP / self.unit;
        let is_full = in_units(self.most_shrunk + self.last_shrunk) > LAST_UNIT;
        let is_coarse = in_units(self.last_shrunk) < FEWEST_UNITS_OF_MOVE;
        match keeps_bounds {
            true if begins => self.begin_bounds(self.last_shrunk / UNITS_OF_MOVE),
            true if is_full || is_coarse => self.change_unit(),
            false if is_full => self.begin_bounds(f64::INFINITY),
            _ => {}
        }
        self.n_steps += 1;
        self.most_shrunk = (self.most_shrunk + self.last_shrunk) * ROUND_UP;
        for (idx, (shrunk, step)) in self.shrunk.iter_mut().zip(steps).enumerate() {
            let other = if idx == first_idx { second } else { first };
            *shrunk = (*shrunk + step + other) * ROUND_UP;
        }
        self.count_units();
    }

    /// Bounds of before mean nothing. A unit is at most `unit` grid steps.
    fn begin_bounds(&mut self, unit: f64) {
        self.past.clear();
        self.begin_epoch(unit);
    }

    /// Bounds of before go on in units that suit the last move.
    fn change_unit(&mut self) {
        let (epoch, shrunk_units) = (self.epoch, self.shrunk_units.all.clone());
        let (most_units, unit) = (self.most_units().ceil() as u16, self.unit);
        self.begin_epoch(self.last_shrunk / UNITS_OF_MOVE);
        // Below 2^43: no two centroids are 2^29 grid steps apart.
        let ratio = unit / self.unit * (1.0 - 1e-12) * f64::from(1_u32 << RATIO_BITS);
        self.past.push(PastEpoch {
            epoch,
            shrunk_units,
            most_units,
            ratio: ratio as u64,
        });
    }

    fn begin_epoch(&mut self, unit: f64) {
        self.epoch = EPOCHS.fetch_add(1, Ordering::Relaxed);
        self.n_steps = 0;
        // No gap is wider than two centroids are apart.
        self.widest = 2.0 * self.packed.max_norm_from_mean();
        self.unit = unit.min(self.widest / UNITS_OF_WIDEST_GAP).max(1e-3);
        self.most_shrunk = 0.0;
        self.shrunk = vec![0.0; self.centroids.n_clusters()];
        self.count_units();
    }

    pub(super) fn count_units(&mut self) {
        let units = self.shrunk.iter().map(|shrunk| shrunk / self.unit);
        self.shrunk_units = OfClusters::new(units.map(|units| units.ceil() as u16).collect());
    }

    /// `most_shrunk` in units.
    pub(super) fn most_units(&self) -> f64 {
        self.most_shrunk / self.unit
    }
}

#[cfg(test)]
impl Travel {
    /// Epochs whose bounds go on.
    pub(super) fn n_past(&self) -> usize {
        self.past.len()
    }

    /// A fault, for tests that must notice it: what is left of bounds counts 256 times when the unit changes.
    pub(super) fn lengthen_carried_bounds(&mut self) {
        self.past.iter_mut().for_each(|past| past.ratio <<= 8);
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

//! Geometry of the board's charts. Only numbers leave this module; every word is put in place, and escaped, by the template.

use std::fmt::Write;

use serde::Serialize;

use crate::{Evidence, FeatureEvidence, MINIMUM_CELL, Unit, format};

/// Width of a distribution chart's plot, in user units (close to CSS pixels at every screen size).
pub(crate) const PLOT_WIDTH: f64 = 300.0;

/// Height of the plot.
pub(crate) const PLOT_HEIGHT: f64 = 64.0;

/// Room that a tick label takes at least; labels are short.
const TICK_GAP: f64 = 44.0;

/// One persona's distribution of one feature against everyone's.
#[derive(Debug, Serialize)]
pub(crate) struct DistributionChart {
    /// SVG path of everyone's density.
    pub everyone: String,
    /// SVG path of the persona's density; empty for a small cell.
    pub persona: String,
    /// Position of everyone's median.
    pub everyone_x: f64,
    /// Position of the persona's median.
    pub persona_x: f64,
    pub ticks: Vec<Tick>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Tick {
    pub x: f64,
    pub text: String,
    /// `start` and `end` at the borders, so that a label never leaves the picture.
    pub anchor: &'static str,
}

/// A horizontal axis with one equally wide piece a bin; linear in raw units within a bin.
struct Axis<'a> {
    edges: &'a [f64],
}

/// One bar: a run of bins with enough customers to be shown, and its density.
#[derive(Debug, PartialEq)]
struct Bar {
    from_bin: usize,
    to_bin: usize,
    count: u64,
}

impl Bar {
    fn density(&self, total: u64) -> f64 {
        self.count as f64 / total.max(1) as f64 / (self.to_bin - self.from_bin) as f64
    }
}

/// The chart of one feature for one cluster; none when there is no histogram or nothing varies.
pub(crate) fn distribution(
    evidence: &Evidence,
    feature: &FeatureEvidence,
    cluster_idx: usize,
) -> Option<DistributionChart> {
    let group = &feature.clusters[cluster_idx];
    let (everyone, own) = (&feature.overall.histogram, &group.histogram);
    let axis = Axis::new(&feature.edges)?;
    if everyone.is_empty() || own.is_empty() {
        return None;
    }
    let (everyone, own) = (
        axis.bars(everyone, feature.info.unit),
        axis.bars(own, feature.info.unit),
    );
    let (n_everyone, n_own) = (total(&everyone), total(&own));
    let peak = |bars: &[Bar], n: u64| bars.iter().map(|bar| bar.density(n)).fold(0.0, f64::max);
    let top = peak(&everyone, n_everyone).max(peak(&own, n_own));
    if top <= 0.0 || n_own < MINIMUM_CELL || n_everyone < MINIMUM_CELL {
        return None;
    }
    Some(DistributionChart {
        everyone: axis.steps(&everyone, n_everyone, top),
        persona: axis.steps(&own, n_own, top),
        everyone_x: axis.position(feature.overall.median),
        persona_x: axis.position(group.median),
        ticks: axis.ticks(feature.info.unit, &evidence.currency),
    })
}

fn total(bars: &[Bar]) -> u64 {
    bars.iter()
        .fold(0, |sum: u64, bar| sum.saturating_add(bar.count))
}

impl<'a> Axis<'a> {
    fn new(edges: &'a [f64]) -> Option<Self> {
        let varies = edges.len() >= 2 && edges[0] < edges[edges.len() - 1];
        varies.then_some(Self { edges })
    }

    fn n_bins(&self) -> usize {
        self.edges.len() - 1
    }

    fn first(&self) -> f64 {
        self.edges[0]
    }

    fn last(&self) -> f64 {
        self.edges[self.n_bins()]
    }

    fn bin_width(&self) -> f64 {
        PLOT_WIDTH / self.n_bins() as f64
    }

    /// Where a raw value lies, clamped to the plot.
    fn position(&self, x: f64) -> f64 {
        if x >= self.last() {
            return PLOT_WIDTH;
        }
        let bin = self.edges.partition_point(|&edge| edge <= x);
        if bin == 0 {
            return 0.0;
        }
        let (low, high) = (self.edges[bin - 1], self.edges[bin]);
        tenth(((bin - 1) as f64 + (x - low) / (high - low)) * self.bin_width())
    }

    /// Joins bins until each bar holds no customers or at least the minimum cell, and, for counts, room for a whole number:
    /// between 1 and 2 purchases there is nothing to see but the gaps of a logarithmic grid.
    fn bars(&self, histogram: &[u64], unit: Unit) -> Vec<Bar> {
        let mut bars: Vec<Bar> = Vec::new();
        let mut open = Bar {
            from_bin: 0,
            to_bin: 0,
            count: 0,
        };
        for (bin, &count) in histogram.iter().enumerate() {
            open.to_bin = bin + 1;
            open.count = open.count.saturating_add(count);
            let showable = open.count == 0 || open.count >= MINIMUM_CELL;
            if showable && (unit != Unit::Count || self.starts_whole_number(open.to_bin)) {
                bars.push(std::mem::replace(
                    &mut open,
                    Bar {
                        from_bin: bin + 1,
                        to_bin: bin + 1,
                        count: 0,
                    },
                ));
            }
        }
        if open.to_bin > open.from_bin {
            close(&mut bars, open);
        }
        bars
    }

    /// Whether a bar may end before this bin: it holds a whole number, or there is none.
    fn starts_whole_number(&self, bin: usize) -> bool {
        if bin >= self.n_bins() {
            return true;
        }
        let (low, high) = (self.edges[bin].ceil(), self.edges[bin + 1]);
        // The last bin includes its upper edge.
        if bin + 1 == self.n_bins() {
            low <= high
        } else {
            low < high
        }
    }

    /// A closed step outline of the bars over the base line; `top` is the density drawn at full height.
    fn steps(&self, bars: &[Bar], n: u64, top: f64) -> String {
        let mut path = format!("M0 {PLOT_HEIGHT}");
        for bar in bars {
            let y = tenth(PLOT_HEIGHT * (1.0 - bar.density(n) / top));
            // Writing to a `String` cannot fail.
            let _ = write!(path, "V{y}H{}", tenth(bar.to_bin as f64 * self.bin_width()));
        }
        let _ = write!(path, "V{PLOT_HEIGHT}Z");
        path
    }

    /// Round numbers, far enough apart to be read.
    fn ticks(&self, unit: Unit, currency: &str) -> Vec<Tick> {
        let candidates = if self.is_linear() {
            self.even_steps()
        } else {
            self.round_numbers()
        };
        let mut placed: Vec<(f64, f64)> = Vec::new();
        for value in candidates {
            let x = self.position(value);
            let inside = value >= self.first() && value <= self.last();
            let whole = unit != Unit::Count || value.fract() == 0.0;
            if inside
                && whole
                && placed
                    .iter()
                    .all(|&(other, _)| (x - other).abs() >= TICK_GAP)
            {
                placed.push((x, value));
            }
        }
        placed.sort_by(|a, b| a.0.total_cmp(&b.0));
        let anchor = |x: f64| match x {
            x if x < TICK_GAP / 3.0 => "start",
            x if x > PLOT_WIDTH - TICK_GAP / 3.0 => "end",
            _ => "middle",
        };
        placed
            .into_iter()
            .map(|(x, value)| Tick {
                x,
                text: format::tick(value, unit, currency),
                anchor: anchor(x),
            })
            .collect()
    }

    /// Whether bins are equally wide in raw units too, within a twentieth of the axis.
    fn is_linear(&self) -> bool {
        let (first, extent) = (self.first(), self.last() - self.first());
        let step = extent / self.n_bins() as f64;
        let even =
            |(idx, edge): (usize, &f64)| (edge - first - idx as f64 * step).abs() < 0.05 * extent;
        self.edges.iter().enumerate().all(even)
    }

    /// Multiples of the smallest 1, 2 or 5 times a power of ten that leaves room for about five labels.
    fn even_steps(&self) -> Vec<f64> {
        let rough = (self.last() - self.first()) / 5.0;
        let step = steps_up().find(|&step| step >= rough).unwrap_or(rough);
        let first = (self.first() / step).ceil();
        (0..8).map(|idx| (first + f64::from(idx)) * step).collect()
    }

    /// Zero, powers of ten, then their fives, then their twos: the roundest get their place first.
    fn round_numbers(&self) -> Vec<f64> {
        let reach = self.first().abs().max(self.last().abs());
        let all: Vec<f64> = steps_up().take_while(|&step| step <= reach).collect();
        let of = |leading: usize| all.iter().skip(leading).step_by(3).copied();
        let mut values = vec![0.0];
        // `steps_up` goes 1, 2, 5, 10, ...: position 0 of 3 is a power of ten.
        for leading in [0, 2, 1] {
            values.extend(of(leading).flat_map(|value| [value, -value]));
        }
        values
    }
}

/// Adds the last bins, which hold too few to be a bar of their own, to the last bar that holds anyone.
fn close(bars: &mut Vec<Bar>, open: Bar) {
    if open.count > 0 {
        while bars.last().is_some_and(|bar| bar.count == 0) {
            bars.pop();
        }
    }
    match bars.last_mut() {
        Some(last) if open.count > 0 => {
            last.to_bin = open.to_bin;
            last.count = last.count.saturating_add(open.count);
        }
        _ => bars.push(open),
    }
}

/// 1, 2, 5, 10, 20, 50, ... times 10^-12, each the nearest float to its decimal.
fn steps_up() -> impl Iterator<Item = f64> {
    (-12..=18).flat_map(|exponent| {
        [1.0, 2.0, 5.0].map(|leading: f64| {
            let power = (0..i32::abs(exponent)).fold(1.0, |power: f64, _| power * 10.0);
            if exponent < 0 {
                leading / power
            } else {
                leading * power
            }
        })
    })
}

/// Rounded to a tenth of a user unit: short files, and nothing that depends on the last bit.
pub(crate) fn tenth(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

/// One persona in the picture of customers against value.
#[derive(Debug, Serialize)]
pub(crate) struct Ribbon {
    /// Left end and width in the bar of customers, percent.
    pub customers: (f64, f64),
    /// Left end and width in the bar of value, percent.
    pub value: (f64, f64),
    /// SVG path of the ribbon between the two bars, in percent by percent.
    pub path: String,
}

/// Two stacked bars of equal length and the ribbons that connect them. `shares` are (customers, value), each adding up to about 1.
pub(crate) fn ribbons(shares: &[(f64, f64)]) -> Vec<Ribbon> {
    let (mut upper, mut lower) = (0.0, 0.0);
    let ribbon = |&(customers, value): &(f64, f64)| {
        let (top, bottom) = ((upper, customers * 100.0), (lower, value * 100.0));
        upper += top.1;
        lower += bottom.1;
        let path = format!(
            "M{} 0L{} 0C{} 50 {} 50 {} 100L{} 100C{} 50 {} 50 {} 0Z",
            hundredth(top.0),
            hundredth(upper),
            hundredth(upper),
            hundredth(lower),
            hundredth(lower),
            hundredth(bottom.0),
            hundredth(bottom.0),
            hundredth(top.0),
            hundredth(top.0),
        );
        let rounded = |(from, width): (f64, f64)| (hundredth(from), hundredth(width));
        Ribbon {
            customers: rounded(top),
            value: rounded(bottom),
            path,
        }
    };
    shares.iter().map(ribbon).collect()
}

fn hundredth(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(edges: &[f64]) -> Axis<'_> {
        Axis::new(edges).expect("edges vary")
    }

    fn counts(bars: &[Bar]) -> Vec<(usize, usize, u64)> {
        bars.iter()
            .map(|bar| (bar.from_bin, bar.to_bin, bar.count))
            .collect()
    }

    #[test]
    fn bins_under_the_minimum_cell_are_joined_and_no_customer_is_lost() {
        let edges: Vec<f64> = (0..=6).map(f64::from).collect();
        let bars = axis(&edges).bars(&[0, 4, 9, 20, 3, 2], Unit::Number);
        assert_eq!(counts(&bars), [(0, 1, 0), (1, 3, 13), (3, 6, 25)]);
        let bars = axis(&edges).bars(&[0, 30, 0, 0, 0, 10], Unit::Number);
        assert_eq!(
            counts(&bars),
            [(0, 1, 0), (1, 6, 40)],
            "a small last bin joins across the gap"
        );
    }

    #[test]
    fn a_count_never_shows_the_gaps_between_whole_numbers() {
        let edges = [1.0, 1.3, 1.7, 2.2, 2.9, 3.7, 4.0];
        let bars = axis(&edges).bars(&[50, 0, 40, 0, 30, 20], Unit::Count);
        assert!(bars.iter().all(|bar| bar.count > 0), "{bars:?}");
        assert_eq!(total(&bars), 140);
    }

    #[test]
    fn positions_follow_the_bins_and_stay_in_the_plot() {
        let edges = [0.0, 1.0, 10.0, 100.0];
        let axis = axis(&edges);
        let positions = [-5.0, 0.0, 1.0, 10.0, 55.0, 100.0, 1e9].map(|x| axis.position(x));
        assert_eq!(positions, [0.0, 0.0, 100.0, 200.0, 250.0, 300.0, 300.0]);
    }

    #[test]
    fn ticks_are_round_numbers_with_room_between_them() {
        let text = |edges: &[f64], unit| -> Vec<String> {
            axis(edges)
                .ticks(unit, "$")
                .into_iter()
                .map(|tick| tick.text)
                .collect()
        };
        let even: Vec<f64> = (0..=10).map(|edge| f64::from(edge) * 54.3).collect();
        assert_eq!(text(&even, Unit::Days), ["0", "200", "400"]);
        let logarithmic = [1.0, 3.0, 9.0, 27.0, 81.0, 243.0, 729.0];
        assert_eq!(
            text(&logarithmic, Unit::Money),
            ["$1", "$10", "$100", "$500"]
        );
        let negative = [-100.0, -10.0, 0.0, 10.0, 100.0];
        assert!(text(&negative, Unit::Number).contains(&"−10".to_owned()));
    }

    #[test]
    fn an_axis_without_extent_is_no_axis() {
        assert!(Axis::new(&[]).is_none());
        assert!(Axis::new(&[1.0]).is_none());
        assert!(Axis::new(&[2.0, 2.0, 2.0]).is_none());
    }
}

//! How numbers are written for people.

use std::fmt;

use crate::{Bound, Controls, DeviceReport, Point, Shape};

/// 1,234,567.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits or so: 0.0123, 1.23, 12.3, 1,234.
pub(crate) fn significant(x: f64) -> String {
    match x.abs() {
        size if size >= 999.5 => count(x.round() as u64),
        size if size >= 99.95 => format!("{x:.0}"),
        size if size >= 9.995 => format!("{x:.1}"),
        size if size >= 0.995 => format!("{x:.2}"),
        _ => format!("{x:.3}"),
    }
}

/// 12.3 G, 456 M, 7.89 k.
pub(crate) fn si(x: f64) -> String {
    let (by, unit) = match x.abs() {
        size if size >= 999.5e9 => (1e12, " T"),
        size if size >= 999.5e6 => (1e9, " G"),
        size if size >= 999.5e3 => (1e6, " M"),
        size if size >= 999.5 => (1e3, " k"),
        _ => (1.0, ""),
    };
    format!("{}{unit}", significant(x / by))
}

/// 81 %, 0.3 %.
pub(crate) fn percent(share: f64) -> String {
    match share * 100.0 {
        x if x.abs() >= 0.95 => format!("{x:.0} %"),
        x => format!("{x:.1} %"),
    }
}

/// 99.9987 %: rounded down, so that 100 % means every row.
pub(crate) fn certified(share: f64) -> String {
    if share >= 1.0 {
        return "100 %".into();
    }
    format!("{:.4} %", (share * 1e6).floor() / 1e4)
}

/// What a share of the limit is of: `81 % mem`, `64 % fma`, `-`.
pub(crate) fn share(point: &Point) -> String {
    match (point.roofline_share, point.bound()) {
        (Some(share), Some(bound)) => format!("{} {}", percent(share), bound_word(bound)),
        _ => "-".into(),
    }
}

pub(crate) fn bound_word(bound: Bound) -> &'static str {
    match bound {
        Bound::Memory => "mem",
        Bound::Compute => "fma",
    }
}

/// `copy 20.4 GB/s, read 21.3 GB/s, multiply-add 104 G/s`.
pub(crate) fn controls(controls: &Controls) -> String {
    let one = |name: &str, value: Option<f64>, unit: &str| {
        value.map(|x| format!("{name} {}{unit}", si(x)))
    };
    let parts: Vec<String> = [
        one("copy", controls.copy_bytes_per_s, "B/s"),
        one("read", controls.read_bytes_per_s, "B/s"),
        one("multiply-add", controls.multiply_adds_per_s, "/s"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        return "limits not measured".into();
    }
    parts.join(", ")
}

/// `2 threads`, with the driver where there is one.
pub(crate) fn device_detail(device: &DeviceReport) -> String {
    let threads = format!(
        "{} thread{}",
        device.n_threads,
        if device.n_threads == 1 { "" } else { "s" }
    );
    match &device.driver {
        Some(driver) => format!("{driver}, fed by {threads}"),
        None => threads,
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} x {}, k = {}",
            self.data,
            count(self.n_rows),
            self.n_features,
            self.n_clusters
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
        assert_eq!(significant(12.34), "12.3");
        assert_eq!(significant(0.0123), "0.012");
        assert_eq!(significant(4_321.0), "4,321");
        assert_eq!(si(20.4e9), "20.4 G");
        assert_eq!(si(999.9e6), "1.00 G");
        assert_eq!(percent(0.814), "81 %");
        assert_eq!(percent(0.003), "0.3 %");
    }

    #[test]
    fn one_uncertified_row_of_a_billion_is_not_everything() {
        assert_eq!(certified(1.0), "100 %");
        assert_eq!(certified(1.0 - 1e-9), "99.9999 %");
    }
}

//! How numbers are written for people: two or three significant digits, units, thousands separators.

use crate::Unit;

/// Between a number and its unit, so that they stay on one line.
const NBSP: char = '\u{a0}';

/// `x` in its unit: "$1,234", "45 days", "12.3 %", "6".
pub fn value(x: f64, unit: Unit, currency: &str) -> String {
    match unit {
        Unit::Days => {
            let number = plain(x);
            let noun = if number == "1" { "day" } else { "days" };
            format!("{number}{NBSP}{noun}")
        }
        Unit::Count => plain(x),
        Unit::Money => money(x, currency),
        Unit::Share => percent(x),
        Unit::Number => significant(x),
    }
}

/// `low` to `high` in their unit, written once: "3 to 9 days", "$10 to $40"; one value when both read the same.
pub fn range(low: f64, high: f64, unit: Unit, currency: &str) -> String {
    let (from, to) = (short(low, unit, currency), short(high, unit, currency));
    if from == to {
        return to;
    }
    let from = match unit {
        Unit::Days => plain(low),
        Unit::Share => from.trim_end_matches(['%', NBSP]).to_owned(),
        _ => from,
    };
    format!("{from}\u{2013}{to}")
}

/// As [`value`], where there is little room: no cents from 10 on, no noun on large numbers.
pub fn short(x: f64, unit: Unit, currency: &str) -> String {
    match unit {
        Unit::Money if x.abs() >= 99_999.5 => tick(x, unit, currency),
        Unit::Money if x.abs() >= 9.995 => {
            with_currency(x, &grouped(&format!("{:.0}", x.abs())), currency)
        }
        _ => value(x, unit, currency),
    }
}

/// A whole number with thousands separators: "23,570".
pub fn count(n: u64) -> String {
    grouped(&n.to_string())
}

/// A fraction of one in percent: "51 %", "9.4 %", "0.12 %".
pub fn percent(fraction: f64) -> String {
    let x = fraction * 100.0;
    let decimals = match x.abs() {
        size if size >= 9.95 || size == 0.0 => 0,
        size if size >= 0.095 => 1,
        _ => 2,
    };
    format!("{}{NBSP}%", trimmed(x, decimals))
}

/// An amount: two decimals below 100, none above, millions and billions in words.
pub fn money(x: f64, currency: &str) -> String {
    let size = x.abs();
    let number = match size {
        _ if size >= 999.5e6 => format!("{}{NBSP}billion", significant(size / 1e9)),
        _ if size >= 9.995e6 => format!("{}{NBSP}million", significant(size / 1e6)),
        _ if size >= 99.995 || size == 0.0 => grouped(&format!("{size:.0}")),
        _ => format!("{size:.2}"),
    };
    with_currency(x, &number, currency)
}

/// Sign of `x`, currency, number; a symbol touches its number, a code such as EUR does not.
fn with_currency(x: f64, number: &str, currency: &str) -> String {
    let sign = if x < 0.0 { "\u{2212}" } else { "" };
    let gap = if currency.ends_with(char::is_alphabetic) {
        "\u{a0}"
    } else {
        ""
    };
    format!("{sign}{currency}{gap}{number}")
}

/// A label on an axis: short, without the noun; the axis title says days.
pub fn tick(x: f64, unit: Unit, currency: &str) -> String {
    let size = x.abs();
    let short = match size {
        _ if size >= 1e9 => format!("{}bn", significant(x / 1e9)),
        _ if size >= 1e6 => format!("{}M", significant(x / 1e6)),
        _ if size >= 1e4 => format!("{}k", significant(x / 1e3)),
        _ => significant(x),
    };
    match unit {
        Unit::Share => percent(x),
        Unit::Money => with_currency(x, short.trim_start_matches('\u{2212}'), currency),
        Unit::Days | Unit::Count | Unit::Number => short,
    }
}

/// Three significant digits: "0.0123", "1.23", "12.3", "1,234".
pub fn significant(x: f64) -> String {
    let size = x.abs();
    if size >= 1e15 || (size > 0.0 && size < 1e-6) {
        return format!("{x:.2e}");
    }
    let mut decimals = match size {
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ => 2,
    };
    let mut leading = size;
    while leading < 0.9995 && leading > 0.0 && decimals < 9 {
        leading *= 10.0;
        decimals += 1;
    }
    trimmed(x, decimals)
}

/// A multiple of something: "5.2 times", "15 times".
pub fn times(ratio: f64) -> String {
    let decimals = usize::from(ratio < 9.95);
    format!("{}{NBSP}times", trimmed(ratio, decimals))
}

/// Whole when it is whole or large, one decimal otherwise.
fn plain(x: f64) -> String {
    if x.abs() >= 1e15 {
        return significant(x);
    }
    trimmed(x, usize::from(x.abs() < 99.95))
}

/// `decimals` places without trailing zeros, grouped, with a real minus sign.
fn trimmed(x: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", x.abs());
    let text = if decimals > 0 {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    let sign = if x < 0.0 && text != "0" {
        "\u{2212}"
    } else {
        ""
    };
    format!("{sign}{}", grouped(text))
}

/// Commas between groups of three digits of the whole part.
fn grouped(number: &str) -> String {
    let whole_len = number.find('.').unwrap_or(number.len());
    let mut out = String::with_capacity(number.len() + number.len() / 3);
    for (idx, digit) in number.chars().enumerate() {
        if idx > 0 && idx < whole_len && (whole_len - idx).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: String, expected: &str) {
        assert_eq!(text.replace(NBSP, " "), expected);
    }

    #[test]
    fn money_is_written_as_people_write_it() {
        check(money(35.2, "$"), "$35.20");
        check(money(1234.5, "$"), "$1,234");
        check(money(2_497_617.82, "$"), "$2,497,618");
        check(money(12_345_678.0, "EUR"), "EUR 12.3 million");
        check(money(999_999_999.0, "$"), "$1 billion");
        check(money(-5.0, "$"), "−$5.00");
        check(money(0.0, "$"), "$0");
        check(money(99.999, "£"), "£100");
    }

    #[test]
    fn shares_days_and_counts_keep_two_or_three_digits() {
        check(percent(0.5149), "51 %");
        check(percent(0.0942), "9.4 %");
        check(percent(0.0012), "0.1 %");
        check(percent(0.00012), "0.01 %");
        check(percent(1.0), "100 %");
        check(percent(0.0), "0 %");
        check(value(1.0, Unit::Days, ""), "1 day");
        check(value(45.26, Unit::Days, ""), "45.3 days");
        check(value(412.4, Unit::Days, ""), "412 days");
        check(value(1234.0, Unit::Count, ""), "1,234");
    }

    #[test]
    fn plain_numbers_keep_three_significant_digits() {
        check(significant(0.012_345), "0.0123");
        check(significant(1.0), "1");
        check(significant(-12.345), "−12.3");
        check(significant(1_234_567.0), "1,234,567");
        check(significant(1e300), "1.00e300");
        check(significant(-0.0), "0");
    }

    #[test]
    fn a_range_names_its_unit_once() {
        check(range(3.0, 9.0, Unit::Days, ""), "3–9 days");
        check(range(0.102, 0.4, Unit::Share, ""), "10–40 %");
        check(range(10.0, 40.4, Unit::Money, "$"), "$10–$40");
        check(range(1.0, 1.0, Unit::Count, ""), "1");
        check(range(1.0, 1.0, Unit::Days, ""), "1 day");
    }

    #[test]
    fn multiples_read_as_times() {
        check(times(5.24), "5.2 times");
        check(times(15.2), "15 times");
    }
}

//! What is worse than it was, and what misses its target.

use std::collections::BTreeMap;

use crate::measure::Row;

/// One shape on one family that fails the gate, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub family: String,
    pub shape: String,
    pub reasons: Vec<String>,
}

/// Rows that are worse than the baseline's, or are in only one of the two.
pub fn with_baseline(rows: &[Row], baseline: &[Row]) -> Vec<Failure> {
    let key = |row: &Row| (row.family.clone(), row.shape.clone());
    let mut known: BTreeMap<_, &Row> = baseline.iter().map(|row| (key(row), row)).collect();
    let mut failures = Vec::new();
    for row in rows {
        let reasons = match known.remove(&key(row)) {
            Some(before) => worse(row, before),
            None => vec!["is not in the baseline".to_owned()],
        };
        push(&mut failures, row, reasons);
    }
    for row in known.into_values() {
        push(
            &mut failures,
            row,
            vec!["is in the baseline only".to_owned()],
        );
    }
    failures
}

/// Rows that miss what was promised, whatever the baseline says.
pub fn with_targets(rows: &[Row]) -> Vec<Failure> {
    let mut failures = Vec::new();
    for row in rows {
        let mut reasons = Vec::new();
        if row.spills > 0 || row.scratch_bytes > 0 {
            reasons.push(format!(
                "{} spills, {} bytes of scratch",
                row.spills, row.scratch_bytes
            ));
        }
        if row.vector_a_sum > 8.0 {
            reasons.push(format!(
                "{:.2} vector instructions a sum, above 8",
                row.vector_a_sum
            ));
        }
        let limit = match row.n_features() {
            Some(32..) => Some(1.15),
            // It keeps the second best as well.
            Some(8..) if row.remembers() => None,
            Some(8..) => Some(1.35),
            _ => None,
        };
        if let Some(limit) = limit.filter(|&limit| row.vector_a_term > limit) {
            reasons.push(format!(
                "{:.3} vector instructions a term, above {limit}",
                row.vector_a_term
            ));
        }
        if row.family == "navi21" && row.waves < 10 {
            reasons.push(format!("{} waves, below 10", row.waves));
        }
        push(&mut failures, row, reasons);
    }
    failures
}

fn worse(now: &Row, before: &Row) -> Vec<String> {
    let mut reasons = Vec::new();
    // Four decimals are written.
    for (what, now, before) in [
        ("a term", now.vector_a_term, before.vector_a_term),
        ("a sum", now.vector_a_sum, before.vector_a_sum),
    ] {
        if now > before * 1.005 + 1e-4 {
            reasons.push(format!(
                "vector instructions {what} {before:.3} -> {now:.3}"
            ));
        }
    }
    if now.waves < before.waves {
        let (a, b) = (before.vgprs, now.vgprs);
        reasons.push(format!(
            "waves {} -> {} (VGPRs {a} -> {b})",
            before.waves, now.waves
        ));
    }
    for (what, now, before) in [
        ("bytes of workgroup memory", now.lds_bytes, before.lds_bytes),
        ("spills", now.spills, before.spills),
        ("bytes of scratch", now.scratch_bytes, before.scratch_bytes),
    ] {
        if now > before {
            reasons.push(format!("{what} {before} -> {now}"));
        }
    }
    reasons
}

fn push(failures: &mut Vec<Failure>, row: &Row, reasons: Vec<String>) {
    if !reasons.is_empty() {
        failures.push(Failure {
            family: row.family.clone(),
            shape: row.shape.clone(),
            reasons,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row::parse("navi21\td=32\t1.0781\t1.2700\t48\t20\t9728\t0\t0").unwrap()
    }

    #[test]
    fn a_row_comes_back_as_it_was_written() {
        assert_eq!(Row::parse(&row().to_string()), Ok(row()));
        assert!(Row::parse(Row::COLUMNS).is_err());
        assert!(Row::parse("navi21\td=32").is_err());
    }

    #[test]
    fn each_thing_that_gets_worse_is_named_and_what_gets_better_is_not() {
        assert!(with_baseline(&[row()], &[row()]).is_empty() && with_targets(&[row()]).is_empty());
        type Spoil = fn(&mut Row);
        let spoils: [(Spoil, &str); 6] = [
            (|r| r.vector_a_term = 1.2, "a term 1.078 -> 1.200"),
            (|r| r.vector_a_sum = 1.4, "a sum 1.270 -> 1.400"),
            (|r| r.waves = 18, "waves 20 -> 18"),
            (|r| r.lds_bytes += 1, "workgroup memory 9728 -> 9729"),
            (|r| r.spills = 2, "spills 0 -> 2"),
            (|r| r.scratch_bytes = 4, "scratch 0 -> 4"),
        ];
        for (spoil, expected) in spoils {
            let mut spoilt = row();
            spoil(&mut spoilt);
            let failures = with_baseline(std::slice::from_ref(&spoilt), &[row()]);
            assert!(failures[0].reasons[0].contains(expected), "{failures:?}");
            assert!(with_baseline(&[row()], &[spoilt]).is_empty());
        }
    }

    #[test]
    fn rows_that_come_and_go_are_named() {
        assert_eq!(
            with_baseline(&[row()], &[])[0].reasons,
            ["is not in the baseline"]
        );
        assert_eq!(
            with_baseline(&[], &[row()])[0].reasons,
            ["is in the baseline only"]
        );
    }

    #[test]
    fn targets_hold_whatever_the_baseline_says() {
        let spoils: [fn(&mut Row); 4] = [
            |r| r.vector_a_term = 1.16,
            |r| r.vector_a_sum = 8.1,
            |r| r.waves = 9,
            |r| r.spills = 1,
        ];
        for spoil in spoils {
            let mut spoilt = row();
            spoil(&mut spoilt);
            assert_eq!(with_targets(&[spoilt]).len(), 1);
        }
    }
}

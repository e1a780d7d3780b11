use super::{Block, Measure};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "gap",
    label: "Days between purchases",
    unit: Unit::Days,
    high_word: "slow-returning",
    low_word: "quick-returning",
    one_word: None,
    description: "Days from the first to the last purchase, divided by the purchase days after the first; unknown for customers of one day.",
    needs: &[],
    measures: &[
        Measure::Lines {
            name: "first_day",
            sql: "MIN(day)",
        },
        Measure::Lines {
            name: "last_day",
            sql: "MAX(day)",
        },
        Measure::Distinct {
            name: "n_days",
            column: "day",
        },
    ],
    value: "CASE WHEN n_days > 1 THEN CAST(last_day - first_day AS DOUBLE) / CAST(n_days - 1 AS DOUBLE) END",
};

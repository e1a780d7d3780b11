use super::{Block, Measure, Role};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "spend",
    label: "Total spend",
    unit: Unit::Money,
    high_word: "big-spending",
    low_word: "light-spending",
    one_word: None,
    description: "Sum of the amounts.",
    needs: &[Role::Amount],
    measures: &[Measure::Lines {
        name: "spend",
        sql: "SUM(amount)",
    }],
    value: "CAST(spend AS DECIMAL(18, 4))",
};

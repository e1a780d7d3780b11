use super::{Block, Measure, Role};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "variety",
    label: "Different things bought",
    unit: Unit::Count,
    high_word: "wide-ranging",
    low_word: "focused",
    one_word: None,
    description: "Different categories bought; without a category column, different products.",
    needs: &[Role::Variety],
    measures: &[Measure::Distinct {
        name: "n_varieties",
        column: "variety",
    }],
    value: "n_varieties",
};

use super::{Block, Measure};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "frequency",
    label: "Purchases",
    unit: Unit::Count,
    high_word: "frequent",
    low_word: "occasional",
    one_word: Some("one-time"),
    description: "Baskets bought; without a basket column, days with a purchase.",
    needs: &[],
    measures: &[Measure::Distinct {
        name: "n_baskets",
        column: "basket",
    }],
    value: "n_baskets",
};

use super::{Block, Measure};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "recency",
    label: "Days since last purchase",
    unit: Unit::Days,
    high_word: "lapsed",
    low_word: "recent",
    one_word: None,
    description: "Days from the last purchase to the day the features are taken as of.",
    needs: &[],
    measures: &[Measure::Lines {
        name: "last_day",
        sql: "MAX(day)",
    }],
    value: "as_of - last_day",
};

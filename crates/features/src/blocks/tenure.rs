use super::{Block, Measure};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "tenure",
    label: "Days since first purchase",
    unit: Unit::Days,
    high_word: "long-standing",
    low_word: "new",
    one_word: None,
    description: "Days from the first purchase to the day the features are taken as of.",
    needs: &[],
    measures: &[Measure::Lines {
        name: "first_day",
        sql: "MIN(day)",
    }],
    value: "as_of - first_day",
};

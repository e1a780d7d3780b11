use super::{Block, Measure, Role};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "private_label_share",
    label: "Share of own brands",
    unit: Unit::Share,
    high_word: "own-brand",
    low_word: "name-brand",
    one_word: None,
    description: "Amounts of the retailer's own brands, divided by all amounts.",
    needs: &[Role::Amount, Role::PrivateLabel],
    measures: &[
        Measure::Lines {
            name: "spend",
            sql: "SUM(amount)",
        },
        Measure::Lines {
            name: "private_spend",
            sql: "SUM(CASE WHEN private_label THEN amount ELSE 0 END)",
        },
    ],
    value: "CASE WHEN spend > 0 THEN CAST(private_spend AS DOUBLE) / CAST(spend AS DOUBLE) ELSE 0.0 END",
};

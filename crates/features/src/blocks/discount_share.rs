use super::{Block, Measure, Role};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "discount_share",
    label: "Share saved by discounts",
    unit: Unit::Share,
    high_word: "deal-seeking",
    low_word: "full-price",
    one_word: None,
    description: "Discounts, divided by amounts and discounts together.",
    needs: &[Role::Amount, Role::Discount],
    measures: &[
        Measure::Lines {
            name: "spend",
            sql: "SUM(amount)",
        },
        Measure::Lines {
            name: "discounts",
            sql: "GREATEST(SUM(discount), -SUM(discount))",
        },
    ],
    value: "CASE WHEN spend + discounts > 0 THEN CAST(discounts AS DOUBLE) / CAST(spend + discounts AS DOUBLE) ELSE 0.0 END",
};

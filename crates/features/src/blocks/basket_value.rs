use super::{Block, Measure, Role};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "basket_value",
    label: "Spend per purchase",
    unit: Unit::Money,
    high_word: "full-basket",
    low_word: "small-basket",
    one_word: None,
    description: "Total spend divided by the number of baskets.",
    needs: &[Role::Amount],
    measures: &[
        Measure::Lines {
            name: "spend",
            sql: "SUM(amount)",
        },
        Measure::Distinct {
            name: "n_baskets",
            column: "basket",
        },
    ],
    value: "CAST(spend AS DOUBLE) / CAST(n_baskets AS DOUBLE)",
};

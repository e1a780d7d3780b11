//! The feature blocks: what can be said about a customer, one small file each.
//!
//! A block is data. It says what it needs, what to measure per customer, and how a value is made of the measures; blocks that
//! share a measure share its computation. The columns a measure can use are those of `lines` (see `sql.rs`): `customer`, `day`
//! (days since 1970-01-01), `basket`, and where mapped `amount`, `discount`, `coupon` (money, DECIMAL), `private_label`,
//! `variety`.

mod basket_value;
mod coupon_share;
mod discount_share;
mod frequency;
mod gap;
mod private_label_share;
mod recency;
mod spend;
mod tenure;
mod variety;

use crate::dictionary::{FeatureEntry, Unit};

/// Every block, in the order in which features appear by default.
pub(crate) const BLOCKS: &[&Block] = &[
    &recency::BLOCK,
    &frequency::BLOCK,
    &spend::BLOCK,
    &tenure::BLOCK,
    &gap::BLOCK,
    &basket_value::BLOCK,
    &variety::BLOCK,
    &discount_share::BLOCK,
    &private_label_share::BLOCK,
    &coupon_share::BLOCK,
];

/// One feature and how it is made.
#[derive(Debug)]
pub(crate) struct Block {
    /// Name in the config and of the column.
    pub name: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// How values are printed.
    pub unit: Unit,
    /// Adjective for a customer with a high value.
    pub high_word: &'static str,
    /// Adjective for a customer with a low value.
    pub low_word: &'static str,
    /// The adjective for a customer whose value is exactly 1, where there is a better one than for a low value.
    pub one_word: Option<&'static str>,
    /// How it is computed, in one sentence.
    pub description: &'static str,
    /// Columns that must be mapped, besides the customer and the timestamp.
    pub needs: &'static [Role],
    /// What to measure for each customer.
    pub measures: &'static [Measure],
    /// The value, as SQL over the measures and `as_of` (days since 1970-01-01); one division at most.
    pub value: &'static str,
}

/// A number per customer that a value is made of. Two measures of one name are one measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// A sum, minimum or maximum of integers or decimals over a customer's lines.
    Lines {
        /// Its name in `value`.
        name: &'static str,
        /// The aggregate.
        sql: &'static str,
    },
    /// How many different values of a column a customer's lines hold, nulls aside.
    Distinct {
        /// Its name in `value`.
        name: &'static str,
        /// The column of `lines`.
        column: &'static str,
    },
}

impl Measure {
    /// Its name in the `value` of a block.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lines { name, .. } | Self::Distinct { name, .. } => name,
        }
    }
}

/// A meaning that a column or predicate of the config can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Money paid.
    Amount,
    /// Money taken off.
    Discount,
    /// Money taken off by coupons.
    Coupon,
    /// Whether the line is of the retailer's own brand.
    PrivateLabel,
    /// The category, or else the product.
    Variety,
}

impl Role {
    /// The key of the config that fills the role.
    pub fn key(self) -> &'static str {
        match self {
            Self::Amount => "tables.transactions.amount",
            Self::Discount => "tables.transactions.discount",
            Self::Coupon => "tables.transactions.coupon_discount",
            Self::PrivateLabel => "tables.products.private_label",
            Self::Variety => "tables.transactions.product",
        }
    }
}

impl Block {
    /// The block's entry in the dictionary.
    pub fn entry(&self) -> FeatureEntry {
        FeatureEntry {
            name: self.name.into(),
            label: self.label.into(),
            unit: self.unit,
            high_word: self.high_word.into(),
            low_word: self.low_word.into(),
            one_word: self.one_word.map(Into::into),
            description: self.description.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn names_are_unique_and_measures_of_one_name_are_the_same() {
        let mut measures: HashMap<&str, Measure> = HashMap::new();
        let mut names: Vec<&str> = BLOCKS.iter().map(|block| block.name).collect();
        for measure in BLOCKS.iter().flat_map(|block| block.measures) {
            assert_eq!(measures.entry(measure.name()).or_insert(*measure), measure);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BLOCKS.len());
    }

    #[test]
    fn every_block_can_be_read_by_people() {
        for block in BLOCKS {
            for text in [
                block.label,
                block.high_word,
                block.low_word,
                block.description,
            ] {
                assert!(!text.is_empty(), "{}", block.name);
            }
            assert!(block.description.ends_with('.'), "{}", block.name);
        }
    }
}

use super::{Block, Measure, Role};
use crate::dictionary::Unit;

pub(super) const BLOCK: Block = Block {
    name: "coupon_share",
    label: "Share saved by coupons",
    unit: Unit::Share,
    high_word: "coupon-using",
    low_word: "coupon-free",
    one_word: None,
    description: "Coupon discounts, divided by amounts and coupon discounts together.",
    needs: &[Role::Amount, Role::Coupon],
    measures: &[
        Measure::Lines {
            name: "spend",
            sql: "SUM(amount)",
        },
        Measure::Lines {
            name: "coupons",
            sql: "GREATEST(SUM(coupon), -SUM(coupon))",
        },
    ],
    value: "CASE WHEN spend + coupons > 0 THEN CAST(coupons AS DOUBLE) / CAST(spend + coupons AS DOUBLE) ELSE 0.0 END",
};

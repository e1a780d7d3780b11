//! What a feature table says about itself: its columns for people to read, and what was counted while it was made.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a feature is measured in; decides how its values are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Whole or fractional days.
    Days,
    /// Things counted: baskets, products.
    Count,
    /// An amount in the currency of the amount column.
    Money,
    /// A part of a whole, 0 to 1 where nothing was returned.
    Share,
    /// Anything else.
    Number,
}

/// One column of the feature table, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureEntry {
    /// The column's name.
    pub name: String,
    /// What people call it, in sentence case: "Days since last purchase".
    pub label: String,
    /// How its values are printed.
    pub unit: Unit,
    /// The adjective for a customer with a high value: "lapsed".
    pub high_word: String,
    /// The adjective for a customer with a low value: "recent".
    pub low_word: String,
    /// The adjective for a customer whose value is exactly 1: "one-time". None: as for a low value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_word: Option<String>,
    /// How it is computed, in one sentence.
    pub description: String,
}

/// What became of the transaction lines; each line is counted once, under the first reason that applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCounts {
    /// Lines in the table.
    pub read: u64,
    /// Dropped: the customer is null.
    pub no_customer: u64,
    /// Dropped: the timestamp is null.
    pub no_timestamp: u64,
    /// Dropped: an amount column is mapped and null here.
    pub no_amount: u64,
    /// Dropped: a basket column is mapped and null here.
    pub no_basket: u64,
    /// Dropped: `where` does not hold.
    pub filtered: u64,
    /// Dropped: on or after the day the features are taken as of.
    pub after_as_of: u64,
    /// What is left, and what the features are made from.
    pub kept: u64,
    /// Of the kept lines, those whose product is not in the product table.
    pub unknown_product: u64,
}

/// What became of the customers with at least one kept line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerCounts {
    /// Customers with a kept line.
    pub seen: u64,
    /// Left out: below the minimum activity.
    pub below_activity: u64,
    /// Rows of the feature table.
    pub kept: u64,
}

/// A feature table on disk, and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureTable {
    /// `features.parquet`, sorted by customer, one row each.
    pub path: PathBuf,
    /// `features.json`: everything here except paths and seconds, for readers of the table.
    pub dictionary_path: PathBuf,
    /// Name of the id column, as in the transactions; its type is the source's.
    pub id_column: String,
    /// The columns to cluster on, in the order of the file.
    pub features: Vec<FeatureEntry>,
    /// The column that says what a customer is worth; also a column of the file, and not always one of `features`.
    pub value: Option<FeatureEntry>,
    /// The day the features are taken as of, `YYYY-MM-DD`: purchases before it count.
    pub as_of: String,
    /// Lines read, dropped by reason, kept.
    pub lines: LineCounts,
    /// Customers seen, left out, kept.
    pub customers: CustomerCounts,
    /// The statement that made the table, for people who want to check it.
    pub sql: String,
    /// Wall time of [`build`](crate::build), in seconds.
    pub seconds: f64,
}

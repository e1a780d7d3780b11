//! What a column might be, from its name and type. A guess, for a person to look over.

use arrow::datatypes::{DataType, Field, Schema};

use crate::tables::{ColumnRole, is_text, value_type};

/// Points that words of a name give; a column with a word of `never` is out.
struct Words {
    points: &'static [(&'static [&'static str], u32)],
    never: &'static [&'static str],
}

const ID: (&[&str], u32) = (&["id", "key", "no", "nr", "num", "number", "code"], 1);

const CUSTOMER: Words = Words {
    points: &[
        (
            &[
                "customer",
                "household",
                "client",
                "member",
                "shopper",
                "cust",
                "hshd",
                "hh",
            ],
            4,
        ),
        (&["user", "buyer", "account", "loyalty", "card"], 3),
        ID,
    ],
    never: &[
        "age", "name", "type", "segment", "since", "count", "group", "category", "address",
    ],
};

const BASKET: Words = Words {
    points: &[
        (&["basket", "receipt", "invoice", "ticket"], 5),
        (&["order", "transaction", "trip", "visit", "bill"], 4),
        ID,
    ],
    never: &[
        "date", "time", "day", "line", "type", "status", "total", "amount", "value", "item",
    ],
};

const PRODUCT: Words = Words {
    points: &[
        (&["product", "sku", "article", "stock", "prod"], 5),
        (
            &["item", "upc", "ean", "gtin", "asin", "plu", "material"],
            4,
        ),
        ID,
    ],
    never: &[
        "name",
        "description",
        "desc",
        "category",
        "type",
        "group",
        "size",
        "coupon",
        "count",
        "line",
    ],
};

const AMOUNT: Words = Words {
    points: &[
        (&["sales", "amount", "amt", "revenue", "spend", "spent"], 4),
        (
            &["dollar", "dollars", "paid", "turnover", "euro", "euros"],
            3,
        ),
        (&["value", "net", "total"], 2),
        (&["price"], 1),
    ],
    never: &[
        "id",
        "key",
        "tax",
        "vat",
        "cost",
        "unit",
        "disc",
        "discount",
        "discounts",
        "coupon",
        "quantity",
        "qty",
        "rank",
        "margin",
        "shipping",
    ],
};

const DISCOUNT: Words = Words {
    points: &[(
        &[
            "disc",
            "discount",
            "discounts",
            "rebate",
            "markdown",
            "saving",
            "savings",
        ],
        4,
    )],
    never: &[
        "id", "key", "code", "coupon", "voucher", "pct", "percent", "rate", "type",
    ],
};

const COUPON: Words = Words {
    points: &[(&["coupon", "voucher"], 4)],
    never: &[
        "id", "key", "code", "upc", "pct", "percent", "rate", "type", "count", "number", "no",
    ],
};

const CATEGORY: Words = Words {
    points: &[
        (&["category", "commodity"], 5),
        (&["department", "dept"], 4),
        (&["class", "family", "group", "aisle", "section"], 3),
    ],
    never: &["description", "sub"],
};

const BRAND: Words = Words {
    points: &[(&["brand"], 4), (&["label"], 3)],
    never: &["id", "key", "code"],
};

const OWN_BRAND: Words = Words {
    points: &[(&["private", "own"], 4)],
    never: &[],
};

const TIME: Words = Words {
    points: &[
        (&["local"], 3),
        (
            &[
                "transaction",
                "order",
                "purchase",
                "invoice",
                "sale",
                "sold",
            ],
            2,
        ),
        (&["ts", "time", "timestamp", "datetime", "date", "day"], 1),
    ],
    never: &[
        "birth",
        "born",
        "start",
        "end",
        "expiry",
        "created",
        "updated",
        "loaded",
        "redemption",
        "signup",
    ],
};

/// Column names of a table by what they might be.
#[derive(Debug, Default)]
pub(super) struct Guess {
    pub customer: Option<String>,
    /// Best first.
    pub timestamps: Vec<String>,
    pub amount: Option<String>,
    pub basket: Option<String>,
    pub product: Option<String>,
    pub discounts: Vec<String>,
    pub coupons: Vec<String>,
    pub category: Option<String>,
    /// Text that may name the retailer's own brands among others.
    pub brand: Option<String>,
    /// Yes or no: is it an own brand.
    pub own_brand: Option<String>,
}

impl Guess {
    /// Looks at every column of a table.
    pub fn new(schema: &Schema) -> Self {
        let text = |t: &DataType| is_text(value_type(t));
        let money = |t: &DataType| ColumnRole::Money.suits(t);
        let key = |t: &DataType| value_type(t).is_integer() || is_text(value_type(t));
        Self {
            customer: best(schema, &CUSTOMER, |t| ColumnRole::Customer.suits(t)),
            timestamps: timestamps(schema),
            amount: best(schema, &AMOUNT, money),
            basket: best(schema, &BASKET, key),
            product: best(schema, &PRODUCT, key),
            discounts: all(schema, &DISCOUNT, money),
            coupons: all(schema, &COUPON, money),
            category: best(schema, &CATEGORY, key),
            brand: best(schema, &BRAND, text),
            own_brand: best(schema, &OWN_BRAND, |t| *t == DataType::Boolean),
        }
    }

    /// What transactions need and this table lacks, in words.
    pub fn lacks(&self) -> Vec<&'static str> {
        let needs = [
            (self.customer.is_none(), "a customer id"),
            (self.timestamps.is_empty(), "a date or timestamp"),
            (self.amount.is_none(), "an amount"),
        ];
        needs
            .into_iter()
            .filter(|(lacks, _)| *lacks)
            .map(|(_, what)| what)
            .collect()
    }
}

/// The column with the most points; the first of equals.
fn best(schema: &Schema, words: &Words, suits: impl Fn(&DataType) -> bool) -> Option<String> {
    let scored = schema
        .fields()
        .iter()
        .filter(|field| suits(field.data_type()));
    let scored = scored.map(|field| (points(field.name(), words), field.name()));
    // `max_by_key` would give the last of equals.
    let best = scored.rev().max_by_key(|(points, _)| *points)?;
    (best.0 > 1).then(|| best.1.clone())
}

/// Every column with points.
fn all(schema: &Schema, words: &Words, suits: impl Fn(&DataType) -> bool) -> Vec<String> {
    let suiting = schema
        .fields()
        .iter()
        .filter(|field| suits(field.data_type()));
    let chosen = suiting.filter(|field| points(field.name(), words) > 1);
    chosen.map(|field| field.name().clone()).collect()
}

/// Columns that hold a time, best first: local times, then dates, then instants, which need a zone.
fn timestamps(schema: &Schema) -> Vec<String> {
    let mut scored: Vec<(u32, &Field)> = Vec::new();
    for field in schema.fields() {
        let by_type = match field.data_type() {
            DataType::Timestamp(_, None) => 3,
            DataType::Date32 | DataType::Date64 => 2,
            DataType::Timestamp(_, Some(_)) => 1,
            _ => continue,
        };
        if !name_words(field.name())
            .iter()
            .any(|word| TIME.never.contains(&word.as_str()))
        {
            scored.push((by_type + points(field.name(), &TIME), field));
        }
    }
    // Stable: equals stay in the order of the file.
    scored.sort_by_key(|(points, _)| std::cmp::Reverse(*points));
    scored
        .into_iter()
        .map(|(_, field)| field.name().clone())
        .collect()
}

/// Points of a name.
fn points(name: &str, words: &Words) -> u32 {
    let name = name_words(name);
    let has = |word: &&str| name.iter().any(|own| own == word);
    if words.never.iter().any(has) {
        return 0;
    }
    let hits = words
        .points
        .iter()
        .filter(|(of_these, _)| of_these.iter().any(has));
    hits.map(|(_, points)| points).sum()
}

/// The words of a name, in lower case: `CustomerID`, `customer_id` and `Customer Id` have the same.
fn name_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for letter in name.chars() {
        let starts_word = letter.is_uppercase() && after_lower;
        if (starts_word || !letter.is_alphanumeric()) && words.last().is_some_and(|w| !w.is_empty())
        {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        after_lower = letter.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn schema(columns: &[(&str, DataType)]) -> Schema {
        Schema::new(
            columns
                .iter()
                .map(|(n, t)| Field::new(*n, t.clone(), true))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn names_are_cut_into_words_however_they_are_spelled() {
        for name in [
            "CustomerID",
            "customer_id",
            "Customer Id",
            "customer-id",
            "customerId",
        ] {
            assert_eq!(name_words(name), ["customer", "id"], "{name}");
        }
        assert_eq!(name_words("TOTAL"), ["total"]);
    }

    #[test]
    fn an_online_retailer_is_read() {
        let guess = Guess::new(&schema(&[
            ("InvoiceNo", DataType::Utf8),
            ("StockCode", DataType::Utf8),
            ("Description", DataType::Utf8),
            ("Quantity", DataType::Int64),
            (
                "InvoiceDate",
                DataType::Timestamp(TimeUnit::Nanosecond, None),
            ),
            ("UnitPrice", DataType::Float64),
            ("CustomerID", DataType::Int64),
            ("Country", DataType::Utf8),
            ("LineTotal", DataType::Float64),
        ]));
        assert_eq!(guess.customer.as_deref(), Some("CustomerID"));
        assert_eq!(guess.basket.as_deref(), Some("InvoiceNo"));
        assert_eq!(guess.product.as_deref(), Some("StockCode"));
        assert_eq!(guess.timestamps, ["InvoiceDate"]);
        assert_eq!(guess.amount.as_deref(), Some("LineTotal"));
    }

    #[test]
    fn a_price_of_one_unit_or_a_tax_is_no_amount() {
        let guess = Guess::new(&schema(&[
            ("unit_price", DataType::Float64),
            ("tax_amount", DataType::Float64),
        ]));
        assert_eq!(guess.amount, None);
    }

    #[test]
    fn local_times_come_before_dates_and_instants() {
        let guess = Guess::new(&schema(&[
            (
                "ts_utc",
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            ),
            ("date", DataType::Date32),
            ("ts_local", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ("birth_date", DataType::Date32),
        ]));
        assert_eq!(guess.timestamps, ["ts_local", "date", "ts_utc"]);
    }
}

//! Every feature, on a shop small enough to work out by hand.

use arrow::array::*;
use arrow::datatypes::{DataType, Int32Type};
use clientele_features::{CustomerCounts, LineCounts, Unit};

use crate::common::{Shop, column, customers, read, value, write};

const CONFIG: &str = r#"
[tables.transactions]
path = "tx.parquet"
customer = "customer"
timestamp = "ts"
amount = "sales"
basket = "basket"
product = "product"
discount = "disc"
coupon_discount = ["coupon", "match"]
where = "department <> 'FUEL'"

[tables.products]
path = "products.parquet"
product = "product"
category = "department"
private_label = "brand = 'Private'"

[features]
as_of = 2024-03-01
"#;

/// Milliseconds of a time in January 2024 plus some days.
fn at(day: i64, hour: i64) -> Option<i64> {
    Some(1_704_067_200_000 + ((day - 1) * 24 + hour) * 3_600_000)
}

/// (customer, time, basket, product, sales, discount, coupon, match)
type Line = (
    Option<&'static str>,
    Option<i64>,
    Option<i64>,
    Option<i32>,
    Option<f64>,
    f64,
    f64,
    f64,
);

const JAN: i64 = 0;
const FEB: i64 = 31;

/// Three customers, and one line for each way to be dropped.
fn lines() -> Vec<Line> {
    let (ann, bob, dan) = (Some("ann"), Some("bob"), Some("dan"));
    vec![
        (
            ann,
            at(JAN + 1, 10),
            Some(1),
            Some(1),
            Some(10.0),
            1.0,
            0.0,
            0.0,
        ),
        (
            ann,
            at(JAN + 1, 10),
            Some(1),
            Some(2),
            Some(5.5),
            0.0,
            0.25,
            0.25,
        ),
        (
            ann,
            at(JAN + 11, 23),
            Some(2),
            Some(1),
            Some(4.5),
            0.0,
            0.0,
            0.0,
        ),
        (
            ann,
            at(JAN + 31, 0),
            Some(3),
            Some(3),
            Some(20.0),
            4.0,
            0.0,
            0.0,
        ),
        (
            bob,
            at(FEB + 29, 23),
            Some(4),
            Some(9),
            Some(3.0),
            0.0,
            0.0,
            0.0,
        ),
        (
            dan,
            at(FEB + 1, 12),
            Some(5),
            Some(1),
            Some(10.0),
            2.0,
            0.0,
            0.0,
        ),
        (
            dan,
            at(FEB + 10, 12),
            Some(6),
            Some(1),
            Some(-10.0),
            -2.0,
            0.0,
            0.0,
        ),
        (
            Some("cat"),
            at(FEB + 1, 12),
            Some(7),
            Some(4),
            Some(50.0),
            0.0,
            0.0,
            0.0,
        ),
        (None, at(1, 0), Some(8), Some(1), Some(1.0), 0.0, 0.0, 0.0),
        (ann, None, Some(9), Some(1), Some(1.0), 0.0, 0.0, 0.0),
        (ann, at(1, 0), Some(10), Some(1), None, 0.0, 0.0, 0.0),
        (ann, at(1, 0), None, Some(1), Some(1.0), 0.0, 0.0, 0.0),
        (
            ann,
            at(FEB + 30, 0),
            Some(11),
            Some(1),
            Some(1.0),
            0.0,
            0.0,
            0.0,
        ),
    ]
}

fn write_tables(shop: &Shop, lines: &[Line]) {
    write(
        &shop.path("tx.parquet"),
        vec![
            (
                "customer",
                column(lines.iter().map(|l| l.0).collect::<StringArray>()),
            ),
            (
                "ts",
                column(
                    lines
                        .iter()
                        .map(|l| l.1)
                        .collect::<TimestampMillisecondArray>(),
                ),
            ),
            (
                "basket",
                column(lines.iter().map(|l| l.2).collect::<Int64Array>()),
            ),
            (
                "product",
                column(lines.iter().map(|l| l.3).collect::<Int32Array>()),
            ),
            (
                "sales",
                column(lines.iter().map(|l| l.4).collect::<Float64Array>()),
            ),
            (
                "disc",
                column(lines.iter().map(|l| Some(l.5)).collect::<Float64Array>()),
            ),
            (
                "coupon",
                column(lines.iter().map(|l| Some(l.6)).collect::<Float64Array>()),
            ),
            (
                "match",
                column(lines.iter().map(|l| Some(l.7)).collect::<Float64Array>()),
            ),
        ],
    );
    write(
        &shop.path("products.parquet"),
        vec![
            ("product", column(Int64Array::from(vec![1, 2, 3, 4]))),
            (
                "department",
                column(StringArray::from(vec!["FOOD", "DRUGS", "FOOD", "FUEL"])),
            ),
            (
                "brand",
                column(StringArray::from(vec![
                    "National", "Private", "National", "Private",
                ])),
            ),
        ],
    );
}

fn shop(toml: &str) -> Shop {
    let shop = Shop::new(toml);
    write_tables(&shop, &lines());
    shop
}

#[test]
fn every_feature_is_what_a_person_works_out() {
    let (_shop, table) = shop(CONFIG).build_kept();
    let expected = [
        // ann: 1 Jan, 11 Jan, 31 Jan; 10 + 5.50 + 4.50 + 20 in three baskets.
        ("ann", "recency", "30"),
        ("ann", "frequency", "3"),
        ("ann", "spend", "40.0000"),
        ("ann", "tenure", "60"),
        ("ann", "gap", "15.0"),
        ("ann", "basket_value", "13.333333333333334"),
        ("ann", "variety", "2"),
        ("ann", "discount_share", "0.1111111111111111"),
        ("ann", "private_label_share", "0.1375"),
        ("ann", "coupon_share", "0.012345679012345678"),
        // bob bought once, something nobody described.
        ("bob", "recency", "1"),
        ("bob", "tenure", "1"),
        ("bob", "gap", ""),
        ("bob", "spend", "3.0000"),
        ("bob", "variety", "0"),
        ("bob", "private_label_share", "0.0"),
        // dan returned what he bought: no shares of nothing.
        ("dan", "frequency", "2"),
        ("dan", "spend", "0.0000"),
        ("dan", "basket_value", "0.0"),
        ("dan", "discount_share", "0.0"),
    ];
    for (customer, feature, expected) in expected {
        assert_eq!(
            value(&table, customer, feature),
            expected,
            "{feature} of {customer}"
        );
    }
    assert_eq!(customers(&table), ["ann", "bob", "dan"]);
}

#[test]
fn every_line_is_counted_once_under_the_first_reason_to_drop_it() {
    let (_shop, table) = shop(CONFIG).build_kept();
    let expected = LineCounts {
        read: 13,
        no_customer: 1,
        no_timestamp: 1,
        no_amount: 1,
        no_basket: 1,
        filtered: 1,
        after_as_of: 1,
        kept: 7,
        unknown_product: 1,
    };
    assert_eq!(table.lines, expected);
    assert_eq!(
        table.customers,
        CustomerCounts {
            seen: 3,
            below_activity: 0,
            kept: 3
        }
    );
}

#[test]
fn a_discount_written_as_a_negative_number_is_the_same_discount() {
    let shop = Shop::new(CONFIG);
    let negative: Vec<Line> = lines()
        .into_iter()
        .map(|l| (l.0, l.1, l.2, l.3, l.4, -l.5, -l.6, -l.7))
        .collect();
    write_tables(&shop, &negative);
    let (_shop, table) = shop.build_kept();
    assert_eq!(value(&table, "ann", "discount_share"), "0.1111111111111111");
    assert_eq!(value(&table, "ann", "coupon_share"), "0.012345679012345678");
}

#[test]
fn without_as_of_the_day_after_the_last_kept_line_counts() {
    let (_shop, table) = shop(&CONFIG.replace("as_of = 2024-03-01", "")).build_kept();
    // The line of 1 March now counts.
    assert_eq!(table.as_of, "2024-03-02");
    assert_eq!(value(&table, "ann", "recency"), "1");
    assert_eq!(value(&table, "bob", "recency"), "2");
}

#[test]
fn customers_below_the_minimum_activity_are_counted_and_left_out() {
    let (_shop, table) = shop(&format!(
        "{CONFIG}[activity]\nmin_baskets = 2\nmin_spend = 0.01\n"
    ))
    .build_kept();
    assert_eq!(customers(&table), ["ann"]);
    assert_eq!(
        table.customers,
        CustomerCounts {
            seen: 3,
            below_activity: 2,
            kept: 1
        }
    );
}

#[test]
fn only_the_features_asked_for_are_made_and_in_that_order() {
    let (_shop, table) =
        shop(&CONFIG.replace("as_of", "use = [\"variety\", \"recency\"]\nas_of")).build_kept();
    let rows = read(&table.path);
    let names: Vec<_> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    // Spend is what a customer is worth, unless the config says otherwise, and not a feature here.
    assert_eq!(names, ["customer", "variety", "recency", "spend"]);
    let entries: Vec<&str> = table
        .features
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    assert_eq!(entries, ["variety", "recency"]);
    assert_eq!(
        table.value.as_ref().map(|entry| entry.unit),
        Some(Unit::Money)
    );
}

#[test]
fn two_columns_are_enough() {
    let (_shop, table) =
        shop("[tables.transactions]\npath = \"tx.parquet\"\ncustomer = \"customer\"\ntimestamp = \"ts\"\n").build_kept();
    let entries: Vec<&str> = table
        .features
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    assert_eq!(entries, ["recency", "frequency", "tenure", "gap"]);
    assert_eq!(table.value, None);
    // 1 Jan, 11 Jan, 31 Jan, 1 March: without baskets, days.
    assert_eq!(value(&table, "ann", "frequency"), "4");
}

#[test]
fn an_instant_belongs_to_the_day_of_the_shops_zone() {
    let days = |timezone: &str| {
        let toml = format!(
            "[tables.transactions]\npath = \"tx.parquet\"\ncustomer = \"c\"\ntimestamp = \"t\"\n{timezone}"
        );
        let shop = Shop::new(&toml);
        // 2 January 03:00 and 12:00 in Greenwich; the first is 1 January, 22:00, in New York.
        let instants =
            TimestampSecondArray::from(vec![1_704_164_400, 1_704_196_800]).with_timezone("UTC");
        write(
            &shop.path("tx.parquet"),
            vec![
                ("c", column(Int64Array::from(vec![7, 7]))),
                ("t", column(instants)),
            ],
        );
        let (_shop, table) = shop.build_kept();
        value(&table, "7", "frequency")
    };
    assert_eq!(days(""), "1");
    assert_eq!(days("timezone = \"America/New_York\"\n"), "2");
    assert_eq!(days("timezone = \"-05:00\"\n"), "2");
}

#[test]
fn ids_keep_the_type_of_the_source() {
    let dates = || column(Date32Array::from(vec![19_000, 19_001]));
    let dictionary: DictionaryArray<Int32Type> = vec!["a", "b"].into_iter().collect();
    let ids: [(ArrayRef, DataType); 6] = [
        (column(Int16Array::from(vec![1, 2])), DataType::Int16),
        (
            column(UInt64Array::from(vec![1, u64::MAX])),
            DataType::UInt64,
        ),
        (column(StringArray::from(vec!["a", "b"])), DataType::Utf8),
        (
            column(LargeStringArray::from(vec!["a", "b"])),
            DataType::LargeUtf8,
        ),
        (
            column(StringViewArray::from(vec!["a", "b"])),
            DataType::Utf8View,
        ),
        (column(dictionary), DataType::Utf8),
    ];
    for (array, expected) in ids {
        let shop = Shop::new(
            "[tables.transactions]\npath = \"tx.parquet\"\ncustomer = \"Customer Id\"\ntimestamp = \"t\"\n",
        );
        write(
            &shop.path("tx.parquet"),
            vec![("Customer Id", array), ("t", dates())],
        );
        let (_shop, table) = shop.build_kept();
        assert_eq!(read(&table.path).schema().field(0).data_type(), &expected);
        assert_eq!(customers(&table).len(), 2);
    }
}

#[test]
fn money_may_be_of_any_numeric_type() {
    let dates = column(Date32Array::from(vec![19_000, 19_001, 19_002]));
    let decimal = |precision, scale, values: Vec<i128>| {
        column(
            Decimal128Array::from(values)
                .with_precision_and_scale(precision, scale)
                .unwrap(),
        )
    };
    let amounts: [(ArrayRef, &str); 6] = [
        (column(Float64Array::from(vec![0.1, 0.1, 0.1])), "0.3000"),
        (column(Float32Array::from(vec![0.1, 0.1, 0.1])), "0.3000"),
        (column(Int32Array::from(vec![1, 2, 3])), "6.0000"),
        (column(UInt8Array::from(vec![1, 2, 3])), "6.0000"),
        (decimal(9, 2, vec![10, 10, 10]), "0.3000"),
        (decimal(38, 10, vec![1_000_000_000; 3]), "0.3000"),
    ];
    for (array, expected) in amounts {
        let data_type = array.data_type().clone();
        let shop = Shop::new(
            "[tables.transactions]\npath = \"tx.parquet\"\ncustomer = \"c\"\ntimestamp = \"t\"\namount = \"a\"\n",
        );
        write(
            &shop.path("tx.parquet"),
            vec![
                ("c", column(Int64Array::from(vec![1, 1, 1]))),
                ("t", dates.clone()),
                ("a", array),
            ],
        );
        let (_shop, table) = shop.build_kept();
        assert_eq!(value(&table, "1", "spend"), expected, "{data_type}");
    }
}

#[test]
fn a_predicate_drops_what_is_not_true_of_a_described_product() {
    // Brand and department of product 3 are null: SQL cannot say that its department is not FUEL.
    let shop = Shop::new(CONFIG);
    write_tables(&shop, &lines());
    write(
        &shop.path("products.parquet"),
        vec![
            ("product", column(Int64Array::from(vec![1, 2, 3, 4]))),
            (
                "department",
                column(StringArray::from(vec![
                    Some("FOOD"),
                    Some("DRUGS"),
                    None,
                    Some("FUEL"),
                ])),
            ),
            ("brand", column(StringArray::from(vec![None::<&str>; 4]))),
        ],
    );
    let (_shop, table) = shop.build_kept();
    assert_eq!((table.lines.filtered, table.lines.unknown_product), (2, 1));
    assert_eq!(value(&table, "ann", "spend"), "20.0000");
}

#[test]
fn the_dictionary_beside_the_table_says_what_it_holds() {
    let (_shop, table) = shop(CONFIG).build_kept();
    let text = std::fs::read_to_string(&table.dictionary_path).unwrap();
    let dictionary: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(dictionary["id_column"], "customer");
    assert_eq!(dictionary["as_of"], "2024-03-01");
    assert_eq!(
        dictionary["features"][0]["label"],
        "Days since last purchase"
    );
    assert_eq!(dictionary["lines"]["kept"], 7);
    assert_eq!(dictionary["sql"], table.sql);
}

impl Shop {
    /// The table, with the shop that must live as long.
    fn build_kept(self) -> (Shop, clientele_features::FeatureTable) {
        let table = self.build().unwrap();
        (self, table)
    }
}

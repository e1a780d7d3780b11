//! What people get for a config or tables that cannot work: the fact, the class, the way out.

use arrow::array::*;
use clientele_features::{BuildOptions, ErrorKind, FeatureError, build};

use crate::common::{Shop, column, write};

const CONFIG: &str = r#"
[tables.transactions]
path = "tx"
customer = "customer_id"
timestamp = "day"
amount = "sales"
product = "product"
where = "sales >= 0"

[tables.products]
path = "products.parquet"
product = "product"
private_label = "brand = 'Private'"
"#;

/// A shop that works, its config changed in one place.
fn shop(from: &str, to: &str) -> Shop {
    assert!(CONFIG.contains(from), "the config holds no {from}");
    let shop = Shop::new(&CONFIG.replace(from, to));
    std::fs::create_dir(shop.path("tx")).unwrap();
    write_transactions(
        &shop,
        "a",
        column(Int64Array::from(vec![1, 2])),
        column(Float64Array::from(vec![5.0, 7.0])),
    );
    write_products(&shop, vec![10, 11]);
    shop
}

fn write_transactions(shop: &Shop, file: &str, customers: ArrayRef, sales: ArrayRef) {
    write(
        &shop.path(&format!("tx/{file}.parquet")),
        vec![
            ("customer_id", customers),
            ("day", column(Date32Array::from(vec![19_000, 19_001]))),
            ("sales", sales),
            ("product", column(Int32Array::from(vec![10, 11]))),
            ("name", column(StringArray::from(vec!["x", "y"]))),
        ],
    );
}

fn write_products(shop: &Shop, products: Vec<i32>) {
    let brands: StringArray = products.iter().map(|_| Some("Private")).collect();
    write(
        &shop.path("products.parquet"),
        vec![
            ("product", column(Int32Array::from(products))),
            ("brand", column(brands)),
        ],
    );
}

/// Holds the error against what must be in its text, its class and its hint.
fn check(error: &FeatureError, kind: ErrorKind, texts: &[&str], hint: Option<&str>) {
    let message = error.to_string();
    for text in texts {
        assert!(message.contains(text), "no `{text}` in: {message}");
    }
    assert_eq!(error.kind(), kind, "{message}");
    assert_eq!(error.hint().as_deref(), hint, "{message}");
    assert!(
        message.starts_with(|c: char| c.is_lowercase() || "`0123456789".contains(c)),
        "{message}"
    );
    assert!(
        !message.ends_with('.') && !message.contains('\n'),
        "{message}"
    );
}

#[test]
fn the_shop_of_these_tests_works() {
    shop("sales >= 0", "sales >= 0").build().unwrap();
}

#[test]
fn a_missing_column_is_named_with_its_table_and_the_nearest_column() {
    let error = shop("customer = \"customer_id\"", "customer = \"custmer_id\"").error();
    check(
        &error,
        ErrorKind::Input,
        &[
            "table `transactions` has no column `custmer_id`",
            "a.parquet",
        ],
        Some("the nearest column is `customer_id`"),
    );
    let error = shop(
        "product = \"product\"\nprivate",
        "product = \"producd\"\nprivate",
    )
    .error();
    check(
        &error,
        ErrorKind::Input,
        &["table `products` has no column `producd`"],
        Some("the nearest column is `product`"),
    );
}

#[test]
fn a_column_that_one_of_two_files_lacks_is_named_with_the_file() {
    let shop = shop("sales >= 0", "sales >= 0");
    write(
        &shop.path("tx/b.parquet"),
        vec![("customer_id", column(Int64Array::from(vec![1])))],
    );
    check(
        &shop.error(),
        ErrorKind::Input,
        &["has no column `day`", "b.parquet"],
        None,
    );
}

#[test]
fn a_column_of_two_types_is_named_with_both_files_and_both_types() {
    let shop = shop("sales >= 0", "sales >= 0");
    let customers = column(StringArray::from(vec!["1", "2"]));
    write_transactions(
        &shop,
        "b",
        customers,
        column(Float64Array::from(vec![1.0, 2.0])),
    );
    let texts = ["`customer_id`", "Int64", "a.parquet", "Utf8", "b.parquet"];
    check(&shop.error(), ErrorKind::Input, &texts, None);
}

#[test]
fn a_column_whose_type_does_not_suit_its_role_is_named_with_the_type() {
    for (from, to, texts) in [
        (
            "timestamp = \"day\"",
            "timestamp = \"name\"",
            ["cannot be the timestamp", "Utf8", "a date or a timestamp"],
        ),
        (
            "amount = \"sales\"",
            "amount = \"name\"",
            ["cannot be the money", "Utf8", "a number"],
        ),
        (
            "customer = \"customer_id\"",
            "customer = \"sales\"",
            ["cannot be the customer", "Float64", "an integer or text"],
        ),
    ] {
        let error = shop(from, to).error();
        assert!(matches!(error, FeatureError::ColumnType { .. }));
        let hint = error.hint();
        check(&error, ErrorKind::Input, &texts, hint.as_deref());
    }
}

#[test]
fn predicates_are_checked_before_anything_runs() {
    let sql = |predicate: &str| shop("sales >= 0", predicate).error();
    let error = sql("saless > 0");
    check(
        &error,
        ErrorKind::Usage,
        &["`tables.transactions.where` names the column `saless`"],
        Some("the nearest column is `sales`"),
    );
    for (predicate, reason) in [
        ("sales >", "Expected"),
        ("sales > 0 brand", "`brand` after the end"),
        ("sales > 0; DROP TABLE x", "after the end"),
        ("sales + 1", "Float64, not true or false"),
        ("SUM(sales) > 1", "aggregates"),
        ("sales > (SELECT 1)", ""),
        ("random_function(sales)", "random_function"),
        ("uuid() = 'x'", ""),
    ] {
        let error = sql(predicate);
        assert!(
            matches!(error, FeatureError::Predicate { .. }),
            "{predicate}: {error:?}"
        );
        let hint = error.hint();
        check(
            &error,
            ErrorKind::Usage,
            &[
                "`tables.transactions.where` is not a usable SQL predicate",
                reason,
            ],
            hint.as_deref(),
        );
    }
}

#[test]
fn features_that_are_not_or_cannot_be_are_named() {
    let with = |features: &str| {
        shop(
            "[tables.products]",
            &format!("[features]\nuse = {features}\n[tables.products]"),
        )
        .error()
    };
    check(
        &with("[\"recensy\"]"),
        ErrorKind::Usage,
        &["there is no feature `recensy`"],
        Some("the nearest feature is `recency`"),
    );
    check(
        &with("[\"discount_share\"]"),
        ErrorKind::Usage,
        &["feature `discount_share` needs `tables.transactions.discount`"],
        Some("set `tables.transactions.discount`"),
    );
    check(
        &with("[\"gap\", \"gap\"]"),
        ErrorKind::Usage,
        &["`gap` is listed twice"],
        None,
    );
    check(
        &with("[]"),
        ErrorKind::Usage,
        &["`features.use` is []"],
        None,
    );
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let error = shop("product = \"product\"\nwhere", "where").error();
    check(
        &error,
        ErrorKind::Usage,
        &["`tables.products` is set, and `tables.transactions.product` is not"],
        Some("set `tables.transactions.product`"),
    );
    let error = shop(
        "timestamp = \"day\"",
        "timestamp = \"day\"\ntimezone = \"Mars/Olympus\"",
    )
    .error();
    assert!(matches!(error, FeatureError::TimeZone { .. }), "{error:?}");
}

#[test]
fn a_product_that_appears_twice_is_refused_and_counted() {
    let shop = shop("sales >= 0", "sales >= 0");
    write_products(&shop, vec![10, 10, 10, 11, 11, 12]);
    let texts = ["3 rows too many", "`product` repeats for 2 products"];
    check(
        &shop.error(),
        ErrorKind::Input,
        &texts,
        shop.error().hint().as_deref(),
    );
}

#[test]
fn products_named_by_text_here_and_numbers_there_are_refused() {
    let error = shop("product = \"product\"\nwhere", "product = \"name\"\nwhere").error();
    check(
        &error,
        ErrorKind::Input,
        &[
            "`name` of table `transactions` is Utf8",
            "`product` of table `products` is Int32",
        ],
        None,
    );
}

#[test]
fn amounts_that_are_no_money_are_counted_unless_their_lines_are_dropped() {
    let endless = || column(Float64Array::from(vec![f64::NAN, f64::INFINITY]));
    let shop_with = |from: &str, to: &str| {
        let shop = shop(from, to);
        write_transactions(&shop, "b", column(Int64Array::from(vec![8, 9])), endless());
        shop
    };
    let error = shop_with("sales >= 0", "TRUE").error();
    let hint = Some("repair `sales`, or drop these lines with `where`");
    check(
        &error,
        ErrorKind::Input,
        &["column `sales`", "in 2 lines"],
        hint,
    );
    let table = shop_with("sales >= 0", "customer_id < 8").build().unwrap();
    assert_eq!((table.lines.kept, table.lines.filtered), (2, 2));
}

#[test]
fn when_nothing_is_left_the_reasons_are_counted() {
    let error = shop("sales >= 0", "sales > 6 AND sales < 7").error();
    check(
        &error,
        ErrorKind::Input,
        &["none of 2 transaction lines is left: 2 dropped by `where`"],
        error.hint().as_deref(),
    );
    let error = shop(
        "[tables.products]",
        "[activity]\nmin_baskets = 2\n[tables.products]",
    )
    .error();
    check(
        &error,
        ErrorKind::Input,
        &["none of 2 customers reaches the minimum activity"],
        error.hint().as_deref(),
    );
}

#[test]
fn all_unreadable_files_are_listed_at_once() {
    let shop = shop("sales >= 0", "sales >= 0");
    std::fs::write(shop.path("tx/b.parquet"), "not Parquet at all").unwrap();
    let whole = std::fs::read(shop.path("tx/a.parquet")).unwrap();
    std::fs::write(shop.path("tx/c.parquet"), &whole[..whole.len() / 2]).unwrap();
    let error = shop.error();
    check(
        &error,
        ErrorKind::Input,
        &["2 of 3 files cannot be read", "b.parquet", "c.parquet"],
        error.hint().as_deref(),
    );
}

#[test]
fn files_that_are_not_there_are_the_inputs_fault() {
    let error = shop("path = \"tx\"", "path = \"nowhere/*.parquet\"").error();
    check(
        &error,
        ErrorKind::Input,
        &["table `transactions`: its files cannot be found"],
        error.hint().as_deref(),
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_table_without_rows_is_refused() {
    let shop = shop("path = \"tx\"", "path = \"empty.parquet\"");
    write(
        &shop.path("empty.parquet"),
        vec![("customer_id", column(Int64Array::from(Vec::<i64>::new())))],
    );
    check(
        &shop.error(),
        ErrorKind::Input,
        &["table `transactions` has 0 rows in 1 files"],
        None,
    );
}

#[test]
fn an_output_folder_that_cannot_be_is_a_usage_error() {
    let shop = shop("sales >= 0", "sales >= 0");
    std::fs::write(shop.path("file"), "").unwrap();
    let error = build(
        &shop.config(),
        &shop.path("file/out"),
        &BuildOptions::default(),
    )
    .unwrap_err();
    check(&error, ErrorKind::Usage, &["cannot write"], None);
}

#[test]
fn too_little_memory_is_a_limit_that_names_it() {
    let shop = shop("sales >= 0", "sales >= 0");
    let options = BuildOptions {
        memory_bytes: Some(1_000),
        ..BuildOptions::default()
    };
    let error = build(&shop.config(), &shop.path("out"), &options).unwrap_err();
    check(
        &error,
        ErrorKind::Limit,
        &["within 1000 bytes"],
        Some("give more memory, or use fewer threads"),
    );
}

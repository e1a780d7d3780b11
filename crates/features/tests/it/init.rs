//! The first draft that `clientele init` writes.

use std::path::Path;

use arrow::array::*;
use clientele_features::{BuildOptions, Config, ErrorKind, build, propose};

use crate::common::{Shop, column, write};

#[test]
fn several_files_of_one_folder_are_one_table_and_the_draft_runs() {
    let shop = Shop::new("");
    std::fs::create_dir(shop.path("orders")).unwrap();
    for file in ["2024-01", "2024-02"] {
        write(
            &shop.path(&format!("orders/{file}.parquet")),
            vec![
                ("OrderId", column(Int64Array::from(vec![1, 2]))),
                ("CustomerId", column(StringArray::from(vec!["a", "b"]))),
                (
                    "OrderDate",
                    column(
                        TimestampMicrosecondArray::from(vec![0, 86_400_000_000])
                            .with_timezone("UTC"),
                    ),
                ),
                ("NetAmount", column(Float32Array::from(vec![1.5, 2.5]))),
                ("Sku", column(StringArray::from(vec!["x", "y"]))),
                ("CouponDiscount", column(Float32Array::from(vec![0.0, 0.5]))),
            ],
        );
    }
    write(
        &shop.path("items.parquet"),
        vec![
            ("sku", column(StringArray::from(vec!["x", "y"]))),
            (
                "brand",
                column(StringArray::from(vec!["Acme", "Own Brand"])),
            ),
            ("category", column(StringArray::from(vec!["A", "B"]))),
        ],
    );
    let text = propose(&[shop.path("orders"), shop.path("items.parquet")]).unwrap();
    let config = Config::from_toml(&text, Path::new("")).unwrap();
    let transactions = &config.tables.transactions;
    assert_eq!(transactions.customer, "CustomerId");
    assert_eq!(transactions.timestamp, "OrderDate");
    assert_eq!(transactions.timezone.as_deref(), Some("UTC"));
    assert_eq!(transactions.amount.as_deref(), Some("NetAmount"));
    assert_eq!(transactions.basket.as_deref(), Some("OrderId"));
    assert_eq!(transactions.coupon_discount, ["CouponDiscount"]);
    assert_eq!(transactions.path.len(), 1, "{text}");
    let products = config.tables.products.as_ref().unwrap();
    assert_eq!(
        products.private_label.as_deref(),
        Some("brand = 'Own Brand'")
    );
    let table = build(&config, &shop.path("out"), &BuildOptions::default()).unwrap();
    assert_eq!(
        (
            table.lines.kept,
            table.lines.unknown_product,
            table.customers.kept
        ),
        (4, 0, 2)
    );
}

#[test]
fn a_table_that_repeats_products_is_not_taken_for_the_products() {
    let shop = Shop::new("");
    write(
        &shop.path("sales.parquet"),
        vec![
            ("customer", column(Int64Array::from(vec![1]))),
            ("date", column(Date32Array::from(vec![1]))),
            ("amount", column(Int64Array::from(vec![1]))),
            ("product_id", column(Int64Array::from(vec![1]))),
        ],
    );
    write(
        &shop.path("coupons.parquet"),
        vec![("product_id", column(Int64Array::from(vec![1, 1])))],
    );
    let text = propose(&[shop.path("sales.parquet"), shop.path("coupons.parquet")]).unwrap();
    assert!(!text.contains("[tables.products]"), "{text}");
}

#[test]
fn without_transactions_the_draft_says_what_is_lacking() {
    let shop = Shop::new("");
    write(
        &shop.path("a.parquet"),
        vec![
            ("customer_id", column(Int64Array::from(vec![1]))),
            ("age", column(Int64Array::from(vec![30]))),
        ],
    );
    let error = propose(&[shop.path("a.parquet")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert_eq!(
        error.hint().as_deref(),
        Some("the nearest table lacks a date or timestamp, an amount")
    );
}

#[test]
fn strange_names_stay_text() {
    let shop = Shop::new("");
    let customer = "customer \"id\"\n# x";
    write(
        &shop.path("a.parquet"),
        vec![
            (customer, column(Int64Array::from(vec![1]))),
            ("date", column(Date32Array::from(vec![1]))),
            ("date\nof order", column(Date32Array::from(vec![1]))),
            ("amount", column(Int64Array::from(vec![1]))),
        ],
    );
    let text = propose(&[shop.path("a.parquet")]).unwrap();
    let config = Config::from_toml(&text, Path::new("")).unwrap();
    assert_eq!(config.tables.transactions.customer, customer);
    build(&config, &shop.path("out"), &BuildOptions::default()).unwrap();
}

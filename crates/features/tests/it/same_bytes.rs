//! The same customers give the same file, however the lines are cut, ordered and shared out.

use std::num::NonZeroUsize;
use std::path::Path;

use arrow::array::*;
use arrow::compute::take_record_batch;
use clientele_features::{BuildOptions, build};

use crate::common::{Shop, column, write, write_batch};

const CONFIG: &str = r#"
[tables.transactions]
path = "tx/*.parquet"
customer = "customer"
timestamp = "day"
amount = "sales"
basket = "basket"
product = "product"
discount = "discount"

[tables.products]
path = "products.parquet"
product = "product"
private_label = "own"
"#;

const N_LINES: u64 = 40_000;

/// Numbers without a pattern: splitmix64.
fn scramble(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

fn below(n: u64, limit: u32) -> u32 {
    u32::try_from(scramble(n) % u64::from(limit)).unwrap()
}

/// Lines whose prices, in floats, would not add up to the same in another order.
fn lines() -> RecordBatch {
    let draw = |salt: u64, limit: u32| (0..N_LINES).map(move |row| below(row * 8 + salt, limit));
    let price = |salt, limit| {
        draw(salt, limit)
            .map(|cents| Some(f64::from(cents) / 100.0))
            .collect::<Float64Array>()
    };
    RecordBatch::try_from_iter([
        (
            "customer",
            column(
                draw(0, 3_000)
                    .map(|c| Some(format!("c{c}")))
                    .collect::<StringArray>(),
            ),
        ),
        (
            "day",
            column(
                draw(1, 365)
                    .map(|d| Some(19_000 + d.cast_signed()))
                    .collect::<Date32Array>(),
            ),
        ),
        (
            "basket",
            column(draw(2, 20_000).map(Some).collect::<UInt32Array>()),
        ),
        (
            "product",
            column(draw(3, 500).map(Some).collect::<UInt32Array>()),
        ),
        ("sales", column(price(4, 100_000))),
        ("discount", column(price(5, 10_000))),
    ])
    .unwrap()
}

/// Writes the lines in so many files and returns the bytes of the feature table made with so many threads.
fn bytes(
    lines: &RecordBatch,
    n_files: usize,
    n_threads: usize,
    memory_bytes: Option<u64>,
) -> Vec<u8> {
    let shop = Shop::new(CONFIG);
    std::fs::create_dir(shop.path("tx")).unwrap();
    let rows_per_file = lines.num_rows().div_ceil(n_files);
    for file in 0..n_files {
        let start = file * rows_per_file;
        let n_rows = rows_per_file.min(lines.num_rows() - start);
        write_batch(
            &shop.path(&format!("tx/{file}.parquet")),
            &lines.slice(start, n_rows),
        );
    }
    write(
        &shop.path("products.parquet"),
        vec![
            (
                "product",
                column((0..499).map(Some).collect::<UInt32Array>()),
            ),
            (
                "own",
                column((0..499).map(|p| Some(p % 3 == 0)).collect::<BooleanArray>()),
            ),
        ],
    );
    let options = BuildOptions {
        n_threads: NonZeroUsize::new(n_threads),
        memory_bytes,
    };
    let table = build(&shop.config(), &shop.path("out"), &options).unwrap();
    assert_eq!(left_overs(&shop.path("out")), Vec::<String>::new());
    std::fs::read(&table.path).unwrap()
}

/// What is in the output folder besides the two files.
fn left_overs(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name != "features.parquet" && name != "features.json")
        .collect()
}

/// The lines in another order.
fn shuffled(lines: &RecordBatch) -> RecordBatch {
    let mut order: Vec<u32> = (0..u32::try_from(lines.num_rows()).unwrap()).collect();
    order.sort_by_key(|row| scramble(u64::from(*row)));
    take_record_batch(lines, &UInt32Array::from(order)).unwrap()
}

#[test]
fn threads_files_order_and_memory_do_not_change_a_byte() {
    let lines = lines();
    let expected = bytes(&lines, 1, 1, None);
    assert_eq!(expected, bytes(&lines, 1, 8, None), "8 threads");
    assert_eq!(expected, bytes(&lines, 7, 3, None), "7 files");
    assert_eq!(
        expected,
        bytes(&shuffled(&lines), 50, 8, None),
        "shuffled, 50 files, 8 threads"
    );
    assert_eq!(
        expected,
        bytes(&shuffled(&lines), 3, 2, Some(64 << 20)),
        "64 MiB"
    );
}

#[test]
fn one_cent_more_in_one_line_is_another_file() {
    let lines = lines();
    let mut columns = lines.columns().to_vec();
    let sales: &Float64Array = columns[4].as_primitive();
    let cent =
        |(row, amount): (usize, Option<f64>)| amount.map(|a| if row == 17 { a + 0.01 } else { a });
    columns[4] = column(sales.iter().enumerate().map(cent).collect::<Float64Array>());
    let changed = RecordBatch::try_new(lines.schema(), columns).unwrap();
    assert_ne!(bytes(&lines, 1, 2, None), bytes(&changed, 1, 2, None));
}

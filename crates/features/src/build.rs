//! The main function: checks the tables, counts the lines, makes and writes the features.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};

use crate::config::Config;
use crate::dictionary::{FeatureTable, LineCounts};
use crate::error::FeatureError;
use crate::plan::Plan;
use crate::session::Session;
use crate::sql::{self, Reason};
use crate::write;

/// What the engine may use; none of it changes a single byte of the table.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildOptions {
    /// Memory of the whole process, in bytes; the engine spills to the output folder rather than exceed about half of it.
    /// None: no limit.
    pub memory_bytes: Option<u64>,
    /// Threads; none: one a core.
    pub n_threads: Option<NonZeroUsize>,
}

/// Makes `features.parquet`, one row a customer and sorted by customer, and `features.json` beside it, in `out_dir`.
///
/// Each file appears whole or not at all, and replaces one of the same name. Blocks the thread it is called on, which must not
/// be a thread of an async runtime.
///
/// # Errors
/// [`FeatureError`]: the config asks for what the tables do not have, the tables are not what they must be, nothing is left
/// after the filters, or the output cannot be written.
pub fn build(
    config: &Config,
    out_dir: &Path,
    options: &BuildOptions,
) -> Result<FeatureTable, FeatureError> {
    let started = Instant::now();
    std::fs::create_dir_all(out_dir).map_err(|source| FeatureError::Write {
        path: out_dir.to_owned(),
        source,
    })?;
    let session = Session::new(options, Some(out_dir))?;
    let plan = Plan::new(config, &session)?;
    plan.register(&session)?;
    check_products_are_unique(&plan, &session)?;
    let audit = audit(&plan, &session)?;
    let as_of_day = plan.as_of_day.unwrap_or(audit.last_day.saturating_add(1));
    let sql = sql::features(&plan, as_of_day);
    let written = write::features(&session, &sql, out_dir)?;
    let mut table = FeatureTable {
        path: written.path,
        dictionary_path: out_dir.join(write::DICTIONARY),
        id_column: plan.id_column.clone(),
        features: plan.features.iter().map(|block| block.entry()).collect(),
        value: plan.value.map(|block| block.entry()),
        as_of: write::date(as_of_day),
        lines: audit.lines,
        customers: written.customers,
        sql,
        seconds: 0.0,
    };
    write::dictionary(&table)?;
    table.seconds = started.elapsed().as_secs_f64();
    Ok(table)
}

/// A product that appears twice would count each of its sales twice.
fn check_products_are_unique(plan: &Plan, session: &Session) -> Result<(), FeatureError> {
    let Some(products) = &plan.products else {
        return Ok(());
    };
    let batches = session.rows(
        "look for repeated products",
        &sql::repeated_products(&products.key),
    )?;
    let (n_repeated, n_surplus) = (number(&batches, 0), number(&batches, 1));
    if n_repeated == 0 {
        return Ok(());
    }
    Err(FeatureError::RepeatedProducts {
        column: products.key.clone(),
        n_repeated,
        n_surplus,
    })
}

/// What a first look at the lines finds.
struct Audit {
    lines: LineCounts,
    /// Last day with a kept line, in days since 1970-01-01.
    last_day: i32,
}

/// Counts the lines by what becomes of them, and refuses amounts that are not money.
fn audit(plan: &Plan, session: &Session) -> Result<Audit, FeatureError> {
    let batches = session.rows("count the transaction lines", &sql::audit(plan))?;
    let mut lines = LineCounts::default();
    let mut last_day = None;
    for batch in &batches {
        let column = |idx: usize| batch.column(idx).as_primitive::<Int64Type>();
        let days = batch
            .column(sql::AUDIT_LAST_DAY)
            .as_primitive::<Int32Type>();
        for row in 0..batch.num_rows() {
            let n = count(column(sql::AUDIT_LINES).value(row));
            lines.read += n;
            *tally(
                &mut lines,
                Reason::from_code(column(sql::AUDIT_REASON).value(row)),
            ) += n;
            if column(sql::AUDIT_REASON).value(row) == Reason::Kept.code() {
                last_day = days.is_valid(row).then(|| days.value(row));
                lines.unknown_product = count(column(sql::AUDIT_UNKNOWN_PRODUCT).value(row));
                for (idx, money) in plan.money_columns().iter().enumerate() {
                    let n_lines = count(column(sql::AUDIT_NOT_MONEY + idx).value(row));
                    if n_lines > 0 {
                        return Err(FeatureError::NotMoney {
                            column: (*money).to_owned(),
                            n_lines,
                        });
                    }
                }
            }
        }
    }
    match last_day {
        Some(last_day) => Ok(Audit { lines, last_day }),
        None => Err(FeatureError::NoLines { lines }),
    }
}

/// The counter of a reason.
fn tally(lines: &mut LineCounts, reason: Reason) -> &mut u64 {
    match reason {
        Reason::Kept => &mut lines.kept,
        Reason::NoCustomer => &mut lines.no_customer,
        Reason::NoTimestamp => &mut lines.no_timestamp,
        Reason::NoAmount => &mut lines.no_amount,
        Reason::NoBasket => &mut lines.no_basket,
        Reason::Filtered => &mut lines.filtered,
        Reason::AfterAsOf => &mut lines.after_as_of,
    }
}

/// The number in a column of an answer of one row.
fn number(batches: &[RecordBatch], column: usize) -> u64 {
    batches
        .iter()
        .find(|batch| batch.num_rows() > 0)
        .map_or(0, |batch| {
            count(batch.column(column).as_primitive::<Int64Type>().value(0))
        })
}

/// A count, as the engine gives it.
fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

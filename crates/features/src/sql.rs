//! The statements: from a plan to SQL. Text, so that a person can read, run and check it.

use std::fmt::Write as _;

use arrow::datatypes::DataType;

use crate::blocks::{Block, Measure};
use crate::config::Activity;
use crate::plan::Plan;

/// Money is DECIMAL(18, 4): four decimals are exact, and sums of it have no order.
const MONEY: &str = "DECIMAL(18, 4)";

/// Amounts beyond this are not money; ten times more would not fit the type.
const MONEY_LIMIT: &str = "10000000000000";

/// Column of `source` that says whether the line's product is in the product table.
const KNOWN: &str = "\"clientele: product is known\"";

/// Columns of the audit: the reason's code, lines, last day, lines of unknown products, then one count for each money column.
pub(crate) const AUDIT_REASON: usize = 0;
pub(crate) const AUDIT_LINES: usize = 1;
pub(crate) const AUDIT_LAST_DAY: usize = 2;
pub(crate) const AUDIT_UNKNOWN_PRODUCT: usize = 3;
pub(crate) const AUDIT_NOT_MONEY: usize = 4;

/// What becomes of a line; the first that applies, in this order, except that a line is kept when none does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Kept = 0,
    NoCustomer = 1,
    NoTimestamp = 2,
    NoAmount = 3,
    NoBasket = 4,
    Filtered = 5,
    AfterAsOf = 6,
}

impl Reason {
    /// The number that stands for it in SQL.
    pub fn code(self) -> i64 {
        self as i64
    }

    /// The reason of a number that [`lines`] wrote.
    pub fn from_code(code: i64) -> Self {
        match code {
            1 => Self::NoCustomer,
            2 => Self::NoTimestamp,
            3 => Self::NoAmount,
            4 => Self::NoBasket,
            5 => Self::Filtered,
            6 => Self::AfterAsOf,
            _ => Self::Kept,
        }
    }
}

/// How many products repeat, and how many rows are too many.
pub(crate) fn repeated_products(key: &str) -> String {
    let key = quoted(key);
    format!(
        "SELECT COUNT(*) AS n_repeated, COALESCE(SUM(n - 1), 0) AS n_surplus FROM (\n  \
           SELECT {key}, COUNT(*) AS n FROM products WHERE {key} IS NOT NULL GROUP BY {key}\n\
         ) WHERE n > 1"
    )
}

/// Lines by reason.
pub(crate) fn audit(plan: &Plan) -> String {
    let mut sql = with_lines(plan, plan.as_of_day);
    sql.push_str("SELECT reason, COUNT(*) AS n_lines, MAX(day) AS last_day,\n");
    sql.push_str("  SUM(CASE WHEN known_product THEN 0 ELSE 1 END) AS n_unknown_product");
    for idx in 0..plan.money_columns().len() {
        let _ = write!(
            sql,
            ",\n  SUM(CASE WHEN not_money_{idx} THEN 1 ELSE 0 END) AS n_not_money_{idx}"
        );
    }
    sql.push_str("\nFROM lines GROUP BY reason");
    sql
}

/// One row a customer: the id, the features, the value if it is not among them, and whether the customer is active enough.
pub(crate) fn features(plan: &Plan, as_of_day: i32) -> String {
    let columns = output_columns(plan);
    let measures = measures(plan, &columns);
    let mut sql = with_lines(plan, Some(as_of_day));
    sql.push_str("SELECT ");
    let _ = write!(sql, "customer AS {}", quoted(&plan.id_column));
    for block in &columns {
        let _ = write!(sql, ",\n  {} AS {}", block.value, quoted(block.name));
    }
    let _ = write!(sql, ",\n  {} AS active\n", activity(plan));
    let _ = write!(sql, "FROM (\n  SELECT customer, {as_of_day} AS as_of");
    for measure in &measures {
        let _ = match measure {
            Measure::Lines { name, .. } => write!(sql, ", MAX({name}) AS {name}"),
            Measure::Distinct { name, .. } => write!(sql, ", COALESCE(MAX({name}), 0) AS {name}"),
        };
    }
    // A join of these branches would hold one side in memory; grouping their union spills, and each MAX sees one value.
    sql.push_str("\n  FROM (\n");
    sql.push_str(&branches(&measures).join("\n    UNION ALL\n"));
    sql.push_str("\n  ) GROUP BY customer\n)\nORDER BY customer");
    sql
}

/// The blocks that become columns: the features, then the value if it is not among them.
fn output_columns(plan: &Plan) -> Vec<&'static Block> {
    let mut columns = plan.features.clone();
    if let Some(value) = plan.value
        && columns.iter().all(|block| block.name != value.name)
    {
        columns.push(value);
    }
    columns
}

/// The measures of the columns and of the minimum activity, each once.
fn measures(plan: &Plan, columns: &[&'static Block]) -> Vec<Measure> {
    let mut measures: Vec<Measure> = Vec::new();
    let baskets = (plan.activity.min_baskets > 0).then_some(&BASKETS);
    let spend = (plan.activity.min_spend > 0.0).then_some(&SPEND);
    let wanted = columns.iter().flat_map(|block| block.measures);
    for measure in wanted.chain(baskets).chain(spend) {
        if !measures.contains(measure) {
            measures.push(*measure);
        }
    }
    measures
}

/// The measures of the minimum activity, as the blocks `frequency` and `spend` have them.
const BASKETS: Measure = Measure::Distinct {
    name: "n_baskets",
    column: "basket",
};
const SPEND: Measure = Measure::Lines {
    name: "spend",
    sql: "SUM(amount)",
};

/// Whether a customer did enough, over the measures.
fn activity(plan: &Plan) -> String {
    let Activity {
        min_baskets,
        min_spend,
    } = plan.activity;
    let baskets = (min_baskets > 0).then(|| format!("n_baskets >= {min_baskets}"));
    let spend = (min_spend > 0.0).then(|| format!("spend >= CAST('{min_spend:.4}' AS {MONEY})"));
    let conditions: Vec<String> = baskets.into_iter().chain(spend).collect();
    if conditions.is_empty() {
        "TRUE".into()
    } else {
        conditions.join(" AND ")
    }
}

/// One query for all aggregates over lines, one for each count of different values; nulls where another branch speaks.
fn branches(measures: &[Measure]) -> Vec<String> {
    let columns = |pick: &dyn Fn(&Measure) -> Option<String>| -> String {
        measures
            .iter()
            .map(|m| {
                format!(
                    ", {} AS {}",
                    pick(m).unwrap_or_else(|| "NULL".into()),
                    m.name()
                )
            })
            .collect()
    };
    let over_lines = columns(&|measure| match measure {
        Measure::Lines { sql, .. } => Some((*sql).to_owned()),
        Measure::Distinct { .. } => None,
    });
    let kept = Reason::Kept.code();
    let mut branches = vec![format!(
        "    SELECT customer{over_lines} FROM lines WHERE reason = {kept} GROUP BY customer"
    )];
    for measure in measures {
        if let Measure::Distinct { name, column } = measure {
            let counted = columns(&|m| (m.name() == *name).then(|| "COUNT(*)".to_owned()));
            branches.push(format!(
                "    SELECT customer{counted} FROM (\n      \
                   SELECT DISTINCT customer, {column} FROM lines WHERE reason = {kept} AND {column} IS NOT NULL\n    \
                 ) GROUP BY customer"
            ));
        }
    }
    branches
}

/// `WITH source AS (...), lines AS (...)`: a transaction line with its product, then in the terms that blocks use.
fn with_lines(plan: &Plan, as_of_day: Option<i32>) -> String {
    let columns = &plan.columns;
    let day = day(plan);
    let basket = columns
        .basket
        .as_ref()
        .map_or_else(|| day.clone(), |basket| quoted(basket));
    let mut sql = format!(
        "WITH source AS (\n{}\n), lines AS (\n  SELECT {} AS customer",
        source(plan),
        customer(plan)
    );
    let mut column = |expr: &str, name: &str| {
        let _ = write!(sql, ",\n    {expr} AS {name}");
    };
    column(&day, "day");
    column(&basket, "basket");
    if let Some(amount) = &columns.amount {
        column(&money(amount), "amount");
    }
    if !columns.discount.is_empty() {
        column(&total(&columns.discount), "discount");
    }
    if !columns.coupon_discount.is_empty() {
        column(&total(&columns.coupon_discount), "coupon");
    }
    let category = plan
        .products
        .as_ref()
        .and_then(|products| products.category.as_ref());
    if let Some(variety) = category.or(columns.product.as_ref()) {
        column(&quoted(variety), "variety");
    }
    if let Some(private_label) = plan
        .products
        .as_ref()
        .and_then(|p| p.private_label.as_ref())
    {
        column(&format!("({private_label})"), "private_label");
    }
    column(
        if plan.products.is_some() {
            KNOWN
        } else {
            "TRUE"
        },
        "known_product",
    );
    for (idx, name) in plan.money_columns().iter().enumerate() {
        let name = quoted(name);
        let not_money = format!("{name} NOT BETWEEN -{MONEY_LIMIT} AND {MONEY_LIMIT}");
        column(&not_money, &format!("not_money_{idx}"));
    }
    column(&reason(plan, &day, as_of_day), "reason");
    sql.push_str("\n  FROM source\n)\n");
    sql
}

/// Transactions, with the columns that products add. A product that is not in the table leaves nulls, and the line.
fn source(plan: &Plan) -> String {
    let (Some(products), Some(product)) = (&plan.products, &plan.columns.product) else {
        return "  SELECT * FROM transactions".into();
    };
    let added: String = products
        .added
        .iter()
        .map(|name| format!(", p.{0} AS {0}", quoted(name)))
        .collect();
    let key = quoted(&products.key);
    format!(
        "  SELECT t.*{added}, p.{key} IS NOT NULL AS {KNOWN}\n  \
           FROM transactions t LEFT JOIN products p ON t.{} = p.{key}",
        quoted(product)
    )
}

/// The customer's id, of the source's type.
fn customer(plan: &Plan) -> String {
    let column = quoted(&plan.columns.customer);
    let stored = plan
        .transactions
        .schema()
        .field_with_name(&plan.columns.customer);
    match stored.map(|field| field.data_type()) {
        Ok(DataType::Dictionary(..)) => format!("arrow_cast({column}, '{}')", plan.id_type),
        _ => column,
    }
}

/// The calendar day of the line, in days since 1970-01-01: an instant's in the zone of the config, or else in its own.
fn day(plan: &Plan) -> String {
    let column = quoted(&plan.columns.timestamp);
    let local = match (&plan.timestamp_type, &plan.columns.timezone) {
        (DataType::Timestamp(unit, Some(_)), Some(zone)) => {
            let zoned = DataType::Timestamp(*unit, Some(zone.as_str().into()));
            format!("arrow_cast({column}, '{zoned}')")
        }
        _ => column,
    };
    format!("CAST(CAST({local} AS DATE) AS INT)")
}

/// A column as money. The bounds keep the cast from failing on a line that is dropped anyway.
fn money(column: &str) -> String {
    let column = quoted(column);
    format!(
        "CASE WHEN {column} BETWEEN -{MONEY_LIMIT} AND {MONEY_LIMIT} THEN CAST({column} AS {MONEY}) END"
    )
}

/// The sum of columns as money, null as nothing.
fn total(columns: &[String]) -> String {
    let terms: Vec<String> = columns
        .iter()
        .map(|c| format!("COALESCE({}, 0)", money(c)))
        .collect();
    terms.join(" + ")
}

/// What becomes of the line.
fn reason(plan: &Plan, day: &str, as_of_day: Option<i32>) -> String {
    let columns = &plan.columns;
    let mut sql = "CASE".to_owned();
    let mut when = |condition: String, reason: Reason| {
        let _ = write!(sql, "\n      WHEN {condition} THEN {}", reason.code());
    };
    when(
        format!("{} IS NULL", quoted(&columns.customer)),
        Reason::NoCustomer,
    );
    when(
        format!("{} IS NULL", quoted(&columns.timestamp)),
        Reason::NoTimestamp,
    );
    if let Some(amount) = &columns.amount {
        when(format!("{} IS NULL", quoted(amount)), Reason::NoAmount);
    }
    if let Some(basket) = &columns.basket {
        when(format!("{} IS NULL", quoted(basket)), Reason::NoBasket);
    }
    if let Some(filter) = &plan.filter {
        // A predicate on the product cannot say no to a product that nobody described.
        let undecided = match plan.products {
            Some(_) => format!(" AND NOT (({filter}) IS NULL AND NOT {KNOWN})"),
            None => String::new(),
        };
        when(
            format!("({filter}) IS NOT TRUE{undecided}"),
            Reason::Filtered,
        );
    }
    if let Some(as_of_day) = as_of_day {
        when(format!("{day} >= {as_of_day}"), Reason::AfterAsOf);
    }
    sql.push_str("\n      ELSE 0 END");
    sql
}

/// A name as SQL takes it literally.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

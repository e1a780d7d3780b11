//! `clientele init`: a first `clientele.toml` from the schemas of the tables at hand, to be looked over by a person.

mod guess;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type, Schema};
use clientele_data::input;
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

use crate::blocks::BLOCKS;
use crate::build::BuildOptions;
use crate::error::FeatureError;
use crate::session::Session;
use crate::sql::quoted;
use crate::tables::{Table, is_text, value_type};
use guess::Guess;

/// What a brand column calls the retailer's own, in lower case.
const OWN_BRANDS: [&str; 6] = [
    "private",
    "private label",
    "own",
    "own brand",
    "own label",
    "store brand",
];

/// Reads the schemas of the tables (files, or folders of Parquet files) and proposes a config: the text of a
/// `clientele.toml`, commented, with the paths as given.
///
/// Files of one folder that have the same columns are parts of one table. Roles are guessed from names and types; that a
/// product table has each product once, and what it calls own brands, is looked up in its rows.
///
/// # Errors
/// [`FeatureError::Files`] and [`FeatureError::BadFiles`]; [`FeatureError::NoTransactions`] when no table has a customer, a
/// time and an amount.
pub fn propose(paths: &[PathBuf]) -> Result<String, FeatureError> {
    let candidates = candidates(paths)?;
    let session = Session::new(&BuildOptions::default(), None)?;
    let transactions = transactions(&candidates)?;
    let products = products(&candidates, transactions, &session)?;
    Ok(text(transactions, products.as_ref()))
}

/// A table that may be one of ours.
struct Candidate {
    table: Table,
    guess: Guess,
}

/// The product table and what was found in its rows.
struct Products<'a> {
    candidate: &'a Candidate,
    key: &'a str,
    private_label: Option<String>,
}

/// The tables that the paths hold: files of one folder and one schema are parts of one table.
fn candidates(paths: &[PathBuf]) -> Result<Vec<Candidate>, FeatureError> {
    const NAME: &str = "given";
    let inputs: Vec<String> = paths
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let files = input::expand(&inputs).map_err(|e| FeatureError::Files {
        table: NAME,
        source: Box::new(e),
    })?;
    let all = Table::open(NAME, &inputs)?;
    let mut groups: Vec<(&Path, &Schema, Vec<String>)> = Vec::new();
    for (file, schema) in files.iter().zip(all.schemas()) {
        let folder = file.parent().unwrap_or(Path::new(""));
        let name = file.to_string_lossy().into_owned();
        let same = |group: &&mut (&Path, &Schema, Vec<String>)| {
            group.0 == folder && group.1.fields() == schema.fields()
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.2.push(name),
            None => groups.push((folder, schema, vec![name])),
        }
    }
    let open = |(_, schema, files): (&Path, &Schema, Vec<String>)| {
        Ok(Candidate {
            table: Table::open(NAME, &files)?,
            guess: Guess::new(schema),
        })
    };
    groups.into_iter().map(open).collect()
}

/// The table with a customer, a time and an amount; of several, the one with most rows.
fn transactions(candidates: &[Candidate]) -> Result<&Candidate, FeatureError> {
    let complete = candidates
        .iter()
        .filter(|candidate| candidate.guess.lacks().is_empty());
    if let Some(transactions) = complete.max_by_key(|candidate| candidate.table.n_rows) {
        return Ok(transactions);
    }
    let nearest = candidates
        .iter()
        .map(|candidate| candidate.guess.lacks())
        .min_by_key(Vec::len);
    Err(FeatureError::NoTransactions {
        n_tables: candidates.len(),
        lacks: nearest.unwrap_or_default().join(", "),
    })
}

/// A table that describes what the transactions sell: it has their product column, each product once, and no customers.
fn products<'a>(
    candidates: &'a [Candidate],
    transactions: &Candidate,
    session: &Session,
) -> Result<Option<Products<'a>>, FeatureError> {
    let Some(sold) = &transactions.guess.product else {
        return Ok(None);
    };
    let sold_is_text = column_is_text(transactions, sold);
    let mut best: Option<(usize, Products)> = None;
    for (idx, candidate) in candidates.iter().enumerate() {
        let guess = &candidate.guess;
        let (None, Some(key)) = (&guess.customer, &guess.product) else {
            continue;
        };
        if column_is_text(candidate, key) != sold_is_text {
            continue;
        }
        let name = format!("candidate_{idx}");
        session.register_as(&name, &candidate.table)?;
        if !is_unique(session, &name, key)? {
            continue;
        }
        let private_label = private_label(session, &name, guess)?;
        let n_found = usize::from(guess.category.is_some()) + usize::from(private_label.is_some());
        if best.as_ref().is_none_or(|(most, _)| n_found > *most) {
            best = Some((
                n_found,
                Products {
                    candidate,
                    key,
                    private_label,
                },
            ));
        }
    }
    Ok(best.map(|(_, products)| products))
}

fn column_is_text(candidate: &Candidate, column: &str) -> bool {
    let field = candidate.table.schema().field_with_name(column);
    field.is_ok_and(|field| is_text(value_type(field.data_type())))
}

/// Whether no two rows have the same value of a column.
fn is_unique(session: &Session, table: &str, column: &str) -> Result<bool, FeatureError> {
    let column = quoted(column);
    let sql = format!(
        "SELECT COUNT(*) FROM (SELECT {column} FROM {table} GROUP BY {column} HAVING COUNT(*) > 1)"
    );
    let batches = session.rows("look for repeated products", &sql)?;
    let counts = batches.iter().filter(|batch| batch.num_rows() > 0);
    Ok(counts
        .map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0))
        .sum::<i64>()
        == 0)
}

/// A predicate that holds for own brands, if a column says which they are.
fn private_label(
    session: &Session,
    table: &str,
    guess: &Guess,
) -> Result<Option<String>, FeatureError> {
    if let Some(column) = &guess.own_brand {
        return Ok(Some(readable(column)));
    }
    let Some(brand) = &guess.brand else {
        return Ok(None);
    };
    let column = quoted(brand);
    let names: Vec<String> = OWN_BRANDS.iter().map(|name| format!("'{name}'")).collect();
    let sql = format!(
        "SELECT CAST(MIN({column}) AS VARCHAR) FROM {table} WHERE lower({column}) IN ({}) GROUP BY lower({column}) ORDER BY 1 LIMIT 1",
        names.join(", ")
    );
    let batches = session.rows("look for own brands", &sql)?;
    let found = batches.iter().find(|batch| batch.num_rows() > 0);
    Ok(found.map(|batch| {
        let name =
            arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap_or_default();
        format!("{} = '{}'", readable(brand), name.replace('\'', "''"))
    }))
}

/// The config.
fn text(transactions: &Candidate, products: Option<&Products>) -> String {
    let mut text = String::from(
        "# A first draft by `clientele init`, from names and types of columns. Look it over, then:\n\
         #   clientele run -c clientele.toml --out personas\n\n",
    );
    transactions_text(&mut text, transactions);
    if let Some(products) = products {
        products_text(&mut text, products);
    }
    let names: Vec<String> = BLOCKS
        .iter()
        .map(|block| format!("\"{}\"", block.name))
        .collect();
    let _ = write!(
        text,
        "[activity]\n\
         # Who did less than this is counted and left out.\n\
         min_baskets = 1\n\
         min_spend = 0\n\n\
         [features]\n\
         # All that the columns above allow, or only those named here:\n\
         # use = [{}]\n\
         # The first day that does not count; otherwise the day after the last transaction.\n\
         # as_of = 2026-01-01\n\n\
         [fit]\n\
         k = \"2..5\"\n\n\
         [personas]\n\
         title = \"Our customers\"\n\
         value = \"spend\"\n\
         currency = \"$\"\n",
        names.join(", ")
    );
    text
}

fn transactions_text(text: &mut String, candidate: &Candidate) {
    let guess = &candidate.guess;
    text.push_str("[tables.transactions]\n");
    let _ = writeln!(text, "path = {}", paths(&candidate.table));
    option(text, "customer", &guess.customer, "# ids: integers or text");
    time_text(text, candidate);
    option(
        text,
        "amount",
        &guess.amount,
        "# money paid for the line, discounts already taken off",
    );
    option(
        text,
        "basket",
        &guess.basket,
        "# without it, a customer's purchases of one day are one basket",
    );
    option(text, "product", &guess.product, "");
    list(
        text,
        "discount",
        &guess.discounts,
        "# money taken off the price",
    );
    list(
        text,
        "coupon_discount",
        &guess.coupons,
        "# money taken off by coupons",
    );
    text.push_str(
        "# Lines that are not merchandise (fuel, gift cards, deposits) distort every persona; keep what is:\n\
         # where = \"department NOT IN ('FUEL', 'GIFT CARDS')\"\n\n",
    );
}

/// The timestamp, the other columns that could be it, and the zone if it needs one.
fn time_text(text: &mut String, candidate: &Candidate) {
    let Some((timestamp, others)) = candidate.guess.timestamps.split_first() else {
        return;
    };
    let comment = if others.is_empty() {
        String::new()
    } else {
        format!("  # or: {}", others.join(", "))
    };
    let _ = writeln!(
        text,
        "timestamp = {}{}",
        toml_string(timestamp),
        one_line(&comment)
    );
    let field = candidate.table.schema().field_with_name(timestamp);
    if let Ok(DataType::Timestamp(_, Some(zone))) = field.map(|field| field.data_type()) {
        text.push_str("# The zone of the shops: days begin and end there.\n");
        let _ = writeln!(text, "timezone = {}", toml_string(zone));
    }
}

fn products_text(text: &mut String, products: &Products) {
    text.push_str("[tables.products]\n");
    let _ = writeln!(text, "path = {}", paths(&products.candidate.table));
    let _ = writeln!(text, "product = {}", toml_string(products.key));
    option(
        text,
        "category",
        &products.candidate.guess.category,
        "# how different a customer's purchases are is counted in these",
    );
    match &products.private_label {
        Some(sql) => {
            let _ = writeln!(
                text,
                "private_label = {}  # holds for the retailer's own brands",
                toml_string(sql)
            );
        }
        None => text.push_str(
            "# private_label = \"brand = 'Private'\"  # holds for the retailer's own brands\n",
        ),
    }
    text.push('\n');
}

/// `key = "column"`, or the same as a comment for a column nobody found.
fn option(text: &mut String, key: &str, column: &Option<String>, comment: &str) {
    let _ = match column {
        Some(column) => writeln!(
            text,
            "{}",
            format!("{key} = {}  {comment}", toml_string(column)).trim_end()
        ),
        None => writeln!(
            text,
            "{}",
            format!("# {key} = \"...\"  {comment}").trim_end()
        ),
    };
}

/// `key = ["a", "b"]`, or nothing.
fn list(text: &mut String, key: &str, columns: &[String], comment: &str) {
    if !columns.is_empty() {
        let columns: Vec<String> = columns.iter().map(|column| toml_string(column)).collect();
        let _ = writeln!(text, "{key} = [{}]  {comment}", columns.join(", "));
    }
}

/// One file by its name, all of a folder by the folder's, others as a list.
fn paths(table: &Table) -> String {
    let name = |path: &Path| toml_string(&path.to_string_lossy());
    let [first, _, ..] = table.files.as_slice() else {
        return table
            .files
            .first()
            .map(|file| name(file))
            .unwrap_or_default();
    };
    if let Some(folder) = first.parent()
        && input::expand(&[folder.to_string_lossy().into_owned()])
            .is_ok_and(|all| all == table.files)
    {
        return name(folder);
    }
    let files: Vec<String> = table.files.iter().map(|file| name(file)).collect();
    format!("[\n  {},\n]", files.join(",\n  "))
}

fn toml_string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A column name may hold a line break, and a comment must not.
fn one_line(comment: &str) -> String {
    comment.replace(char::is_control, " ")
}

/// A column name as a person would write it in SQL, who quotes only what must be.
fn readable(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain);
    if is_plain && !ALL_KEYWORDS.contains(&name.to_ascii_uppercase().as_str()) {
        return name.to_owned();
    }
    quoted(name)
}

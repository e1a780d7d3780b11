//! What can go wrong on the way from raw tables to a feature table: facts with their numbers, and the way out.

use std::fmt;
use std::io;
use std::path::PathBuf;

use clientele_data::{BadFile, DataError, ErrorKind};
use datafusion::error::DataFusionError;

/// The type that a column has in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeInFile {
    /// The file.
    pub file: PathBuf,
    /// The type.
    pub data_type: String,
}

impl fmt::Display for TypeInFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in `{}`", self.data_type, self.file.display())
    }
}

/// Why there is no feature table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureError {
    /// The config file cannot be read.
    #[error("cannot read config `{}`", path.display())]
    ConfigRead {
        /// The config file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The config is not TOML, or a value has another type than its key takes.
    #[error("line {line}: {message}")]
    ConfigSyntax {
        /// Line of the config, from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// The config holds a key that means nothing.
    #[error("line {line}: `{key}` is not a known key")]
    UnknownKey {
        /// Line of the config, from 1.
        line: usize,
        /// The key as written.
        key: String,
        /// The known key that is nearest in spelling.
        nearest: Option<String>,
        /// The keys that are known there.
        valid: String,
    },
    /// A value is outside what its key takes.
    #[error("`{key}` is {value}; it must be {wanted}")]
    ConfigValue {
        /// The key, with its section.
        key: &'static str,
        /// The value as written.
        value: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A path names a variable that the environment does not have.
    #[error("path `{path}` needs the environment variable {name}, which is not set")]
    UnsetVariable {
        /// The variable.
        name: String,
        /// The path as written.
        path: String,
    },
    /// Files of a table cannot be found.
    #[error("table `{table}`: its files cannot be found")]
    Files {
        /// The table.
        table: &'static str,
        /// Which, and why.
        source: Box<DataError>,
    },
    /// Files of a table are not readable Parquet; all of them are listed.
    #[error("table `{table}`: {} of {n_files} files cannot be read: {}", bad.len(), list(bad))]
    BadFiles {
        /// The table.
        table: &'static str,
        /// Files of the table.
        n_files: usize,
        /// Each bad file with what is wrong with it.
        bad: Vec<BadFile>,
    },
    /// A table has files and no rows.
    #[error("table `{table}` has 0 rows in {n_files} files")]
    NoRows {
        /// The table.
        table: &'static str,
        /// Files of the table.
        n_files: usize,
    },
    /// A column that the config names is not in a file.
    #[error("table `{table}` has no column `{column}` in `{}`", file.display())]
    MissingColumn {
        /// The table.
        table: &'static str,
        /// The column as written.
        column: String,
        /// The first file without it.
        file: PathBuf,
        /// The column of that file that is nearest in spelling.
        nearest: Option<String>,
    },
    /// A column has a type that its role cannot use.
    #[error(
        "column `{column}` of table `{table}` cannot be the {role}: its type is {found}; it must be {wanted}"
    )]
    ColumnType {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// The role it was given.
        role: &'static str,
        /// Its type.
        found: String,
        /// What its type must be.
        wanted: &'static str,
    },
    /// A column has one type in one file and another in another.
    #[error("column `{column}` of table `{table}` is {first} and {other}")]
    MixedTypes {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// In the first file.
        first: Box<TypeInFile>,
        /// In the first file that differs.
        other: Box<TypeInFile>,
    },
    /// Transactions and products name products in ways that cannot be compared.
    #[error(
        "products cannot be joined: `{product}` of table `transactions` is {product_type}, `{key}` of table `products` is {key_type}"
    )]
    KeyTypes {
        /// The product column of the transactions.
        product: String,
        /// Its type.
        product_type: String,
        /// The key column of the products.
        key: String,
        /// Its type.
        key_type: String,
    },
    /// A predicate names a column that is nowhere.
    #[error("`{key}` names the column `{column}`, which is in no table it can see")]
    PredicateColumn {
        /// The key of the predicate.
        key: &'static str,
        /// The column as written.
        column: String,
        /// The column that is nearest in spelling.
        nearest: Option<String>,
    },
    /// A predicate is not SQL that says yes or no.
    #[error("`{key}` is not a usable SQL predicate: {reason}")]
    Predicate {
        /// The key of the predicate.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The time zone is not one.
    #[error("`{timezone}` is not a time zone")]
    TimeZone {
        /// The zone as written.
        timezone: String,
    },
    /// A feature that does not exist was asked for.
    #[error("there is no feature `{name}`")]
    UnknownFeature {
        /// The name as written.
        name: String,
        /// The feature that is nearest in spelling.
        nearest: Option<String>,
        /// The features there are.
        valid: String,
    },
    /// A feature was asked for whose columns are not mapped.
    #[error("feature `{name}` needs `{missing}`, which the config does not map")]
    UnmappedFeature {
        /// The feature.
        name: String,
        /// The key that would map its column.
        missing: &'static str,
    },
    /// A feature is listed more than once.
    #[error("feature `{name}` is listed twice")]
    RepeatedFeature {
        /// The feature.
        name: String,
    },
    /// A key is set that another key is needed for.
    #[error("`{key}` is set, and `{missing}` is not")]
    KeyNeedsKey {
        /// The key that is set.
        key: &'static str,
        /// The key it needs.
        missing: &'static str,
    },
    /// The customer column has the name of a feature.
    #[error("the customer column `{name}` has the name of a feature")]
    IdIsFeature {
        /// The name.
        name: String,
    },
    /// The product table has a product more than once.
    #[error(
        "table `products` has {n_surplus} rows too many: `{column}` repeats for {n_repeated} products"
    )]
    RepeatedProducts {
        /// The key column.
        column: String,
        /// Products that appear more than once.
        n_repeated: u64,
        /// Rows beyond the first of each.
        n_surplus: u64,
    },
    /// Amounts are not numbers, or too large for money.
    #[error(
        "column `{column}` of table `transactions` is not finite, or beyond 10^13, in {n_lines} lines"
    )]
    NotMoney {
        /// The column.
        column: String,
        /// Lines concerned.
        n_lines: u64,
    },
    /// Every line was dropped.
    #[error("none of {} transaction lines is left: {}", lines.read, dropped(lines))]
    NoLines {
        /// Lines by reason.
        lines: crate::LineCounts,
    },
    /// Every customer was left out.
    #[error("none of {n_customers} customers reaches the minimum activity")]
    NoCustomers {
        /// Customers with at least one line.
        n_customers: u64,
    },
    /// The engine stopped at a query.
    #[error("the engine could not {step}")]
    Query {
        /// What the query was for.
        step: String,
        /// What the engine said.
        source: Box<DataFusionError>,
    },
    /// The engine ran out of the memory it was given.
    #[error("the engine could not {step} within {memory_bytes} bytes")]
    Memory {
        /// What the query was for.
        step: String,
        /// The budget of the whole process.
        memory_bytes: u64,
        /// What the engine said.
        source: Box<DataFusionError>,
    },
    /// The engine's threads cannot be started.
    #[error("cannot start the threads of the engine")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No table of those given can be the transactions.
    #[error("none of the {n_tables} tables has a customer, a time and an amount")]
    NoTransactions {
        /// Tables looked at.
        n_tables: usize,
        /// What the nearest of them lacks.
        lacks: String,
    },
}

impl FeatureError {
    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Files { source, .. } => source.kind(),
            Self::BadFiles { .. }
            | Self::NoRows { .. }
            | Self::MissingColumn { .. }
            | Self::ColumnType { .. }
            | Self::MixedTypes { .. }
            | Self::KeyTypes { .. }
            | Self::RepeatedProducts { .. }
            | Self::NotMoney { .. }
            | Self::NoLines { .. }
            | Self::NoCustomers { .. }
            | Self::NoTransactions { .. } => ErrorKind::Input,
            Self::Query { source, .. } => query_kind(source),
            Self::Memory { .. } => ErrorKind::Limit,
            Self::Threads { .. } => ErrorKind::Transient,
            Self::Write { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::Interrupted => ErrorKind::Transient,
                _ => ErrorKind::Usage,
            },
            _ => ErrorKind::Usage,
        }
    }

    /// The way out, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownKey { nearest: Some(key), .. } => format!("the nearest key is `{key}`"),
            Self::UnknownKey { valid, .. } => format!("known keys here: {valid}"),
            Self::UnsetVariable { name, .. } => format!("set it: `export {name}=...`"),
            Self::MissingColumn { nearest: Some(column), .. }
            | Self::PredicateColumn { nearest: Some(column), .. } => {
                format!("the nearest column is `{column}`")
            }
            Self::ColumnType { role: "timestamp", .. } => {
                "write it to the Parquet file as DATE or TIMESTAMP".into()
            }
            Self::Files { source, .. } => return source.hint(),
            Self::BadFiles { .. } => "write these files again, or leave them out of `path`".into(),
            Self::Predicate { .. } => {
                "write text in single quotes and column names bare or in double quotes: `department <> 'FUEL'`".into()
            }
            Self::TimeZone { .. } => "use an IANA name such as `America/New_York`, or `+02:00`".into(),
            Self::UnknownFeature { nearest: Some(name), .. } => format!("the nearest feature is `{name}`"),
            Self::UnknownFeature { valid, .. } => format!("features: {valid}"),
            Self::UnmappedFeature { missing, .. } | Self::KeyNeedsKey { missing, .. } => {
                format!("set `{missing}`")
            }
            Self::IdIsFeature { name } => format!("rename the column, or leave `{name}` out of `features.use`"),
            Self::RepeatedProducts { column, .. } => {
                format!("keep one row for each `{column}`: more would count sales more than once")
            }
            Self::NotMoney { column, .. } => format!("repair `{column}`, or drop these lines with `where`"),
            Self::NoLines { .. } => "look at `where` and `features.as_of`".into(),
            Self::NoCustomers { .. } => "lower `activity.min_baskets` or `activity.min_spend`".into(),
            Self::Memory { .. } => "give more memory, or use fewer threads".into(),
            Self::NoTransactions { lacks, .. } => format!("the nearest table lacks {lacks}"),
            _ => return None,
        };
        Some(hint)
    }

    /// Wraps what the engine said while it worked on `step`, under a budget of `memory_bytes`.
    pub(crate) fn query(step: &str, memory_bytes: Option<u64>, source: DataFusionError) -> Self {
        let step = step.to_owned();
        let out_of_memory = matches!(source.find_root(), DataFusionError::ResourcesExhausted(_));
        match memory_bytes {
            Some(memory_bytes) if out_of_memory => Self::Memory {
                step,
                memory_bytes,
                source: Box::new(source),
            },
            _ => Self::Query {
                step,
                source: Box::new(source),
            },
        }
    }
}

/// Bad files with what is wrong with each.
fn list(bad: &[BadFile]) -> String {
    let files: Vec<String> = bad
        .iter()
        .map(|file| format!("`{}` ({})", file.path.display(), file.reason))
        .collect();
    files.join(", ")
}

/// Data that the engine cannot digest is the input's fault; whatever else is the system's.
fn query_kind(error: &DataFusionError) -> ErrorKind {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Limit,
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => ErrorKind::Transient,
        _ => ErrorKind::Input,
    }
}

/// The word nearest in spelling, if any is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(3) / 2)
        .map(|(_, candidate)| candidate.to_owned())
}

/// The reasons that dropped lines, in words.
fn dropped(lines: &crate::LineCounts) -> String {
    let reasons = [
        (lines.no_customer, "without a customer"),
        (lines.no_timestamp, "without a timestamp"),
        (lines.no_amount, "without an amount"),
        (lines.no_basket, "without a basket"),
        (lines.filtered, "dropped by `where`"),
        (lines.after_as_of, "on or after `as_of`"),
    ];
    let reasons: Vec<String> = reasons
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, reason)| format!("{n} {reason}"))
        .collect();
    reasons.join(", ")
}

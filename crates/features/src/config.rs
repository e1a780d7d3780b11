//! `clientele.toml`: where the tables are, what their columns mean, and what to make of them.
//!
//! Reading checks the shape (keys, types, dates); that files and columns exist is found out when the tables are opened.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use crate::error::{FeatureError, nearest};

/// A whole `clientele.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The raw tables.
    pub tables: Tables,
    /// What a customer must have done to be described at all.
    #[serde(default)]
    pub activity: Activity,
    /// Which features, as of when.
    #[serde(default)]
    pub features: FeatureChoice,
    /// Settings of `clientele fit`, merged with its flags by the caller.
    #[serde(default)]
    pub fit: FitSettings,
    /// How the personas are presented.
    #[serde(default)]
    pub personas: PersonaSettings,
}

/// The raw tables; transactions are the only one that must be there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// One row a line of a receipt (or a whole receipt).
    pub transactions: TransactionTable,
    /// One row a product.
    pub products: Option<ProductTable>,
}

/// The transactions and the roles of their columns.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionTable {
    /// Files, globs and folders, made absolute against the folder of the TOML.
    #[serde(deserialize_with = "one_or_many")]
    pub path: Vec<String>,
    /// Column with the customer's id: integers or text.
    pub customer: String,
    /// Column with the time of purchase: a date or a timestamp.
    pub timestamp: String,
    /// Zone whose calendar days count, for timestamps that are instants; one without a zone is taken as local time already.
    pub timezone: Option<String>,
    /// Column with the money paid for the line, discounts already taken off.
    pub amount: Option<String>,
    /// Column with the basket (order, receipt) of the line; without it a customer's purchases of one day are one basket.
    pub basket: Option<String>,
    /// Column with the product.
    pub product: Option<String>,
    /// Columns with money taken off the price, of either sign.
    #[serde(default, deserialize_with = "one_or_many")]
    pub discount: Vec<String>,
    /// Columns with money taken off by coupons, of either sign.
    #[serde(default, deserialize_with = "one_or_many")]
    pub coupon_discount: Vec<String>,
    /// SQL predicate that holds for merchandise; may name columns of both tables (of two of one name it means the
    /// transactions'). As in SQL, a line stays when it is true; where it is unknown because the line's product is not in the
    /// product table, the line stays too.
    #[serde(rename = "where")]
    pub filter: Option<String>,
}

/// The products and the roles of their columns.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductTable {
    /// Files, globs and folders, made absolute against the folder of the TOML.
    #[serde(deserialize_with = "one_or_many")]
    pub path: Vec<String>,
    /// Column with the product, unique.
    pub product: String,
    /// Column with the category or department.
    pub category: Option<String>,
    /// SQL predicate that holds for the retailer's own brands.
    pub private_label: Option<String>,
}

/// The least a customer must have done; who did less is counted and left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Activity {
    /// Baskets, at least.
    pub min_baskets: u32,
    /// Money spent, at least, in the currency of the amount column (four decimals count).
    pub min_spend: f64,
}

/// Which features, as of when.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureChoice {
    /// Names of feature blocks in the order of the columns; none: all that the mapped columns allow.
    #[serde(rename = "use")]
    pub names: Option<Vec<String>>,
    /// The first day that does not count, `YYYY-MM-DD`; none: the day after the last transaction.
    #[serde(deserialize_with = "date")]
    pub as_of: Option<String>,
}

/// Settings of the fit, each as its flag takes it; checked by whoever merges them with the flags.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FitSettings {
    /// `"5"`, `5` or `"2..8"`.
    #[serde(deserialize_with = "text_or_integer")]
    pub k: Option<String>,
    /// Restarts for each k.
    pub restarts: Option<u32>,
    /// Seed of every draw.
    pub seed: Option<u64>,
    /// `auto`, `zscore` or `none`.
    pub transform: Option<String>,
    /// `impute`, `fail` or `drop`.
    pub nulls: Option<String>,
    /// Iterations, at most.
    pub max_iter: Option<u32>,
    /// Tolerance of the stop rule.
    pub tol: Option<f64>,
    /// Whether starts that can no longer win are given up; they are unless this is `false`.
    pub halving: Option<bool>,
    /// `auto`, `gpu` or `cpu`.
    pub backend: Option<String>,
    /// `"8GiB"`.
    pub memory: Option<String>,
    /// Workers in this process.
    pub workers: Option<u32>,
}

/// How the personas are presented.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PersonaSettings {
    /// Title of the board.
    pub title: Option<String>,
    /// Feature that says what a customer is worth; none: `spend` where amounts are mapped.
    pub value: Option<String>,
    /// Sign before money: `$`.
    pub currency: Option<String>,
}

impl Config {
    /// Reads a config file; paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`FeatureError::ConfigRead`] when the file cannot be read, and those of [`Config::from_toml`].
    pub fn load(path: &Path) -> Result<Self, FeatureError> {
        let text = std::fs::read_to_string(path).map_err(|source| FeatureError::ConfigRead {
            path: path.to_owned(),
            source,
        })?;
        let base_dir = path.parent().unwrap_or(Path::new(""));
        Self::from_toml(&text, base_dir)
    }

    /// Reads a config from its text; paths in it are relative to `base_dir`, and `${NAME}` in them is the environment's.
    ///
    /// # Errors
    /// [`FeatureError::UnknownKey`] and [`FeatureError::ConfigSyntax`] with the line, [`FeatureError::ConfigValue`] for a
    /// value out of range, [`FeatureError::UnsetVariable`].
    pub fn from_toml(text: &str, base_dir: &Path) -> Result<Self, FeatureError> {
        let mut config: Self = toml::from_str(text).map_err(|e| syntax_error(text, &e))?;
        resolve(&mut config.tables.transactions.path, base_dir)?;
        if let Some(products) = &mut config.tables.products {
            resolve(&mut products.path, base_dir)?;
        }
        let min_spend = config.activity.min_spend;
        if !(0.0..1e12).contains(&min_spend) {
            return Err(FeatureError::ConfigValue {
                key: "activity.min_spend",
                value: min_spend.to_string(),
                wanted: "an amount from 0 to 10^12",
            });
        }
        Ok(config)
    }
}

/// Makes every path absolute against `base_dir` (which may itself be relative), after filling in the environment.
fn resolve(paths: &mut [String], base_dir: &Path) -> Result<(), FeatureError> {
    for path in paths {
        let expanded = PathBuf::from(expand_variables(path)?);
        // join() keeps an absolute path as it is.
        *path = base_dir.join(expanded).to_string_lossy().into_owned();
    }
    Ok(())
}

/// Replaces each `${NAME}` by the variable of the environment.
fn expand_variables(path: &str) -> Result<String, FeatureError> {
    let mut expanded = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else {
            return Err(FeatureError::ConfigValue {
                key: "path",
                value: path.to_owned(),
                wanted: "a closing brace after `${`",
            });
        };
        let value = std::env::var(name).map_err(|_| FeatureError::UnsetVariable {
            name: name.to_owned(),
            path: path.to_owned(),
        })?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = tail;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Turns serde's message into the line, the key and the nearest key.
fn syntax_error(text: &str, error: &toml::de::Error) -> FeatureError {
    let line = error
        .span()
        .map(|span| 1 + text[..span.start].matches('\n').count());
    let message = error.message();
    // serde writes: unknown field `x`, expected one of `a`, `b`
    if message.starts_with("unknown field") {
        let mut quoted = message.split('`').skip(1).step_by(2);
        if let Some(key) = quoted.next() {
            let valid: Vec<&str> = quoted.collect();
            return FeatureError::UnknownKey {
                line: line.unwrap_or(1),
                key: key.to_owned(),
                nearest: nearest(key, valid.iter().copied()),
                valid: valid.join(", "),
            };
        }
    }
    FeatureError::ConfigSyntax {
        line: line.unwrap_or(1),
        message: message.replace('\n', "; "),
    }
}

/// Accepts `"a"` and `["a", "b"]`.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or a list of strings")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    })
}

/// Accepts `5` and `"2..8"`.
fn text_or_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected a whole number or a string such as \"2..8\""
    )]
    enum TextOrInteger {
        Text(String),
        Integer(i64),
    }
    Ok(Some(match TextOrInteger::deserialize(deserializer)? {
        TextOrInteger::Text(text) => text,
        TextOrInteger::Integer(integer) => integer.to_string(),
    }))
}

/// Accepts a TOML date and the same in quotes, and gives it as `YYYY-MM-DD`.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a date such as 2018-01-01")]
    enum Date {
        Text(String),
        Native(toml::value::Datetime),
    }
    let date = match Date::deserialize(deserializer)? {
        Date::Text(text) => text.parse().ok(),
        Date::Native(date) => Some(date),
    };
    match date {
        Some(toml::value::Datetime {
            date: Some(date),
            time: None,
            offset: None,
        }) => Ok(Some(date.to_string())),
        _ => Err(serde::de::Error::custom(
            "expected a date such as 2018-01-01",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str =
        "[tables.transactions]\npath = \"tx.parquet\"\ncustomer = \"c\"\ntimestamp = \"t\"\n";

    fn read(extra: &str) -> Result<Config, FeatureError> {
        Config::from_toml(&format!("{SMALL}{extra}"), Path::new("/base"))
    }

    #[test]
    fn the_smallest_config_names_a_table_a_customer_and_a_time() {
        let config = read("").unwrap();
        assert_eq!(config.tables.transactions.path, ["/base/tx.parquet"]);
        assert_eq!(config.fit, FitSettings::default());
        assert_eq!(config.features.names, None);
    }

    #[test]
    fn halving_is_turned_off_by_a_word() {
        let config = read("[fit]\nhalving = false\n").unwrap();
        assert_eq!(config.fit.halving, Some(false));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
        let error = read("custmer = \"x\"\n").unwrap_err();
        let FeatureError::UnknownKey {
            line, key, nearest, ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(
            (*line, key.as_str(), nearest.as_deref()),
            (5, "custmer", Some("customer"))
        );
        assert_eq!(error.to_string(), "line 5: `custmer` is not a known key");
        assert_eq!(
            error.hint().as_deref(),
            Some("the nearest key is `customer`")
        );
    }

    #[test]
    fn an_unknown_section_is_an_unknown_key() {
        let error = read("[feature]\n").unwrap_err();
        assert!(
            matches!(&error, FeatureError::UnknownKey { key, nearest, .. }
            if key == "feature" && nearest.as_deref() == Some("features")),
            "{error:?}"
        );
    }

    #[test]
    fn broken_toml_and_wrong_types_are_named_with_their_line() {
        for (extra, line) in [
            ("amount = \n", 5),
            ("[fit]\nrestarts = \"four\"\n", 6),
            ("amount = 3\n", 5),
        ] {
            let error = read(extra).unwrap_err();
            assert!(
                matches!(&error, FeatureError::ConfigSyntax { line: found, .. } if *found == line),
                "{extra}: {error:?}"
            );
        }
    }

    #[test]
    fn paths_take_lists_absolute_paths_and_the_environment() {
        let text = SMALL.replace(
            "\"tx.parquet\"",
            "[\"a.parquet\", \"/b.parquet\", \"${CARGO_PKG_NAME}/*.parquet\"]",
        );
        let config = Config::from_toml(&text, Path::new("/base")).unwrap();
        assert_eq!(
            config.tables.transactions.path,
            [
                "/base/a.parquet",
                "/b.parquet",
                "/base/clientele-features/*.parquet"
            ]
        );
    }

    #[test]
    fn an_unset_variable_is_named() {
        let text = SMALL.replace("tx.parquet", "${CLIENTELE_NO_SUCH_VARIABLE}/tx.parquet");
        let error = Config::from_toml(&text, Path::new("")).unwrap_err();
        assert!(
            matches!(&error, FeatureError::UnsetVariable { name, .. } if name == "CLIENTELE_NO_SUCH_VARIABLE")
        );
    }

    #[test]
    fn dates_are_taken_bare_and_quoted_and_nothing_else_is() {
        for text in ["2018-01-01", "\"2018-01-01\""] {
            let config = read(&format!("[features]\nas_of = {text}\n")).unwrap();
            assert_eq!(config.features.as_of.as_deref(), Some("2018-01-01"));
        }
        for text in [
            "\"soon\"",
            "2018-01-01T00:00:00",
            "20180101",
            "\"2018-02-31\"",
        ] {
            assert!(
                read(&format!("[features]\nas_of = {text}\n")).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn k_is_taken_as_a_number_or_a_range() {
        for (text, k) in [("5", "5"), ("\"2..8\"", "2..8")] {
            assert_eq!(
                read(&format!("[fit]\nk = {text}\n"))
                    .unwrap()
                    .fit
                    .k
                    .as_deref(),
                Some(k)
            );
        }
    }

    #[test]
    fn a_negative_or_endless_minimum_spend_is_refused() {
        for text in ["-1.0", "nan", "inf"] {
            let error = read(&format!("[activity]\nmin_spend = {text}\n")).unwrap_err();
            assert!(matches!(error, FeatureError::ConfigValue { .. }), "{text}");
        }
    }
}

//! A config held against the tables it names: every column exists and suits its role, every predicate is one, every feature
//! can be made. What passes here is only run.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::Parser as _;
use arrow::datatypes::{DataType, Date32Type, Schema};
use datafusion::common::{DFSchema, DataFusionError, SchemaError};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::blocks::{BLOCKS, Block, Role};
use crate::config::{Activity, Config, ProductTable, TransactionTable};
use crate::error::{FeatureError, nearest};
use crate::session::Session;
use crate::tables::{ColumnRole, Table, is_text, value_type};

/// What to compute, in terms the tables are known to have.
pub(crate) struct Plan {
    /// The transactions.
    pub transactions: Table,
    /// Which of their columns is what.
    pub columns: TransactionTable,
    /// The products, if there is a table of them.
    pub products: Option<Products>,
    /// The id column's name in the output.
    pub id_column: String,
    /// The id column's type in the output: the source's, without dictionary encoding.
    pub id_type: DataType,
    /// Type of the timestamp column.
    pub timestamp_type: DataType,
    /// Predicate of merchandise, parsed and written again.
    pub filter: Option<String>,
    /// Features in the order of the columns.
    pub features: Vec<&'static Block>,
    /// What a customer is worth.
    pub value: Option<&'static Block>,
    /// The least a customer must have done.
    pub activity: Activity,
    /// The first day that does not count, in days since 1970-01-01, if the config names one.
    pub as_of_day: Option<i32>,
}

/// The product table and what it is for.
pub(crate) struct Products {
    pub table: Table,
    /// Its unique column.
    pub key: String,
    /// Columns it adds to a line: those that transactions do not have.
    pub added: Vec<String>,
    /// Its category column.
    pub category: Option<String>,
    /// Predicate of own brands, parsed and written again.
    pub private_label: Option<String>,
}

impl Plan {
    /// Opens the tables and checks everything that can be checked without reading rows.
    pub fn new(config: &Config, session: &Session) -> Result<Self, FeatureError> {
        let columns = config.tables.transactions.clone();
        let transactions = Table::open("transactions", &columns.path)?;
        let id = transactions.column_as(&columns.customer, ColumnRole::Customer)?;
        let id_type = value_type(id.data_type()).clone();
        let timestamp = transactions.column_as(&columns.timestamp, ColumnRole::Timestamp)?;
        let timestamp_type = timestamp.data_type().clone();
        check_transactions(&transactions, &columns)?;
        let mut products = match &config.tables.products {
            Some(products) => Some(Products::open(products, &transactions, &columns)?),
            None => None,
        };
        let scope = Scope::new(&transactions, products.as_ref())?;
        let filter = match &columns.filter {
            Some(sql) => Some(scope.predicate("tables.transactions.where", sql, session)?),
            None => None,
        };
        let private_label = match products.as_ref().and_then(|p| p.private_label.as_ref()) {
            Some(sql) => Some(scope.predicate("tables.products.private_label", sql, session)?),
            None => None,
        };
        if let Some(products) = &mut products {
            products.private_label = private_label;
        }
        let mut plan = Self {
            id_column: columns.customer.clone(),
            transactions,
            columns,
            products,
            id_type,
            timestamp_type,
            filter,
            features: Vec::new(),
            value: None,
            activity: config.activity,
            as_of_day: config.features.as_of.as_deref().and_then(Date32Type::parse),
        };
        plan.choose_features(config)?;
        Ok(plan)
    }

    /// Makes the tables known to the engine.
    pub fn register(&self, session: &Session) -> Result<(), FeatureError> {
        session.register(&self.transactions)?;
        match &self.products {
            Some(products) => session.register(&products.table),
            None => Ok(()),
        }
    }

    /// The columns of the transactions that hold money.
    pub fn money_columns(&self) -> Vec<&str> {
        let columns = &self.columns;
        let money = columns
            .amount
            .iter()
            .chain(&columns.discount)
            .chain(&columns.coupon_discount);
        money.map(String::as_str).collect()
    }

    /// Whether a role is filled.
    pub fn has(&self, role: Role) -> bool {
        match role {
            Role::Amount => self.columns.amount.is_some(),
            Role::Discount => !self.columns.discount.is_empty(),
            Role::Coupon => !self.columns.coupon_discount.is_empty(),
            Role::Variety => self.columns.product.is_some(),
            Role::PrivateLabel => self
                .products
                .as_ref()
                .is_some_and(|products| products.private_label.is_some()),
        }
    }

    fn choose_features(&mut self, config: &Config) -> Result<(), FeatureError> {
        self.features = match &config.features.names {
            Some(names) => self.named_features(names)?,
            None => {
                let possible = |block: &&&Block| block.needs.iter().all(|role| self.has(*role));
                BLOCKS.iter().filter(possible).copied().collect()
            }
        };
        self.value = match &config.personas.value {
            Some(name) => Some(self.feature(name)?),
            None if self.has(Role::Amount) => Some(self.feature("spend")?),
            None => None,
        };
        if self.activity.min_spend > 0.0 && !self.has(Role::Amount) {
            return Err(FeatureError::KeyNeedsKey {
                key: "activity.min_spend",
                missing: Role::Amount.key(),
            });
        }
        let mut columns = self.features.iter().chain(&self.value);
        if columns.any(|block| block.name == self.id_column) {
            return Err(FeatureError::IdIsFeature {
                name: self.id_column.clone(),
            });
        }
        Ok(())
    }

    fn named_features(&self, names: &[String]) -> Result<Vec<&'static Block>, FeatureError> {
        if names.is_empty() {
            return Err(FeatureError::ConfigValue {
                key: "features.use",
                value: "[]".into(),
                wanted: "a list of at least one feature, or left out",
            });
        }
        let mut chosen: Vec<&'static Block> = Vec::with_capacity(names.len());
        for name in names {
            let block = self.feature(name)?;
            if chosen.iter().any(|other| other.name == block.name) {
                return Err(FeatureError::RepeatedFeature { name: name.clone() });
            }
            chosen.push(block);
        }
        Ok(chosen)
    }

    /// The block of a name, when its columns are mapped.
    fn feature(&self, name: &str) -> Result<&'static Block, FeatureError> {
        let names = || BLOCKS.iter().map(|block| block.name);
        let Some(block) = BLOCKS.iter().find(|block| block.name == name) else {
            return Err(FeatureError::UnknownFeature {
                name: name.to_owned(),
                nearest: nearest(name, names()),
                valid: names().collect::<Vec<_>>().join(", "),
            });
        };
        match block.needs.iter().find(|role| !self.has(**role)) {
            Some(role) => Err(FeatureError::UnmappedFeature {
                name: name.to_owned(),
                missing: role.key(),
            }),
            None => Ok(block),
        }
    }
}

/// The columns of the transactions besides the customer and the timestamp.
fn check_transactions(table: &Table, columns: &TransactionTable) -> Result<(), FeatureError> {
    if let Some(timezone) = &columns.timezone {
        timezone.parse::<Tz>().map_err(|_| FeatureError::TimeZone {
            timezone: timezone.clone(),
        })?;
    }
    for key in [&columns.basket, &columns.product].into_iter().flatten() {
        table.column_as(key, ColumnRole::Key)?;
    }
    let money = columns
        .amount
        .iter()
        .chain(&columns.discount)
        .chain(&columns.coupon_discount);
    for column in money {
        table.column_as(column, ColumnRole::Money)?;
    }
    Ok(())
}

impl Products {
    /// Opens the table; the predicate is checked later, when the columns it can name are known.
    fn open(
        config: &ProductTable,
        transactions: &Table,
        columns: &TransactionTable,
    ) -> Result<Self, FeatureError> {
        let Some(product) = &columns.product else {
            return Err(FeatureError::KeyNeedsKey {
                key: "tables.products",
                missing: "tables.transactions.product",
            });
        };
        let table = Table::open("products", &config.path)?;
        let key_type = table
            .column_as(&config.product, ColumnRole::Key)?
            .data_type();
        let sold_type = transactions.column(product)?.data_type();
        if is_text(value_type(key_type)) != is_text(value_type(sold_type)) {
            return Err(FeatureError::KeyTypes {
                product: product.clone(),
                product_type: sold_type.to_string(),
                key: config.product.clone(),
                key_type: key_type.to_string(),
            });
        }
        if let Some(category) = &config.category {
            table.column_as(category, ColumnRole::Key)?;
        }
        Ok(Self {
            key: config.product.clone(),
            added: table.columns_beyond(transactions),
            category: config.category.clone(),
            private_label: config.private_label.clone(),
            table,
        })
    }
}

/// The columns that a predicate can name.
struct Scope<'a> {
    schema: DFSchema,
    transactions: &'a Table,
    products: Option<&'a Products>,
}

impl<'a> Scope<'a> {
    fn new(transactions: &'a Table, products: Option<&'a Products>) -> Result<Self, FeatureError> {
        let mut fields = transactions.schema().fields().to_vec();
        if let Some(products) = products {
            let all = products.table.schema().fields();
            fields.extend(
                all.iter()
                    .filter(|f| products.added.contains(f.name()))
                    .cloned(),
            );
        }
        let schema = DFSchema::try_from(Schema::new(fields))
            .map_err(|e| FeatureError::query("read the schemas of the tables", None, e))?;
        Ok(Self {
            schema,
            transactions,
            products,
        })
    }

    /// Checks a predicate and gives it back in the engine's own spelling, without comments or loose ends.
    fn predicate(
        &self,
        key: &'static str,
        sql: &str,
        session: &Session,
    ) -> Result<String, FeatureError> {
        let unusable = |reason: String| FeatureError::Predicate { key, reason };
        let sql = parse_alone(sql).map_err(unusable)?;
        let expr = session
            .parse(&sql, &self.schema)
            .map_err(|e| self.parse_error(key, &e))?;
        if let Some(reason) = not_a_row_predicate(&expr) {
            return Err(unusable(reason.to_owned()));
        }
        match expr_type(&expr, &self.schema) {
            Ok(DataType::Boolean) => {}
            Ok(other) => return Err(unusable(format!("its value is {other}, not true or false"))),
            Err(error) => return Err(unusable(first_line(&error))),
        }
        for column in expr.column_refs() {
            match self.products {
                Some(products) if products.added.contains(&column.name) => {
                    products.table.column(&column.name)?
                }
                _ => self.transactions.column(&column.name)?,
            };
        }
        Ok(sql)
    }

    fn parse_error(&self, key: &'static str, error: &DataFusionError) -> FeatureError {
        match error.find_root() {
            DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
                SchemaError::FieldNotFound { field, .. } => FeatureError::PredicateColumn {
                    key,
                    column: field.name.clone(),
                    nearest: nearest(
                        &field.name,
                        self.schema.fields().iter().map(|f| f.name().as_str()),
                    ),
                },
                _ => FeatureError::Predicate {
                    key,
                    reason: first_line(error),
                },
            },
            _ => FeatureError::Predicate {
                key,
                reason: first_line(error),
            },
        }
    }
}

/// Parses one expression and nothing after it.
fn parse_alone(sql: &str) -> Result<String, String> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect)
        .try_with_sql(sql)
        .map_err(|e| e.to_string())?;
    let expr = parser.parse_expr().map_err(|e| e.to_string())?;
    match parser.peek_token().token {
        Token::EOF => Ok(expr.to_string()),
        token => Err(format!("`{token}` after the end of `{expr}`")),
    }
}

/// Why an expression cannot be answered a row at a time, and always in the same way.
fn not_a_row_predicate(expr: &Expr) -> Option<&'static str> {
    let aggregate = |e: &Expr| matches!(e, Expr::AggregateFunction(_) | Expr::WindowFunction(_));
    let subquery = |e: &Expr| {
        matches!(
            e,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::ScalarSubquery(_)
                | Expr::SetComparison(_)
        )
    };
    if contains(expr, aggregate) {
        Some("it aggregates; a line is judged by itself")
    } else if contains(expr, subquery) {
        Some("it holds a query; a line is judged by itself")
    } else if expr.is_volatile() {
        Some("it gives another answer each time")
    } else {
        None
    }
}

fn contains(expr: &Expr, is_match: impl Fn(&Expr) -> bool) -> bool {
    use datafusion::common::tree_node::TreeNode;
    expr.exists(|e| Ok(is_match(e))).unwrap_or(false)
}

fn expr_type(expr: &Expr, schema: &DFSchema) -> Result<DataType, DataFusionError> {
    use datafusion::logical_expr::ExprSchemable;
    expr.get_type(schema)
}

/// What the engine says, without the kind of error and what follows the first line.
fn first_line(error: &DataFusionError) -> String {
    let text = error.find_root().message().into_owned();
    text.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_owned()
}

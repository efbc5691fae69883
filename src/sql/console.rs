//! What the console reads of a string of SQL: the words of each statement, and the target list of a SELECT.
//!
//! These types are data. `parse/console.rs` makes them. They keep true: a part of a SELECT that the console cannot answer is
//! [`Expression::Other`], and never a wrong value.

/// One statement of a string, as words. The commands of the console (`SHOW … LIKE`, `KILL`, `DRAIN`) are not PostgreSQL's grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    pub words: Vec<Word>,
    /// The statement as it came.
    pub text: String,
}

/// One word of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// A keyword or a name without quotes, in lower case.
    Name(String),
    /// A name in double quotes.
    Quoted(String),
    /// The value of a string.
    Text(String),
    /// A number as it was written.
    Number(String),
    /// Anything else, as it was written.
    Sign(String),
}

impl Word {
    /// Whether this is the keyword.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Name(name) if name == keyword)
    }

    /// The word without its quotes.
    pub fn text(&self) -> &str {
        match self {
            Self::Name(text) | Self::Quoted(text) | Self::Text(text) | Self::Number(text) | Self::Sign(text) => text,
        }
    }
}

/// A SELECT, as far as the console answers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    pub columns: Vec<Column>,
    pub source: Source,
    /// What stands in FROM, in its order.
    pub from: Vec<FromItem>,
    /// The result is one row whatever the source has: an aggregate without GROUP BY.
    pub aggregates: bool,
    /// The number of the highest parameter.
    pub parameters: usize,
}

/// One column of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub value: Expression,
}

/// One item of FROM.
#[derive(Debug, Clone, PartialEq)]
pub struct FromItem {
    /// The name by which the target list knows it.
    pub alias: String,
    pub rows: Rows,
}

/// Where the columns of an item of FROM come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    /// A catalog, such as `pg_class` or `information_schema.tables`.
    Catalog(String),
    /// A query: its target list tells the columns.
    Query(Box<Select>),
    /// The text does not tell the columns, as those of a function or of JOIN … USING.
    Unknown,
}

/// What a SELECT reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Nothing,
    /// Only catalogs and functions.
    Catalog,
    /// A relation of somebody's, which the console does not have.
    Relation(String),
}

/// A value of a target list.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    Null,
    Boolean(bool),
    Integer(i64),
    /// A number with a fraction or too large.
    Number(String),
    Text(String),
    /// `$n`
    Parameter(usize),
    /// A function's name without its schema, and its arguments.
    Call(String, Vec<Self>),
    /// The type's name as PostgreSQL's catalogs have it, such as `int4`.
    Cast(Box<Self>, String),
    /// `+`, `-`, `*` or `/`.
    Arithmetic(char, Box<Self>, Box<Self>),
    /// `EXISTS (…)` over catalogs.
    Exists,
    /// `count(…)`.
    Count,
    /// A column, perhaps of an item of FROM.
    Field(Option<String>, String),
    /// `*`, or `a.*`: the columns of FROM, or of one item of it.
    Star(Option<String>),
    Other,
}

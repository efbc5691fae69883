//! Reads strings of SQL for the console: PostgreSQL's scanner for the words, its grammar for SELECT.
//!
//! Invariant: a depth that nobody writes by hand is not followed, so that no text exhausts the stack.

use super::from_items::{Room, from_items};
use super::grammar::{Unparsable, grammar};
use super::names::strings;
use super::options::ParseOptions;
use super::tokens::scan;
use crate::sql::console::{Column, Expression, Select, Source, Word, Words};
use pg_query::NodeEnum;
use pg_query::protobuf::{AExpr, FuncCall, Node, ResTarget, SelectStmt, SqlValueFunctionOp, SubLinkType, Token};

/// The deepest nesting that is followed.
const DEEPEST: usize = 32;

/// The statements of a string as words. Empty statements are left out.
///
/// # Errors
/// The scanner does not understand the text.
pub fn statements(text: &str) -> Result<Vec<Words>, Unparsable> {
    let scanned = scan(text, ParseOptions::default());
    if scanned.tokens().is_empty() {
        // The scanner gives up without a reason; the grammar has one. Comments alone are an empty string.
        return grammar(text, ParseOptions::default()).map(|_| Vec::new());
    }
    let ends = |word: &&super::tokens::Word| word.token == Token::Ascii59;
    let mut found = Vec::new();
    for piece in scanned.tokens().split(|word| ends(&word)) {
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { continue };
        let source = |range: std::ops::Range<usize>| scanned.source(range).unwrap_or_default();
        let words = piece.iter().map(|word| read_word(word.token, source(word.range.clone()))).collect();
        found.push(Words { words, text: source(first.range.start..last.range.end).to_owned() });
    }
    Ok(found)
}

fn read_word(token: Token, source: &str) -> Word {
    match token {
        Token::Sconst | Token::Usconst | Token::Xconst | Token::Bconst => Word::Text(string_value(source)),
        Token::Iconst | Token::Fconst => Word::Number(source.to_owned()),
        _ if source.starts_with('"') => {
            // A quote that belongs to the name is doubled.
            let inner = source.get(1..source.len().saturating_sub(1)).unwrap_or_default();
            Word::Quoted(inner.replace("\"\"", "\""))
        }
        _ if source.starts_with(|c: char| c.is_alphabetic() || c == '_') => Word::Name(source.to_lowercase()),
        _ => Word::Sign(source.to_owned()),
    }
}

/// The value of a string as it was written. Of escapes only the doubled quote is read.
fn string_value(source: &str) -> String {
    if let Some(rest) = source.strip_prefix('$') {
        let tag = rest.find('$').map_or(0, |at| at + 2);
        return source.get(tag..source.len().saturating_sub(tag)).unwrap_or_default().to_owned();
    }
    let inner = source.find('\'').and_then(|at| source.get(at + 1..source.len().saturating_sub(1)));
    inner.unwrap_or_default().replace("''", "'")
}

/// The SELECT of a text. `None`: the text is not one SELECT.
///
/// # Errors
/// The grammar does not understand the text.
pub fn select(text: &str) -> Result<Option<Select>, Unparsable> {
    let raw = grammar(text, ParseOptions::default())?;
    let [statement] = raw.as_slice() else { return Ok(None) };
    let Some(NodeEnum::SelectStmt(select)) = statement.stmt.as_ref().and_then(|node| node.node.as_ref()) else {
        return Ok(None);
    };
    if select.into_clause.is_some() {
        return Ok(None);
    }
    Ok(Some(Room::whole(DEEPEST, |room| read_select(select, highest_parameter(text), room))))
}

/// Reads a SELECT. `parameters`: the number of the highest one. `room`: how much of its queries in FROM is read.
fn read_select(stmt: &SelectStmt, parameters: usize, room: Room<'_>) -> Select {
    let mut stmt = stmt;
    let mut common = common_tables(stmt);
    // The columns of a UNION are those of its first part.
    for _ in 0..DEEPEST {
        match stmt.larg.as_deref() {
            Some(left) => stmt = left,
            None => break,
        }
        common.extend(common_tables(stmt));
    }
    let from = from_items(stmt, room, |inner, room| read_select(inner, 0, room));
    let columns: Vec<Column> = stmt.target_list.iter().filter_map(column).collect();
    let source = source(stmt, &common);
    let aggregates =
        source != Source::Nothing && stmt.group_clause.is_empty() && columns.iter().any(|c| aggregates(&c.value));
    Select { columns, source, from, aggregates, parameters }
}

fn column(node: &Node) -> Option<Column> {
    let NodeEnum::ResTarget(target) = node.node.as_ref()? else { return None };
    Some(Column { name: column_name(target), value: value(target.val.as_deref(), DEEPEST) })
}

fn value(node: Option<&Node>, depth: usize) -> Expression {
    let Some(node) = node.and_then(|node| node.node.as_ref()).filter(|_| depth > 0) else {
        return Expression::Other;
    };
    match node {
        NodeEnum::AConst(constant) => constant_value(constant),
        NodeEnum::TypeCast(cast) => {
            let name = cast.type_name.as_ref().map(|name| strings(&name.names));
            let name = name.and_then(|names| names.last().map(|name| (*name).to_owned())).unwrap_or_default();
            Expression::Cast(Box::new(value(cast.arg.as_deref(), depth - 1)), name)
        }
        NodeEnum::ParamRef(parameter) => Expression::Parameter(usize::try_from(parameter.number).unwrap_or(0)),
        NodeEnum::FuncCall(function) => call(function, depth),
        NodeEnum::SqlvalueFunction(function) => Expression::Call(sql_value(function.op).to_owned(), Vec::new()),
        NodeEnum::AExpr(expression) => arithmetic(expression, depth),
        NodeEnum::CollateClause(collate) => value(collate.arg.as_deref(), depth - 1),
        NodeEnum::SubLink(link) if link.sub_link_type == SubLinkType::ExistsSublink as i32 => Expression::Exists,
        NodeEnum::ColumnRef(column) => {
            let names = strings(&column.fields);
            let of =
                |at: usize| names.len().checked_sub(at).and_then(|at| names.get(at)).map(|name| (*name).to_owned());
            match (is_star(column.fields.last()), of(1)) {
                (true, item) => Expression::Star(item),
                (false, Some(name)) => Expression::Field(of(2), name),
                (false, None) => Expression::Other,
            }
        }
        _ => Expression::Other,
    }
}

fn call(call: &FuncCall, depth: usize) -> Expression {
    let name = strings(&call.funcname).last().map(|name| (*name).to_owned()).unwrap_or_default();
    if name == "count" {
        return Expression::Count;
    }
    Expression::Call(name, call.args.iter().map(|arg| value(Some(arg), depth - 1)).collect())
}

fn arithmetic(expression: &AExpr, depth: usize) -> Expression {
    let left = value(expression.lexpr.as_deref(), depth - 1);
    let right = value(expression.rexpr.as_deref(), depth - 1);
    match *strings(&expression.name).last().unwrap_or(&"") {
        "+" => Expression::Arithmetic('+', Box::new(left), Box::new(right)),
        "-" => Expression::Arithmetic('-', Box::new(left), Box::new(right)),
        "*" => Expression::Arithmetic('*', Box::new(left), Box::new(right)),
        "/" => Expression::Arithmetic('/', Box::new(left), Box::new(right)),
        _ => Expression::Other,
    }
}

fn constant_value(constant: &pg_query::protobuf::AConst) -> Expression {
    use pg_query::protobuf::a_const::Val;
    match &constant.val {
        Some(Val::Ival(value)) => Expression::Integer(i64::from(value.ival)),
        Some(Val::Fval(value)) => {
            value.fval.parse().map_or_else(|_| Expression::Number(value.fval.clone()), Expression::Integer)
        }
        Some(Val::Boolval(value)) => Expression::Boolean(value.boolval),
        Some(Val::Sval(value)) => Expression::Text(value.sval.clone()),
        Some(Val::Bsval(value)) => Expression::Text(value.bsval.clone()),
        None if constant.isnull => Expression::Null,
        // PostgreSQL's tree leaves out the value 0.
        None => Expression::Integer(0),
    }
}

fn aggregates(value: &Expression) -> bool {
    const AGGREGATES: [&str; 10] =
        ["sum", "min", "max", "avg", "array_agg", "string_agg", "json_agg", "jsonb_agg", "bool_or", "bool_and"];
    match value {
        Expression::Count => true,
        Expression::Call(name, arguments) => AGGREGATES.contains(&name.as_str()) || arguments.iter().any(aggregates),
        Expression::Cast(value, _) => aggregates(value),
        _ => false,
    }
}

/// PostgreSQL's name of a column that has none (`FigureColname` in its `parse_target.c`).
fn column_name(target: &ResTarget) -> String {
    if !target.name.is_empty() {
        return target.name.clone();
    }
    implied_name(target.val.as_deref(), DEEPEST).unwrap_or_else(|| "?column?".to_owned())
}

fn implied_name(node: Option<&Node>, depth: usize) -> Option<String> {
    let node = node?.node.as_ref().filter(|_| depth > 0)?;
    let last = |nodes: &[Node]| strings(nodes).last().map(|name| (*name).to_owned());
    match node {
        NodeEnum::ColumnRef(column) => last(&column.fields),
        NodeEnum::FuncCall(call) => last(&call.funcname),
        NodeEnum::TypeCast(cast) => implied_name(cast.arg.as_deref(), depth - 1)
            .or_else(|| cast.type_name.as_ref().and_then(|name| last(&name.names))),
        NodeEnum::CollateClause(collate) => implied_name(collate.arg.as_deref(), depth - 1),
        NodeEnum::AIndirection(part) => {
            last(&part.indirection).or_else(|| implied_name(part.arg.as_deref(), depth - 1))
        }
        NodeEnum::SqlvalueFunction(function) => Some(sql_value(function.op).to_owned()),
        NodeEnum::CaseExpr(case) => {
            implied_name(case.defresult.as_deref(), depth - 1).or_else(|| Some("case".to_owned()))
        }
        NodeEnum::CoalesceExpr(_) => Some("coalesce".to_owned()),
        NodeEnum::AArrayExpr(_) => Some("array".to_owned()),
        NodeEnum::RowExpr(_) => Some("row".to_owned()),
        NodeEnum::SubLink(link) if link.sub_link_type == SubLinkType::ExistsSublink as i32 => Some("exists".to_owned()),
        NodeEnum::SubLink(link) if link.sub_link_type == SubLinkType::ArraySublink as i32 => Some("array".to_owned()),
        NodeEnum::SubLink(link) => match link.subselect.as_ref()?.node.as_ref()? {
            NodeEnum::SelectStmt(select) => match select.target_list.first()?.node.as_ref()? {
                NodeEnum::ResTarget(target) => Some(column_name(target)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// The name of a function that SQL calls without parentheses.
fn sql_value(op: i32) -> &'static str {
    match SqlValueFunctionOp::try_from(op) {
        Ok(SqlValueFunctionOp::SvfopCurrentDate) => "current_date",
        Ok(SqlValueFunctionOp::SvfopCurrentTimestamp | SqlValueFunctionOp::SvfopCurrentTimestampN) => {
            "current_timestamp"
        }
        Ok(SqlValueFunctionOp::SvfopCurrentRole) => "current_role",
        Ok(SqlValueFunctionOp::SvfopCurrentUser) => "current_user",
        Ok(SqlValueFunctionOp::SvfopUser) => "user",
        Ok(SqlValueFunctionOp::SvfopSessionUser) => "session_user",
        Ok(SqlValueFunctionOp::SvfopCurrentCatalog) => "current_catalog",
        Ok(SqlValueFunctionOp::SvfopCurrentSchema) => "current_schema",
        _ => "?column?",
    }
}

fn is_star(node: Option<&Node>) -> bool {
    matches!(node.and_then(|node| node.node.as_ref()), Some(NodeEnum::AStar(_)))
}

fn common_tables(stmt: &SelectStmt) -> Vec<String> {
    let tables = stmt.with_clause.iter().flat_map(|with| &with.ctes);
    let name = |node: &Node| match node.node.as_ref()? {
        NodeEnum::CommonTableExpr(table) => Some(table.ctename.clone()),
        _ => None,
    };
    tables.filter_map(name).collect()
}

fn source(stmt: &SelectStmt, common: &[String]) -> Source {
    if stmt.from_clause.is_empty() {
        return Source::Nothing;
    }
    let foreign = stmt.from_clause.iter().find_map(|node| foreign_relation(node, common, DEEPEST));
    foreign.map_or(Source::Catalog, Source::Relation)
}

/// The first relation that is not one of the system's.
fn foreign_relation(node: &Node, common: &[String], depth: usize) -> Option<String> {
    match node.node.as_ref().filter(|_| depth > 0)? {
        NodeEnum::RangeVar(range) => {
            let ours = match range.schemaname.as_str() {
                "pg_catalog" | "information_schema" => true,
                "" => range.relname.starts_with("pg_") || common.contains(&range.relname),
                _ => false,
            };
            (!ours).then(|| match range.schemaname.as_str() {
                "" => range.relname.clone(),
                schema => format!("{schema}.{}", range.relname),
            })
        }
        NodeEnum::JoinExpr(join) => {
            [&join.larg, &join.rarg].into_iter().flatten().find_map(|side| foreign_relation(side, common, depth - 1))
        }
        NodeEnum::RangeSubselect(range) => match range.subquery.as_ref()?.node.as_ref()? {
            NodeEnum::SelectStmt(inner) => {
                let mut common = common.to_vec();
                common.extend(common_tables(inner));
                inner.from_clause.iter().find_map(|node| foreign_relation(node, &common, depth - 1))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The highest `$n` of a text.
fn highest_parameter(text: &str) -> usize {
    let scanned = scan(text, ParseOptions::default());
    let parameters = scanned.tokens().iter().filter(|word| word.token == Token::Param);
    let numbers = parameters.filter_map(|word| scanned.source(word.range.clone())?.get(1..)?.parse::<u16>().ok());
    numbers.max().map_or(0, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<Word>> {
        statements(text).unwrap().into_iter().map(|statement| statement.words).collect()
    }

    #[test]
    fn a_string_has_statements_of_words() {
        let name = |name: &str| Word::Name(name.to_owned());
        assert_eq!(
            words("show CONFIG like 'a''b'; ; KILL 12 -- why\n"),
            [
                vec![name("show"), name("config"), name("like"), Word::Text("a'b".to_owned())],
                vec![name("kill"), Word::Number("12".to_owned())]
            ]
        );
        assert!(words("").is_empty());
        assert!(words(" /* nothing */ ").is_empty());
        assert!(statements("SELECT 'open").is_err());
        assert_eq!(words("SHOW \"a\"\"\"")[0].last(), Some(&Word::Quoted("a\"".to_owned())));
        assert_eq!(words("SET a.b = $$x$$")[0].last(), Some(&Word::Text("x".to_owned())));
    }

    #[test]
    fn a_select_has_columns_and_a_source() {
        let read = |text: &str| select(text).unwrap().unwrap();
        let found = read("SELECT 1, version() AS v, current_user, c.relname::text FROM pg_class c WHERE oid = $2");
        let names: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["?column?", "v", "current_user", "relname"]);
        assert_eq!((found.source, found.parameters), (Source::Catalog, 2));
        assert_eq!(read("SELECT 1 FROM orders").source, Source::Relation("orders".to_owned()));
        assert_eq!(read("WITH x AS (SELECT 1) SELECT * FROM x").source, Source::Catalog);
        assert_eq!(read("SELECT 1 FROM pg_class a JOIN app.t b ON true").source, Source::Relation("app.t".to_owned()));
        assert!(read("SELECT count(*) FROM pg_catalog.pg_class").aggregates);
        assert_eq!(read("SELECT 'x' UNION SELECT relname FROM pg_class").columns.len(), 1);
        assert_eq!(read("SELECT 0").columns[0].value, Expression::Integer(0));
        assert_eq!(select("DROP TABLE t").unwrap(), None);
        assert_eq!(select("SELECT 1; SELECT 2").unwrap(), None);
    }
}

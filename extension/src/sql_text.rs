//! Reading SQL text that SQLite itself has accepted, where no pragma tells what is needed: keywords, and the definitions
//! within a CREATE TABLE.

use std::ffi::CStr;

/// A name of ours that C gets, as SQL text has it.
pub const fn text_of(name: &CStr) -> &str {
    match name.to_str() {
        Ok(text) => text,
        Err(_) => "",
    }
}

/// A piece of SQL text: one word, one quoted name or string, or one other character; comments and space are none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Token<'t> {
    text: &'t str,
    start: usize,
}

/// The tokens of a text.
fn tokens(sql: &str) -> Vec<Token<'_>> {
    let bytes = sql.as_bytes();
    let at = |i: usize| bytes.get(i).copied();
    let run = |mut i: usize, go_on: &dyn Fn(u8) -> bool| {
        while at(i).is_some_and(go_on) {
            i += 1;
        }
        i
    };
    let (mut out, mut i) = (Vec::new(), 0);
    while let Some(b) = at(i) {
        let start = i;
        i = match b {
            b'\'' | b'"' | b'`' | b'[' => quoted_end(bytes, i),
            b'-' if at(i + 1) == Some(b'-') => run(i, &|c| c != b'\n'),
            b'/' if at(i + 1) == Some(b'*') => {
                sql.get(i + 2..).and_then(|t| t.find("*/")).map_or(bytes.len(), |n| i + n + 4)
            }
            _ if is_word(b) => run(i, &is_word),
            _ => i + 1,
        };
        let skipped = b.is_ascii_whitespace() || (matches!(b, b'-' | b'/') && i > start + 1);
        if let (false, Some(text)) = (skipped, sql.get(start..i)) {
            out.push(Token { text, start });
        }
    }
    out
}

/// Where a quoted name or string ends. A doubled quote stands for itself.
fn quoted_end(bytes: &[u8], start: usize) -> usize {
    let close = match bytes.get(start) {
        Some(b'[') => b']',
        Some(b) => *b,
        None => return start,
    };
    let mut i = start + 1;
    loop {
        match bytes.get(i) {
            None => return i,
            Some(b) if *b == close && close != b']' && bytes.get(i + 1) == Some(&close) => i += 2,
            Some(b) if *b == close => return i + 1,
            Some(_) => i += 1,
        }
    }
}

const fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80
}

/// Whether a keyword stands in SQL text outside comments, strings and quoted names.
pub fn has_keyword(sql: &str, keyword: &str) -> bool {
    tokens(sql).iter().any(|t| is_one_of(t, &[keyword]))
}

/// Words that stand for the time.
const TIMES: [&str; 3] = ["CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP"];

fn is_one_of(token: &Token<'_>, words: &[&str]) -> bool {
    words.iter().any(|word| token.text.eq_ignore_ascii_case(word))
}

/// What SQLite makes of the text of a DEFAULT clause, as an expression in brackets: a name that stands alone is a string there.
pub fn default_expression(text: &str) -> String {
    let is_value = |t: &Token<'_>| is_one_of(t, &["NULL", "TRUE", "FALSE"]) || is_one_of(t, &TIMES);
    let is_name = |t: &Token<'_>| {
        let word = t.text.bytes().next().is_some_and(|b| is_word(b) && !b.is_ascii_digit());
        let quoted = t.text.starts_with(['"', '`', '[']);
        quoted || (word && !is_value(t))
    };
    match tokens(text).as_slice() {
        [name] if is_name(name) => format!("('{}')", bare_name(name.text).replace('\'', "''")),
        // It may end in a comment.
        _ => format!("({text}\n)"),
    }
}

/// Whether an expression may come to another value another time: it calls a function, or asks for the time.
pub fn may_vary(expression: &str) -> bool {
    let tokens = tokens(expression);
    let is_call = |pair: &[Token<'_>]| {
        let [name, open] = pair else { return false };
        let named = name.text.bytes().next().is_some_and(|b| is_word(b) || matches!(b, b'"' | b'`' | b'['));
        open.text == "("
            && named
            && !is_one_of(name, &["CAST", "IN", "NOT", "AND", "OR", "CASE", "WHEN", "THEN", "ELSE", "BETWEEN", "LIKE"])
    };
    tokens.iter().any(|t| is_one_of(t, &TIMES)) || tokens.windows(2).any(is_call)
}

/// The first word or quoted name of a text, as it stands there.
pub fn first_token(sql: &str) -> Option<&str> {
    tokens(sql).first().map(|t| t.text)
}

/// A text in one form, whatever its spaces, comments, the case of its words and the kind of its quotes.
pub fn normal_form(sql: &str) -> String {
    let words: Vec<String> = tokens(sql)
        .iter()
        .map(|t| match t.text.as_bytes().first() {
            Some(b'"' | b'`' | b'[') => unquoted(t.text),
            Some(b'\'') => t.text.to_string(),
            _ => t.text.to_ascii_lowercase(),
        })
        .collect();
    words.join(" ")
}

fn unquoted(name: &str) -> String {
    bare_name(name).to_ascii_lowercase()
}

/// A name without its quotes, if it has any.
fn bare_name(name: &str) -> String {
    let inner = name.get(1..name.len().saturating_sub(1)).unwrap_or_default();
    match name.as_bytes().first() {
        Some(b'"') => inner.replace("\"\"", "\""),
        Some(b'`') => inner.replace("``", "`"),
        Some(b'[' | b'\'') => inner.to_string(),
        _ => name.to_string(),
    }
}

/// The parts of a CREATE TABLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTable<'t> {
    /// What stands from the opening parenthesis on.
    pub body: &'t str,
    /// The column definitions and table constraints, in order.
    pub definitions: Vec<&'t str>,
    /// What follows the closing parenthesis.
    pub options: &'t str,
}

/// The table that an INSERT, REPLACE, UPDATE or DELETE writes to, in lower case; `None` for any other statement, one that begins WITH,
/// and one that names another schema than `main`.
pub fn written_table(sql: &str) -> Option<String> {
    // An empty statement before it is taken for a part of it.
    let words: Vec<&str> = tokens(sql).iter().map(|token| token.text).skip_while(|word| *word == ";").collect();
    let is = |at: usize, word: &str| words.get(at).is_some_and(|w| w.eq_ignore_ascii_case(word));
    let after_or = if is(1, "or") { 3 } else { 1 };
    let mut at = match words.first()?.to_ascii_lowercase().as_str() {
        "insert" | "replace" if is(after_or, "into") => after_or + 1,
        "delete" if is(1, "from") => 2,
        "update" => after_or,
        _ => return None,
    };
    let name = |at: usize| -> Option<String> {
        let name = words.get(at)?;
        let quoted = matches!(name.as_bytes().first(), Some(b'"' | b'`' | b'[' | b'\''));
        Some(if quoted { unquoted(name) } else { (*name).to_string() }.to_ascii_lowercase())
    };
    if is(at + 1, ".") && name(at)? == "main" {
        at += 2;
    }
    if is(at + 1, ".") {
        return None;
    }
    name(at)
}

/// Takes a CREATE TABLE apart; `None` where there is no list of columns.
pub fn create_table(sql: &str) -> Option<CreateTable<'_>> {
    let tokens = tokens(sql);
    let open = tokens.iter().position(|t| t.text == "(")?;
    let body = sql.get(tokens.get(open)?.start..)?;
    let (mut depth, mut from, mut definitions) = (0u32, tokens.get(open)?.start + 1, Vec::new());
    for token in tokens.iter().skip(open) {
        match token.text {
            "(" => depth += 1,
            ")" if depth == 1 => {
                definitions.push(sql.get(from..token.start)?.trim());
                let options = sql.get(token.start + 1..)?.trim();
                return Some(CreateTable { body, definitions, options });
            }
            ")" => depth -= 1,
            "," if depth == 1 => {
                definitions.push(sql.get(from..token.start)?.trim());
                from = token.start + 1;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_is_a_string_as_a_default() {
        for (text, expression) in [
            ("abc", "('abc')"),
            ("\"it's\"", "('it''s')"),
            ("[a b]", "('a b')"),
            ("`A``b`", "('A`b')"),
            ("current_date", "(current_date\n)"),
            ("Null", "(Null\n)"),
            ("-5", "(-5\n)"),
            ("1", "(1\n)"),
            ("'x' -- note", "('x' -- note\n)"),
            ("x'00'", "(x'00'\n)"),
        ] {
            assert_eq!(default_expression(text), expression);
        }
    }

    #[test]
    fn what_calls_a_function_may_vary() {
        for constant in
            ["", "1", "-1.5", "'now()'", "(2 * (3 + 4))", "CAST('5' AS INT)", "('current_date')", "x'00'", "NULL"]
        {
            assert!(!may_vary(constant), "{constant}");
        }
        for varying in
            ["current_timestamp", "(unixepoch())", "(1 + random ())", "(\"lower\"('X'))", "datetime/**/('now')"]
        {
            assert!(may_vary(varying), "{varying}");
        }
    }

    #[test]
    fn the_table_that_a_statement_writes_to_is_told_and_no_other() {
        for sql in [
            "INSERT INTO T VALUES(1)",
            "insert or ignore into main.[t] select * from u",
            "/* a seed */ REPLACE INTO \"T\"(a) VALUES('into u')",
            ";; -- twice\n; UPDATE t SET a = 1",
            "INSERT INTO \"main\".'t' VALUES(1)",
            "UPDATE OR FAIL `t` SET a = 1",
            "DELETE FROM t",
        ] {
            assert_eq!(written_table(sql).as_deref(), Some("t"), "{sql}");
        }
        for sql in [
            "CREATE TABLE t(x)",
            "INSERT INTO temp.t VALUES(1)",
            "WITH t AS (SELECT 1) DELETE FROM t",
            "insert",
            "",
            "SELECT 1",
        ] {
            assert_eq!(written_table(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_keyword_in_a_comment_a_string_or_a_name_is_not_one() {
        let yes = "CREATE TABLE t(a INTEGER PRIMARY KEY autoincrement)";
        let no = "CREATE TABLE t(a /* AUTOINCREMENT */ INTEGER, \"AUTOINCREMENT\" TEXT DEFAULT 'AUTOINCREMENT', -- AUTOINCREMENT\n [AUTOINCREMENT] , xAUTOINCREMENT, PRIMARY KEY(a))";
        assert!(has_keyword(yes, "AUTOINCREMENT"));
        assert!(!has_keyword(no, "AUTOINCREMENT"));
    }

    #[test]
    fn a_table_is_taken_apart_at_its_own_commas() {
        let sql = "CREATE TABLE \"a(,\"( id INT PRIMARY KEY, b TEXT DEFAULT ('x,y') -- c, d\n, [e,] DECIMAL(3, 1), CHECK (b IN (1, 2))) WITHOUT ROWID";
        let parts = create_table(sql).expect("a table");
        assert_eq!(
            parts.definitions,
            ["id INT PRIMARY KEY", "b TEXT DEFAULT ('x,y') -- c, d", "[e,] DECIMAL(3, 1)", "CHECK (b IN (1, 2))"]
        );
        assert_eq!(parts.options, "WITHOUT ROWID");
        assert_eq!(create_table("CREATE TABLE x"), None);
    }

    #[test]
    fn spaces_case_comments_and_quotes_do_not_matter() {
        assert_eq!(normal_form("a  \"B\"\"c\" /* x */ 'Lit''s'"), normal_form("A [b\"C] -- y\n'Lit''s'"));
        assert_ne!(normal_form("'a'"), normal_form("'A'"));
    }

    #[test]
    fn text_that_ends_within_a_token_is_no_panic() {
        for sql in ["'", "\"a", "[", "/*", "--", "/", "(", "a(", "a(b", "''", "\"\"\"", "ü'ß"] {
            let _ = (normal_form(sql), create_table(sql), has_keyword(sql, "x"));
        }
    }
}

//! The rules, one function each.

use super::sources::{files, text, Source};
use super::Findings;

const MAX_LINES: usize = 500;
const MAX_FUNCTION: usize = 70;

/// A file is one idea.
pub fn length(source: &Source) -> Findings {
    let n = source.lines().count();
    if n > MAX_LINES {
        vec![format!("{}: {n} lines, {MAX_LINES} are allowed; split it by what it does", source.path)]
    } else {
        Vec::new()
    }
}

/// rustfmt closes a function with a brace under its first letter.
pub fn functions(source: &Source) -> Findings {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut out = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let is_function =
            trimmed.split_whitespace().take_while(|w| !w.contains('(') || w.starts_with("pub(")).any(|w| w == "fn");
        if trimmed.starts_with("//") || !is_function {
            continue;
        }
        let end = format!("{indent}}}");
        let body =
            lines[i..].iter().take_while(|l| **l != end && !(l.ends_with(';') && is_declaration(l, indent))).count();
        if body + 1 > MAX_FUNCTION && !line.ends_with('}') {
            out.push(format!(
                "{}:{}: a function of {} lines, {MAX_FUNCTION} are allowed",
                source.path,
                i + 1,
                body + 1
            ));
        }
    }
    out
}

/// A function without a body, of a trait or of C.
fn is_declaration(line: &str, indent: &str) -> bool {
    line.trim_start().len() + indent.len() == line.len() && (line.contains("fn ") || line.trim_start().starts_with(')'))
}

/// No notes to oneself, no stubs.
pub fn unfinished(source: &Source) -> Findings {
    let words = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["db", "g!("].concat(),
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
    ];
    let hits = source.lines().filter(|(_, line)| words.iter().any(|w| line.contains(w.as_str())));
    hits.map(|(n, line)| format!("{}:{n}: {}", source.path, line.trim())).collect()
}

/// Where `unsafe` may stand, and why.
const FENCES: &[&str] = &[
    "extension/src/sqlite/",         // the fence itself
    "extension/sqlite3ext-sys/src/", // the declarations it uses
    "sidecar/src/db/register.rs",    // registers the extension with the SQLite in the binary
    "tests/src/site.rs",             // the same for the tests
    "tests/src/shared.rs",           // one connection in many threads
    "tests/src/pause.rs",            // a virtual table, as SQLite sees it
    "tests/src/disk/vfs.rs",         // a disk that fails, as SQLite sees it
    "tests/src/bin/bench/",          // the same, with and without, to compare
    "docs/examples/rust/",           // what every program must write that loads an extension
];

/// No `unsafe` outside the fences.
pub fn fenced(source: &Source) -> Findings {
    if source.under(FENCES) {
        return Vec::new();
    }
    let code = source.lines().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let hits = code.filter(|(_, line)| {
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|w| line.contains(w))
            && !line.contains("\"unsafe")
    });
    hits.map(|(n, line)| format!("{}:{n}: unsafe outside the fences: {}", source.path, line.trim())).collect()
}

/// Lints whose name says why they were allowed where they were.
const PLAIN: &[&str] = &["unsafe_code", "too_many_arguments", "cast_possible_truncation"];

/// An `allow` has a `reason`, or a comment beside it.
pub fn reasons(source: &Source) -> Findings {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut out = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let opens = ["#[allow(", "#![allow("].iter().any(|w| line.trim_start().starts_with(w));
        if !opens {
            continue;
        }
        let before = i.checked_sub(1).map_or("", |i| lines[i].trim_start());
        let explained = line.contains("reason") || line.contains("//") || before.starts_with("//");
        let plain = PLAIN.iter().any(|lint| line.contains(lint));
        if !explained && !plain {
            out.push(format!("{}:{}: say why: {}", source.path, i + 1, line.trim()));
        }
    }
    out
}

/// The cores take time and randomness as arguments and iterate nothing whose order is random.
pub fn deterministic(source: &Source) -> Findings {
    if !source.under(&["sidecar/proto/src/", "extension/crdt/src/"]) {
        return Vec::new();
    }
    let words = [
        "HashMap",
        "HashSet",
        "Instant::now",
        "SystemTime",
        "thread_rng",
        "rand::rng()",
        "from_os_rng",
        "getrandom",
        "std::fs",
        "std::net::Tcp",
    ];
    let hits = source.code().filter(|(_, line)| words.iter().any(|w| line.contains(w)));
    hits.map(|(n, line)| format!("{}:{n}: a core is told, it does not ask: {}", source.path, line.trim())).collect()
}

/// Files of the sidecar that open files, and which: none of them the database, its -wal or its -shm. Opening and closing one of
/// those drops every POSIX lock that SQLite holds on it in this process.
const OPENERS: &[(&str, &str)] = &[
    ("sidecar/src/cluster.rs", "the cluster key"),
    ("sidecar/src/config.rs", "the file of the HTTP token"),
    ("sidecar/src/db/state.rs", "the state file beside the database, and the kernel's boot id"),
    ("sidecar/src/db/writer/assembly.rs", "temporary files for large changesets"),
    ("sidecar/src/run.rs", "the lock file beside the database"),
    ("sidecar/src/admin/mod.rs", "the folder of the status socket, with O_PATH"),
];

/// The sidecar opens no file but through SQLite.
pub fn opens(source: &Source) -> Findings {
    if !source.under(&["sidecar/src/"]) {
        return Vec::new();
    }
    let words = [
        "File::open",
        "File::create",
        "File::options",
        "OpenOptions",
        "fs::read(",
        "fs::read_to_string",
        "fs::write",
        "fs::copy",
        "fs::open(",
        "tempfile()",
    ];
    let hits = source.code().filter(|(_, line)| words.iter().any(|w| line.contains(w)));
    let allowed = OPENERS.iter().any(|(path, _)| source.path == *path);
    let mut out: Findings = Vec::new();
    for (n, line) in hits {
        let names_database = ["-wal", "-shm", "journal"].iter().any(|w| line.contains(w));
        if !allowed || names_database {
            out.push(format!("{}:{n}: may not open files itself: {}", source.path, line.trim()));
        }
    }
    out
}

/// Lines of SQL that may stand in the code: a statement of the extension's that names many columns wraps.
const MAX_SQL_LINES: usize = 4;

/// A literal that begins like SQL and goes on for many lines.
pub fn long_sql(source: &Source) -> Findings {
    let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "WITH ", "REPLACE "];
    let code: Vec<(usize, &str)> = source.code().collect();
    let mut out = Vec::new();
    for (i, (n, line)) in code.iter().enumerate() {
        let Some(at) = line.rfind('"') else { continue };
        let opened = line.matches('"').count() % 2 == 1;
        if !opened || !verbs.iter().any(|v| line[at + 1..].starts_with(v)) {
            continue;
        }
        let goes_on = code[i + 1..].iter().take_while(|(_, l)| !l.contains('"')).count() + 2;
        if goes_on > MAX_SQL_LINES {
            out.push(format!("{}:{n}: SQL of {goes_on} lines belongs into sql/: {}", source.path, line.trim()));
        }
    }
    out
}

/// Every SQL file is used.
pub fn embedded() -> Findings {
    let sources: String = super::sources::rust().into_iter().filter(|s| !s.is_test()).map(|s| s.text).collect();
    let all = files(".sql").into_iter().filter(|p| p.starts_with("sql/"));
    // Users run this one themselves.
    let own = |path: &String| path == "sql/extension/uninstall.sql";
    let unused = all.filter(|path| !own(path) && !sources.contains(&format!("{path}\")")));
    let mut out: Findings = unused.map(|path| format!("{path}: no include_str! names it")).collect();
    for path in files(".sql").into_iter().filter(|p| p.starts_with("sql/")) {
        let folder = path.rsplit_once('/').map_or("sql", |(folder, _)| folder);
        let name = path.rsplit('/').next().unwrap_or_default();
        let readme = text(&format!("{folder}/README.md"));
        let stem = name.trim_end_matches(".sql");
        let kind = stem.split('_').next().unwrap_or(stem);
        if !readme.contains(name) && !readme.contains(kind) {
            out.push(format!("{path}: {folder}/README.md does not mention it"));
        }
    }
    out
}

/// The fuzz targets are a workspace of their own: its lock file knows what ours depend on by now, or they cannot be built.
pub fn locked() -> Findings {
    const LOCK: &str = "tests/fuzz/Cargo.lock";
    let lock = text(LOCK);
    let mut out = Findings::new();
    for manifest in ["extension", "extension/crdt", "sidecar/proto", "tests"] {
        let manifest = text(&format!("{manifest}/Cargo.toml"));
        let name = manifest.lines().find(|line| line.starts_with("name = ")).unwrap_or_default();
        let known = lock.split("[[package]]").find(|package| package.contains(name)).unwrap_or_default();
        let wanted = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let wanted = wanted.lines().take_while(|line| !line.starts_with('['));
        let wanted = wanted
            .filter_map(|line| line.split([' ', '.', '=']).next())
            .filter(|word| !word.is_empty() && *word != "#");
        let missing = wanted.filter(|wanted| !known.contains(&format!("\n \"{wanted}")));
        out.extend(missing.map(|missing| {
            format!("{LOCK}: {name} lacks {missing}; run cargo metadata --manifest-path tests/fuzz/Cargo.toml")
        }));
    }
    out
}

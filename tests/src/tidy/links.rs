//! Links between documents, and the files that documents and comments name.

use super::sources::{files, root, rust, text};
use super::Findings;

/// Links and named documents that lead nowhere.
pub fn broken() -> Findings {
    let mut out = Findings::new();
    for path in files(".md") {
        let text = text(&path);
        for target in targets(&text) {
            if !exists(&path, target) {
                out.push(format!("{path}: nothing is at {target}"));
            }
        }
        out.extend(named(&path, &text));
    }
    for source in rust() {
        out.extend(named(&source.path, &source.text));
    }
    out
}

/// Tests that `docs/TESTING.md` names for a promise, and that are not there.
pub fn promised() -> Findings {
    let text = text("docs/TESTING.md");
    let table =
        text.split("## Which test stands").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let names: Vec<&str> = table.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2).collect();
    let sources = rust();
    let is_there = |name: &str| sources.iter().any(|s| s.text.contains(&format!("fn {name}(")));
    let mut out: Findings = names.iter().filter(|n| !is_there(n)).map(|n| format!("there is no test {n}")).collect();
    if names.len() < 50 {
        out.push("the table of promises is not where it was".to_string());
    }
    out
}

/// Where `[text](target)` points, web pages left out.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let pieces = text.split("](").skip(1);
    pieces
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .filter(|t| !t.contains("://") && !t.contains(' '))
}

fn exists(from: &str, target: &str) -> bool {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = root().join(from).parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    let path = if file.is_empty() { root().join(from) } else { folder.join(file) };
    if !path.exists() {
        return false;
    }
    anchor.is_empty() || std::fs::read_to_string(path).is_ok_and(|text| headings(&text).any(|h| h == anchor))
}

/// The anchors of a document: its headings in lower case, spaces as dashes, punctuation gone.
fn headings(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter_map(|l| l.strip_prefix('#')).map(|l| {
        let words = l.trim_start_matches('#').trim().to_lowercase();
        words
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    })
}

/// Documents that are named by their path without a link.
fn named(path: &str, text: &str) -> Findings {
    let mut out = Findings::new();
    for rest in text.split("docs/").skip(1) {
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c)).collect();
        let name = name.trim_end_matches('.');
        if name.ends_with(".md") && !root().join("docs").join(name).exists() {
            out.push(format!("{path}: there is no docs/{name}"));
        }
    }
    out
}

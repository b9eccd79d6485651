//! The repository's files, as the rules look at them.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file.
pub struct Source {
    /// Its path from the repository's root.
    pub path: String,
    /// Its text.
    pub text: String,
    /// From this line on (from 0) everything is tests.
    tests_from: usize,
}

impl Source {
    /// Its lines with their numbers (from 1).
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line))
    }

    /// The lines that ship: no tests, no comments.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let test_file = self.is_test();
        self.lines()
            .take_while(move |(n, _)| !test_file && *n <= self.tests_from)
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Whether all of it is tests.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Whether it is under one of these folders (or is one of these files).
    pub fn under(&self, places: &[&str]) -> bool {
        places.iter().any(|p| self.path.starts_with(p))
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is inside the repository").to_path_buf()
}

/// Every file with this ending, by path from the root; what builds leave is not looked at.
pub fn files(ending: &str) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, ending: &str, out: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "dist", "node_modules"].contains(&name.as_str()) {
                    walk(root, &path, ending, out);
                }
            } else if name.ends_with(ending) {
                out.push(path.strip_prefix(root).expect("it is inside").to_string_lossy().into_owned());
            }
        }
    }
    let (root, mut out) = (root(), Vec::new());
    walk(&root, &root, ending, &mut out);
    out.sort();
    out
}

/// A file's text.
pub fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every Rust file that people write.
pub fn rust() -> Vec<Source> {
    let generated = "extension/sqlite3ext-sys/src/bindings.rs";
    let all: Vec<Source> = files(".rs")
        .into_iter()
        .filter(|path| path != generated)
        .map(|path| {
            let text = text(&path);
            let tests = text.lines().position(|l| l.starts_with("#[cfg(test)]"));
            let tests_from = tests.unwrap_or(usize::MAX);
            Source { path, text, tests_from }
        })
        .collect();
    assert!(all.len() > 100, "the sources were not found");
    all
}

//! All short histories of one row on two replicas. In words of a few letters every order of writes and exchanges is tried, and
//! after each exchange what the extension holds is compared with what the rules alone come to (`row.rs`).
//!
//! Words that exchange at the same places run side by side, each on keys of its own: one exchange serves hundreds of them.
//! STARLING_SCOPES_LENGTH=n sets how long words are.

#[path = "scopes/pair.rs"]
mod pair;
#[path = "scopes/row.rs"]
mod row;
#[path = "scopes/word.rs"]
mod word;

use pair::{Pair, Table};
use word::{skeletons, words, Alphabet, ALL, FEW};

/// Words that one pair of databases sees at most: what is read and compared stays small.
const WORDS_PER_PAIR: usize = 400;

const TWO_COLUMNS: Table =
    Table { sql: "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INTEGER NOT NULL)", columns: true };
const KEY_ONLY: Table = Table { sql: "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY)", columns: false };
const WITHOUT_ROWID: Table = Table {
    sql: "CREATE TABLE t(b INTEGER NOT NULL, id TEXT NOT NULL, a, p REAL NOT NULL DEFAULT 0.5, PRIMARY KEY(p, id)) \
          WITHOUT ROWID",
    columns: true,
};

fn every_word(table: &'static Table, alphabet: &Alphabet, longer: usize) {
    let length = std::env::var("STARLING_SCOPES_LENGTH").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    let mut pair = Pair::new(table);
    let mut tried = 0;
    for skeleton in (1..=length + longer).flat_map(|n| skeletons(alphabet, n)) {
        for some in words(alphabet, &skeleton, table.columns).chunks(WORDS_PER_PAIR) {
            if pair.used + some.len() > WORDS_PER_PAIR {
                std::mem::replace(&mut pair, Pair::new(table)).finish();
            }
            tried += some.len();
            if let Err((word, difference)) = pair.run(&skeleton, some) {
                let alone = Pair::new(table).run(&skeleton, std::slice::from_ref(&word)).err();
                let alone = alone.map_or("alone it goes well".to_string(), |(_, d)| format!("and alone: {d}"));
                panic!("{}: {difference}; {alone}", word.tell(&skeleton));
            }
        }
    }
    pair.finish();
    println!("{tried} words");
}

#[test]
fn every_short_history_of_a_row_ends_as_the_rules_say() {
    every_word(&TWO_COLUMNS, &ALL, 0);
}

#[test]
fn every_short_history_of_a_row_that_is_only_a_key_ends_as_the_rules_say() {
    every_word(&KEY_ONLY, &ALL, 0);
}

#[test]
fn every_short_history_of_a_row_without_rowid_ends_as_the_rules_say() {
    every_word(&WITHOUT_ROWID, &ALL, 0);
}

#[test]
fn every_history_of_a_few_kinds_of_write_ends_as_the_rules_say() {
    every_word(&TWO_COLUMNS, &FEW, 1);
}

//! Rules of the sources that no compiler checks. A rule that has an exception names it here, with the reason.

mod links;
mod rules;
mod sources;

use sources::{rust, Source};

/// What a rule found: where, and what is wrong.
type Findings = Vec<String>;

fn check(findings: Findings) {
    assert!(findings.is_empty(), "\n  {}\n", findings.join("\n  "));
}

fn each(rule: impl Fn(&Source) -> Findings) {
    check(rust().iter().flat_map(rule).collect());
}

#[test]
fn a_file_is_one_idea_of_at_most_500_lines() {
    each(rules::length);
}

#[test]
fn every_test_that_stands_for_a_promise_is_there() {
    check(links::promised());
}

#[test]
fn a_function_fits_a_screen() {
    each(rules::functions);
}

#[test]
fn nothing_is_left_to_be_done() {
    each(rules::unfinished);
}

#[test]
fn unsafe_stays_behind_its_fences() {
    each(rules::fenced);
}

#[test]
fn an_allowed_lint_has_its_reason_beside_it() {
    each(rules::reasons);
}

#[test]
fn the_cores_are_deterministic() {
    each(rules::deterministic);
}

#[test]
fn s3_the_sidecar_opens_no_file_that_could_be_the_database() {
    each(rules::opens);
}

#[test]
fn long_sql_stands_in_sql() {
    each(rules::long_sql);
}

#[test]
fn the_fuzz_targets_can_be_built() {
    check(rules::locked());
}

#[test]
fn every_file_in_sql_is_embedded() {
    check(rules::embedded());
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    check(links::broken());
}

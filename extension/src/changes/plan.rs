//! What is pushed down into a scan of `crsql_changes`: bounds on db_version, and the site.
//!
//! SQLite checks every constraint again, so a bound that cannot be used (a fraction, a word) is simply not used.

use super::column;
use crate::affinity::whole_number;
use crate::sqlite::{Args, IndexInfo, Op, ValueRef};

/// What a scan is limited to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Lowest db_version.
    pub lo: u64,
    /// Highest db_version.
    pub hi: u64,
    /// Only this site, or (false) any but this site.
    pub site: Option<(bool, Vec<u8>)>,
    /// Nothing can match.
    pub nothing: bool,
    /// Record by record from the newest one; within a record the order is the same as ever.
    pub newest_first: bool,
}

const EQ: char = '=';
const GT: char = '>';
const GE: char = 'g';
const LT: char = '<';
const LE: char = 'l';
const SITE_IS: char = 's';
const SITE_IS_NOT: char = 'n';
/// Comes last, and has no value.
const NEWEST_FIRST: char = 'd';

/// Chooses the constraints to push down and the order that a scan has by itself.
pub fn best_index(info: &mut IndexInfo<'_>) {
    let mut used = String::new();
    let chosen: Vec<(usize, char)> = info
        .constraints()
        .filter(|(_, c)| c.usable)
        .filter_map(|(i, c)| {
            let code = match (c.column?, c.op) {
                (column::DB_VERSION, Op::Eq | Op::Is) => EQ,
                (column::DB_VERSION, Op::Gt) => GT,
                (column::DB_VERSION, Op::Ge) => GE,
                (column::DB_VERSION, Op::Lt) => LT,
                (column::DB_VERSION, Op::Le) => LE,
                (column::SITE_ID, Op::Eq | Op::Is) => SITE_IS,
                (column::SITE_ID, Op::Ne | Op::IsNot) => SITE_IS_NOT,
                _ => return None,
            };
            Some((i, code))
        })
        .collect();
    for (argument, (i, code)) in chosen.iter().enumerate() {
        info.set_argv_index(*i, argument);
        used.push(*code);
    }
    let has = |codes: &[char]| chosen.iter().any(|(_, c)| codes.contains(c));
    let (cost, rows) = match (has(&[EQ]), has(&[GT, GE]), has(&[LT, LE])) {
        (true, _, _) => (10.0, 10),
        (_, true, true) => (1_000.0, 1_000),
        (_, true, _) => (10_000.0, 10_000),
        _ => (1_000_000.0, 1_000_000),
    };
    let site = if has(&[SITE_IS]) { 0.5 } else { 1.0 };
    info.set_estimated_cost(cost * site);
    info.set_estimated_rows(rows);
    let order: Vec<(Option<usize>, bool)> = info.order_by().map(|o| (o.column, o.desc)).collect();
    let own = |newest_first| [(Some(column::DB_VERSION), newest_first), (Some(column::SEQ), false)];
    let is = |newest_first| !order.is_empty() && order.len() <= 2 && own(newest_first).starts_with(&order);
    info.set_order_by_consumed(is(false) || is(true));
    if is(true) {
        used.push(NEWEST_FIRST);
    }
    info.set_idx_str(used);
}

/// Reads the chosen constraints' values.
pub fn read(codes: &str, args: &Args<'_>) -> Plan {
    let mut plan = Plan { lo: 0, hi: u64::MAX, site: None, nothing: false, newest_first: false };
    for (i, code) in codes.chars().enumerate() {
        match (code, args.get(i)) {
            (SITE_IS, ValueRef::Blob(site)) => plan.site = Some((true, site.to_vec())),
            (SITE_IS_NOT, ValueRef::Blob(site)) if plan.site.is_none() => plan.site = Some((false, site.to_vec())),
            (NEWEST_FIRST, _) => plan.newest_first = true,
            (SITE_IS | SITE_IS_NOT, _) => {}
            (_, value) => {
                if let Some(v) = whole_number(value) {
                    bound(&mut plan, code, v);
                }
            }
        }
    }
    plan
}

fn bound(plan: &mut Plan, code: char, v: i64) {
    let Ok(v) = u64::try_from(v) else {
        // All versions are above a negative number.
        plan.nothing |= matches!(code, EQ | LT | LE);
        return;
    };
    match code {
        EQ => {
            plan.lo = plan.lo.max(v);
            plan.hi = plan.hi.min(v);
        }
        GT => plan.lo = plan.lo.max(v.saturating_add(1)),
        GE => plan.lo = plan.lo.max(v),
        LT if v == 0 => plan.nothing = true,
        LT => plan.hi = plan.hi.min(v - 1),
        LE => plan.hi = plan.hi.min(v),
        _ => {}
    }
}

//! The words: what a replica may do, and every order in which two of them do it.

use super::row::{run, written, Rows, Sql, Value};

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Commit,
    Rollback,
    /// All but the first statement is undone by a savepoint.
    Savepoint,
}

/// A transaction.
#[derive(PartialEq, Eq, Debug)]
pub struct Op {
    pub sql: &'static [Sql],
    pub end: End,
}

const fn commit(sql: &'static [Sql]) -> Op {
    Op { sql, end: End::Commit }
}

/// The letters of which words are made.
pub struct Alphabet {
    pub writes: &'static [Op],
    pub exchanges: &'static [fn(usize) -> Exchange],
}

pub const ALL: Alphabet = Alphabet { writes: OPS, exchanges: &[Exchange::Pull, Exchange::Nine, Exchange::Late] };

/// Enough for lifetimes and ties, few enough for longer words.
pub const FEW: Alphabet = Alphabet {
    writes: &[commit(&[Sql::Insert]), commit(&[Sql::SetA]), commit(&[Sql::Delete]), commit(&[Sql::Replace])],
    exchanges: &[Exchange::Pull, Exchange::Late],
};

const OPS: &[Op] = &[
    commit(&[Sql::Insert]),
    commit(&[Sql::SetA]),
    commit(&[Sql::SetB]),
    commit(&[Sql::Delete]),
    commit(&[Sql::Replace]),
    commit(&[Sql::Move]),
    commit(&[Sql::Back]),
    commit(&[Sql::MoveOver]),
    commit(&[Sql::InsertOrIgnore, Sql::SetA]),
    commit(&[Sql::Delete, Sql::InsertOrIgnore]),
    commit(&[Sql::InsertOrIgnore, Sql::Delete]),
    commit(&[Sql::Replace, Sql::Delete]),
    commit(&[Sql::Move, Sql::Back]),
    Op { sql: &[Sql::Replace, Sql::SetA], end: End::Rollback },
    Op { sql: &[Sql::InsertOrIgnore, Sql::SetB, Sql::Delete], end: End::Savepoint },
];

/// The letters that exchange; the number is the replica that receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchange {
    /// It asks for what it lacks, and claims it.
    Pull(usize),
    /// Cell by cell through `crsql_changes`.
    Nine(usize),
    /// The changeset of the other's first write comes, perhaps once more, perhaps long after it was overtaken.
    Late(usize),
}

/// Where words exchange; `None` is a write.
pub type Skeleton = Vec<Option<Exchange>>;

/// All of them of this length that begin with a write and say nothing twice. What ends every word anyway does not stand last.
pub fn skeletons(alphabet: &Alphabet, length: usize) -> Vec<Skeleton> {
    let exchanges = alphabet.exchanges.iter().flat_map(|e| [Some(e(0)), Some(e(1))]);
    let letters: Vec<_> = std::iter::once(None).chain(exchanges).collect();
    let mut out: Vec<Skeleton> = vec![vec![None]];
    for _ in 1..length {
        let longer = out.iter().flat_map(|word| {
            let more = letters.iter().filter(|l| l.is_none() || word.last() != Some(*l));
            more.map(|l| word.iter().chain([l]).copied().collect())
        });
        out = longer.collect();
    }
    out.retain(|word| !matches!(word.last(), Some(Some(Exchange::Pull(_)))));
    out
}

/// What both replicas hold of a word's keys by the rules, and what each wrote first.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub sites: [Rows; 2],
    pub first: [Option<Rows>; 2],
}

impl World {
    /// A transaction at a site, which writes a value of its own; whether each statement succeeded.
    pub fn write(&mut self, site: usize, op: &Op, columns: bool, value: &Value) -> Vec<bool> {
        let before = self.sites[site].clone();
        let mut after = before.clone();
        let mut kept = before.clone();
        let mut went = Vec::new();
        for (i, sql) in op.sql.iter().enumerate() {
            went.push(run(&mut after, *sql, columns, value));
            if i == 0 || op.end == End::Commit {
                kept.clone_from(&after);
            }
        }
        if op.end != End::Rollback && kept != before {
            self.first[site].get_or_insert_with(|| written(&before, &kept));
            self.sites[site] = kept;
        }
        went
    }

    pub fn exchange(&mut self, exchange: Exchange) {
        let (to, what) = match exchange {
            Exchange::Pull(to) | Exchange::Nine(to) => (to, Some(self.sites[1 - to].clone())),
            Exchange::Late(to) => (to, self.first[1 - to].clone()),
        };
        for (row, other) in self.sites[to].iter_mut().zip(&what.unwrap_or_default()) {
            row.merge(other);
        }
    }
}

/// Who writes what at the places where the skeleton has no exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word(pub Vec<Option<(usize, &'static Op)>>);

impl Word {
    /// For a failure's message.
    pub fn tell(&self, skeleton: &Skeleton) -> String {
        let steps = self.0.iter().zip(skeleton).map(|(write, exchange)| match (write, exchange) {
            (Some((site, op)), _) => format!("{site}: {:?} {:?}", op.sql, op.end),
            (_, exchange) => format!("{exchange:?}"),
        });
        steps.collect::<Vec<_>>().join(", ")
    }
}

/// What the site writes at a step: the two replicas' values have different types, so that ties are decided.
pub fn value(site: usize, step: usize) -> Value {
    if site == 0 {
        Value::Integer(step as i64)
    } else {
        Value::Text(format!("v{step}"))
    }
}

/// All words of a skeleton. The first to write is replica 0; of writes that no exchange divides those of replica 0 come first,
/// since they know nothing of each other. A write that does nothing stands at the end only: before another it makes the shorter
/// word.
pub fn words(alphabet: &Alphabet, skeleton: &Skeleton, columns: bool) -> Vec<Word> {
    let mut out = Vec::new();
    extend(alphabet.writes, skeleton, columns, &World::default(), &mut Vec::new(), &mut out);
    out
}

fn extend(
    writes: &'static [Op],
    skeleton: &Skeleton,
    columns: bool,
    world: &World,
    word: &mut Vec<Option<(usize, &'static Op)>>,
    out: &mut Vec<Word>,
) {
    let at = word.len();
    let Some(step) = skeleton.get(at) else {
        out.push(Word(word.clone()));
        return;
    };
    if let Some(exchange) = step {
        let mut world = world.clone();
        world.exchange(*exchange);
        word.push(None);
        extend(writes, skeleton, columns, &world, word, out);
        word.pop();
        return;
    }
    let last = skeleton[at + 1..].iter().all(Option::is_some);
    let first = usize::from(word.last().is_some_and(|w| w.is_some_and(|(site, _)| site == 1)));
    for site in first..if word.is_empty() { 1 } else { 2 } {
        for op in writes {
            let mut next = world.clone();
            next.write(site, op, columns, &value(site, at));
            if next.sites == world.sites && !last {
                continue;
            }
            word.push(Some((site, op)));
            extend(writes, skeleton, columns, &next, word, out);
            word.pop();
        }
    }
}

//! Short histories told by hand: what random ones meet too seldom to serve as a test.

use super::check;
use super::replica::{Op, Replica};
use super::rules::Rules;
use super::types::{Changeset, Dot, COLUMNS};

fn updates(columns: &[u8], value: u8) -> Vec<Op> {
    columns.iter().map(|column| Op::Update { row: 0, column: *column, value }).collect()
}

/// All logged dots of `node`, as it would send them now.
fn all(node: &Replica) -> Vec<Changeset> {
    node.db.answer(&Default::default(), false, &Rules::SOUND)
}

/// Two nodes that claim the same dots and carry the same unclaimed dot, but different cells of it: a digest that only
/// names carried dots calls them equal. True if that is so, and if the digest over the carried cells tells them apart.
///
/// The origin writes 1 = insert, 2 = update a, 3 = update b, 4 = update a and b. X gets 1 and 3 as they were committed
/// and 2 late, covered by 4's a; Y gets 1 and 2 as committed and 3 late, covered by 4's b.
pub fn same_dots_other_cells() -> bool {
    let rules = Rules::SOUND;
    let mut origin = Replica::new(0, 2, false);
    let (mut x, mut y) = (Replica::new(1, 2, false), Replica::new(2, 2, false));
    origin.commit_local(&[Op::Insert { row: 0, values: [0; COLUMNS] }]);
    origin.commit_local(&updates(&[0], 1));
    origin.commit_local(&updates(&[1], 1));
    let fresh = all(&origin);
    origin.commit_local(&updates(&[0, 1], 2));
    let late = all(&origin);
    // `fresh[0]` was encoded after the updates already; each dot's own cells are all that matters here.
    x.commit_merge(&[fresh[0].clone(), fresh[2].clone(), late[1].clone()], false, &rules);
    y.commit_merge(&[fresh[0].clone(), fresh[1].clone(), late[2].clone()], false, &rules);
    let unclaimed = Dot { site: 0, epoch: 0, version: 4 };
    let (of_x, of_y) = (x.db.digest(), y.db.digest());
    let fooled = of_x.same_by_dots(&of_y) && !x.db.claimed.has(unclaimed) && !check::same_tables(&x.db, &y.db);
    fooled && of_x != of_y
}

/// A tie with a dot that nobody can claim any more: its origin is gone and only one cell of it survives. Without an alias
/// the two survivors hold equal tables but never equal digests. True if tables and digests are equal at the end.
///
/// X holds (a, value 1, col_version 2) by its own dot; Y holds the same content under the lost dot of the origin.
pub fn tie_with_a_lost_dot(rules: Rules) -> bool {
    let mut origin = Replica::new(0, 2, false);
    let (mut x, mut y) = (Replica::new(1, 2, false), Replica::new(2, 2, false));
    origin.commit_local(&[Op::Insert { row: 0, values: [0; COLUMNS] }]);
    let insert = all(&origin);
    x.commit_merge(&insert, false, &rules);
    x.commit_local(&updates(&[0], 1));
    origin.commit_local(&updates(&[0, 1], 1));
    // The insert once more, late: claimable, and carrying the cells of the update.
    y.commit_merge(&all(&origin)[..1], false, &rules);
    for _ in 0..3 {
        exchange(&mut x, &y, &rules);
        exchange(&mut y, &x, &rules);
    }
    check::same_tables(&x.db, &y.db) && x.db.digest() == y.db.digest()
}

fn exchange(to: &mut Replica, from: &Replica, rules: &Rules) {
    let answer = from.db.answer(&to.db.claimed, false, rules);
    to.commit_merge(&answer, false, rules);
    to.commit_done(&from.db.claimed);
}

//! Fair share: each user's place among all of them, by what they and the banks above them are due
//! and have used.
//!
//! Banks and users below one bank are ordered by weight, which is the share of what was granted
//! there divided by the share of what was used there. A walk along that order ranks the users.
//! Those below banks of equal weight are ranked against each other, and equal users are ranked
//! equally. The fair share is the rank from the end, as a fraction of the number of users.

use rusqlite::Connection;

use crate::banks::circular;
use crate::error::{Error, Result};

/// More than the weight of anybody who has used anything.
const UNUSED: f64 = 18_446_744_073_709_551_616.0;

/// A bank, or a user in a bank.
#[derive(Debug, Default, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) is_user: bool,
    pub(crate) shares: u64,
    pub(crate) usage: u64,
    pub(crate) fairshare: f64,
    pub(crate) children: Vec<Node>,
}

/// Read active banks and users below the root.
pub(crate) fn load(db: &Connection) -> Result<Node> {
    let mut stmt =
        db.prepare("SELECT bank FROM bank_table WHERE parent_bank='' ORDER BY bank_id")?;
    let mut rows = stmt.query([])?;
    let Some(row) = rows.next()? else {
        return Err(Error::Walk("root bank not found, exiting".to_owned()));
    };
    read(db, &row.get::<_, String>(0)?, &mut Vec::new())
}

/// A bank and all that is below it. `path` are the banks above.
fn read(db: &Connection, bank: &str, path: &mut Vec<String>) -> Result<Node> {
    if path.iter().any(|above| above == bank) {
        return Err(circular(bank));
    }
    let shares = "SELECT shares FROM bank_table WHERE bank=? ORDER BY bank_id";
    let shares: i64 = db.query_row(shares, [bank], |row| row.get(0))?;
    let mut node = Node { name: bank.to_owned(), shares: count(shares), ..Node::default() };
    let below = "SELECT bank, active FROM bank_table WHERE parent_bank=? ORDER BY bank";
    let below: Vec<(String, bool)> = db
        .prepare(below)?
        .query_map([bank], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    if below.is_empty() {
        node.children = users(db, bank)?;
    }
    path.push(bank.to_owned());
    for (bank, _) in below.into_iter().filter(|(_, active)| *active) {
        node.children.push(read(db, &bank, path)?);
    }
    path.pop();
    node.usage = node.children.iter().fold(0, |sum, child| sum.saturating_add(child.usage));
    Ok(node)
}

fn users(db: &Connection, bank: &str) -> Result<Vec<Node>> {
    let mut stmt = db.prepare(
        "SELECT username, shares, job_usage, fairshare FROM association_table
         WHERE bank=? AND active ORDER BY username",
    )?;
    let users = stmt.query_map([bank], |row| {
        Ok(Node {
            name: row.get(0)?,
            is_user: true,
            shares: count(row.get(1)?),
            usage: whole(row.get(2)?),
            fairshare: row.get(3)?,
            children: Vec::new(),
        })
    })?;
    Ok(users.collect::<rusqlite::Result<_>>()?)
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of nodes, without their fraction; the cast saturates"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// A user's fair share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Share {
    pub(crate) username: String,
    pub(crate) bank: String,
    pub(crate) fairshare: f64,
}

/// Rank all users below `root`.
pub(crate) fn calculate(root: &Node) -> Vec<Share> {
    let leaves = leaves(root);
    let mut walk = Walk { leaves, rank: leaves, tied: 0, shares: Vec::new() };
    walk.visit(weighted(root));
    walk.shares
}

fn leaves(node: &Node) -> usize {
    usize::from(node.is_user) + node.children.iter().map(leaves).sum::<usize>()
}

/// A node, by what it counts for among those next to it.
#[derive(Debug, Clone)]
struct Weighted<'a> {
    node: &'a Node,
    bank: &'a str,
    weight: f64,
}

/// What is right below a bank, the heaviest first.
fn weighted(bank: &Node) -> Vec<Weighted<'_>> {
    let sum = |of: fn(&Node) -> u64| {
        bank.children.iter().fold(0u64, |sum, child| sum.saturating_add(of(child)))
    };
    let (shares, usage) = (sum(|node| node.shares), sum(|node| node.usage));
    let below = bank.children.iter().map(|node| {
        let weight = match (node.shares, node.usage) {
            (0, _) => 0.0,
            (_, 0) => UNUSED,
            _ => ratio(node.shares, shares) / ratio(node.usage, usage),
        };
        Weighted { node, bank: &bank.name, weight }
    });
    sorted(below.collect())
}

#[allow(clippy::cast_precision_loss, reason = "a fraction of numbers of any size")]
fn ratio(part: u64, all: u64) -> f64 {
    part as f64 / all as f64
}

/// The heaviest first; among equals users before banks.
fn sorted(mut nodes: Vec<Weighted<'_>>) -> Vec<Weighted<'_>> {
    nodes.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    // "Nearly equal" is no order that could be sorted by; runs of neighbours are.
    for run in nodes.chunk_by_mut(|a, b| nearly_equal(a.weight, b.weight)) {
        run.sort_by_key(|node| !node.node.is_user);
    }
    nodes
}

/// Relative for large numbers, absolute for small ones.
fn nearly_equal(a: f64, b: f64) -> bool {
    (a - b).abs() < f64::EPSILON * a.abs().max(b.abs()).max(1.0)
}

#[derive(Debug)]
struct Walk {
    leaves: usize,
    /// That of the next user, counted from the end.
    rank: usize,
    /// Users before who have the same rank.
    tied: usize,
    shares: Vec<Share>,
}

impl Walk {
    /// Rank all users below these, which are sorted.
    fn visit(&mut self, nodes: Vec<Weighted<'_>>) {
        let equal = |a: &Weighted<'_>, b: &Weighted<'_>| {
            a.node.is_user == b.node.is_user && nearly_equal(a.weight, b.weight)
        };
        for run in nodes.chunk_by(equal) {
            for (at, user) in run.iter().enumerate().filter(|(_, user)| user.node.is_user) {
                self.rank(user, at + 1 < run.len());
            }
            let below: Vec<_> = run
                .iter()
                .filter(|bank| !bank.node.is_user)
                .flat_map(|bank| weighted(bank.node))
                .collect();
            if !below.is_empty() {
                // Sorted already, unless they come from several banks of equal weight.
                self.visit(sorted(below));
            }
        }
    }

    fn rank(&mut self, user: &Weighted<'_>, tie_with_next: bool) {
        #[allow(clippy::cast_precision_loss, reason = "there are not as many users")]
        let fairshare = self.rank as f64 / self.leaves as f64;
        self.shares.push(Share {
            username: user.node.name.clone(),
            bank: user.bank.to_owned(),
            fairshare,
        });
        if tie_with_next {
            self.tied += 1;
        } else {
            self.rank = self.rank.saturating_sub(1 + self.tied);
            self.tied = 0;
        }
    }
}

/// `flux account-update-fshare`
pub(crate) fn update(db: &Connection) -> Result<()> {
    let mut stmt =
        db.prepare("UPDATE association_table SET fairshare=? WHERE username=? AND bank=?")?;
    for share in calculate(&load(db)?) {
        // As many decimals as flux-accounting keeps.
        let fairshare: f64 = format!("{:.6}", share.fairshare).parse().unwrap_or_default();
        stmt.execute((fairshare, &share.username, &share.bank))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, shares: u64, usage: u64) -> Node {
        Node { name: name.to_owned(), is_user: true, shares, usage, ..Node::default() }
    }

    fn bank(name: &str, shares: u64, children: &[Node]) -> Node {
        let usage = children.iter().map(|child| child.usage).sum();
        let (name, children) = (name.to_owned(), children.to_vec());
        Node { name, shares, usage, children, ..Node::default() }
    }

    fn ranked(root: &Node) -> Vec<(String, String)> {
        let mut shares: Vec<_> = calculate(root)
            .into_iter()
            .map(|share| (share.username, format!("{:.6}", share.fairshare)))
            .collect();
        shares.sort();
        shares
    }

    fn expect(root: &Node, expected: &[(&str, &str)]) {
        let ranked = ranked(root);
        let ranked: Vec<_> =
            ranked.iter().map(|(name, share)| (name.as_str(), share.as_str())).collect();
        assert_eq!(ranked, expected);
    }

    #[test]
    fn a_users_place_follows_from_the_banks_above() {
        let tree = |second: u64| {
            bank(
                "root",
                1000,
                &[
                    bank(
                        "1",
                        1000,
                        &[user("1.1", 10000, 100), user("1.2", 1000, 11), user("1.3", 100_000, 10)],
                    ),
                    bank("2", 100, &[user("2.1", 100_000, second), user("2.2", 10000, 3)]),
                    bank("3", 10, &[user("3.1", 100, 0), user("3.2", 10, 1)]),
                ],
            )
        };
        expect(
            &tree(8),
            &[
                ("1.1", "0.285714"),
                ("1.2", "0.142857"),
                ("1.3", "0.428571"),
                ("2.1", "0.714286"),
                ("2.2", "0.571429"),
                ("3.1", "1.000000"),
                ("3.2", "0.857143"),
            ],
        );
        // More use of the second bank puts its users last.
        expect(
            &tree(55),
            &[
                ("1.1", "0.571429"),
                ("1.2", "0.428571"),
                ("1.3", "0.714286"),
                ("2.1", "0.142857"),
                ("2.2", "0.285714"),
                ("3.1", "1.000000"),
                ("3.2", "0.857143"),
            ],
        );
    }

    #[test]
    fn users_below_banks_of_equal_weight_are_ranked_against_each_other() {
        let below = |name: &str, factor: u64| {
            let user = |n: u64, shares, usage| user(&format!("{name}.{n}"), shares, usage * factor);
            [user(1, 10000, 100), user(2, 1000, 10), user(3, 100_000, 10)]
        };
        let root = bank(
            "root",
            1000,
            &[
                bank("a", 1000, &below("a", 1)),
                bank("b", 1000, &below("b", 1)),
                bank("c", 10000, &below("c", 10)),
            ],
        );
        let ranked = ranked(&root);
        assert_eq!(ranked.len(), 9);
        for (name, share) in ranked {
            let expected = if name.ends_with(".3") { "1.000000" } else { "0.666667" };
            assert_eq!(share, expected, "{name}");
        }
    }

    #[test]
    fn without_shares_comes_after_everybody_else() {
        let root = bank(
            "root",
            1,
            &[
                bank("a", 1, &[user("a.1", 0, 0), user("a.2", 1, 1000)]),
                bank("b", 0, &[user("b.1", 1, 0)]),
                bank("empty", 1, &[]),
            ],
        );
        expect(&root, &[("a.1", "0.666667"), ("a.2", "1.000000"), ("b.1", "0.333333")]);
    }
}

//! What is done to the instance: drawn from a seed before anything of it happens.

use std::fmt;

/// Of the instance: a tree of brokers with two children each.
pub(crate) const SIZE: u32 = 7;
const ROUTERS: std::ops::Range<u32> = 1..3;
const LEAVES: std::ops::Range<u32> = 3..SIZE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// One job more than `count`, without waiting for what becomes of them.
    Submit {
        via: u32,
        count: u64,
        nodes: u64,
        millis: u64,
    },
    /// One of the jobs that are known by then.
    Cancel {
        pick: u64,
    },
    Kill {
        rank: u32,
    },
    /// Start whoever is dead.
    Revive,
    /// Kill rank 0, and start all again.
    Restart,
    Drain {
        rank: u32,
    },
    Undrain,
    Pause {
        millis: u64,
    },
}

/// Each round has every kind of step, in an order of its own.
pub(crate) fn schedule(seed: u64, rounds: u64) -> Vec<Step> {
    let mut random = Random(seed);
    (0..rounds).flat_map(|_| round(&mut random)).collect()
}

fn round(random: &mut Random) -> Vec<Step> {
    let mut steps = vec![
        random.submit(),
        random.submit(),
        random.submit(),
        random.submit(),
        Step::Cancel { pick: random.below(1000) },
        Step::Cancel { pick: random.below(1000) },
        Step::Kill { rank: random.of(LEAVES) },
        Step::Kill { rank: random.of(ROUTERS) },
        Step::Revive,
        Step::Restart,
        Step::Drain { rank: random.of(0..SIZE) },
        Step::Drain { rank: random.of(0..SIZE) },
        Step::Undrain,
        Step::Pause { millis: random.below(1500) },
        Step::Pause { millis: random.below(1500) },
    ];
    for last in (1..steps.len()).rev() {
        steps.swap(last, random.below(last as u64 + 1) as usize);
    }
    steps
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Submit { via, count, nodes, millis } => {
                let count = count + 1;
                write!(f, "submit {count} jobs of {nodes} nodes and {millis} ms through rank {via}")
            }
            Step::Cancel { pick } => write!(f, "cancel a job ({pick})"),
            Step::Kill { rank } => write!(f, "kill rank {rank}"),
            Step::Revive => write!(f, "start the dead"),
            Step::Restart => write!(f, "kill rank 0 and start all"),
            Step::Drain { rank } => write!(f, "drain rank {rank}"),
            Step::Undrain => write!(f, "undrain all"),
            Step::Pause { millis } => write!(f, "wait {millis} ms"),
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }

    fn of(&mut self, ranks: std::ops::Range<u32>) -> u32 {
        ranks.start + self.below(u64::from(ranks.end - ranks.start)) as u32
    }

    fn submit(&mut self) -> Step {
        Step::Submit {
            via: self.of(0..SIZE),
            count: 1 + self.below(5),
            nodes: 1 + self.below(3),
            millis: 50 + self.below(1500),
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_chaos() {
    assert_eq!(schedule(5, 3), schedule(5, 3));
    assert_ne!(schedule(5, 3), schedule(6, 3));
    // A longer one begins like a shorter one.
    let (short, long) = (schedule(5, 1), schedule(5, 3));
    assert_eq!(long.get(..short.len()), Some(&short[..]));
}

//! Where a command that a job waits for is not done yet.

use std::time::Duration;

use crate::hostlist::Hostlist;
use crate::idset::Idset;

/// What the user was told last: he hears of it again only when it has changed.
#[derive(Debug, Default)]
pub struct Laggards(Idset);

impl Laggards {
    /// How often to look.
    pub const PERIOD: Duration = Duration::from_secs(2);

    /// What to tell of a command that goes on on these ranks of the instance, whose hosts are
    /// these.
    pub fn news(&mut self, command: &str, active: Idset, hosts: &Hostlist) -> Option<String> {
        if active.is_empty() || active == self.0 {
            return None;
        }
        let mut places = Hostlist::new();
        let host = |rank: u32| hosts.nth(u64::from(rank)).unwrap_or_else(|| "unknown".to_owned());
        active.iter().for_each(|rank| places.push_host(&host(rank)));
        self.0 = active;
        Some(format!("{command} is not done yet on {places}"))
    }

    /// Whether there is something to take back when the command is done.
    pub fn are_told(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laggards_are_told_when_they_change() {
        let hosts: Hostlist = "n[0-3]".parse().unwrap();
        let ranks = |text: &str| text.parse::<Idset>().unwrap();
        let mut laggards = Laggards::default();
        assert_eq!(laggards.news("prolog", Idset::new(), &hosts), None);
        assert!(!laggards.are_told());
        let text = "prolog is not done yet on n[0-1,3],unknown".to_owned();
        assert_eq!(laggards.news("prolog", ranks("0-1,3-4"), &hosts), Some(text));
        assert_eq!(laggards.news("prolog", ranks("0-1,3-4"), &hosts), None);
        let text = "prolog is not done yet on n3".to_owned();
        assert_eq!(laggards.news("prolog", ranks("3"), &hosts), Some(text));
        assert_eq!(laggards.news("prolog", Idset::new(), &hosts), None);
        assert!(laggards.are_told());
    }
}

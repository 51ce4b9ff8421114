//! Sets of CPUs: read from text, or cut into parts for tasks.

use flux_protocol::idset::Idset;

/// Sets for `ntasks` tasks from `SET;SET;...`, which start anew when there are too few.
///
/// A set is a list `0-1,4`, a mask `0x13`, or masks of 32 each, the highest first: `0x1,0x00000003`.
pub(super) fn parse_list(list: &str, ntasks: usize) -> Result<Vec<Idset>, String> {
    let mut sets = Vec::new();
    for text in list.split(';').filter(|text| !text.is_empty()).take(ntasks.max(1)) {
        let set = parse(text).filter(|set| !set.is_empty());
        sets.push(set.ok_or_else(|| format!("cpuset {text} contains no cores or is invalid"))?);
    }
    if sets.is_empty() {
        return Err(format!("no cpusets found in affinity list {list}"));
    }
    Ok(sets.iter().cycle().take(ntasks).cloned().collect())
}

fn parse(text: &str) -> Option<Idset> {
    if !text.starts_with("0x") {
        return Idset::decode(text).ok();
    }
    let words: Vec<&str> = text.split(',').collect();
    let mut set = Idset::new();
    let mut offset = 0;
    for word in words.iter().rev() {
        let digits = word.strip_prefix("0x")?;
        if digits.is_empty() || (words.len() > 1 && digits.len() > 8) {
            return None;
        }
        for (place, digit) in (0..).zip(digits.chars().rev()) {
            let digit = digit.to_digit(16)?;
            let bits = (0..4).filter(|bit| digit >> bit & 1 == 1);
            for bit in bits {
                set.insert(offset + 4 * place + bit);
            }
        }
        offset += 32;
    }
    Some(set)
}

/// Cut cores into one set for each task, by the number of their CPUs, as evenly as it goes. More
/// tasks than cores share them.
pub(super) fn distribute(cores: &[Idset], ntasks: usize) -> Vec<Idset> {
    let total: u64 = cores.iter().map(Idset::count).sum();
    let ntasks_wide = ntasks as u64;
    if total == 0 {
        return Vec::new();
    }
    let mut sets: Vec<Idset> = Vec::with_capacity(ntasks);
    let mut before = 0;
    for core in cores {
        let upto = |weight: u64| (weight * ntasks_wide).div_ceil(total);
        let own = upto(before + core.count()) - upto(before);
        before += core.count();
        match (own, sets.last_mut()) {
            (0, Some(last)) => last.union_with(core),
            _ => sets.extend((0..own).map(|_| core.clone())),
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(sets: &[Idset]) -> Vec<String> {
        sets.iter().map(Idset::encode).collect()
    }

    fn cores(n: u32) -> Vec<Idset> {
        (0..n).map(|id| Idset::from_range(id, id)).collect()
    }

    #[test]
    fn sets_are_read_in_all_their_forms() {
        for (list, ntasks, expected) in [
            ("0-1;2,4", 2, &["0-1", "2,4"][..]),
            ("0x3", 1, &["0-1"]),
            ("0x1,0x00000003", 1, &["0-1,32"]),
            ("0;1", 3, &["0", "1", "0"]),
            ("0;1;2", 2, &["0", "1"]),
        ] {
            assert_eq!(texts(&parse_list(list, ntasks).unwrap()), expected, "{list}");
        }
        for bad in ["", ";", "x", "0x", "0xg", "0x0", "0x1,2"] {
            assert!(parse_list(bad, 2).is_err(), "{bad}");
        }
    }

    #[test]
    fn cores_are_cut_evenly() {
        assert_eq!(texts(&distribute(&cores(8), 2)), ["0-3", "4-7"]);
        assert_eq!(texts(&distribute(&cores(2), 4)), ["0", "0", "1", "1"]);
        assert_eq!(texts(&distribute(&cores(3), 2)), ["0", "1-2"]);
        assert_eq!(distribute(&[], 3), []);
    }

    proptest! {
        #[test]
        fn every_task_gets_some_and_every_core_is_used(n in 1u32..40, ntasks in 1usize..40) {
            let sets = distribute(&cores(n), ntasks);
            prop_assert_eq!(sets.len(), ntasks);
            prop_assert!(sets.iter().all(|set| !set.is_empty()));
            let all = sets.iter().fold(Idset::new(), |all, set| &all | set);
            prop_assert_eq!(all.count(), u64::from(n));
        }
    }
}

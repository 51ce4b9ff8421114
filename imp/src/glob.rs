//! Patterns of names, as of glob(7): `*`, `?`, `[a-z]`, `[!a-z]`.

pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    match_here(&pattern, &name)
}

fn match_here(pattern: &[char], name: &[char]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    // Where to go on when what follows the last star does not fit here.
    let mut retry: Option<(&[char], &[char])> = None;
    loop {
        let step = match (pattern.split_first(), name.split_first()) {
            (None, None) => return true,
            (Some(('*', rest)), _) => {
                retry = Some((rest, name));
                Some((rest, name))
            }
            (Some(_), Some((c, name_rest))) => {
                match_one(pattern, *c).map(|pattern_rest| (pattern_rest, name_rest))
            }
            _ => None,
        };
        match (step, retry) {
            (Some((p, n)), _) => (pattern, name) = (p, n),
            (None, Some((after_star, [_, from @ ..]))) => {
                retry = Some((after_star, from));
                (pattern, name) = (after_star, from);
            }
            (None, _) => return false,
        }
    }
}

/// The pattern after what stands for this character.
fn match_one(pattern: &[char], c: char) -> Option<&[char]> {
    let (first, rest) = pattern.split_first()?;
    match first {
        '?' => Some(rest),
        '[' => match_set(rest, c),
        '\\' => match_literal(rest, c),
        _ => match_literal(pattern, c),
    }
}

fn match_literal(pattern: &[char], c: char) -> Option<&[char]> {
    let (first, rest) = pattern.split_first()?;
    (*first == c).then_some(rest)
}

/// After the bracket.
fn match_set(set: &[char], c: char) -> Option<&[char]> {
    let (negated, set) = match set.split_first() {
        Some(('!' | '^', rest)) => (true, rest),
        _ => (false, set),
    };
    // A bracket that comes first is one of the set.
    let end = set.iter().skip(1).position(|c| *c == ']')? + 1;
    let (members, rest) = set.split_at_checked(end)?;
    let mut members = members;
    let mut found = false;
    while let Some((first, others)) = members.split_first() {
        members = match others {
            ['-', last, others @ ..] => {
                found |= (*first..=*last).contains(&c);
                others
            }
            _ => {
                found |= *first == c;
                others
            }
        };
    }
    if found == negated { None } else { rest.get(1..) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in [
            ("FLUX_*", "FLUX_JOB_ID"),
            ("FLUX_*", "FLUX_"),
            ("*", ""),
            ("A?C", "ABC"),
            ("*_ID", "FLUX_JOB_ID"),
            ("A*B*C", "AxBBxC"),
            ("[A-C]X", "BX"),
            ("[!A]X", "BX"),
            ("[]]", "]"),
            ("a\\*", "a*"),
            ("[a-]", "-"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("FLUX_*", "XFLUX_A"),
            ("FLUX", "FLUX_"),
            ("?", ""),
            ("[A-C]", "D"),
            ("[!A]", "A"),
            ("[", "["),
            ("[A", "A"),
            ("a\\", "a"),
            ("", "x"),
            ("*x", "xy"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_end() {
        assert!(!matches(&"*a".repeat(60), &"a".repeat(59)));
        assert!(!matches(&format!("{}b", "a*".repeat(60)), &"a".repeat(5000)));
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[a\\[\\]!*?\\\\-]{0,12}", name in "[ab-]{0,12}") {
            let _ = matches(&pattern, &name);
        }
    }
}

//! Shell patterns over topics: `*`, `?` and `[...]`.

/// Does the whole of `text` match?
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Rest of the pattern behind the latest star, and where in the text it was tried last.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(length) = one(pattern.get(p..), text.get(t).copied()) {
            p += length;
            t += 1;
        } else if let Some((behind, tried)) = star {
            star = Some((behind, tried + 1));
            (p, t) = (behind, tried + 1);
        } else {
            return false;
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

/// Length of the pattern for one character, when it matches `c`.
fn one(pattern: Option<&[char]>, c: Option<char>) -> Option<usize> {
    let (first, rest) = pattern?.split_first()?;
    let c = c?;
    match first {
        '?' => Some(1),
        '[' => {
            let close = rest.iter().skip(1).position(|c| *c == ']')? + 1;
            let set = rest.get(..close)?;
            let (negated, set) = match set.split_first() {
                Some(('!' | '^', set)) => (true, set),
                _ => (false, set),
            };
            (in_set(set, c) != negated).then_some(close + 2)
        }
        '\\' => (rest.first() == Some(&c)).then_some(2),
        first => (*first == c).then_some(1),
    }
}

fn in_set(set: &[char], c: char) -> bool {
    match set {
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&c) || in_set(rest, c),
        [one, rest @ ..] => *one == c || in_set(rest, c),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn topics_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "kvs.commit", true),
            ("kvs.*", "kvs.commit", true),
            ("kvs.*", "kvs-watch.lookup", false),
            ("*.get*t", "kvs.getroot", true),
            ("kvs.?ommit", "kvs.commit", true),
            ("kvs.[a-c]ommit", "kvs.commit", true),
            ("kvs.[!a-c]ommit", "kvs.commit", false),
            ("", "x", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("[", "[", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}

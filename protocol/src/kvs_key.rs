//! Keys: names joined by dots (RFC 11).

/// One dot between names, none around them; the root directory is `.`.
pub fn normalize(key: &str) -> String {
    let mut normal = String::with_capacity(key.len());
    for name in names(key) {
        if !normal.is_empty() {
            normal.push('.');
        }
        normal.push_str(name);
    }
    if normal.is_empty() && !key.is_empty() {
        normal.push('.');
    }
    normal
}

/// The names of a key, from the root down; none for the root itself.
pub fn names(key: &str) -> impl DoubleEndedIterator<Item = &str> {
    key.split('.').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_that_name_nothing_vanish() {
        for (key, normal) in
            [("a.b.c", "a.b.c"), (".a..b.", "a.b"), ("...", "."), (".", "."), ("a", "a"), ("", "")]
        {
            assert_eq!(normalize(key), normal, "{key}");
        }
    }
}

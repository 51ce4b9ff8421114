//! The character set of the locale.

/// Whether the locale's characters are UTF-8: the first of LC_ALL, LC_CTYPE, LANG that is set
/// decides, as in setlocale(3).
pub fn is_utf8() -> bool {
    let locale = NAMES
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Job ids are to be in plain ASCII: a locale, or `FLUX_F58_FORCE_ASCII`, asks for it.
pub fn is_f58_plain() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    set("FLUX_F58_FORCE_ASCII") || (NAMES.iter().any(|name| set(name)) && !is_utf8())
}

const NAMES: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];

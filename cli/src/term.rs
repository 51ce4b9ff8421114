//! What the terminal can show: colours, characters beyond ASCII, width.

use std::io::IsTerminal;

/// Value of `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum When {
    #[default]
    Auto,
    Always,
    Never,
}

impl When {
    /// Whether to colour what goes to standard output.
    pub fn stdout(self) -> bool {
        match self {
            When::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            When::Always => true,
            When::Never => false,
        }
    }
}

/// Whether the locale's characters are UTF-8: the first of LC_ALL, LC_CTYPE, LANG that is set
/// decides, as in setlocale(3).
pub fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Columns of the terminal: `COLUMNS` where it makes sense, else 80.
pub fn columns() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|value| value.parse().ok());
    columns.filter(|columns| (17..256).contains(columns)).unwrap_or(80)
}

//! What the terminal can show: colours, characters beyond ASCII, width.

use std::io::IsTerminal;

// Doc comments of flattened arguments would become those of the command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Color {
    /// Colorize output when supported; WHEN can be 'always' (default if omitted), 'never', or
    /// 'auto' (default).
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
          default_value = "auto", default_missing_value = "always")]
    color: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum When {
    #[default]
    Auto,
    Always,
    Never,
}

/// SGR sequences, as Flux's commands use them.
pub(crate) mod sgr {
    pub(crate) const RESET: &str = "\x1b[0m";
    pub(crate) const BOLD: &str = "\x1b[1m";
    pub(crate) const REVERSE_RED: &str = "\x1b[7m\x1b[31m";
    pub(crate) const BOLD_RED: &str = "\x1b[1m\x1b[31m";
    pub(crate) const RED: &str = "\x1b[31m";
    pub(crate) const GREEN: &str = "\x1b[32m";
    pub(crate) const BOLD_GREEN: &str = "\x1b[1m\x1b[32m";
    pub(crate) const YELLOW: &str = "\x1b[33m";
    pub(crate) const BLUE: &str = "\x1b[34m";
    pub(crate) const BOLD_BLUE: &str = "\x1b[01;34m";
    pub(crate) const MAGENTA: &str = "\x1b[35m";
    pub(crate) const CYAN: &str = "\x1b[36m";
    pub(crate) const GRAY: &str = "\x1b[37m";
    pub(crate) const DARK_GRAY: &str = "\x1b[90m";
}

/// `text` between a sequence and its end, where colours are on.
pub(crate) fn paint(color: bool, sequence: &str, text: &str) -> String {
    if color { format!("{sequence}{text}{}", sgr::RESET) } else { text.to_owned() }
}

impl Color {
    /// Whether to colour what goes to standard output.
    pub(crate) fn stdout(self) -> bool {
        self.color.stdout()
    }
}

impl When {
    pub(crate) fn stdout(self) -> bool {
        match self {
            When::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            When::Always => true,
            When::Never => false,
        }
    }
}

/// Columns that a table on standard output may fill: those of the terminal, else `COLUMNS`, else 80.
pub(crate) fn output_columns() -> usize {
    if std::io::stdout().is_terminal()
        && let Some((terminal_size::Width(width), _)) = terminal_size::terminal_size()
    {
        return usize::from(width);
    }
    std::env::var("COLUMNS").ok().and_then(|value| value.parse().ok()).unwrap_or(80)
}

/// Columns for help text: `COLUMNS` where it makes sense, else 80.
pub(crate) fn columns() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|value| value.parse().ok());
    columns.filter(|columns| (17..256).contains(columns)).unwrap_or(80)
}

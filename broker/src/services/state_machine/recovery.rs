//! What an administrator is told who repairs an instance from a shell in it.

use std::io::Write as _;

use crate::attrs::Attrs;

/// Set where the instance is started for repairs.
pub(super) const RECOVERY_MODE: &str = "broker.recovery-mode";

/// Print where things are, before the shell starts.
pub(super) fn tell(attrs: &Attrs) {
    // Who has closed standard output wants no banner.
    let _ = std::io::stdout().write_all(banner(attrs).as_bytes());
}

fn banner(attrs: &Attrs) -> String {
    let line = "-".repeat(60);
    let mut text = format!(
        "+{line}\n| Entering Flux recovery mode.\n| No resource is up, so that no job starts.\n\
         | What failed in rc1 is reported above, and may be missing here.\n|\n"
    );
    for name in ["broker.rc1_path", "broker.rc3_path", "config.path", "statedir"] {
        let value = match name {
            "statedir" if attrs.get("statedir-cleanup").is_some_and(|cleanup| cleanup != "0") => {
                "changes will not be preserved".to_owned()
            }
            _ => attrs.get(name).filter(|value| !value.is_empty()).unwrap_or("-".to_owned()),
        };
        text.push_str(&format!("| {name:<18} {value}\n"));
    }
    text.push_str(&format!("|\n| Leave this shell to end the instance.\n+{line}\n"));
    text
}

//! Manual pages of programs that are not part of `flux`: what their `--help` prints.

use std::path::Path;
use std::process::Command;

use roff::{Roff, roman};

use crate::Error;
use crate::layout::failed;

/// The page of a program, with a section for each of its commands.
pub(crate) fn of(program: &Path, name: &str) -> Result<String, Error> {
    let help = help(program, &[])?;
    let mut sections = Vec::new();
    for command in commands(&help) {
        sections.push((command, self::help(program, &[command])?));
    }
    Ok(page(name, &help, &sections))
}

fn help(program: &Path, args: &[&str]) -> Result<String, Error> {
    let output = Command::new(program).args(args).arg("--help").output();
    let output = output.map_err(|e| failed(program, &e))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error(format!("{} {args:?} --help: {}", program.display(), output.status))),
    }
}

/// Those listed below `Commands:`; more of what they do is on lines that are further in.
fn commands(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let rows = list.take_while(|line| line.starts_with("  "));
    rows.filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "help")
        .collect()
}

fn page(name: &str, help: &str, sections: &[(&str, String)]) -> String {
    let about = help.lines().next().unwrap_or_default().trim_end_matches('.');
    let release = concat!("flux ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", [&name.to_uppercase(), "1", "\"\"", release, "Flux"]);
    page.control("SH", ["NAME"]).text([roman(format!("{name} - {about}"))]);
    page.control("SH", ["DESCRIPTION"]);
    verbatim(&mut page, help);
    if !sections.is_empty() {
        page.control("SH", ["COMMANDS"]);
    }
    for (command, help) in sections {
        page.control("SS", [*command]);
        verbatim(&mut page, help);
    }
    page.control("SH", ["SEE ALSO"]).control("BR", ["flux", "(1)"]);
    page.to_roff()
}

fn verbatim(page: &mut Roff, text: &str) {
    page.control("nf", []).text([roman(text.trim_end())]).control("fi", []);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "Keep accounts\n\nUsage: x <COMMAND>\n\nCommands:\n  add-bank   Add a bank\n  \
                        shares     Show the tree\n             of banks\n  help       Print this\n\n\
                        Options:\n  -h, --help\n";

    #[test]
    fn each_command_has_a_section() {
        assert_eq!(commands(HELP), ["add-bank", "shares"]);
        assert_eq!(commands("Usage: x\n\nOptions:\n  -h, --help\n"), Vec::<&str>::new());
        let page = page("flux-x", HELP, &[("add-bank", "Add a bank\n\n.dot\n".to_owned())]);
        assert!(page.contains(".SH NAME\nflux\\-x \\- Keep accounts\n"), "{page}");
        assert!(page.contains(".SS add-bank\n.nf\nAdd a bank\n\n\\&.dot\n.fi\n"), "{page}");
    }
}

//! Options of `flux` itself, in front of the command.

/// What stands between `flux` and the command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Options {
    pub help: bool,
    pub version: bool,
    pub verbose: bool,
    /// How many enclosing instances to go up.
    pub parents: u32,
    /// Go up to the outermost one.
    pub root: bool,
}

/// An option that there is not, as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown(pub String);

const LONG: &[&str] = &["help", "verbose", "version", "parent", "root"];

impl Options {
    /// Returns the options, and how many arguments they take up.
    pub(crate) fn parse(args: &[String]) -> Result<(Options, usize), Unknown> {
        let mut options = Options::default();
        let mut count = 0;
        for arg in args {
            match arg.strip_prefix("--") {
                Some("") => return Ok((options, count + 1)),
                Some(long) => options.long(long).ok_or_else(|| Unknown(arg.clone()))?,
                None => match arg.strip_prefix('-') {
                    None | Some("") => break,
                    Some(letters) => {
                        for letter in letters.chars() {
                            options.short(letter).ok_or_else(|| Unknown(format!("-{letter}")))?;
                        }
                    }
                },
            }
            count += 1;
        }
        Ok((options, count))
    }

    fn short(&mut self, letter: char) -> Option<()> {
        match letter {
            'h' => self.help = true,
            'v' => self.verbose = true,
            'V' => self.version = true,
            'p' => self.parents += 1,
            'r' => self.root = true,
            _ => return None,
        }
        Some(())
    }

    /// Long options may be shortened as long as it is clear which one is meant.
    fn long(&mut self, name: &str) -> Option<()> {
        let mut meant = LONG.iter().filter(|long| long.starts_with(name));
        let letter = match (meant.next()?, LONG.contains(&name) || meant.next().is_none()) {
            (&"version", true) => 'V',
            (long, true) => long.chars().next()?,
            (_, false) => return None,
        };
        self.short(letter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<(Options, usize), Unknown> {
        Options::parse(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_end_at_the_command() {
        let (options, count) = parse(&["-vpp", "--root", "kvs", "-h"]).unwrap();
        assert_eq!(count, 2);
        assert!(options.verbose && options.root && !options.help);
        assert_eq!(options.parents, 2);
    }

    #[test]
    fn long_options_may_be_shortened_while_they_are_clear() {
        assert!(parse(&["--vers"]).unwrap().0.version);
        assert_eq!(parse(&["--ver"]), Err(Unknown("--ver".to_owned())));
        assert_eq!(parse(&["-x"]), Err(Unknown("-x".to_owned())));
    }
}

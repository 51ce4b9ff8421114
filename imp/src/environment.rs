//! What environment the processes get that the IMP starts.

use std::ffi::{OsStr, OsString};

use crate::glob;
use crate::sys::User;

pub(crate) type Environment = Vec<(String, OsString)>;

/// For commands that run as root.
const ROOT_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// For job shells; tasks have the `PATH` of their jobspec.
const SHELL_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
/// Longest value that is passed on.
const MAX_VALUE: usize = 128 << 10;

pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What a job shell is told by the broker that starts it: where that is, and the locale.
pub(crate) fn is_for_shell(name: &str, value: &OsStr) -> bool {
    let known = match name {
        "FLUX_IMP_EXEC_HELPER" => false,
        // A zone, never a file.
        "TZ" => {
            !value.as_encoded_bytes().iter().any(|b| matches!(b, b'.' | b':')) && !starts(value)
        }
        "LANG" => true,
        _ => name.starts_with("FLUX_") || name.starts_with("LC_"),
    };
    known && value.len() <= MAX_VALUE
}

fn starts(value: &OsStr) -> bool {
    value.as_encoded_bytes().first() == Some(&b'/')
}

/// May a command that runs as root see this variable?
pub(crate) fn is_for_run(name: &str, value: &OsStr, patterns: &[&str]) -> bool {
    if value.len() > MAX_VALUE {
        return false;
    }
    if matches!(name, "FLUX_JOB_ID" | "FLUX_JOB_USERID") || patterns.contains(&name) {
        // The dynamic linker's are never anybody's to pass.
        return !name.starts_with("LD_");
    }
    !is_dangerous(name) && patterns.iter().any(|pattern| glob::matches(pattern, name))
}

/// Variables that make a program run other code. A pattern does not mean them; `LD_*` can't even
/// be named.
fn is_dangerous(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "BASH_ENV",
        "ENV",
        "IFS",
        "CDPATH",
        "SHELLOPTS",
        "BASHOPTS",
        "PS4",
        "PROMPT_COMMAND",
        "GLIBC_TUNABLES",
        "GCONV_PATH",
        "LOCPATH",
        "NLSPATH",
        "HOSTALIASES",
        "RES_OPTIONS",
    ];
    const PREFIXES: [&str; 7] = ["LD_", "MALLOC_", "PYTHON", "PERL", "RUBY", "LUA_", "NODE_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The environment of a job shell of `user`.
pub(crate) fn of_shell(passed: Environment, user: &User) -> Environment {
    let mut environment = passed;
    environment.retain(|(name, value)| is_name(name) && is_for_shell(name, value));
    set(&mut environment, "HOME", &user.home);
    set(&mut environment, "USER", &user.name);
    set(&mut environment, "LOGNAME", &user.name);
    set(&mut environment, "SHELL", &user.shell);
    set(&mut environment, "PATH", SHELL_PATH);
    environment
}

/// The environment of a command that runs as `user`, root, for the user `owner`.
pub(crate) fn of_run(
    passed: Environment,
    patterns: &[&str],
    user: &User,
    owner: u32,
) -> Environment {
    let mut environment = passed;
    environment.retain(|(name, value)| is_name(name) && is_for_run(name, value, patterns));
    set(&mut environment, "FLUX_OWNER_USERID", &owner.to_string());
    set(&mut environment, "HOME", &user.home);
    set(&mut environment, "USER", &user.name);
    set(&mut environment, "PATH", ROOT_PATH);
    environment
}

fn set(environment: &mut Environment, name: &str, value: &str) {
    environment.retain(|(other, _)| other != name);
    environment.push((name.to_owned(), value.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> User {
        User { uid: 0, gid: 0, name: "root".into(), home: "/root".into(), shell: "/bin/sh".into() }
    }

    fn passed(names: &[&str]) -> Environment {
        names.iter().map(|name| ((*name).to_owned(), "x".into())).collect()
    }

    fn names(environment: &Environment) -> Vec<&str> {
        let mut names: Vec<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_command_of_roots_sees_six_variables() {
        let all = passed(&["FLUX_JOB_ID", "FLUX_JOB_USERID", "FOO", "PATH", "HOME", "LD_PRELOAD"]);
        let environment = of_run(all, &[], &root(), 1000);
        let six = ["FLUX_JOB_ID", "FLUX_JOB_USERID", "FLUX_OWNER_USERID", "HOME", "PATH", "USER"];
        assert_eq!(names(&environment), six);
        let value = |name: &str| environment.iter().find(|(n, _)| n == name).unwrap().1.clone();
        assert_eq!(value("PATH"), "/usr/sbin:/usr/bin:/sbin:/bin");
        assert_eq!((value("HOME"), value("USER")), ("/root".into(), "root".into()));
        assert_eq!(value("FLUX_OWNER_USERID"), "1000");
    }

    #[test]
    fn patterns_add_variables_but_none_that_run_other_code() {
        let all = ["FLUX_X", "OTHER", "FLUX_OWNER_USERID", "LD_PRELOAD", "BASH_ENV", "PYTHONPATH"];
        let environment = of_run(passed(&all), &["FLUX_*"], &root(), 7);
        assert_eq!(names(&environment), ["FLUX_OWNER_USERID", "FLUX_X", "HOME", "PATH", "USER"]);
        assert!(environment.contains(&("FLUX_OWNER_USERID".to_owned(), "7".into())));
        let environment = of_run(passed(&all), &["*", "PYTHONPATH", "LD_PRELOAD"], &root(), 7);
        assert!(names(&environment).contains(&"OTHER"));
        assert!(names(&environment).contains(&"PYTHONPATH"), "named in full");
        assert!(!names(&environment).contains(&"LD_PRELOAD"));
        assert!(!names(&environment).contains(&"BASH_ENV"));
    }

    #[test]
    fn a_job_shell_sees_what_is_the_guests_and_what_is_fluxs() {
        let all =
            ["FLUX_URI", "HOME", "LD_PRELOAD", "LC_ALL", "BASH_FUNC_x%%", "FLUX_IMP_EXEC_HELPER"];
        let user = User { name: "alice".into(), home: "/home/alice".into(), ..root() };
        let environment = of_shell(passed(&all), &user);
        let seen = ["FLUX_URI", "HOME", "LC_ALL", "LOGNAME", "PATH", "SHELL", "USER"];
        assert_eq!(names(&environment), seen);
        assert!(environment.contains(&("HOME".to_owned(), "/home/alice".into())));
    }

    #[test]
    fn a_time_zone_is_no_file() {
        assert!(is_for_shell("TZ", "Europe/Berlin".as_ref()));
        for file in ["/etc/passwd", ":/etc/passwd", "../../x"] {
            assert!(!is_for_shell("TZ", file.as_ref()), "{file}");
        }
    }
}

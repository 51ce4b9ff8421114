//! What runs as root stays small: its dependencies, its unsafe code, its size. Whoever has to
//! raise one of these numbers says why in the same change.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates beside the project's own.
const DEPENDENCIES: [&str; 2] = ["base64", "libc"];
/// Blocks of unsafe code in `sys.rs`, and nowhere else,
const UNSAFE_BLOCKS: usize = 33;
/// but for the calls of libpam, which only a feature builds in.
const UNSAFE_BLOCKS_OF_PAM: usize = 9;
/// Lines of code, without tests, comments and blank lines. With control groups of jobs they are
/// some more than 2,600,
const LINES: usize = 2650;
/// and the calls of libpam are some more, where they are built in.
const LINES_OF_PAM: usize = 150;

fn sources(krate: &str) -> Vec<(PathBuf, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(krate).join("src");
    let mut files = Vec::new();
    let mut folders = vec![dir];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// What is compiled into the program.
fn code(text: &str) -> Vec<&str> {
    let program = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = program.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).collect()
}

#[test]
fn the_imp_depends_on_two_crates() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "flux-imp", "-e", "normal,build", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{tree}");
    let mut names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.starts_with("flux-"))
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, DEPENDENCIES);
}

#[test]
fn all_unsafe_code_is_in_one_module_and_does_not_grow() {
    let (mut count, mut of_pam) = (0, 0);
    for (path, text) in sources("imp").into_iter().chain(sources("sign")) {
        let blocks = code(&text)
            .iter()
            .map(|line| line.matches("unsafe {").count() + line.matches("unsafe fn").count())
            .sum::<usize>();
        match () {
            () if path.ends_with("imp/src/sys.rs") => count += blocks,
            () if path.ends_with("imp/src/sys/pam.rs") => of_pam += blocks,
            () => assert!(blocks == 0, "{}", path.display()),
        }
    }
    println!("{count} unsafe blocks, and {of_pam} with PAM");
    assert!(count <= UNSAFE_BLOCKS, "{count} unsafe blocks");
    assert!(of_pam <= UNSAFE_BLOCKS_OF_PAM, "{of_pam} unsafe blocks with PAM");
}

#[test]
fn what_runs_as_root_can_be_read_in_a_day() {
    let (mut count, mut of_pam) = (0, 0);
    for (path, text) in sources("imp").into_iter().chain(sources("sign")) {
        match path.ends_with("imp/src/sys/pam.rs") {
            true => of_pam += code(&text).len(),
            false => count += code(&text).len(),
        }
    }
    println!("{count} lines, and {of_pam} with PAM");
    assert!(count <= LINES, "{count} lines");
    assert!(of_pam <= LINES_OF_PAM, "{of_pam} lines with PAM");
}

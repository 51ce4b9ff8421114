//! What runs as root stays small: its dependencies, its unsafe code, its size. Whoever has to
//! raise one of these numbers says why in the same change.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates beside the project's own.
const DEPENDENCIES: [&str; 2] = ["base64", "libc"];
/// Blocks of unsafe code, all of them in `sys.rs`.
const UNSAFE_BLOCKS: usize = 32;
/// Lines of code, without tests, comments and blank lines.
const LINES: usize = 2500;

fn sources(krate: &str) -> Vec<(PathBuf, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(krate).join("src");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
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
fn all_unsafe_code_is_in_one_file_and_does_not_grow() {
    let mut count = 0;
    for (path, text) in sources("imp").into_iter().chain(sources("sign")) {
        let blocks = code(&text)
            .iter()
            .map(|line| line.matches("unsafe {").count() + line.matches("unsafe fn").count())
            .sum::<usize>();
        assert!(blocks == 0 || path.ends_with("imp/src/sys.rs"), "{}", path.display());
        count += blocks;
    }
    println!("{count} unsafe blocks");
    assert!(count <= UNSAFE_BLOCKS, "{count} unsafe blocks");
}

#[test]
fn what_runs_as_root_can_be_read_in_a_day() {
    let count: usize =
        sources("imp").into_iter().chain(sources("sign")).map(|(_, text)| code(&text).len()).sum();
    println!("{count} lines");
    assert!(count <= LINES, "{count} lines");
}

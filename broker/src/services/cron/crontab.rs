//! Files of crontab(5) lines, loaded when the module is.

use std::path::{Path, PathBuf};

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Object;
use flux_protocol::rpc::cron::CreateRequest;
use serde_json::json;

/// The entries of all files of a folder, by name of file and line. None for a folder that is not
/// there.
///
/// EINVAL: a line that is none of a crontab. Else what reading fails with.
pub(super) fn load(dir: &Path) -> Result<Vec<CreateRequest>, Failure> {
    let failed = |path: &Path, why: &dyn std::fmt::Display, errno| {
        Failure::new(errno, format!("could not load crontab: {}: {why}", path.display()))
    };
    let mut entries = Vec::new();
    for path in files(dir)? {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| failed(&path, &error, Errno::from(&error)))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let entry = parse(line).ok_or_else(|| {
                let why = format!(
                    "line {}: \"{line}\" is not of the form MINUTE HOUR MDAY MONTH \
                                   WEEKDAY COMMAND",
                    number + 1
                );
                failed(&path, &why, Errno::EINVAL)
            })?;
            super::schedule::Schedule::parse(&entry.kind, &entry.args).map_err(|failure| {
                failed(&path, &format!("line {}: {failure}", number + 1), failure.errno)
            })?;
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let failed = |error: std::io::Error| {
        Failure::new(Errno::from(&error), format!("cron.directory {}: {error}", dir.display()))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // As cron(8) does, leave out what editors and package managers leave behind.
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let left_behind = name.is_none_or(|name| name.starts_with('.') || name.ends_with('~'));
        if path.is_file() && !left_behind {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(line: &str) -> Option<CreateRequest> {
    let mut rest = line;
    let mut args = Object::new();
    args.insert("second".to_owned(), json!(0));
    for name in ["minute", "hour", "mday", "month", "weekday"] {
        let (field, after) = rest.split_once(char::is_whitespace)?;
        args.insert(name.to_owned(), json!(field));
        rest = after.trim_start();
    }
    Some(CreateRequest {
        kind: "datetime".to_owned(),
        name: rest.split_whitespace().next()?.to_owned(),
        command: rest.to_owned(),
        args,
        ..CreateRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_files_become_entries_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b"), "0 3 * * sun  /bin/true # weekly\n").unwrap();
        std::fs::write(dir.path().join("a"), "# first\n\n30 * * * * bash -c 'x; y'\n").unwrap();
        std::fs::write(dir.path().join("a~"), "nonsense\n").unwrap();
        let entries = load(dir.path()).unwrap();
        let names: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.command.as_str())).collect();
        assert_eq!(names, [("bash", "bash -c 'x; y'"), ("/bin/true", "/bin/true")]);
        assert_eq!(entries[0].args["minute"], "30");
    }

    #[test]
    fn line_that_is_no_crontab_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (line, part) in [("* * * *", "is not of the form"), ("61 * * * * x", "minute")] {
            std::fs::write(dir.path().join("bad"), format!("# c\n{line}\n")).unwrap();
            let failure = load(dir.path()).unwrap_err();
            let text = failure.text.unwrap();
            assert!(text.starts_with("could not load crontab: "), "{text}");
            assert!(text.contains("/bad: line 2: ") && text.contains(part), "{text}");
        }
        assert!(load(&dir.path().join("none")).unwrap().is_empty());
    }
}

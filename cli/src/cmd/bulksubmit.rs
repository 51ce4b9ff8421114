//! `flux bulksubmit`: a job for each input, as xargs(1) and parallel(1) run commands.
//!
//! Inputs are behind `:::` on the command line or in the file behind `::::`; of several lists all
//! combinations are taken, unless a list is linked to the others by `:::+`. Without any they are
//! read from standard input.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Command, Stdio};

use clap::{ArgAction, Args};

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::outln;
use crate::submission::bulk::{self, Bulk};
use crate::submission::mutable::{Draft, Fields, LIST_MARK, Methods};
use crate::submission::options::{Common, Many, Tasks};
use crate::submission::refuse;

/// Evaluates `--define`d code for each input: names to code and inputs as JSON arguments.
const EVALUATE: &str = "import json, os, sys
methods, inputs = json.loads(sys.argv[1]), json.loads(sys.argv[2])
def text(value):
    return sys.argv[3].join(map(str, value)) if isinstance(value, list) else str(value)
result = {name: {x: text(eval(code, globals(), dict(x=x))) for x in inputs}
          for name, code in methods.items()}
json.dump(result, sys.stdout)";

#[derive(Debug, Args)]
#[command(override_usage = "flux-bulksubmit [OPTIONS...] COMMAND [ARGS...]")]
pub(crate) struct BulkSubmit {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    tasks: Tasks,
    #[command(flatten)]
    many: Many,
    /// Shuffle list of commands before submission
    #[arg(long)]
    shuffle: bool,
    /// Set the input argument separator. To split on whitespace, use --sep=none. The default is
    /// newline.
    #[arg(long, value_name = "STRING", default_value = "\\n")]
    sep: String,
    /// Define a named method for transforming any input, accessible via e.g. '{0.NAME}'. CODE is
    /// Python, in which 'x' is the input string (needs python3)
    #[arg(long, value_name = "NAME=CODE", action = ArgAction::Append)]
    define: Vec<String>,
    /// Job command and initial arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Inputs, or those that go with the inputs of the other lists.
#[derive(Debug, PartialEq, Eq)]
struct List {
    linked: bool,
    inputs: Vec<String>,
}

impl BulkSubmit {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let separator = separator(&self.sep);
        let (mut command, mut lists) = split(&self.command, separator.as_deref())?;
        if command.is_empty() {
            command.push("{}".to_owned());
        }
        if lists.iter().all(|list| list.linked) {
            let text = read_stdin()?;
            let inputs = split_inputs(&text, separator.as_deref());
            lists.insert(0, List { linked: false, inputs });
        }
        let methods = evaluate(&self.define, &lists)?;
        let draft = Draft::new(self.common, self.tasks, self.many, command);
        let mut drafts = Vec::new();
        for (seq, inputs) in combine(&lists).iter().enumerate() {
            let named = [
                ("seq", seq.to_string()),
                ("seq1", (seq + 1).to_string()),
                // For the copies that are still to be made.
                ("cc", "{cc}".to_owned()),
            ];
            let fields = Fields { inputs, named: named.into(), methods: &methods };
            drafts.push(draft.substitute(&fields)?);
        }
        if self.shuffle {
            shuffle(&mut drafts);
        }
        send_all(&context, &draft, &drafts).await
    }
}

async fn send_all(context: &Context, draft: &Draft, drafts: &[Draft]) -> Outcome {
    let mut total = 0;
    for draft in drafts {
        total += bulk::copies(draft)?.len();
    }
    if total == 0 {
        return Err(refuse("no jobs provided for bulk submission"));
    }
    let dry_run = draft.common.dry_run;
    let own = context.env.all().clone();
    let mut bulk = Bulk::new(context, &own);
    if dry_run && draft.many.progress {
        outln!("bulksubmit: submitting a total of {total} jobs");
    } else if !dry_run {
        bulk.show_progress(draft, total);
    }
    for draft in drafts {
        if draft.tasks.verbose > 0 || dry_run {
            outln!("bulksubmit: submit {draft}");
        }
        if !dry_run {
            bulk.send(draft).await?;
        }
    }
    if dry_run { Ok(0) } else { bulk.finish().await }
}

/// Nothing for any blanks.
fn separator(text: &str) -> Option<String> {
    let unescaped =
        text.replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0").replace("\\\\", "\\");
    (unescaped.to_lowercase() != "none").then_some(unescaped)
}

/// The command, and the lists behind it.
fn split(words: &[String], separator: Option<&str>) -> Result<(Vec<String>, Vec<List>), Failure> {
    let mut command = Vec::new();
    let mut lists: Vec<(String, Vec<String>)> = Vec::new();
    for word in words {
        if word.starts_with(":::") {
            lists.push((word.clone(), Vec::new()));
        } else if let Some((_, list)) = lists.last_mut() {
            list.push(word.clone());
        } else {
            command.push(word.clone());
        }
    }
    let lists: Result<Vec<List>, Failure> = lists
        .into_iter()
        .map(|(delimiter, words)| {
            let linked = delimiter.ends_with('+');
            let inputs = match delimiter.trim_end_matches('+') {
                "::::" => read_inputs(&words, separator)?,
                _ => words,
            };
            Ok(List { linked, inputs })
        })
        .collect();
    // A list without inputs is no list.
    Ok((command, lists?.into_iter().filter(|list| !list.inputs.is_empty()).collect()))
}

fn read_inputs(words: &[String], separator: Option<&str>) -> Result<Vec<String>, Failure> {
    let text = match words {
        [name] if name == "-" => read_stdin()?,
        [name] => std::fs::read_to_string(name)
            .map_err(|error| refuse(format_args!("{}: '{name}'", strerror(&error))))?,
        [] => return Err(refuse("No file name after ::::")),
        _ => return Err(refuse("Multiple args not allowed after ::::")),
    };
    Ok(split_inputs(&text, separator))
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| refuse(format_args!("stdin: {}", strerror(&error))))?;
    Ok(text)
}

fn split_inputs(text: &str, separator: Option<&str>) -> Vec<String> {
    let parts: Vec<&str> = match separator {
        Some(separator) if !separator.is_empty() => text.split(separator).collect(),
        _ => text.split_whitespace().collect(),
    };
    parts.into_iter().filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// All combinations, with the linked lists going round beside them.
fn combine(lists: &[List]) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = vec![Vec::new()];
    for list in lists.iter().filter(|list| !list.linked) {
        let longer = all.iter().flat_map(|row| {
            list.inputs.iter().map(|input| {
                let mut row = row.clone();
                row.push(input.clone());
                row
            })
        });
        all = longer.collect();
    }
    for (at, list) in lists.iter().enumerate().filter(|(_, list)| list.linked) {
        for (row, input) in all.iter_mut().zip(list.inputs.iter().cycle()) {
            row.insert(at.min(row.len()), input.clone());
        }
    }
    all
}

fn evaluate(definitions: &[String], lists: &[List]) -> Result<Methods, Failure> {
    if definitions.is_empty() {
        return Ok(Methods::default());
    }
    let mut code = BTreeMap::new();
    for definition in definitions {
        let (name, text) = definition.split_once('=').ok_or_else(|| {
            refuse(format_args!("--define: '{definition}' is not of the form NAME=CODE"))
        })?;
        code.insert(name, text);
    }
    let inputs: Vec<&String> = lists.iter().flat_map(|list| &list.inputs).collect();
    let json = |value: serde_json::Result<String>| value.map_err(refuse);
    let output = Command::new("python3")
        .args(["-c", EVALUATE])
        .arg(json(serde_json::to_string(&code))?)
        .arg(json(serde_json::to_string(&inputs))?)
        .arg(LIST_MARK)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| refuse(format_args!("--define: python3: {}", strerror(&error))))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(refuse(format_args!("--define: {}", text.lines().last().unwrap_or_default())));
    }
    Ok(Methods(serde_json::from_slice(&output.stdout).map_err(refuse)?))
}

/// By the random keys that the standard library seeds its maps with.
fn shuffle(drafts: &mut Vec<Draft>) {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new();
    let mut keyed: Vec<(u64, Draft)> =
        drafts.drain(..).enumerate().map(|(at, draft)| (random.hash_one(at), draft)).collect();
    keyed.sort_by_key(|(key, _)| *key);
    drafts.extend(keyed.into_iter().map(|(_, draft)| draft));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combined(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (_, lists) = split(&words, Some("\n")).unwrap();
        combine(&lists).into_iter().map(|row| row.join("")).collect()
    }

    #[test]
    fn lists_are_combined_or_linked() {
        assert_eq!(combined("echo ::: a b ::: 1 2"), ["a1", "a2", "b1", "b2"]);
        assert_eq!(combined("echo ::: a b c :::+ 1 2"), ["a1", "b2", "c1"]);
        assert_eq!(combined("echo ::: a b :::"), ["a", "b"]);
    }

    #[test]
    fn files_hold_lists_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list");
        std::fs::write(&file, "x\ny\n\n").unwrap();
        assert_eq!(combined(&format!("echo :::: {}", file.display())), ["x", "y"]);
        let words: Vec<String> = ["c", "::::", "a", "b"].map(str::to_owned).into();
        assert!(split(&words, None).is_err());
    }

    #[test]
    fn separators_may_be_written_with_backslashes() {
        assert_eq!(separator("\\n").as_deref(), Some("\n"));
        assert_eq!(separator("None"), None);
        assert_eq!(split_inputs(" a b\nc ", None), ["a", "b", "c"]);
        assert_eq!(split_inputs("a,b,,c", Some(",")), ["a", "b", "c"]);
    }
}

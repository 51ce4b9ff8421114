//! What commands print, without what differs from run to run.

use serde_json::Value;

/// What a command has left behind.
pub(crate) struct Output {
    pub(crate) code: Option<i64>,
    pub(crate) stdout: String,
    /// Nothing where it was not captured.
    pub(crate) stderr: Option<String>,
}

pub(crate) fn differences(real: &Output, ours: &Output) -> Vec<String> {
    let mut found = Vec::new();
    if real.code != ours.code {
        found.push(format!("  exit code: real {:?}, ours {:?}", real.code, ours.code));
    }
    if !same_text(&real.stdout, &ours.stdout) {
        found.push(format!("  stdout:\n    real {:?}\n    ours {:?}", real.stdout, ours.stdout));
    }
    if let (Some(real), Some(ours)) = (&real.stderr, &ours.stderr)
        && !same_text(real, ours)
    {
        found.push(format!("  stderr:\n    real {real:?}\n    ours {ours:?}"));
    }
    found
}

/// Without how long something has taken, and the columns that move with it.
pub(crate) fn timeless(output: Output) -> Output {
    let word = |word: &str| {
        let number = word.trim_end_matches(['s', 'm', 'h', 'd', ':']);
        let is_time = number != word || word.contains('.');
        if is_time && number.parse::<f64>().is_ok() { "#".to_owned() } else { word.to_owned() }
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    let text = |text: &str| match serde_json::from_str::<Value>(text) {
        Ok(_) => text.to_owned(),
        Err(_) => text.lines().map(line).collect::<Vec<_>>().join("\n"),
    };
    Output {
        code: output.code,
        stdout: text(&output.stdout),
        stderr: output.stderr.as_deref().map(text),
    }
}

fn same_text(real: &str, ours: &str) -> bool {
    // Long texts were cut when the files were made.
    if let Some((real, _)) = real.split_once("<$TRIMMED") {
        return ours.starts_with(real) || same_prefix(real, ours);
    }
    if let (Ok(real), Ok(ours)) =
        (serde_json::from_str::<Value>(real), serde_json::from_str::<Value>(ours))
    {
        return same_json(&real, &ours);
    }
    let mut real: Vec<String> = real.lines().map(normal).collect();
    let mut ours: Vec<String> = ours.lines().map(normal).collect();
    // Keys of dumped entries come in no order, and so does the output of several processes.
    real.sort();
    ours.sort();
    real == ours
}

/// As far as the real text goes; its last line may have been cut anywhere.
fn same_prefix(real: &str, ours: &str) -> bool {
    let real: Vec<&str> = real.lines().collect();
    let ours: Vec<&str> = ours.lines().collect();
    let Some((_, whole)) = real.split_last() else { return true };
    whole.len() <= ours.len()
        && whole.iter().zip(&ours).all(|(real, ours)| normal(real) == normal(ours))
}

/// Numbers by value, keys in any order.
fn same_json(real: &Value, ours: &Value) -> bool {
    match (real, ours) {
        (Value::Number(real), Value::Number(ours)) => real.as_f64() == ours.as_f64(),
        (Value::Array(real), Value::Array(ours)) => {
            real.len() == ours.len() && real.iter().zip(ours).all(|(r, o)| same_json(r, o))
        }
        (Value::Object(real), Value::Object(ours)) => {
            real.len() == ours.len()
                && real
                    .iter()
                    .all(|(key, value)| ours.get(key).is_some_and(|ours| same_json(value, ours)))
        }
        (real, ours) => real == ours,
    }
}

/// Times and what depends on them become `#`.
fn normal(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for at in 0..words.len() {
        let word = words[at].clone();
        if let Some(rest) = word.strip_prefix("time=") {
            if rest.parse::<f64>().is_ok() {
                words[at] = "time=#".to_owned();
            }
        } else if word.starts_with('(') && at + 1 < words.len() && words[at + 1] == "ms)" {
            words[at] = "(#".to_owned();
        } else if word.ends_with('s') && at > 0 && words[at - 1] == "in" {
            words[at] = "#".to_owned();
        } else if let Some(number) = digits(&word) {
            words[at] = number;
        }
    }
    words.join(" ")
}

/// Numbers with many digits behind the point are printed with more or fewer of them.
fn digits(word: &str) -> Option<String> {
    let number: f64 = word.parse().ok()?;
    word.contains('.').then(|| format!("{number:.3}"))
}

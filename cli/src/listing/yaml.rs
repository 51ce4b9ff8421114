//! Formats in YAML.

use flux_protocol::payload::Object;

/// The mapping that the text is; else the line and what is wrong there.
pub(super) fn parse(text: &str) -> Result<Object, (usize, String)> {
    // `description: yes` is text.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let object: Result<Option<Object>, _> = serde_saphyr::from_str_with_options(text, options);
    object.map(Option::unwrap_or_default).map_err(|error| {
        let line = error.location().and_then(|at| at.line().try_into().ok()).unwrap_or(1);
        let reason = match error {
            serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
                format!("{key} is there twice")
            }
            error => error.to_string(),
        };
        let (reason, _) = reason.rsplit_once(" at line ").unwrap_or((&reason, ""));
        (line, reason.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Value {
        Value::Object(parse(text).unwrap())
    }

    #[test]
    fn formats_are_read_however_text_is_written() {
        let text = "---\n# mine\nformats:\n  a:   # short\n    description: It's mine # really\n    \
                    format: \"{id.f58} \\\"{name}\\\" \\u0192\"\n\n  'b c':\n    format: '{id} it''s #1'\n  \
                    c:\n    description: of\n      two lines\n    format: >-\n      {id.f58:>12}\n      \
                    {name}\n\n      {x}\n  d:\n    format: |\n      {id}\n        {name}\n  e: {\"format\": \
                    \"x\"}\n  f: {format: x, description: yes}\n...\n";
        assert_eq!(
            read(text),
            json!({ "formats": {
                "a": { "description": "It's mine", "format": "{id.f58} \"{name}\" ƒ" },
                "b c": { "format": "{id} it's #1" },
                "c": { "description": "of two lines", "format": "{id.f58:>12} {name}\n{x}" },
                "d": { "format": "{id}\n  {name}\n" },
                "e": { "format": "x" },
                "f": { "format": "x", "description": "yes" },
            } })
        );
        assert_eq!(
            read("formats: 42\nx:\ny: ~\nz: true\n"),
            json!({
                "formats": 42, "x": null, "y": null, "z": true,
            })
        );
        assert_eq!(read("# nothing\n"), json!({}));
        assert_eq!(read(""), json!({}));
    }

    #[test]
    fn what_is_no_yaml_is_told_in_one_line_with_its_place() {
        for (text, line, what) in [
            ("formats:\n  a: \"x\n", 2, "unclosed quote"),
            ("formats:\n  a: x: y\n", 2, "mapping values are not allowed"),
            ("formats:\n  a: 'x' y\n", 2, "trailing content"),
            ("formats:\n\ta: x\n", 2, "tabs disallowed"),
            ("formats:\n  a: x\n b: y\n", 3, "expected key"),
            ("  formats:\na: x\n", 2, "expected <document start>"),
            ("formats:\n  a: {id} {name}\n", 2, "expected key"),
            ("formats:\n  a: x\n  a: y\n", 3, "a is there twice"),
            ("formats:\n  a: *x\n", 2, "unknown anchor"),
            ("a: b\n---\nc: d\n", 3, "multiple YAML documents"),
            ("words\n", 1, "expected mapping"),
            ("- a\n", 1, "expected mapping"),
        ] {
            let (at, reason) = parse(text).unwrap_err();
            assert!(at == line && reason.contains(what), "{text}: {at}: {reason}");
            assert!(!reason.contains('\n') && !reason.contains("at line"), "{reason}");
        }
        // Anchors in anchors make no more than so much of a small file.
        let bomb: String = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            let before = n - 1;
            text + &format!("a{n}: &a{n} [*a{before}, *a{before}, *a{before}]\n")
        });
        assert!(parse(&bomb).is_err());
    }
}

//! `{{tag}}` templates in file names, arguments and environment variables.

/// Replace each tag by what `lookup` says; a tag that it does not know stays as it is.
pub(crate) fn render(template: &str, mut lookup: impl FnMut(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        result.push_str(before);
        let Some((tag, tail)) = after.split_once("}}") else {
            // No end: the rest is no tag.
            result.push_str("{{");
            rest = after;
            break;
        };
        match lookup(tag) {
            Some(value) => result.push_str(&value),
            None => {
                result.push_str("{{");
                result.push_str(tag);
                result.push_str("}}");
            }
        }
        rest = tail;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(tag: &str) -> Option<String> {
        match tag {
            "id" => Some("f1".to_owned()),
            "empty" => Some(String::new()),
            "nested" => Some("{{id}}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn known_tags_are_replaced_and_others_stay() {
        for (template, result) in [
            ("flux-{{id}}.out", "flux-f1.out"),
            ("{{id}}{{id}}", "f1f1"),
            ("{{nope}}/{{id}}", "{{nope}}/f1"),
            ("{{empty}}x", "x"),
            ("{{nested}}", "{{id}}"),
            ("{{id", "{{id"),
            ("a{{", "a{{"),
            ("}}{{id}}", "}}f1"),
            ("{id}", "{id}"),
            ("", ""),
        ] {
            assert_eq!(render(template, lookup), result, "{template}");
        }
    }

    proptest! {
        #[test]
        fn text_is_unchanged_when_no_tag_is_known(text in "[a{}é]{0,40}") {
            prop_assert_eq!(render(&text, |_| None), text);
        }
    }
}

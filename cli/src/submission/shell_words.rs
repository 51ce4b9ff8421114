//! Words as a shell splits them, with quotes, escapes and comments.

/// Why a text is no list of words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordsError {
    #[error("No closing quotation")]
    Quotation,
    #[error("No escaped character")]
    Escape,
}

pub(crate) fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' => break,
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            '\\' => {
                let escaped = chars.next().ok_or(WordsError::Escape)?;
                word.get_or_insert_default().push(escaped);
            }
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Up to the closing quote, which a backslash can be put in front of.
fn quoted(
    quote: char,
    chars: &mut std::str::Chars<'_>,
    word: &mut String,
) -> Result<(), WordsError> {
    loop {
        match chars.next().ok_or(WordsError::Quotation)? {
            c if c == quote => return Ok(()),
            '\\' => {
                let next = chars.next().ok_or(WordsError::Quotation)?;
                if next != quote && next != '\\' {
                    word.push('\\');
                }
                word.push(next);
            }
            c => word.push(c),
        }
    }
}

/// `text` in quotes, so that it is one word.
pub(crate) fn quote(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for (text, words) in [
            (" -N 4 --x='a b' # comment", &["-N", "4", "--x=a b"][..]),
            ("\"a 'b' \\\" c\" d\\ e ''", &["a 'b' \" c", "d e", ""]),
            ("'it\\'s' '\\n'", &["it's", "\\n"]),
            ("", &[]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert_eq!(split("'a"), Err(WordsError::Quotation));
        assert_eq!(split("a\\"), Err(WordsError::Escape));
    }

    #[test]
    fn quoted_text_is_one_word() {
        for text in ["a", "", "a b", "it's", "$x `y` \"z\"\n"] {
            assert_eq!(split(&quote(text)).unwrap(), [text], "{text}");
        }
    }
}

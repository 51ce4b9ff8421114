//! The text of a certificate: the subset of ZPL (ZeroMQ RFC 4) that `zcert` files use.
//!
//! ```text
//! #  ZeroMQ CURVE **Secret** Certificate
//! metadata
//!     name = "mycluster"
//! curve
//!     public-key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
//!     secret-key = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"
//! ```

use crate::{Certificate, KeyError, PublicKey, SecretKey};

const HEADING: &str = "#  ZeroMQ CURVE **Secret** Certificate\n#  DO NOT DISTRIBUTE\n\n";

/// Punctuation that flux-core reads in a value: that of Z85, and blanks.
const VALUE_PUNCTUATION: &str = ".-:+=^!/*?&<>()[]{}@%$# \t";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("line {0}: expected `metadata`, `curve` or an indented `key = \"value\"`")]
    Syntax(usize),
    #[error("line {0}: {1} is given twice")]
    Duplicate(usize, String),
    #[error("line {0}: {1} is not a key of the curve section")]
    UnknownKey(usize, String),
    #[error("line {0}: {1}: {2}")]
    Key(usize, &'static str, KeyError),
    #[error("no public-key")]
    NoPublicKey,
    #[error("no secret-key")]
    NoSecretKey,
    #[error("public-key and secret-key do not belong together")]
    Mismatch,
}

/// Metadata that a certificate file cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    #[error("metadata key '{0}': only letters, digits, '-' and '.' are possible")]
    Key(String),
    #[error("metadata {key}: '{character}' is not possible in a value")]
    Value { key: String, character: char },
}

enum Section {
    None,
    Metadata,
    Curve,
}

/// A certificate file as far as it has been read.
#[derive(Default)]
struct Draft {
    public: Option<PublicKey>,
    secret: Option<SecretKey>,
    metadata: Vec<(String, String)>,
}

// === impl Certificate ===

impl Certificate {
    /// Reads the text of a certificate file, and checks that the two keys belong together.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut draft = Draft::default();
        let mut section = Section::None;
        for (line, number) in text.lines().zip(1..) {
            let content = line.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let indented = line.starts_with([' ', '\t']);
            match (indented, content, &section) {
                (false, "metadata", _) => section = Section::Metadata,
                (false, "curve", _) => section = Section::Curve,
                (true, entry, Section::Metadata) => draft.add_metadata(entry, number)?,
                (true, entry, Section::Curve) => draft.add_key(entry, number)?,
                _ => return Err(ParseError::Syntax(number)),
            }
        }
        draft.finish()
    }

    /// The text of a certificate file. It holds the secret key.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADING}metadata\n");
        for (key, value) in &self.metadata {
            text.push_str(&format!("    {key} = \"{value}\"\n"));
        }
        text.push_str(&format!("curve\n    public-key = \"{}\"\n", self.public));
        text.push_str(&format!("    secret-key = \"{}\"\n", self.secret.to_z85()));
        text
    }
}

// === impl Draft ===

impl Draft {
    fn add_metadata(&mut self, entry: &str, line: usize) -> Result<(), ParseError> {
        let (key, value) = split_entry(entry).ok_or(ParseError::Syntax(line))?;
        if self.metadata.iter().any(|(known, _)| known == key) {
            return Err(ParseError::Duplicate(line, key.to_owned()));
        }
        self.metadata.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    fn add_key(&mut self, entry: &str, line: usize) -> Result<(), ParseError> {
        match split_entry(entry).ok_or(ParseError::Syntax(line))? {
            ("public-key", value) => {
                let key = value.parse().map_err(|e| ParseError::Key(line, "public-key", e))?;
                self.public = Some(key);
            }
            ("secret-key", value) => {
                let key = value.parse().map_err(|e| ParseError::Key(line, "secret-key", e))?;
                self.secret = Some(key);
            }
            (other, _) => return Err(ParseError::UnknownKey(line, other.to_owned())),
        }
        Ok(())
    }

    fn finish(self) -> Result<Certificate, ParseError> {
        let public = self.public.ok_or(ParseError::NoPublicKey)?;
        let secret = self.secret.ok_or(ParseError::NoSecretKey)?;
        if secret.public_key() != Some(public) {
            return Err(ParseError::Mismatch);
        }
        Ok(Certificate { public, secret, metadata: self.metadata })
    }
}

/// `key = "value"`. Values that CZMQ wrote may hold more than [`check_meta`] lets us write.
fn split_entry(entry: &str) -> Option<(&str, &str)> {
    let (key, value) = entry.split_once('=')?;
    let key = key.trim_end();
    let value = value.trim_start().strip_prefix('"')?.strip_suffix('"')?;
    let readable = !key.is_empty() && !value.contains(|c: char| c == '"' || c.is_control());
    readable.then_some((key, value))
}

pub(crate) fn check_meta(key: &str, value: &str) -> Result<(), MetaError> {
    let key_fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if key.is_empty() || !key.chars().all(key_fits) {
        return Err(MetaError::Key(key.to_owned()));
    }
    let value_fits = |c: char| c.is_ascii_alphanumeric() || VALUE_PUNCTUATION.contains(c);
    match value.chars().find(|c| !value_fits(*c)) {
        Some(character) => Err(MetaError::Value { key: key.to_owned(), character }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CZMQ: &str = concat!(
        "#   ****  Generated on 2023-03-01 16:49:33 by CZMQ  ****\n",
        "#   ZeroMQ CURVE **Secret** Certificate\n\n",
        "metadata\n",
        "    keygen.hostname = \"fluke_25\"\n",
        "    name = \"system instance\"\n",
        "curve\n",
        "    public-key = \"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\"\n",
        "    secret-key = \"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6\"\n",
    );

    #[test]
    fn certificate_of_czmq_is_read() {
        let cert = Certificate::parse(CZMQ).unwrap();
        assert_eq!(cert.name(), Some("system instance"));
        assert_eq!(cert.meta("keygen.hostname"), Some("fluke_25"));
        assert_eq!(cert.public_key().to_string(), "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7");
    }

    #[test]
    fn written_text_has_the_layout_of_flux_core() {
        let mut cert = Certificate::parse(CZMQ).unwrap();
        cert.metadata.clear();
        cert.set_meta_default("foo", "bar").unwrap();
        let expected = concat!(
            "#  ZeroMQ CURVE **Secret** Certificate\n#  DO NOT DISTRIBUTE\n\n",
            "metadata\n    foo = \"bar\"\n",
            "curve\n    public-key = \"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\"\n",
            "    secret-key = \"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6\"\n",
        );
        assert_eq!(cert.to_text(), expected);
    }

    #[test]
    fn generated_certificate_survives_its_text_and_no_two_are_alike() {
        let mut cert = Certificate::generate().unwrap();
        cert.set_meta_default("name", "a = b").unwrap();
        assert_eq!(Certificate::parse(&cert.to_text()).as_ref(), Ok(&cert));
        assert_ne!(Certificate::generate().unwrap().public_key(), cert.public_key());
    }

    #[test]
    fn first_metadata_value_stays() {
        let mut cert = Certificate::generate().unwrap();
        cert.set_meta_default("name", "given").unwrap();
        cert.set_meta_default("name", "hostname").unwrap();
        assert_eq!(cert.name(), Some("given"));
        assert_eq!(cert.metadata().count(), 1);
    }

    #[test]
    fn metadata_that_could_not_be_read_back_is_refused() {
        let mut cert = Certificate::generate().unwrap();
        for (key, value) in [("", "x"), ("a b", "x"), ("a", "x\"y"), ("a", "x\ny"), ("a", "x_y")] {
            assert!(cert.set_meta_default(key, value).is_err(), "{key:?} {value:?}");
        }
        assert_eq!(
            cert.set_meta_default("a", "x_y").unwrap_err().to_string(),
            "metadata a: '_' is not possible in a value"
        );
    }

    #[test]
    fn broken_text_is_refused_with_its_line() {
        let error = |text: &str| Certificate::parse(text).unwrap_err().to_string();
        assert_eq!(error(""), "no public-key");
        assert!(error("name = \"x\"\n").starts_with("line 1: expected"));
        assert!(error("metadata\nname = \"x\"\n").starts_with("line 2: expected"));
        assert!(error("metadata\n    name = x\n").starts_with("line 2: expected"));
        assert!(error("other\n").starts_with("line 1: expected"));
        assert_eq!(error("metadata\n a = \"1\"\n a = \"2\"\n"), "line 3: a is given twice");
        assert_eq!(
            error("curve\n private-key = \"x\"\n"),
            "line 2: private-key is not a key of the curve section"
        );
        assert_eq!(
            error("curve\n public-key = \"x\"\n"),
            "line 2: public-key: a key has 40 characters, not 1"
        );
        let foreign = Certificate::generate().unwrap().secret_key().to_z85();
        let mixed = CZMQ.replace("JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6", &foreign);
        assert_eq!(error(&mixed), "public-key and secret-key do not belong together");
    }
}

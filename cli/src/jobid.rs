//! Job ids as users write and see them.

use flux_protocol::fluid::{Encoding, JobId};

use crate::failure::Failure;
use crate::listing::Value;

/// In F58, whose first letter is not in every character set.
pub(crate) fn f58(id: JobId) -> String {
    id.encode(f58_encoding())
}

/// Plain ASCII where the locale, or `FLUX_F58_FORCE_ASCII`, asks for it.
pub(crate) fn f58_encoding() -> Encoding {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().any(|name| set(name));
    let plain = set("FLUX_F58_FORCE_ASCII") || (locale && !crate::term::is_utf8());
    if plain { Encoding::F58Plain } else { Encoding::F58 }
}

/// Any spelling of RFC 19.
pub(crate) fn parse(text: &str) -> Result<JobId, Failure> {
    JobId::parse(text).map_err(|_| Failure::new(format_args!("error parsing jobid: \"{text}\"")))
}

/// In the encoding that stands behind `id.` in a format; nothing where there is no such encoding.
pub(crate) fn field(id: JobId, encoding: &str) -> Value {
    match encoding.parse::<Encoding>() {
        Ok(Encoding::F58) => f58(id).into(),
        Ok(encoding) => id.encode(encoding).into(),
        Err(_) => Value::None,
    }
}

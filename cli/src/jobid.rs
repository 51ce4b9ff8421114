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
    if flux_client::locale::is_f58_plain() { Encoding::F58Plain } else { Encoding::F58 }
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

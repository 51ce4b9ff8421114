//! Return codes, which PMI-1 and PMI-2 have in common.

/// A return code other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Failed(pub i32);

// === impl Failed ===

impl Failed {
    pub const FAIL: Failed = Failed(-1);
    /// Not initialized, or initialized twice.
    pub const INIT: Failed = Failed(1);
    pub const NOMEM: Failed = Failed(2);
    pub const INVALID_ARG: Failed = Failed(3);
    pub const INVALID_KEY: Failed = Failed(4);
    pub const INVALID_KEY_LENGTH: Failed = Failed(5);
    pub const INVALID_VAL: Failed = Failed(6);
    pub const INVALID_VAL_LENGTH: Failed = Failed(7);
    pub const INVALID_ARGS: Failed = Failed(10);
    pub const INVALID_SIZE: Failed = Failed(13);

    fn text(self) -> String {
        let text = match self.0 {
            -1 => "operation failed",
            1 => "PMI not initialized",
            2 => "input buffer not large enough",
            3 => "invalid argument",
            4 => "invalid key argument",
            5 => "invalid key length argument",
            6 => "invalid val argument",
            7 => "invalid val length argument",
            8 => "invalid length argument",
            9 => "invalid number of arguments",
            10 => "invalid args argument",
            11 => "invalid num_parsed length argument",
            12 => "invalid keyvalp argument",
            13 => "invalid size argument",
            14 => "other PMI2 error",
            other => return format!("pmi error {other}"),
        };
        text.to_owned()
    }
}

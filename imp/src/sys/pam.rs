//! A session of PAM, for sites that want its limits and its accounting around the jobs of users.
//! Only what is needed of libpam is declared here.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::ptr::null_mut;

const SERVICE: &CStr = c"flux";
const SUCCESS: c_int = 0;
/// What a conversation answers that is none: nobody sits there.
const CONV_ERR: c_int = 19;
const ITEM_USER: c_int = 2;
const ITEM_RUSER: c_int = 8;
const ESTABLISH_CRED: c_int = 2;
const DELETE_CRED: c_int = 4;

#[repr(C)]
struct Handle {
    _opaque: [u8; 0],
}

#[repr(C)]
struct Conversation {
    converse: extern "C" fn(c_int, *mut *const c_void, *mut *mut c_void, *mut c_void) -> c_int,
    data: *mut c_void,
}

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        handle: *mut *mut Handle,
    ) -> c_int;
    fn pam_set_item(handle: *mut Handle, item: c_int, value: *const c_void) -> c_int;
    fn pam_setcred(handle: *mut Handle, flags: c_int) -> c_int;
    fn pam_open_session(handle: *mut Handle, flags: c_int) -> c_int;
    fn pam_close_session(handle: *mut Handle, flags: c_int) -> c_int;
    fn pam_end(handle: *mut Handle, status: c_int) -> c_int;
    fn pam_strerror(handle: *mut Handle, error: c_int) -> *const c_char;
}

extern "C" fn converse(
    _: c_int,
    _: *mut *const c_void,
    _: *mut *mut c_void,
    _: *mut c_void,
) -> c_int {
    CONV_ERR
}

/// What went wrong, in the words of libpam.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) call: &'static str,
    pub(crate) why: String,
}

/// Open until [`Session::close`], which only the process that opened it may call.
pub(crate) struct Session {
    handle: *mut Handle,
    /// What libpam may look at as long as there is a handle.
    _conversation: Box<Conversation>,
    credentials: bool,
    opened: bool,
}

impl Session {
    /// Begin one for this user, as root. It is the calling process that gets the limits.
    pub(crate) fn open(user: &str) -> Result<Session, Failed> {
        let name = CString::new(user).map_err(|error| Failed {
            call: "pam_start",
            why: io::Error::from(error).to_string(),
        })?;
        let conversation = Box::new(Conversation { converse, data: null_mut() });
        let mut session = Session {
            handle: null_mut(),
            _conversation: conversation,
            credentials: false,
            opened: false,
        };
        // SAFETY: strings, a conversation that lives as long as the handle, and a place for that.
        let started = unsafe {
            pam_start(
                SERVICE.as_ptr(),
                name.as_ptr(),
                &raw const *session._conversation,
                &mut session.handle,
            )
        };
        session.check("pam_start", started)?;
        match session.begin(&name) {
            Ok(()) => Ok(session),
            Err(failed) => {
                // What is said is why it did not begin, not how it ended.
                let _ = session.close();
                Err(failed)
            }
        }
    }

    fn begin(&mut self, user: &CStr) -> Result<(), Failed> {
        for (call, item) in [("PAM_USER", ITEM_USER), ("PAM_RUSER", ITEM_RUSER)] {
            // SAFETY: the handle is valid, and the value of these items is a string.
            let set = unsafe { pam_set_item(self.handle, item, user.as_ptr().cast()) };
            self.check(call, set)?;
        }
        // SAFETY: the handle is valid.
        let established = unsafe { pam_setcred(self.handle, ESTABLISH_CRED) };
        self.check("pam_setcred", established)?;
        self.credentials = true;
        // SAFETY: the handle is valid.
        let opened = unsafe { pam_open_session(self.handle, 0) };
        self.check("pam_open_session", opened)?;
        self.opened = true;
        Ok(())
    }

    /// The first thing that went wrong; all that is to be undone is.
    pub(crate) fn close(mut self) -> Result<(), Failed> {
        let mut outcome = Ok(());
        let mut status = SUCCESS;
        if std::mem::take(&mut self.opened) {
            // SAFETY: the handle is valid.
            status = unsafe { pam_close_session(self.handle, 0) };
            outcome = outcome.and(self.check("pam_close_session", status));
        }
        if std::mem::take(&mut self.credentials) {
            // SAFETY: the handle is valid.
            let deleted = unsafe { pam_setcred(self.handle, DELETE_CRED) };
            outcome = outcome.and(self.check("pam_setcred", deleted));
            status = status.max(deleted);
        }
        // SAFETY: the handle is valid, and not used any more.
        unsafe { pam_end(self.handle, status) };
        outcome
    }

    fn check(&self, call: &'static str, result: c_int) -> Result<(), Failed> {
        if result == SUCCESS {
            return Ok(());
        }
        // SAFETY: the handle is not looked at.
        let text = unsafe { pam_strerror(self.handle, result) };
        // SAFETY: not null, and a string that stays.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
        let text = text.map(|text| text.to_string_lossy().into_owned());
        Err(Failed { call, why: text.unwrap_or_else(|| format!("error {result}")) })
    }
}

//! Errno numbers as they travel in the `errnum` of a response (RFC 6).
//!
//! The numbers are those of Linux on x86-64 and aarch64, whatever RFC 3 prints.

use std::fmt;

/// A Linux errno number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub u32);

macro_rules! errnos {
    ($($name:ident = $num:literal $text:literal;)*) => {
        impl Errno {
            $(pub const $name: Errno = Errno($num);)*

            /// The symbolic name, such as `ENOENT`.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($num => Some(stringify!($name)),)* _ => None }
            }

            /// The text of strerror(3).
            pub fn text(self) -> Option<&'static str> {
                match self.0 { $($num => Some($text),)* _ => None }
            }
        }
    };
}

errnos! {
    EPERM = 1 "Operation not permitted";
    ENOENT = 2 "No such file or directory";
    ESRCH = 3 "No such process";
    EINTR = 4 "Interrupted system call";
    EIO = 5 "Input/output error";
    ENXIO = 6 "No such device or address";
    E2BIG = 7 "Argument list too long";
    ENOEXEC = 8 "Exec format error";
    EBADF = 9 "Bad file descriptor";
    ECHILD = 10 "No child processes";
    EAGAIN = 11 "Resource temporarily unavailable";
    ENOMEM = 12 "Cannot allocate memory";
    EACCES = 13 "Permission denied";
    EFAULT = 14 "Bad address";
    EBUSY = 16 "Device or resource busy";
    EEXIST = 17 "File exists";
    ENODEV = 19 "No such device";
    ENOTDIR = 20 "Not a directory";
    EISDIR = 21 "Is a directory";
    EINVAL = 22 "Invalid argument";
    ENFILE = 23 "Too many open files in system";
    EMFILE = 24 "Too many open files";
    ENOTTY = 25 "Inappropriate ioctl for device";
    ETXTBSY = 26 "Text file busy";
    EFBIG = 27 "File too large";
    ENOSPC = 28 "No space left on device";
    ESPIPE = 29 "Illegal seek";
    EROFS = 30 "Read-only file system";
    EPIPE = 32 "Broken pipe";
    EDOM = 33 "Numerical argument out of domain";
    ERANGE = 34 "Numerical result out of range";
    EDEADLK = 35 "Resource deadlock avoided";
    ENAMETOOLONG = 36 "File name too long";
    ENOSYS = 38 "Function not implemented";
    ENOTEMPTY = 39 "Directory not empty";
    ELOOP = 40 "Too many levels of symbolic links";
    ENODATA = 61 "No data available";
    ETIME = 62 "Timer expired";
    EPROTO = 71 "Protocol error";
    EBADMSG = 74 "Bad message";
    EOVERFLOW = 75 "Value too large for defined data type";
    EILSEQ = 84 "Invalid or incomplete multibyte or wide character";
    EMSGSIZE = 90 "Message too long";
    ENOTSUP = 95 "Operation not supported";
    EADDRINUSE = 98 "Address already in use";
    EADDRNOTAVAIL = 99 "Cannot assign requested address";
    ENETUNREACH = 101 "Network is unreachable";
    ECONNABORTED = 103 "Software caused connection abort";
    ECONNRESET = 104 "Connection reset by peer";
    ENOBUFS = 105 "No buffer space available";
    EISCONN = 106 "Transport endpoint is already connected";
    ENOTCONN = 107 "Transport endpoint is not connected";
    ETIMEDOUT = 110 "Connection timed out";
    ECONNREFUSED = 111 "Connection refused";
    EHOSTUNREACH = 113 "No route to host";
    EALREADY = 114 "Operation already in progress";
    EINPROGRESS = 115 "Operation now in progress";
    ECANCELED = 125 "Operation canceled";
    ENOTRECOVERABLE = 131 "State not recoverable";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "Unknown error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl std::error::Error for Errno {}

impl From<&std::io::Error> for Errno {
    fn from(e: &std::io::Error) -> Self {
        match e.raw_os_error().and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Errno(n),
            None => Errno::EIO,
        }
    }
}

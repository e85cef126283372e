//! Status codes, the message that belongs to the last one, and the border that no panic crosses.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use runtime::{Error, ErrorKind};

/// What a call came to. Codes keep their numbers; later versions may add some.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// The operating system refused to read a file.
    Io = 1,
    /// The bytes are not a valid artifact.
    Format = 2,
    /// A stored checksum does not match the bytes it covers.
    Checksum = 3,
    /// Valid, but from a newer version, or a model of another kind.
    Unsupported = 4,
    /// An option is wrong or cannot be met.
    Config = 5,
    /// The model's tokenizer is unreadable.
    Tokenizer = 6,
    /// A text has more tokens than the model takes.
    TooLong = 7,
    /// Any other unusable text or image.
    Input = 8,
    /// The instruction set asked for is unknown or not available here.
    Isa = 9,
    /// An argument is NULL, out of range or not UTF-8.
    Argument = 10,
    /// Any other error.
    Other = 11,
    /// A bug in the library, which was stopped before it reached the caller.
    Panic = 12,
}

/// Why a call fails.
pub(crate) struct Fault {
    status: Status,
    message: String,
}

impl Fault {
    pub(crate) fn argument(message: impl Display) -> Self {
        Self {
            status: Status::Argument,
            message: message.to_string(),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Io => Status::Io,
            ErrorKind::Format => Status::Format,
            ErrorKind::Checksum => Status::Checksum,
            ErrorKind::Unsupported => Status::Unsupported,
            ErrorKind::Config => Status::Config,
            ErrorKind::Tokenizer => Status::Tokenizer,
            ErrorKind::TooLong => Status::TooLong,
            ErrorKind::Input => Status::Input,
            ErrorKind::Isa => Status::Isa,
            _ => Status::Other,
        };
        Self {
            status,
            message: error.to_string(),
        }
    }
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// A C string; bytes of zero, which it cannot have, become `\0` as Rust writes it.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\\0")).unwrap_or_default()
}

fn panicked(payload: &(dyn Any + Send)) -> Fault {
    let text = (payload.downcast_ref::<&str>().copied())
        .or(payload.downcast_ref::<String>().map(String::as_str));
    Fault {
        status: Status::Panic,
        message: format!("a bug in centroid: {}", text.unwrap_or("no message")),
    }
}

/// Runs what a function does; keeps the message if it fails.
pub(crate) fn run(body: impl FnOnce() -> Result<(), Fault>) -> Status {
    let done = catch_unwind(AssertUnwindSafe(body));
    let fault = match done {
        Ok(Ok(())) => return Status::Ok,
        Ok(Err(fault)) => fault,
        Err(payload) => panicked(&*payload),
    };
    MESSAGE.set(c_string(&fault.message));
    fault.status
}

/// What a function gives that cannot fail, or `otherwise` after a panic.
pub(crate) fn get<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// The message of this thread's last call that failed: one line that names the file, the text or the image
/// where there is one; empty if none failed. Valid until this thread's next call that fails, or its end.
///
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn centroid_last_error() -> *const c_char {
    // A thread that ends has no message left.
    MESSAGE
        .try_with(|message| message.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}

/// The name of a status, for logs: "ok", "io" and so on; "unknown" for other numbers.
///
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn centroid_status_name(status: u32) -> *const c_char {
    const NAMES: [&CStr; 13] = [
        c"ok",
        c"io",
        c"format",
        c"checksum",
        c"unsupported",
        c"config",
        c"tokenizer",
        c"too long",
        c"input",
        c"isa",
        c"argument",
        c"other",
        c"panic",
    ];
    let name = NAMES.get(status as usize).copied();
    name.unwrap_or(c"unknown").as_ptr()
}

/// The version of the library: "0.1.0".
///
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn centroid_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no zeros"),
        };
    VERSION.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> String {
        // SAFETY: a string that ends with a zero, until this thread's next call that fails.
        let text = unsafe { CStr::from_ptr(centroid_last_error()) };
        text.to_str().unwrap().into()
    }

    #[test]
    fn panics_become_a_status() {
        assert_eq!(run(|| panic!("{} is wrong", 7)), Status::Panic);
        assert_eq!(message(), "a bug in centroid: 7 is wrong");
        assert_eq!(run(|| Ok(())), Status::Ok);
        assert_eq!(run(|| Err(Fault::argument("a\0b"))), Status::Argument);
        assert_eq!(message(), "a\\0b");
        assert_eq!(get(3, || panic!()), 3);
    }
}

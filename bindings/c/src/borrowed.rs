//! What callers lend for a call: pointers, checked as far as that can be, as Rust's references.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;
use std::slice;

use crate::status::Fault;

/// What a handle points to.
///
/// # Safety
/// `handle` is NULL or points to a live `T` that is not written to during `'a`.
pub(crate) unsafe fn handle<'a, T>(handle: *const T, name: &str) -> Result<&'a T, Fault> {
    // SAFETY: what the caller promises.
    let found = unsafe { handle.as_ref() };
    found.ok_or_else(|| Fault::argument(format_args!("{name} is NULL")))
}

/// What a handle points to, to be changed.
///
/// # Safety
/// `handle` is NULL or points to a live `T` that nothing else uses during `'a`.
pub(crate) unsafe fn handle_mut<'a, T>(handle: *mut T, name: &str) -> Result<&'a mut T, Fault> {
    // SAFETY: what the caller promises.
    let found = unsafe { handle.as_mut() };
    found.ok_or_else(|| Fault::argument(format_args!("{name} is NULL")))
}

/// Where a result goes. What is there before is never read: it may be anything.
pub(crate) struct Place<T>(NonNull<T>);

impl<T> Place<T> {
    /// A place; `None` for NULL.
    ///
    /// # Safety
    /// `place` is NULL or may be written to as long as the result lives.
    pub(crate) unsafe fn maybe(place: *mut T) -> Option<Self> {
        NonNull::new(place).map(Self)
    }

    /// A place that has to be there.
    ///
    /// # Safety
    /// As for [`Place::maybe`].
    pub(crate) unsafe fn new(place: *mut T, name: &str) -> Result<Self, Fault> {
        // SAFETY: what the caller promises.
        let found = unsafe { Self::maybe(place) };
        found.ok_or_else(|| Fault::argument(format_args!("{name} is NULL")))
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: by what was promised when it was made.
        unsafe { self.0.write(value) }
    }
}

/// `count` values from `pointer`, which may be NULL if there are none.
///
/// # Safety
/// If `count` is not 0, `pointer` is NULL or points to that many values that are not written to during `'a`.
pub(crate) unsafe fn values<'a, T>(
    pointer: *const T,
    count: usize,
    name: &str,
) -> Result<&'a [T], Fault> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Fault::argument(format_args!("{name} is NULL")));
    }
    if !pointer.is_aligned() {
        return Err(Fault::argument(format_args!("{name} is not aligned")));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Fault::argument(format_args!(
            "{count} of {name} are more than memory has"
        )));
    }
    // SAFETY: aligned, not NULL, of a size that a slice may have; the rest is what the caller promises.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// A string that ends with a zero.
///
/// # Safety
/// `text` is NULL or points to such a string, which is not written to during `'a`.
pub(crate) unsafe fn string<'a>(text: *const c_char, name: &str) -> Result<&'a str, Fault> {
    if text.is_null() {
        return Err(Fault::argument(format_args!("{name} is NULL")));
    }
    // SAFETY: what the caller promises.
    let bytes = unsafe { CStr::from_ptr(text) };
    (bytes.to_str()).map_err(|e| Fault::argument(format_args!("{name} is not UTF-8: {e}")))
}

/// `count` texts: with `lengths`, so many bytes each; without, strings that end with a zero.
///
/// # Safety
/// `texts` points to `count` such pointers, and `lengths` is NULL or points to `count` numbers; none of it is
/// written to during `'a`.
pub(crate) unsafe fn texts<'a>(
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    name: &str,
) -> Result<Vec<&'a str>, Fault> {
    // SAFETY: what the caller promises.
    let pointers = unsafe { values(texts, count, name) }?;
    if lengths.is_null() {
        let one = |(i, text): (usize, &*const c_char)| {
            // SAFETY: what the caller promises.
            unsafe { string(*text, &format!("{name}[{i}]")) }
        };
        return pointers.iter().enumerate().map(one).collect();
    }
    // SAFETY: what the caller promises.
    let lengths = unsafe { values(lengths, count, "lengths") }?;
    let one = |(i, (text, length)): (usize, (&*const c_char, &usize))| {
        let name = format!("{name}[{i}]");
        // SAFETY: what the caller promises.
        let bytes = unsafe { values(text.cast::<u8>(), *length, &name) }?;
        str::from_utf8(bytes).map_err(|e| Fault::argument(format_args!("{name} is not UTF-8: {e}")))
    };
    pointers.iter().zip(lengths).enumerate().map(one).collect()
}

/// Gives a result to the caller, who has to free it.
pub(crate) fn give<T>(result: T) -> *mut T {
    Box::into_raw(Box::new(result))
}

/// Frees what [`give`] gave.
///
/// # Safety
/// `pointer` is NULL or from [`give`], and is not used again.
pub(crate) unsafe fn take<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: what the caller promises.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

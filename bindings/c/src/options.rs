//! How a model runs.

use std::ffi::c_char;
use std::num::NonZero;

use runtime::{Mode, Truncation};

use crate::borrowed::{self, give, handle, handle_mut};
use crate::status::{Fault, Status, get, run};

/// Options of a model, for its opening only: they may be changed or freed afterwards.
#[derive(Default)]
pub struct Options {
    all: runtime::Options,
    /// None is the model's own limit.
    max_length: Option<NonZero<usize>>,
}

/// Default options: one thread a processor, mode int8, the fastest instruction set, an error for texts that
/// are too long. NULL is given only where memory has run out.
///
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn centroid_options_new() -> *mut Options {
    get(std::ptr::null_mut(), || give(Options::default()))
}

/// Frees options; NULL is nothing.
///
/// Since 0.1.
///
/// # Safety
/// `options` is NULL or from `centroid_options_new`, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_options_free(options: *mut Options) {
    get((), || {
        // SAFETY: what the caller promises.
        unsafe { borrowed::take(options) }
    })
}

/// Changes options.
///
/// # Safety
/// As for [`handle_mut`].
unsafe fn change(
    options: *mut Options,
    change: impl FnOnce(runtime::Options) -> Result<runtime::Options, Fault>,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        let options = unsafe { handle_mut(options, "options") }?;
        options.all = change(options.all.clone())?;
        Ok(())
    })
}

/// How many threads a call may use; 0 is as many as the process may run on. Results do not depend on it.
///
/// Since 0.1.
///
/// # Safety
/// `options` is NULL (an error) or from `centroid_options_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_options_set_threads(
    options: *mut Options,
    threads: usize,
) -> Status {
    // SAFETY: what the caller promises.
    unsafe { change(options, |options| Ok(options.threads(threads))) }
}

/// How linear layers treat their input: "int8" (rounded to int8, faster) or "exact" (as it is).
///
/// Since 0.1.
///
/// # Safety
/// `options` is NULL (an error) or from `centroid_options_new`; `mode` is NULL (an error) or a string that ends
/// with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_options_set_mode(
    options: *mut Options,
    mode: *const c_char,
) -> Status {
    let set = |options: runtime::Options| {
        // SAFETY: what the caller promises.
        let name = unsafe { borrowed::string(mode, "mode") }?;
        let known = [Mode::Int8, Mode::Exact]
            .into_iter()
            .find(|mode| mode.name() == name);
        let mode = known.ok_or_else(|| {
            Fault::argument(format_args!("mode {name:?} is neither int8 nor exact"))
        })?;
        Ok(options.mode(mode))
    };
    // SAFETY: what the caller promises.
    unsafe { change(options, set) }
}

/// The instruction set by name, over the environment variable `CENTROID_ISA`. Whether it is there is found when
/// a model is opened.
///
/// Since 0.1.
///
/// # Safety
/// `options` is NULL (an error) or from `centroid_options_new`; `name` is NULL (an error) or a string that ends
/// with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_options_set_isa(
    options: *mut Options,
    name: *const c_char,
) -> Status {
    let set = |options: runtime::Options| {
        // SAFETY: what the caller promises.
        let name = unsafe { borrowed::string(name, "name") }?;
        Ok(options.isa(name))
    };
    // SAFETY: what the caller promises.
    unsafe { change(options, set) }
}

/// The most tokens of a text, special tokens included; 0 is the model's own limit. More than the model has is
/// an error when it is opened.
///
/// Since 0.1.
///
/// # Safety
/// `options` is NULL (an error) or from `centroid_options_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_options_set_max_length(
    options: *mut Options,
    tokens: usize,
) -> Status {
    run(|| {
        // SAFETY: what the caller promises.
        unsafe { handle_mut(options, "options") }?.max_length = NonZero::new(tokens);
        Ok(())
    })
}

/// Whether texts with more tokens are cut, which their results tell, or are an error, as they are at first.
///
/// Since 0.1.
///
/// # Safety
/// `options` is NULL (an error) or from `centroid_options_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn centroid_options_set_truncate(
    options: *mut Options,
    truncate: bool,
) -> Status {
    let truncation = match truncate {
        true => Truncation::Truncate,
        false => Truncation::Error,
    };
    // SAFETY: what the caller promises.
    unsafe { change(options, |options| Ok(options.truncation(truncation))) }
}

/// Options that a caller gave, or the default ones for NULL.
///
/// # Safety
/// `options` is NULL or from `centroid_options_new`.
pub(crate) unsafe fn given(options: *const Options) -> Result<runtime::Options, Fault> {
    if options.is_null() {
        return Ok(runtime::Options::default());
    }
    // SAFETY: what the caller promises.
    let given = unsafe { handle(options, "options") }?;
    Ok(match given.max_length {
        None => given.all.clone(),
        Some(tokens) => given.all.clone().max_length(tokens.get()),
    })
}

//! Errors of torch, which tch turns into panics, as errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::error::{Error, ErrorKind, Result};

/// How an error of torch begins.
pub(super) const TORCH: &str = "torch: ";

thread_local! {
    /// Whether an error of torch is to be caught, and not to be printed.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `of` returns, with gradients; if torch fails in it, an error with the first line of what torch says, after
/// [`TORCH`]. Other panics go on.
pub(super) fn caught<T>(of: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() || torch(info.payload()).is_none() {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    // Puts back whether there are gradients, which a panic within `no_grad` leaves switched off.
    let gradients = tch::no_grad_guard();
    // What it was changing is used no more: a run ends with the first error.
    let done = panic::catch_unwind(AssertUnwindSafe(|| tch::with_grad(of)));
    drop(gradients);
    CAUGHT.set(outer);
    done.unwrap_or_else(|panic| match torch(&*panic) {
        Some(message) => Err(Error::new(ErrorKind::Input, message)),
        None => panic::resume_unwind(panic),
    })
}

/// The first line of an error of torch, from the message of the `unwrap` in tch: `.. Torch(\"..\")`.
fn torch(panic: &(dyn Any + Send)) -> Option<String> {
    let text = panic.downcast_ref::<String>()?;
    let (_, said) = text.split_once("value: Torch(\"")?;
    // In the form that `{:?}` gives it.
    let end = said.find("\\n").or(said.rfind("\")"));
    let said = said[..end.unwrap_or(said.len())].replace("\\\"", "\"");
    let memory = ["memory", "allocate"]
        .iter()
        .any(|word| said.contains(word));
    let more = match memory {
        true => "; less is needed with a smaller batch, or a larger accumulate",
        false => "",
    };
    Some(format!("{TORCH}{said}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_torch_says_is_an_error() {
        let sizes = || {
            let a = tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu));
            Ok(a.matmul(&a))
        };
        let error = caught(sizes).unwrap_err().to_string();
        assert!(error.starts_with("torch: mat1 and mat2"), "{error}");
        assert!(!error.contains("Exception raised"), "{error}");
        let most = || {
            Ok(tch::Tensor::zeros(
                [1 << 48],
                (tch::Kind::Float, tch::Device::Cpu),
            ))
        };
        let error = caught(most).unwrap_err().to_string();
        assert!(error.contains("a smaller batch"), "{error}");
        let within = || -> Result<()> { tch::no_grad(|| sizes().map(|_| ())) };
        caught(within).unwrap_err();
        let one = tch::Tensor::from(1f32).set_requires_grad(true);
        assert!((&one * 2.0).requires_grad());
        assert_eq!(caught(|| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn other_panics_go_on() {
        let other = panic::catch_unwind(|| caught(|| -> Result<()> { panic!("another") }));
        let message = other.unwrap_err();
        assert_eq!(message.downcast_ref::<&str>(), Some(&"another"));
    }
}

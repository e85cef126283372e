//! Any bytes as a checkpoint, and every tensor of one that opens: values or an error of one line; never a
//! panic, a hang, or more memory than tools/fuzz allows.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use centroid::convert::Checkpoint;
use libfuzzer_sys::fuzz_target;

/// Checkpoints are mapped files: one, rewritten each time.
static FILE: OnceLock<PathBuf> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let file = FILE.get_or_init(|| {
        let name = format!("centroid-fuzz-{}", std::process::id());
        std::env::temp_dir().join(name)
    });
    std::fs::write(file, data).unwrap();
    match Checkpoint::open(file) {
        Ok(checkpoint) => {
            for name in checkpoint.names() {
                checkpoint.values(name).err().iter().for_each(check);
                checkpoint.integers(name).err().iter().for_each(check);
            }
        }
        Err(error) => check(&error),
    }
});

fn check(error: &centroid::Error) {
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message:?}");
}

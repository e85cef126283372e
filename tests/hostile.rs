//! Files that must be refused: one test for every rule of `format-spec.md`, named there.
//!
//! Most run twice: with the damage as an accident would leave it, where the checksums find it, and
//! with every checksum made right, as an attacker would do it. Each refusal must come as an error
//! of the right kind that says where and what, through every way to open a file, and without
//! allocating more than a small multiple of the file's size.

#[path = "hostile/build.rs"]
mod build;
#[path = "hostile/check.rs"]
mod check;
#[cfg(feature = "text")]
#[path = "hostile/encoder.rs"]
mod encoder;
#[path = "hostile/file.rs"]
mod file;
#[path = "hostile/golden.rs"]
mod golden;
#[path = "hostile/header.rs"]
mod header;
#[cfg(feature = "image")]
#[path = "hostile/network.rs"]
mod network;
#[path = "hostile/sweeps.rs"]
mod sweeps;
#[path = "hostile/tables.rs"]
mod tables;
#[path = "hostile/tensors.rs"]
mod tensors;
#[cfg(feature = "text")]
#[path = "hostile/tokenizer.rs"]
mod tokenizer;
#[path = "hostile/valid.rs"]
mod valid;
#[path = "hostile/values.rs"]
mod values;

#[global_allocator]
static ALLOCATOR: check::Counting = check::Counting;

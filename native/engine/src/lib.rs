//! regorus' interpreter for sealbus: batches of questions in, batches of answers out.

mod builtins;
mod json;
pub mod policy;
#[cfg(feature = "python")]
mod python;
mod question;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

//! What every fuzz target shares: the body and the mutator of `delegraph-hostile`, under libFuzzer.

use delegraph_hostile::{Random, find, mutate};

pub use libfuzzer_sys;

/// Runs a target's body on an input.
///
/// # Panics
/// The body panics: that is what the fuzzer looks for.
pub fn feed(name: &str, bytes: &[u8]) {
    if let Some(target) = find(name) {
        (target.body)(bytes, &|| {});
    }
}

/// Changes an input in place and gives its new length: every other time blindly, as libFuzzer does, else inside of its form.
pub fn change(name: &str, bytes: &mut [u8], length: usize, longest: usize, seed: u32) -> usize {
    let mut random = Random::new(u64::from(seed));
    let formed = match find(name) {
        Some(target) if random.one_in(2) => mutate(target.mutation, &bytes[..length], &[], &mut random),
        _ => Vec::new(),
    };
    match formed.len() {
        1.. if formed.len() <= longest => {
            bytes[..formed.len()].copy_from_slice(&formed);
            formed.len()
        }
        _ => libfuzzer_sys::fuzzer_mutate(bytes, length, longest),
    }
}

/// The entry points of a fuzz target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::feed($name, bytes));
        $crate::libfuzzer_sys::fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::change($name, bytes, size, max_size, seed)
        });
    };
}

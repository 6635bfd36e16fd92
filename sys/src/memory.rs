//! How glibc's allocator keeps memory.

#![allow(unsafe_code, reason = "mallopt is C; std has no word for it")]

/// Bounds the number of heaps that threads allocate from.
///
/// glibc gives a program up to eight per core, each of which keeps what its busiest moment needed: in a daemon with many
/// threads and little to do most of its memory. To be called before the second thread is started. Does nothing with
/// another libc, which has no such heaps.
pub fn bound_arenas(count: u8) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and changes the allocator's parameters; no other thread allocates yet, as the
    // caller promises, and a value that it doesn't like is refused and changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::from(count));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

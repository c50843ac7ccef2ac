//! Counts what is allocated, so that decoders can be held to what they were given.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: everything is the system's; this only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|all| all.set(all.get() + layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

/// An id in memory is so much larger than the least that it takes on the wire, and vectors grow by doubling.
const TIMES: usize = 24;
/// Counters of shared bytes, texts of errors.
const BASE: usize = 512;

/// Runs a decoder on `given` bytes: whatever they say, it may not allocate beyond what is there.
pub fn within<T>(given: usize, decode: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.with(Cell::get);
    let decoded = decode();
    let allocated = ALLOCATED.with(Cell::get) - before;
    assert!(allocated <= TIMES * given + BASE, "{allocated} bytes allocated for {given}");
    decoded
}

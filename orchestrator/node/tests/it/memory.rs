//! How much memory the current thread holds. A test on tokio's current-thread runtime runs on one
//! thread with all its nodes, so that tests beside it do not count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // A thread that ends gives back what it holds after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

#[expect(unsafe_code, reason = "an allocator is unsafe; this one only counts")]
// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(signed(size) - signed(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `body` and answers the most that this thread held meanwhile, beyond what it held before.
pub fn peak_of<T>(body: impl FnOnce() -> T) -> (T, usize) {
    let watch = Watch::begin();
    let value = body();
    (value, watch.peak())
}

/// Watches what this thread holds from now on.
pub struct Watch {
    before: isize,
}

impl Watch {
    pub fn begin() -> Self {
        let before = HELD.with(Cell::get);
        PEAK.with(|peak| peak.set(before));
        Watch { before }
    }

    /// The most that was held since, beyond what was held at the beginning.
    pub fn peak(&self) -> usize {
        usize::try_from(PEAK.with(Cell::get) - self.before).unwrap_or(0)
    }
}

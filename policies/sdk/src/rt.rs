//! What stands between the generated bindings and a policy: memory, panics and the one policy of an instance. Authors do
//! not call this.

use alloc::alloc::Layout;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use crate::bindings::exports::tidegate::policy::meta;
use crate::{About, Policy, Settings};

/// The policy of this instance, once it is configured.
pub struct Seat<P>(UnsafeCell<Option<P>>);

// SAFETY: a module has one thread, and no call enters it while another runs.
unsafe impl<P> Sync for Seat<P> {}

impl<P: Policy> Seat<P> {
    /// An empty seat.
    #[must_use]
    pub const fn new() -> Seat<P> {
        Seat(UnsafeCell::new(None))
    }

    /// Makes the policy from its settings.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn configure(&self, given: Vec<meta::Setting>) -> Result<(), String> {
        let policy = P::configure(&Settings::new(&P::ABOUT, given)?)?;
        // SAFETY: as for Sync; no reference into the seat outlives `with`.
        unsafe { *self.0.get() = Some(policy) };
        Ok(())
    }

    /// Asks the policy.
    pub fn with<T>(&self, ask: impl FnOnce(&P) -> T) -> T {
        // SAFETY: as for Sync; nothing writes into the seat while it is asked.
        match unsafe { &*self.0.get() } {
            Some(policy) => ask(policy),
            None => panic!("asked before it was configured"),
        }
    }
}

impl<P: Policy> Default for Seat<P> {
    fn default() -> Self {
        Seat::new()
    }
}

/// What a policy says of itself, in the words of the contract.
#[must_use]
pub fn describe<P: Policy>() -> meta::Info {
    in_words(&P::ABOUT)
}

/// Compiled once, whatever the policy.
fn in_words(about: &About) -> meta::Info {
    let mut reasons = Vec::with_capacity(about.reasons.len());
    for word in about.reasons {
        reasons.push(owned(word));
    }
    let mut settings = Vec::with_capacity(about.settings.len());
    for setting in about.settings {
        settings.push(meta::SettingDoc {
            key: owned(setting.key),
            help: owned(setting.help),
            default: setting.value(),
        });
    }
    meta::Info {
        name: owned(about.name),
        version: owned(about.version),
        summary: owned(about.summary),
        reasons,
        settings,
        patience: about.patience_ms,
    }
}

/// Not inlined: modules are small because this stands in them once.
#[inline(never)]
pub(crate) fn owned(text: &str) -> String {
    String::from(text)
}

/// Memory that the bindings hand over to the site.
pub struct Cleanup(());

impl Cleanup {
    /// Memory of this layout; none of size 0.
    #[must_use]
    pub fn new(layout: Layout) -> (*mut u8, Option<Cleanup>) {
        if layout.size() == 0 {
            return (core::ptr::null_mut(), None);
        }
        // SAFETY: the size is not 0.
        match NonNull::new(unsafe { alloc::alloc::alloc(layout) }) {
            Some(memory) => (memory.as_ptr(), Some(Cleanup(()))),
            None => alloc::alloc::handle_alloc_error(layout),
        }
    }

    /// Leaves the memory to the site.
    pub fn forget(self) {}
}

/// Modules have no constructors to run.
#[cfg(target_arch = "wasm32")]
pub fn run_ctors_once() {}

#[cfg(target_arch = "wasm32")]
mod wasm {
    //! The memory and the last words of a module.

    use core::alloc::{GlobalAlloc, Layout};
    use core::arch::wasm32::{memory_grow, memory_size, unreachable};
    use core::cell::UnsafeCell;
    use core::ptr::NonNull;

    use crate::Level;

    const PAGE: usize = 65_536;

    unsafe extern "C" {
        /// Where the linker's own data ends.
        static __heap_base: u8;
    }

    /// Memory is handed out upwards and never taken back: an instance lives for one decision.
    struct Bump(UnsafeCell<usize>);

    // SAFETY: a module has one thread.
    unsafe impl Sync for Bump {}

    #[global_allocator]
    static MEMORY: Bump = Bump(UnsafeCell::new(0));

    impl Bump {
        /// A new piece. Never null, and known to be: what the standard library would say of a null piece brings all of
        /// `core::fmt` along.
        #[inline(never)]
        fn take(&self, size: usize, align: usize) -> NonNull<u8> {
            // SAFETY: one thread; the address of the symbol is all that is used of it, and it is not 0.
            unsafe {
                let next = self.0.get();
                if *next == 0 {
                    *next = &raw const __heap_base as usize;
                }
                let start = (*next).wrapping_add(align - 1) & !(align - 1);
                let end = start.wrapping_add(size);
                let have = memory_size::<0>() * PAGE;
                if end > have && memory_grow::<0>((end - have).div_ceil(PAGE)) == usize::MAX || end < start {
                    out_of_memory();
                }
                *next = end;
                NonNull::new_unchecked(start as *mut u8)
            }
        }

        /// The same piece, or a longer copy of it.
        #[inline(never)]
        fn stretch(&self, piece: NonNull<u8>, old: usize, align: usize, new: usize) -> NonNull<u8> {
            if new <= old {
                return piece;
            }
            // SAFETY: one thread; the last piece may grow where it is, others are copied whole.
            unsafe {
                if piece.as_ptr() as usize + old == *self.0.get() {
                    *self.0.get() = piece.as_ptr() as usize;
                }
                let made = self.take(new, align);
                if made != piece {
                    core::ptr::copy_nonoverlapping(piece.as_ptr(), made.as_ptr(), old);
                }
                made
            }
        }
    }

    // SAFETY: pieces never overlap: `next` moves down only to make the piece that ends there longer.
    unsafe impl GlobalAlloc for Bump {
        #[inline]
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.take(layout.size(), layout.align()).as_ptr()
        }

        #[inline]
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            // Memory of WebAssembly begins as zeros, and none is handed out twice.
            self.take(layout.size(), layout.align()).as_ptr()
        }

        #[inline]
        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

        #[inline]
        unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: the caller gives a piece from here, which is not null.
            let piece = unsafe { NonNull::new_unchecked(piece) };
            self.stretch(piece, layout.size(), layout.align(), size).as_ptr()
        }
    }

    /// The last words of a module that wants more than it gets.
    #[cold]
    #[inline(never)]
    fn out_of_memory() -> ! {
        crate::log(Level::Panic, "out of memory");
        unreachable()
    }

    /// Where the site writes what it hands over.
    ///
    /// # Safety
    /// Called by the canonical ABI alone: with a null piece, or with one from here and its size.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn cabi_realloc(piece: *mut u8, old: usize, align: usize, new: usize) -> *mut u8 {
        if new == 0 {
            return align as *mut u8;
        }
        match NonNull::new(piece) {
            Some(piece) if old > 0 => MEMORY.stretch(piece, old, align, new).as_ptr(),
            _ => MEMORY.take(new, align).as_ptr(),
        }
    }

    /// A panic's place and text reach the author through the log; then the module traps.
    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        let mut line = Line { text: [0; 256], length: 0 };
        if let Some(place) = info.location() {
            line.push(place.file().as_bytes());
            line.push(b":");
            line.number(place.line());
            line.push(b": ");
        }
        line.push(info.message().as_str().unwrap_or("panicked").as_bytes());
        if let Ok(text) = core::str::from_utf8(line.text.get(..line.length).unwrap_or(&[])) {
            crate::log(Level::Panic, text);
        }
        unreachable()
    }

    /// A line in fixed memory: there may be none left to allocate.
    struct Line {
        text: [u8; 256],
        length: usize,
    }

    impl Line {
        #[inline(never)]
        fn push(&mut self, piece: &[u8]) {
            for byte in piece {
                if let Some(place) = self.text.get_mut(self.length) {
                    // Whatever is cut at the end stays text.
                    *place = if byte.is_ascii() { *byte } else { b'?' };
                    self.length += 1;
                }
            }
        }

        fn number(&mut self, number: u32) {
            let mut unit = 1_000_000_000;
            while unit > 1 && number < unit {
                unit /= 10;
            }
            while unit > 0 {
                self.push(&[b'0' + (number / unit % 10) as u8]);
                unit /= 10;
            }
        }
    }
}

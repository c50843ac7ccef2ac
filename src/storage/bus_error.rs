//! A store into a mapped log that cannot be done: the device is gone, or somebody cut the file. The system says so with a
//! signal to the thread that stores. Nothing that was stored since the last sync was acknowledged: the process says which
//! file it was, and ends, as after any failed write.
#![allow(unsafe_code, reason = "a signal handler has no safe interface")]

use std::ffi::{OsStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Mappings that are known at the same time: the open log, the place of the last sync, logs that are rolled and not synced yet.
const KNOWN: usize = 16;
static PLACES: [Place; KNOWN] = [const { Place::new() }; KNOWN];

/// A mapping that the signal's address may be in.
struct Place {
    /// Its first address; 0 where there is none.
    start: AtomicUsize,
    len: AtomicUsize,
    /// Where in the file it begins.
    offset: AtomicUsize,
    path: AtomicPtr<u8>,
    path_len: AtomicUsize,
}

impl Place {
    const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            offset: AtomicUsize::new(0),
            path: AtomicPtr::new(null_mut()),
            path_len: AtomicUsize::new(0),
        }
    }
}

/// Names a mapping of a file for as long as it lives. The thread that stores has it: so the handler, which runs in that thread, never
/// meets one that is on its way out.
pub(super) struct Watched {
    place: Option<&'static Place>,
    path: Box<OsStr>,
}

impl Watched {
    pub(super) fn new(path: &Path) -> Self {
        let free = PLACES.iter().find(|place| {
            place.path.compare_exchange(null_mut(), USED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        Self { place: free, path: path.as_os_str().into() }
    }

    /// The file is mapped there from `offset` on.
    pub(super) fn set(&mut self, map: &[u8], offset: u64) {
        let Some(place) = self.place else { return };
        let path = self.path.as_bytes();
        place.start.store(0, Ordering::Release);
        place.path.store(path.as_ptr().cast_mut(), Ordering::Release);
        place.path_len.store(path.len(), Ordering::Release);
        place.len.store(map.len(), Ordering::Release);
        place.offset.store(super::len_of(offset), Ordering::Release);
        place.start.store(map.as_ptr() as usize, Ordering::Release);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            place.start.store(0, Ordering::Release);
            place.path.store(null_mut(), Ordering::Release);
        }
    }
}

/// Taken, and not set yet.
const USED: *mut u8 = std::ptr::dangling_mut();

/// From now on the signal says which file it is about. For the process as a whole.
pub fn name_bus_errors() {
    // SAFETY: the structure is plain data, and the handler calls nothing that may not be called in a signal handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, null_mut());
    }
}

extern "C" fn on_bus_error(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the system hands over a whole siginfo; a path is set as long as its mapping is; the calls may be made in a handler.
    unsafe {
        let address = (*info).si_addr() as usize;
        let place = PLACES.iter().find(|place| {
            let start = place.start.load(Ordering::Acquire);
            start != 0 && (start..start + place.len.load(Ordering::Acquire)).contains(&address)
        });
        if let Some(place) = place {
            let at = place.offset.load(Ordering::Acquire) + (address - place.start.load(Ordering::Acquire));
            let path = place.path.load(Ordering::Acquire);
            say(std::slice::from_raw_parts(path, place.path_len.load(Ordering::Acquire)), at);
            libc::_exit(1);
        }
        // Somebody else's: as without this handler, once the handler has returned.
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

/// Writes what happened to standard error, without memory of its own.
fn say(path: &[u8], offset: usize) {
    let mut digits = [0; 20];
    for part in [
        b"ERROR cannot write ".as_slice(),
        path,
        b" at offset ",
        decimal(offset, &mut digits),
        b": the system has no place for it: the device is gone, the disk is full, or another program has cut the file. Stopping: nothing \
          that was not synced before was acknowledged\n",
    ] {
        // SAFETY: the bytes live; nobody can be told that this fails.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
}

fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            return &digits[from..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_memory() {
        for number in [0, 7, 10, 4096, usize::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn each_mapping_is_named_as_long_as_it_lives() {
        let map = [0; 10];
        let is_known =
            || PLACES.iter().any(|place| place.start.load(Ordering::Acquire) == map.as_ptr() as usize);
        let mut watched = Watched::new(Path::new("/log.1"));
        watched.set(&map, 4096);
        assert!(is_known());
        drop(watched);
        assert!(!is_known());
    }
}

//! What threads meet at. The files that take it from here are compiled a second time by `threads`, where it is a checker's.

pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

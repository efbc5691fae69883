//! A small pool of buffers for each thread: what a transaction block keeps is written into them.
//!
//! The pool owns the buffers that no block uses. Invariants: a buffer of the pool is empty, and no larger than [`LARGEST`]; the pool has no
//! more than [`MOST`] of them. So a thread keeps little, and an ordinary block allocates no buffer.

use std::cell::RefCell;

/// Buffers for as many blocks as a thread usually has at a time. A block uses two.
const MOST: usize = 64;

/// An ordinary block fits. The buffer of a larger block is freed (bytes).
const LARGEST: usize = 4096;

/// A new buffer has room for a few short statements, so that it grows rarely (bytes).
const NEW: usize = 256;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer.
pub(crate) fn take_buffer() -> Vec<u8> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(NEW))
}

/// Returns a buffer to the pool, or frees it.
pub(crate) fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > LARGEST {
        return;
    }
    buffer.clear();
    // The pool may be gone when the thread ends.
    let _ = BUFFERS.try_with(|buffers| {
        let mut buffers = buffers.borrow_mut();
        if buffers.len() < MOST {
            buffers.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_little() {
        let first: Vec<Vec<u8>> = (0..2 * MOST).map(|_| take_buffer()).collect();
        first.into_iter().for_each(give_back);
        assert_eq!(BUFFERS.with_borrow(Vec::len), MOST);
        let mut large = take_buffer();
        large.resize(LARGEST + 1, 0);
        give_back(large);
        assert_eq!(BUFFERS.with_borrow(Vec::len), MOST - 1);
        let mut used = take_buffer();
        used.extend_from_slice(b"used");
        give_back(used);
        assert_eq!(take_buffer(), b"");
    }
}

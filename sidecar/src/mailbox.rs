//! A queue from async tasks to a thread: pushing never blocks, popping does.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    closed: bool,
}

/// The queue. It holds at most the number of items given; who pushes more is told so and keeps the item.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    capacity: usize,
}

/// What [`Mailbox::pop`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Popped<T> {
    /// The oldest item.
    Item(T),
    /// Nothing came in time.
    Empty,
    /// The mailbox is closed and empty.
    Closed,
}

impl<T> Mailbox<T> {
    /// An empty queue for at most `capacity` items.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { state: Mutex::new(State { queue: VecDeque::new(), closed: false }), arrived: Condvar::new(), capacity }
    }

    /// Appends an item.
    ///
    /// # Errors
    /// Gives the item back when the queue is full or closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed || state.queue.len() >= self.capacity {
            return Err(item);
        }
        state.queue.push_back(item);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes the oldest item, waiting for one until `wait` is over (`None`: for ever).
    pub fn pop(&self, wait: Option<Duration>) -> Popped<T> {
        let deadline = wait.map(|d| Instant::now() + d);
        let mut state = self.lock();
        loop {
            if let Some(item) = state.queue.pop_front() {
                return Popped::Item(item);
            }
            if state.closed {
                return Popped::Closed;
            }
            state = match deadline {
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Popped::Empty;
                    }
                    self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// No more items are taken in; those that wait are still handed out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_mailbox_hands_out_what_it_holds_and_takes_nothing_more() {
        let mailbox = Mailbox::new(2);
        assert_eq!(mailbox.push(1), Ok(()));
        assert_eq!(mailbox.push(2), Ok(()));
        assert_eq!(mailbox.push(3), Err(3), "it is full");
        mailbox.close();
        assert_eq!(mailbox.push(4), Err(4), "it is closed");
        assert_eq!(mailbox.pop(None), Popped::Item(1));
        assert_eq!(mailbox.pop(Some(Duration::ZERO)), Popped::Item(2));
        assert_eq!(mailbox.pop(None), Popped::Closed);
    }

    #[test]
    fn popping_waits_no_longer_than_it_was_told() {
        let mailbox: Mailbox<u8> = Mailbox::new(1);
        assert_eq!(mailbox.pop(Some(Duration::from_millis(1))), Popped::Empty);
    }
}

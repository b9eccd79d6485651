//! The write gate: who in this process may hold SQLite's write lock.
//!
//! SQLite's lock is unfair and waits by sleeping, so the merges and the HTTP API, which share a process, queue here in order
//! of arrival and take SQLite's lock only with their turn. Other processes are met at SQLite's own lock as ever.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    serving: u64,
}

/// A lock that is handed on in order of arrival.
#[derive(Debug, Default)]
pub struct WriteGate {
    tickets: Mutex<Tickets>,
    turn: Condvar,
}

/// The right to open a write transaction; given back on drop.
#[derive(Debug)]
pub struct Pass<'g> {
    gate: &'g WriteGate,
}

impl WriteGate {
    /// Waits for its turn. The thread blocks: never to be called from an async task.
    pub fn enter(&self) -> Pass<'_> {
        self.take();
        Pass { gate: self }
    }

    /// As [`WriteGate::enter`], for an owner that cannot hold a borrow; every call needs its [`WriteGate::give`].
    pub fn take(&self) {
        let mut tickets = self.lock();
        let mine = tickets.next;
        tickets.next += 1;
        while tickets.serving != mine {
            tickets = self.turn.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the next one in.
    pub fn give(&self) {
        self.lock().serving += 1;
        self.turn.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_gate_opens_in_order_of_arrival() {
        let gate = Arc::new(WriteGate::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let pass = gate.enter();
        let threads: Vec<_> = (0..4)
            .map(|i| {
                let (gate_of_thread, order) = (Arc::clone(&gate), Arc::clone(&order));
                let thread = std::thread::spawn(move || {
                    let _pass = gate_of_thread.enter();
                    order.lock().unwrap().push(i);
                });
                while gate.lock().next != i + 2 {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        drop(pass);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    }
}

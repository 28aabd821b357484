//! What is going to happen, in order of time. Equal times keep the order in which they were planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::SimTime;

/// A queue of what is going to happen.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry>>,
    /// Slots of events, so that the heap moves three words only.
    slots: Vec<Option<E>>,
    free: Vec<usize>,
    planned: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: SimTime,
    order: u64,
    slot: usize,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Queue<E> {
        Queue { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), planned: 0 }
    }

    /// Plans an event.
    pub(super) fn plan(&mut self, at: SimTime, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                self.slots.len() - 1
            }
        };
        self.planned += 1;
        self.heap.push(Reverse(Entry { at, order: self.planned, slot }));
    }

    /// The next event.
    pub(super) fn next(&mut self) -> Option<(SimTime, E)> {
        let Reverse(entry) = self.heap.pop()?;
        let event = self.slots[entry.slot].take()?;
        self.free.push(entry.slot);
        Some((entry.at, event))
    }

    /// When the next event is.
    pub(super) fn next_at(&self) -> Option<SimTime> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use crate::time::SimTime;

    #[test]
    fn events_come_in_order_of_time_and_then_of_planning() {
        let mut queue = Queue::new();
        for (at, name) in [(5, "c"), (1, "a"), (5, "d"), (3, "b")] {
            queue.plan(SimTime(at), name);
        }
        let mut out = String::new();
        while let Some((_, name)) = queue.next() {
            out.push_str(name);
            if name == "b" {
                queue.plan(SimTime(5), "e");
            }
        }
        assert_eq!(out, "abcde");
    }
}

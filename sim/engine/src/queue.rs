//! What will happen, ordered by time and then by insertion.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use wavetank_trace::VirtualTime;

/// A queue of things to happen. The heap holds small keys; the things themselves stay in place.
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<(VirtualTime, u64, usize)>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            sequence: 0,
        }
    }
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Queue::default()
    }

    /// Adds something.
    pub fn push(&mut self, at: VirtualTime, thing: T) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(thing);
                slot
            }
            None => {
                self.slots.push(Some(thing));
                self.slots.len() - 1
            }
        };
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, slot)));
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<VirtualTime> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Takes the next thing, unless it lies after `end`.
    pub fn pop_until(&mut self, end: VirtualTime) -> Option<(VirtualTime, T)> {
        let Reverse((at, _, slot)) = *self.heap.peek()?;
        if at > end {
            return None;
        }
        self.heap.pop();
        self.free.push(slot);
        let thing = self.slots[slot].take();
        debug_assert!(thing.is_some(), "a key in the heap always has its thing");
        thing.map(|thing| (at, thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_comes_first_and_then_insertion() {
        let mut queue = Queue::new();
        for (at, thing) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            queue.push(VirtualTime(at), thing);
        }
        let mut order = String::new();
        while let Some((_, thing)) = queue.pop_until(VirtualTime(4)) {
            order.push(thing);
        }
        queue.push(VirtualTime(5), 'e');
        while let Some((_, thing)) = queue.pop_until(VirtualTime(9)) {
            order.push(thing);
        }
        assert_eq!(order, "abcde");
    }
}

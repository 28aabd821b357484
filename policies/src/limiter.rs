//! Bounds what an instance holds: memory summed over all linear memories, elements over all tables, and their number.

use wasmtime::{Error, ResourceLimiter, Result};

/// Core instances of one component: a module, its adapters and the shims between them.
pub(crate) const INSTANCES_MAX: u32 = 16;
/// Linear memories and tables of one component; their sizes are bounded in sum.
const MEMORIES_MAX: usize = 8;

/// Counts and bounds. One per store, so one per decision.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory: Sum,
    table: Sum,
    /// Whether anything was refused: then a trap is most likely its consequence.
    pub(crate) denied: bool,
}

/// A sum that may grow up to a limit.
#[derive(Debug)]
struct Sum {
    held: usize,
    max: usize,
    /// What the last growth added, in case the system refuses it after all.
    last: usize,
}

impl Sum {
    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let more = desired.saturating_sub(current);
        let fits = self.held.checked_add(more).is_some_and(|sum| sum <= self.max);
        if fits {
            self.held += more;
            self.last = more;
        }
        fits
    }

    fn take_back(&mut self) {
        self.held = self.held.saturating_sub(self.last);
        self.last = 0;
    }
}

impl Limiter {
    /// With room for so many bytes and table elements.
    pub(crate) fn new(memory: usize, table_elements: usize) -> Limiter {
        let sum = |max| Sum { held: 0, max, last: 0 };
        Limiter { memory: sum(memory), table: sum(table_elements), denied: false }
    }

    /// Bytes of all memories.
    pub(crate) fn memory(&self) -> usize {
        self.memory.held
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        // Its own maximum is the guest's affair, not a limit of the site.
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.memory.last = 0;
            return Ok(false);
        }
        let fits = self.memory.grow(current, desired);
        self.denied |= !fits;
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, _: Error) -> Result<()> {
        self.memory.take_back();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.table.last = 0;
            return Ok(false);
        }
        let fits = self.table.grow(current, desired);
        self.denied |= !fits;
        Ok(fits)
    }

    fn table_grow_failed(&mut self, _: Error) -> Result<()> {
        self.table.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        MEMORIES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_memories_share_one_limit() {
        let mut limiter = Limiter::new(100, 10);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap(), "60 + 60 is over 100");
        assert!(limiter.denied);
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert_eq!(limiter.memory(), 100);
        assert!(!limiter.memory_growing(60, 61, None).unwrap());
    }

    #[test]
    fn what_the_system_refused_is_not_counted() {
        let mut limiter = Limiter::new(100, 10);
        assert!(limiter.memory_growing(0, 80, None).unwrap());
        limiter.memory_grow_failed(Error::msg("no room")).unwrap();
        assert!(limiter.memory_growing(0, 80, None).unwrap());
        assert!(!limiter.memory_growing(80, 90, Some(85)).unwrap());
        assert!(!limiter.denied, "the guest's own maximum is not the site's");
        limiter.memory_grow_failed(Error::msg("over its own maximum")).unwrap();
        assert_eq!(limiter.memory(), 80);
    }

    #[test]
    fn elements_of_tables_are_summed_too() {
        let mut limiter = Limiter::new(100, 10);
        assert!(limiter.table_growing(0, 6, None).unwrap());
        assert!(!limiter.table_growing(0, 6, None).unwrap());
        assert!(limiter.table_growing(6, 10, None).unwrap());
        assert!(!limiter.table_growing(10, usize::MAX, None).unwrap());
    }
}

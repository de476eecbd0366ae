//! Many runs on many threads. Which thread does which run, and when it ends, is nobody's
//! business: results come out in the order in which the runs were given.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Does `work` for each item on `threads` threads and hands the results to `deliver`, in item
/// order, as soon as all earlier ones are there. Stops early if `deliver` fails.
///
/// # Errors
/// The first error of `deliver`.
pub fn sweep<Item, Outcome, Error>(
    items: &[Item],
    threads: NonZeroUsize,
    work: impl Fn(&Item) -> Outcome + Sync,
    mut deliver: impl FnMut(Outcome) -> Result<(), Error>,
) -> Result<(), Error>
where
    Item: Sync,
    Outcome: Send,
{
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.get().min(items.len()) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while let Some((index, item)) = take(items, next) {
                    if sender.send((index, work(item))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut wanted = 0;
        for (index, outcome) in receiver {
            early.insert(index, outcome);
            while let Some(outcome) = early.remove(&wanted) {
                deliver(outcome)?;
                wanted += 1;
            }
        }
        Ok(())
    })
}

fn take<'a, Item>(items: &'a [Item], next: &AtomicUsize) -> Option<(usize, &'a Item)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    items.get(index).map(|item| (index, item))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;

    fn threads(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
    }

    #[test]
    fn results_come_in_order_whoever_is_first() {
        let items: Vec<u64> = (0..20).collect();
        let mut seen = Vec::new();
        let slow_start = |item: &u64| {
            std::thread::sleep(Duration::from_millis(if *item == 0 { 30 } else { 0 }));
            *item
        };
        let done: Result<(), Infallible> = sweep(&items, threads(4), slow_start, |item| {
            seen.push(item);
            Ok(())
        });
        assert!(done.is_ok());
        assert_eq!(seen, items);
    }

    #[test]
    fn an_error_of_the_receiver_ends_the_sweep() {
        let items: Vec<u64> = (0..1000).collect();
        let done = sweep(
            &items,
            threads(2),
            |item| *item,
            |item| match item {
                3 => Err("enough"),
                _ => Ok(()),
            },
        );
        assert_eq!(done, Err("enough"));
    }
}

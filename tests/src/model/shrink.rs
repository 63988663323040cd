//! Fewer things that still fail: what a failing history is reduced by before anyone reads it.

/// A part of the items that still fails, of which none can be left out. In any order of trial it is a part that fails; that
/// it is the smallest of all is not promised.
pub(super) fn fewest<T: Clone>(items: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = items.to_vec();
    let mut chunk = kept.len().div_ceil(2);
    while chunk > 0 {
        let mut start = 0;
        while start < kept.len() {
            let without: Vec<T> = [&kept[..start], &kept[(start + chunk).min(kept.len())..]].concat();
            if fails(&without) {
                kept = without;
            } else {
                start += chunk;
            }
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_it_fail_is_left() {
        let items: Vec<u32> = (0..100).collect();
        let fails = |items: &[u32]| items.contains(&17) && items.contains(&93);
        assert_eq!(fewest(&items, fails), [17, 93]);
        assert!(fewest(&items, |_| true).is_empty());
        assert_eq!(fewest(&[1], |items| !items.is_empty()), [1]);
    }

    #[test]
    fn it_asks_seldom() {
        let items: Vec<u32> = (0..1_000).collect();
        let mut asked = 0;
        fewest(&items, |items| {
            asked += 1;
            items.contains(&500)
        });
        assert!(asked < 50, "{asked}");
    }
}

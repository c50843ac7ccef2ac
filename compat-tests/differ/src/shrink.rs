//! Makes a script shorter as long as the difference stays.

use crate::script::Step;

/// Trials that a script is worth.
const TRIALS: usize = 600;

/// Removes runs of steps, long ones first, while `differs` holds of what is left. It is called at most so many times.
pub fn shrink(steps: Vec<Step>, mut differs: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = steps;
    let mut trials = 0;
    let mut length = (steps.len() / 2).max(1);
    loop {
        let mut removed = false;
        // From the end: what stands last depends on what stands before it.
        let mut end = steps.len();
        while end > 0 && trials < TRIALS {
            let start = end.saturating_sub(length);
            let shorter = [&steps[..start], &steps[end..]].concat();
            trials += 1;
            if differs(&shorter) {
                steps = shorter;
                removed = true;
            }
            end = start;
        }
        if trials >= TRIALS || (length == 1 && !removed) {
            return steps;
        }
        if !removed || length > 1 {
            length = (length / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_difference_needs_is_all_that_is_left() {
        let cut = |slot| Step::Cut { slot };
        let steps: Vec<Step> = (0..200).map(cut).collect();
        let needs = [cut(3), cut(77), cut(78), cut(199)];
        let shortest = shrink(steps, |steps| needs.iter().all(|need| steps.contains(need)));
        assert_eq!(shortest, needs);
    }

    #[test]
    fn it_ends_even_if_nothing_can_go() {
        let steps: Vec<Step> = (0..50).map(|slot| Step::Cut { slot }).collect();
        let mut calls = 0;
        let left = shrink(steps.clone(), |_| {
            calls += 1;
            false
        });
        assert_eq!(left, steps);
        assert!(calls <= TRIALS);
    }
}

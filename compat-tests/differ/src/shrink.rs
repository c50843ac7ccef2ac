//! Makes a script shorter as long as the difference stays.

use crate::script::Step;

/// Trials that a script is worth.
const TRIALS: usize = 600;

/// Removes runs of steps, long ones first, while `differs` holds of what is left. It is called a bounded number of
/// times. What is between two requests stays between them: an `await` goes only when nothing waits for it.
pub fn shrink(steps: Vec<Step>, mut differs: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = tidy(steps);
    let mut trials = 0;
    let mut length = (steps.len() / 2).max(1);
    loop {
        let mut removed = false;
        // From the end: what stands last depends on what stands before it.
        let mut end = steps.len();
        while end > 0 && trials < TRIALS {
            let start = end.saturating_sub(length);
            let shorter = without(&steps, start, end);
            if shorter.len() < steps.len() {
                trials += 1;
                if differs(&shorter) {
                    // The steps behind the run may have become fewer too.
                    steps = shorter;
                    removed = true;
                }
            }
            end = start.min(steps.len());
        }
        if trials >= TRIALS || (length == 1 && !removed) {
            return steps;
        }
        length = (length / 2).max(1);
    }
}

fn is_await(step: &Step) -> bool {
    matches!(step, Step::Await | Step::AwaitTogether)
}

fn without(steps: &[Step], start: usize, end: usize) -> Vec<Step> {
    let kept = steps[start..end].iter().filter(|step| is_await(step));
    tidy(steps[..start].iter().chain(kept).chain(&steps[end..]).cloned().collect())
}

/// Without the awaits that nothing waits for.
fn tidy(steps: Vec<Step>) -> Vec<Step> {
    let mut waiting = false;
    let mut tidied = Vec::with_capacity(steps.len());
    for step in steps {
        if is_await(&step) && !std::mem::take(&mut waiting) {
            continue;
        }
        waiting |= matches!(step, Step::Send { .. });
        tidied.push(step);
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(slot: usize) -> Step {
        Step::Send { slot, xid: 1, op: 11, back: None, body: Vec::new() }
    }

    #[test]
    fn what_the_difference_needs_is_all_that_is_left() {
        let cut = |slot| Step::Cut { slot };
        let steps: Vec<Step> = (0..200).map(cut).collect();
        let needs = [cut(3), cut(77), cut(78), cut(199)];
        let shortest = shrink(steps, |steps| needs.iter().all(|need| steps.contains(need)));
        assert_eq!(shortest, needs);
    }

    #[test]
    fn requests_that_were_sent_apart_stay_apart() {
        let steps = vec![
            Step::Await,
            send(0),
            send(1),
            Step::Await,
            send(2),
            Step::Await,
            send(3),
            Step::AwaitTogether,
        ];
        let needs = [send(0), send(3)];
        let shortest = shrink(steps, |steps| needs.iter().all(|need| steps.contains(need)));
        assert_eq!(shortest, [send(0), Step::Await, send(3), Step::AwaitTogether]);
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

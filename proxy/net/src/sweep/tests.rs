//! Deadlines of the sweep, moved tick by tick.

use super::*;
use std::future::poll_fn;

fn poll(watch: &Watch) -> Poll<Due> {
    watch.poll_due(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_deadline_is_never_early_and_comes() {
    let sweep = Sweep::new();
    let watch = sweep.watch();
    watch.arm(TICK * 2);
    for tick in 2..=3 {
        sweep.advance_to(tick);
        assert!(poll(&watch).is_pending(), "{tick}");
    }
    sweep.advance_to(4);
    assert_eq!(poll(&watch), Poll::Ready(Due::Deadline));
}

#[test]
fn touching_starts_again_and_disarming_ends_it() {
    let sweep = Sweep::new();
    let watch = sweep.watch();
    watch.touch();
    sweep.advance_to(1000);
    assert!(poll(&watch).is_pending());
    watch.arm(TICK);
    sweep.advance_to(1001);
    watch.touch();
    sweep.advance_to(1002);
    assert!(poll(&watch).is_pending());
    watch.disarm();
    sweep.advance_to(9999);
    assert!(poll(&watch).is_pending());
}

#[test]
fn places_are_used_again_and_start_clean() {
    let sweep = Sweep::new();
    for _ in 0..100 {
        let (first, second) = (sweep.watch(), sweep.watch());
        first.arm(TICK);
        drop(second);
    }
    assert_eq!(sweep.0.table.borrow().slots.len(), 2);
    let fresh = sweep.watch();
    sweep.advance_to(100);
    assert_eq!(fresh.due(), None);
}

#[test]
fn a_cut_is_due_for_all_and_for_those_to_come() {
    let sweep = Sweep::new();
    let watch = sweep.watch();
    sweep.cut();
    assert_eq!(poll(&watch), Poll::Ready(Due::Cut));
    assert_eq!(poll(&sweep.watch()), Poll::Ready(Due::Cut));
}

#[tokio::test(flavor = "local")]
async fn the_running_sweep_wakes_its_waiters() {
    let sweep = Sweep::new();
    tokio::task::spawn_local(sweep.clone().run());
    let watch = sweep.watch();
    watch.arm(Duration::from_millis(1));
    assert_eq!(poll_fn(|cx| watch.poll_due(cx)).await, Due::Deadline);
}

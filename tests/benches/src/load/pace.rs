//! The clock of an open loop: a kernel timer that says how many requests are due.
//! Before this: nothing. After it: `load::http` and `load::grpc` send what is due.
//!
//! Invariant: due times lie on a fixed grid from the start; a late wake-up yields several due times, never fewer.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A grid of due times. A timerfd, since the runtime's own timer only knows whole milliseconds.
pub(super) struct Pace {
    timer: AsyncFd<OwnedFd>,
    start: Instant,
    period: Duration,
    given: u32,
    due: u32,
}

impl Pace {
    /// Starts the grid now.
    pub(super) fn new(rps: u32) -> Result<Self> {
        let period = Duration::from_secs(1) / rps.max(1);
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let step = Timespec { tv_sec: 0, tv_nsec: i64::from(period.subsec_nanos()) };
        timerfd_settime(
            &timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: step, it_value: step },
        )?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; this descriptor is owned, which is what it asks for"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, start: Instant::now(), period, given: 0, due: 0 })
    }

    /// Waits for the next due time.
    ///
    /// # Cancel safety
    /// No due time is lost: it is given by the next call.
    pub(super) async fn next(&mut self) -> Result<Instant> {
        while self.given == self.due {
            let mut ready = self.timer.readable().await?;
            let mut count = [0; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?)) {
                Ok(read) => {
                    read?;
                    self.due += u32::try_from(u64::from_ne_bytes(count))?;
                }
                Err(_would_block) => {}
            }
        }
        self.given += 1;
        Ok(self.start + self.period * self.given)
    }
}

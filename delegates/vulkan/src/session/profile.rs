//! What took the time in a run: one event a dispatch, from timestamps of the device.

use super::lowered::Recorded;
use crate::sys::Gpu;
use delegraph_sdk::image::NodeIndex;
use delegraph_sdk::{Context, Error, ProfileEvent};

/// The lane of the queue.
const QUEUE: u32 = 0;

/// Tells the host what its dispatches took. The device is done, and was given the work at `since`.
pub fn tell(recorded: &Recorded, gpu: &Gpu, since: u64, context: &Context<'_>) -> Result<(), Error> {
    let ticks = recorded.recording.ticks()?;
    let before = context.now_ns();
    // Where the device's clock cannot be read, its last tick is taken for now: the wait has just ended.
    let (tick, now) = match gpu.ticks() {
        Some(tick) => (tick, before.midpoint(context.now_ns())),
        None => (ticks.iter().flatten().copied().max().unwrap_or(0), before),
    };
    let clock = Clock {
        tick,
        now,
        mask: gpu.tick_mask(),
        period: f64::from(f32::from_bits(gpu.facts().limits.timestamp_period)),
    };
    let spans = clock.spans(&ticks, since);
    let events: Vec<ProfileEvent<'_>> = recorded
        .steps
        .iter()
        .zip(spans)
        .map(|(step, (start_ns, end_ns))| ProfileEvent {
            name: step.kernel,
            node: Some(NodeIndex(step.node)),
            lane: QUEUE,
            start_ns,
            end_ns,
            bytes: step.bytes,
            ..ProfileEvent::default()
        })
        .collect();
    context.profile(&events);
    Ok(())
}

/// The device's clock and the host's at one moment.
struct Clock {
    tick: u64,
    now: u64,
    mask: u64,
    /// Nanoseconds of a tick.
    period: f64,
}

impl Clock {
    fn host(&self, tick: u64) -> u64 {
        let ago = self.tick.wrapping_sub(tick) & self.mask;
        // A tick that is a little after the one that was compared with.
        if ago > self.mask / 2 {
            let ahead = tick.wrapping_sub(self.tick) & self.mask;
            return self.now.saturating_add((ahead as f64 * self.period) as u64);
        }
        self.now.saturating_sub((ago as f64 * self.period) as u64)
    }

    /// Start and end of each dispatch: in order, none before `since`, none over another.
    fn spans(&self, ticks: &[[u64; 2]], since: u64) -> Vec<(u64, u64)> {
        let mut last = since;
        let span = |[start, end]: &[u64; 2]| {
            let start = self.host(*start).max(last);
            last = self.host(*end).max(start);
            (start, last)
        };
        ticks.iter().map(span).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_times_of_the_host_in_order() {
        let clock = Clock {
            tick: 1000,
            now: 50_000,
            mask: u64::MAX,
            period: 2.0,
        };
        assert_eq!(
            clock.spans(&[[900, 950], [940, 1000]], 0),
            [(49_800, 49_900), (49_900, 50_000)]
        );
        assert_eq!(clock.spans(&[[900, 950]], 49_850), [(49_850, 49_900)]);
        assert_eq!(clock.host(1001), 50_002);
    }

    #[test]
    fn a_clock_that_wraps_around_goes_on() {
        let clock = Clock {
            tick: 5,
            now: 1000,
            mask: 0xffff,
            period: 1.0,
        };
        assert_eq!(clock.spans(&[[0xfffe, 2]], 0), [(993, 997)]);
    }
}

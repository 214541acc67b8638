//! A run as a Chrome/Perfetto trace.

use delegraph_executor::{Event, Trace};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Most events that are kept.
const MOST: usize = 1_000_000;

/// One step: name, microseconds of start and length.
type Step = (String, u64, u64);

/// Collects steps with a wall clock.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    origin: Instant,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Recorder {
    pub(crate) fn new() -> Recorder {
        Recorder {
            origin: Instant::now(),
            steps: Arc::default(),
        }
    }

    /// The steps so far in Chrome's trace event format (complete events, microseconds).
    pub(crate) fn chrome(&self) -> String {
        let steps = self.steps.lock().map(|steps| steps.clone()).unwrap_or_default();
        let events: Vec<serde_json::Value> = steps
            .iter()
            .map(|(name, start, length)| {
                serde_json::json!({ "name": name, "ph": "X", "ts": *start as f64 / 1e3, "dur": *length as f64 / 1e3, "pid": 1, "tid": 1 })
            })
            .collect();
        serde_json::json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
    }
}

impl Trace for Recorder {
    fn now(&mut self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn record(&mut self, event: Event<'_>) {
        if let Ok(mut steps) = self.steps.lock()
            && steps.len() < MOST
        {
            steps.push((
                event.name.to_string(),
                event.start,
                event.stop.saturating_sub(event.start),
            ));
        }
    }
}

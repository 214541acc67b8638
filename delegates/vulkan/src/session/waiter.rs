//! The thread that waits for submitted runs: one a device, begun with the first of them.

use super::run::{Started, in_time};
use crate::sys::{Bell, Gpu, Timeline, lock, wait_any};
use delegraph_sdk::{Error, SubmittedRun};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long is waited before it is looked whether a run was cancelled.
const SLICE: Duration = Duration::from_millis(2);

/// A run whose commands were submitted.
pub struct Job {
    run: SubmittedRun,
    started: Started,
    /// What it ends with, once the device is done; `Ok`: with the outputs.
    outcome: Result<(), Error>,
}

impl Job {
    /// Of a run and its commands.
    pub fn new(run: SubmittedRun, started: Started) -> Job {
        Job {
            run,
            started,
            outcome: Ok(()),
        }
    }

    /// Ends it, if it is at its end.
    fn step(mut self) -> Option<Job> {
        let done = self.started.timeline().is_done();
        if self.outcome.is_ok() && done == Ok(false) {
            self.outcome = in_time(&self.run.context());
        }
        match (done, &self.outcome) {
            // The device may still use the host's memory.
            (Ok(false), outcome) if outcome.is_ok() || self.started.in_place() => return Some(self),
            (Err(error), _) => self.fail(error),
            (Ok(_), Err(error)) => {
                let error = error.clone();
                self.fail(error);
            }
            (Ok(_), Ok(())) => {
                let Job { run, started, .. } = self;
                run.complete(move |_, outputs, context| started.end(outputs, context));
            }
        }
        None
    }

    fn fail(self, error: Error) {
        let Job { run, started, .. } = self;
        drop(started);
        run.finish(Err(error));
    }

    /// Waits here.
    fn finish(self) {
        let mut job = Some(self);
        while let Some(next) = job {
            if let Err(error) = next.started.timeline().wait(Some(SLICE)) {
                return next.fail(error);
            }
            job = next.step();
        }
    }
}

/// Who waits for the runs of a device.
pub struct Waiter {
    gpu: Arc<Gpu>,
    thread: Mutex<Option<Running>>,
}

struct Running {
    jobs: Sender<Job>,
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
}

impl Waiter {
    /// No thread runs yet.
    pub fn new(gpu: &Arc<Gpu>) -> Waiter {
        Waiter {
            gpu: Arc::clone(gpu),
            thread: Mutex::default(),
        }
    }

    /// Hands over a run. Where there is no thread for it, it is waited for here.
    pub fn hand(&self, job: Job) {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            *thread = Running::begin(&self.gpu).ok();
        }
        let sent = match thread.as_ref() {
            Some(running) => running.jobs.send(job).map_err(|unsent| unsent.0).map(|()| {
                // Without the bell the job is seen a slice later.
                let _ = running.bell.ring();
            }),
            None => Err(job),
        };
        drop(thread);
        if let Err(job) = sent {
            job.finish();
        }
    }
}

impl Running {
    fn begin(gpu: &Arc<Gpu>) -> Result<Running, Error> {
        let (jobs, receiver) = channel();
        let bell = Arc::new(Bell::new(gpu)?);
        let (gpu, theirs) = (Arc::clone(gpu), Arc::clone(&bell));
        let thread = std::thread::Builder::new()
            .name("vulkan-waiter".to_string())
            .spawn(move || serve(&gpu, &receiver, &theirs))
            .map_err(|error| Error::internal(format!("no thread to wait: {error}")))?;
        Ok(Running { jobs, bell, thread })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(Running { jobs, bell, thread }) = lock(&self.thread).take() {
            drop(jobs);
            let _ = bell.ring();
            let _ = thread.join();
        }
    }
}

/// Until nobody can send any more and all is done.
fn serve(gpu: &Gpu, receiver: &Receiver<Job>, bell: &Bell) {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        let seen = bell.count();
        loop {
            match receiver.try_recv() {
                Ok(job) => jobs.push(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if jobs.is_empty() => return,
                Err(TryRecvError::Disconnected) => break,
            }
        }
        jobs = jobs.into_iter().filter_map(Job::step).collect();
        if jobs.is_empty() {
            // Nothing to wait for on the device.
            match receiver.recv() {
                Ok(job) => jobs.push(job),
                Err(_) => return,
            }
            continue;
        }
        let timelines: Vec<&Timeline> = jobs.iter().map(|job| &**job.started.timeline()).collect();
        if let Err(error) = wait_any(gpu, &timelines, Some((bell, seen)), Some(SLICE)) {
            jobs.drain(..).for_each(|job| job.fail(error.clone()));
        }
    }
}

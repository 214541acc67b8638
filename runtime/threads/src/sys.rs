//! The piece of work that is shared with workers: a borrowed function behind a pointer, which nobody calls after its time.

use crate::pool::MOST;
use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

type Body = *const (dyn Fn(usize) + Sync);

/// A number that threads count up, in lines of its own: those of neighbours would go to and fro between cores.
#[repr(align(128))]
struct Next(AtomicUsize);

/// Where one piece of work at a time is shared.
///
/// Each thread begins with a share of the parts, always the same one, and helps with those of others when it is done: so a thread mostly reads what it
/// wrote itself in the piece of work before, which may be far away for others.
pub(crate) struct Stage {
    /// Number of the piece of work of which parts can be taken; 0: there is none.
    open: AtomicUsize,
    /// Helpers between entering and leaving.
    inside: AtomicUsize,
    /// Of each thread's share of the parts, the next that nobody has taken. The caller has the first share.
    next: [Next; MOST],
    work: UnsafeCell<Option<Work>>,
    /// What a part panicked with on another thread.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Work {
    body: Body,
    parts: usize,
    /// Workers with a number below this may help.
    helpers: usize,
}

// SAFETY: `work` is written only while the stage is closed and nobody is inside (`share`), and read only by those inside who saw it
// open (`help`); the function is `Sync`. All other fields are made to be shared.
unsafe impl Sync for Stage {}
// SAFETY: as above; when nothing is shared, the pointer is dead and nobody reads it.
unsafe impl Send for Stage {}

impl Stage {
    pub const fn new() -> Stage {
        Stage {
            open: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            next: [const { Next(AtomicUsize::new(0)) }; MOST],
            work: UnsafeCell::new(None),
            panic: Mutex::new(None),
        }
    }

    /// Number of the present piece of work; 0: there is none.
    pub fn present(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Calls `body` for each part, together with whoever comes to [`Stage::help`]; `wake` is called when they may come. A panic of
    /// a part is passed on when all threads have left.
    ///
    /// # Safety
    /// No two calls overlap, and each has a `number` that is not 0 and not that of the call before.
    ///
    /// # Panics
    /// If there are not fewer helpers than [`MOST`].
    pub unsafe fn share(
        &self,
        number: usize,
        parts: usize,
        helpers: usize,
        body: &(dyn Fn(usize) + Sync),
        wake: impl FnOnce(),
    ) {
        // SAFETY: only the lifetime is changed. The pointer is read by those inside, and the stage is closed and empty again before
        // this function ends, by a panic too: between here and there nothing else can panic.
        let forever: Body = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Body>(body) };
        // SAFETY: the stage is closed and nobody is inside: the call before left it so, and calls do not overlap.
        unsafe {
            *self.work.get() = Some(Work {
                body: forever,
                parts,
                helpers,
            });
        }
        let members = helpers + 1;
        for (member, next) in self.next[..members].iter().enumerate() {
            next.0.store(share(parts, members, member).start, Ordering::Relaxed);
        }
        // Publishes the work.
        self.open.store(number, Ordering::SeqCst);
        let own = catch_unwind(AssertUnwindSafe(|| {
            wake();
            self.take_parts(0, members, parts, body);
        }));
        if own.is_err() {
            self.abandon(members, parts);
        }
        self.open.store(0, Ordering::SeqCst);
        let mut looks = 0u32;
        while self.inside.load(Ordering::SeqCst) != 0 {
            relax(&mut looks);
        }
        let elsewhere = self.panic.lock().map_or(None, |mut slot| slot.take());
        if let Some(panic) = own.err().or(elsewhere) {
            resume_unwind(panic);
        }
    }

    /// Takes parts of the present piece of work as the worker of this number, and gives the number of that piece; 0: there was none.
    pub fn help(&self, worker: usize) -> usize {
        // A helper enters first and then looks whether the stage is open; `share` closes it first and then looks who is inside. All
        // four are sequentially consistent, so that a helper that sees it open is seen inside, and waited for.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let number = self.open.load(Ordering::SeqCst);
        if number != 0 {
            // SAFETY: the stage is open and this thread is inside: the work was written before the stage was opened, and is not
            // written again before this thread has left.
            let work = unsafe { *self.work.get() };
            if let Some(work) = work.filter(|work| worker < work.helpers) {
                // SAFETY: as above; the function outlives the call of `share`, which waits for this thread.
                let body = unsafe { &*work.body };
                let members = work.helpers + 1;
                let take = || self.take_parts(worker + 1, members, work.parts, body);
                if let Err(panic) = catch_unwind(AssertUnwindSafe(take)) {
                    self.abandon(members, work.parts);
                    if let Ok(mut slot) = self.panic.lock() {
                        slot.get_or_insert(panic);
                    }
                }
            }
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        number
    }

    /// Takes the parts of a member's share, then what is left of the others'.
    fn take_parts(&self, member: usize, members: usize, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        for of in (member..members).chain(0..member) {
            let end = share(parts, members, of).end;
            loop {
                let part = self.next[of].0.fetch_add(1, Ordering::Relaxed);
                if part >= end {
                    break;
                }
                body(part);
            }
        }
    }

    /// Nobody begins another part.
    fn abandon(&self, members: usize, parts: usize) {
        for next in &self.next[..members] {
            next.0.fetch_max(parts, Ordering::Relaxed);
        }
    }
}

/// The parts that a member begins with.
fn share(parts: usize, members: usize, member: usize) -> Range<usize> {
    let border = |member: usize| {
        let (each, more) = (parts / members, parts % members);
        member * each + member.min(more)
    };
    border(member)..border(member + 1)
}

/// Waits a moment; lets other threads run when many moments were not enough.
fn relax(looks: &mut u32) {
    *looks = looks.saturating_add(1);
    if *looks < 1 << 12 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

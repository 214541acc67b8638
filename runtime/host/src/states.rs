//! States that a session keeps on its side: in the device's memory, say. What is lost is an error, and never silently 0.

use crate::call::CallOptions;
use crate::local::StateOp;
use crate::session::Backing;
use crate::{DelegateError, Session};
use delegraph_abi::Status;
use delegraph_abi::envelope::{KeptState, Meta};

/// A state that a session keeps: a tensor that goes from one run to the next without being seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateInfo {
    /// Name in the graph.
    pub name: String,
    /// Input of the runs that is the state before them. It is given with sizes and no bytes.
    pub input: usize,
    /// Output of the runs that is the state after them. It is taken with sizes and no bytes.
    pub output: usize,
    /// Bytes of a snapshot: the elements, contiguous and row-major.
    pub bytes: u64,
    /// Most entries along the dimension in which it grows; `None`: it does not grow.
    pub entries: Option<u64>,
}

/// What a session keeps, and how it stands.
pub(crate) struct States {
    infos: Vec<StateInfo>,
    slots: Vec<Slot>,
    /// By tensor, inputs first.
    kept: Vec<bool>,
    /// A run awaits [`Session::commit_states`].
    pending: bool,
    /// The caller commits.
    later: bool,
    /// Runs whose changes count.
    runs: u64,
}

struct Slot {
    /// Its number in the contract.
    state: u32,
    /// Why its content is not there any more.
    lost: Option<String>,
}

impl States {
    pub fn new(meta: &Meta) -> States {
        let info = |state: &KeptState| StateInfo {
            name: state.name.clone(),
            input: state.input as usize,
            output: state.output as usize,
            bytes: state.bytes,
            entries: state.growth.map(|(_, size)| size),
        };
        let mut kept = Vec::new();
        if !meta.states.is_empty() {
            kept.resize(meta.inputs.len() + meta.outputs.len(), false);
        }
        for state in &meta.states {
            // The envelope was checked: both are there.
            for at in [state.input as usize, meta.inputs.len() + state.output as usize] {
                kept[at] = true;
            }
        }
        let slot = |state: &KeptState| Slot {
            state: state.state,
            lost: None,
        };
        States {
            infos: meta.states.iter().map(info).collect(),
            slots: meta.states.iter().map(slot).collect(),
            kept,
            pending: false,
            later: false,
            runs: 0,
        }
    }

    /// Whether the session has the elements of a tensor; inputs first.
    pub fn keeps(&self, tensor: usize) -> bool {
        self.kept.get(tensor).copied().unwrap_or(false)
    }

    fn lose(&mut self, why: &str) {
        for (slot, info) in self.slots.iter_mut().zip(&self.infos) {
            let since = self.runs;
            slot.lost
                .get_or_insert_with(|| format!("the state `{}` was lost after run {since}: {why}", info.name));
        }
        self.pending = false;
    }
}

impl Session {
    /// States that the session keeps on its side. Empty for most blobs.
    pub fn states(&self) -> &[StateInfo] {
        &self.states.infos
    }

    /// Whether the caller says by [`Session::commit_states`] after each run if what it did to states counts, because other things may
    /// fail that belong to the run. Otherwise it counts as soon as the run has succeeded.
    pub fn commit_states_later(&mut self, later: bool) {
        self.states.later = later;
    }

    /// Ends what the last run did to states: with `accept` it counts, without it the states are as before the run. Where no run waits for
    /// it, nothing happens.
    ///
    /// # Errors
    /// The delegate failed: the states are lost then.
    pub fn commit_states(&mut self, accept: bool) -> Result<(), DelegateError> {
        match std::mem::take(&mut self.states.pending) {
            true => self.commit(accept, &CallOptions::default()),
            false => Ok(()),
        }
    }

    /// Makes every element of a state 0, lost or not. `state` is an index in [`Session::states`], here and below.
    ///
    /// # Errors
    /// There is no such state, a run awaits [`Session::commit_states`], or the delegate failed and the state is as it was; here and
    /// below.
    pub fn reset_state(&mut self, state: usize) -> Result<(), DelegateError> {
        self.slot(state)?;
        self.operate(StateOp::Reset(self.states.slots[state].state))?;
        self.states.slots[state].lost = None;
        Ok(())
    }

    /// Keeps the first `length` entries of a state that grows, and makes the rest 0.
    ///
    /// # Errors
    /// It does not grow (`UNSUPPORTED`), has fewer entries, or was lost.
    pub fn truncate_state(&mut self, state: usize, length: u64) -> Result<(), DelegateError> {
        let info = self.slot(state)?;
        match info.entries {
            None => {
                let problem = format!("the state `{}` does not grow and cannot be truncated", info.name);
                return Err(DelegateError::new(&self.backend, Status::UNSUPPORTED, problem));
            }
            Some(entries) if length > entries => {
                let problem = format!("the state `{}` has {entries} entries, not {length}", info.name);
                return Err(DelegateError::new(&self.backend, Status::INVALID_ARGUMENT, problem));
            }
            Some(_) => {}
        }
        self.present(state)?;
        self.operate(StateOp::Truncate(self.states.slots[state].state, length))
    }

    /// The elements of a state, contiguous and row-major.
    ///
    /// # Errors
    /// It was lost, or there is no memory for it.
    pub fn snapshot_state(&mut self, state: usize) -> Result<Vec<u8>, DelegateError> {
        let info = self.slot(state)?;
        let mut bytes = Vec::new();
        let size = usize::try_from(info.bytes)
            .ok()
            .filter(|size| bytes.try_reserve_exact(*size).is_ok());
        let size = size.ok_or_else(|| {
            let problem = format!(
                "the state `{}` of {} bytes does not fit in memory",
                info.name, info.bytes
            );
            DelegateError::new(&self.backend, Status::OUT_OF_MEMORY, problem)
        })?;
        bytes.resize(size, 0);
        self.snapshot_state_into(state, &mut bytes)?;
        Ok(bytes)
    }

    /// The same, into memory of the caller's.
    ///
    /// # Errors
    /// It was lost, or `out` has another number of bytes.
    pub fn snapshot_state_into(&mut self, state: usize, out: &mut [u8]) -> Result<(), DelegateError> {
        self.same_size(state, out.len())?;
        self.present(state)?;
        self.operate(StateOp::Snapshot(self.states.slots[state].state, out))
    }

    /// Makes a state what a snapshot holds, of this session or another one; or an initial value. A lost state is there again.
    ///
    /// # Errors
    /// It has another number of bytes.
    pub fn restore_state(&mut self, state: usize, bytes: &[u8]) -> Result<(), DelegateError> {
        self.same_size(state, bytes.len())?;
        self.operate(StateOp::Restore(self.states.slots[state].state, bytes))?;
        self.states.slots[state].lost = None;
        Ok(())
    }

    /// Why a state is not there any more, if one is not.
    pub fn lost_state(&self) -> Option<&str> {
        self.states.slots.iter().find_map(|slot| slot.lost.as_deref())
    }

    fn same_size(&self, state: usize, bytes: usize) -> Result<(), DelegateError> {
        let info = self.slot(state)?;
        if bytes as u64 == info.bytes {
            return Ok(());
        }
        let problem = format!("the state `{}` has {} bytes, {bytes} are given", info.name, info.bytes);
        Err(DelegateError::new(&self.backend, Status::INVALID_ARGUMENT, problem))
    }

    /// Whether a run can begin: all states are there, and none is in doubt.
    pub(crate) fn ready_to_run(&mut self, options: &CallOptions<'_>) -> Result<(), DelegateError> {
        if self.states.slots.is_empty() {
            return Ok(());
        }
        self.settled()?;
        self.revive(options)?;
        (0..self.states.slots.len()).try_for_each(|state| self.still_there(state))
    }

    /// A run has ended well on the delegate's side; `outcome` is what the host thinks of it.
    pub(crate) fn ran(
        &mut self,
        outcome: Result<(), DelegateError>,
        options: &CallOptions<'_>,
    ) -> Result<(), DelegateError> {
        if self.states.slots.is_empty() {
            return outcome;
        }
        if self.states.later && outcome.is_ok() {
            self.states.pending = true;
            return outcome;
        }
        // A run that was cancelled late has still ended, and so has what it did.
        let options = CallOptions {
            cancel: None,
            deadline: None,
            ..*options
        };
        let committed = self.commit(outcome.is_ok(), &options);
        outcome.and(committed)
    }

    fn commit(&mut self, accept: bool, options: &CallOptions<'_>) -> Result<(), DelegateError> {
        let committed = self.state_call(StateOp::Commit(accept), options);
        match &committed {
            Ok(()) => self.states.runs += u64::from(accept),
            Err(error) => self
                .states
                .lose(&format!("a run could not be ended: {}", error.message)),
        }
        committed
    }

    fn operate(&mut self, op: StateOp<'_>) -> Result<(), DelegateError> {
        let options = CallOptions::default();
        self.revive(&options)?;
        self.state_call(op, &options)
    }

    fn state_call(&mut self, op: StateOp<'_>, options: &CallOptions<'_>) -> Result<(), DelegateError> {
        match &mut self.backing {
            Backing::Local(local) => local.state(op, options),
            #[cfg(target_os = "linux")]
            Backing::Remote(remote) => remote.state(op, options),
        }
    }

    /// Has the blob loaded again where its process died, and the states with it.
    fn revive(&mut self, options: &CallOptions<'_>) -> Result<(), DelegateError> {
        #[cfg(target_os = "linux")]
        if let Backing::Remote(remote) = &mut self.backing
            && remote.revive(options)?
        {
            self.states.lose("the process that kept it died");
        }
        #[cfg(not(target_os = "linux"))]
        let _ = options;
        Ok(())
    }

    /// A state of this index, where none is in doubt.
    fn slot(&self, state: usize) -> Result<&StateInfo, DelegateError> {
        self.settled()?;
        self.states.infos.get(state).ok_or_else(|| {
            let problem = format!(
                "there is no state {state}: the session keeps {}",
                self.states.infos.len()
            );
            DelegateError::new(&self.backend, Status::INVALID_ARGUMENT, problem)
        })
    }

    fn settled(&self) -> Result<(), DelegateError> {
        match self.states.pending {
            false => Ok(()),
            true => {
                let problem = "a run awaits `commit_states`";
                Err(DelegateError::new(&self.backend, Status::INVALID_ARGUMENT, problem))
            }
        }
    }

    /// Refuses a state that is lost, also one that was lost and nobody knew.
    fn present(&mut self, state: usize) -> Result<(), DelegateError> {
        self.revive(&CallOptions::default())?;
        self.still_there(state)
    }

    fn still_there(&self, state: usize) -> Result<(), DelegateError> {
        match self.states.slots.get(state).and_then(|slot| slot.lost.as_ref()) {
            None => Ok(()),
            Some(lost) => {
                let mut error = DelegateError::new(&self.backend, Status::DEVICE_LOST, lost.clone());
                error.hint = "restore a snapshot, or reset it to begin anew".to_string();
                Err(error)
            }
        }
    }
}

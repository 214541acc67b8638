//! An initialized delegate, and memory that it has taken notice of.

use crate::driver::call::{Refused, Script};
use crate::driver::lock;
use crate::driver::sinks::{BlobParts, NodeAnswer, PartAnswers, Sink, Verdicts};
use crate::driver::sys::external::Seen;
use crate::driver::sys::hand::{Handed, list, pointers};
use crate::driver::sys::host::{BlobHandle, WeightsHandle, keep_over};
use crate::driver::sys::library::{InfoText, Library, broken};
use crate::driver::sys::memory::{Guarded, Place};
use crate::driver::sys::raw::{read, text};
use crate::driver::sys::session::{Loaded, STUCK};
use crate::driver::weights::HostWeights;
use delegraph_abi::envelope::Meta;
use delegraph_abi::{Status, c};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

/// A device, as the delegate lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DeviceText {
    pub id: u32,
    pub kind: u32,
    pub name: String,
    pub vendor: String,
    pub arch: String,
    pub driver: String,
    pub memory: u64,
}

/// The answers of a `partition` call, as they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Node and answer, in the order given. A node that is not there, or is there twice, is kept.
    pub nodes: Vec<(u32, NodeAnswer)>,
    /// Atomic sets.
    pub sets: Vec<Vec<u32>>,
    /// How many verdicts the host refused, as its script said.
    pub failed: u64,
}

impl Answers {
    /// Whether each of `count` nodes has one answer.
    ///
    /// # Errors
    /// The first node that has none or two, or that is not there.
    pub fn complete(&self, count: u32) -> Result<(), String> {
        let mut given = vec![0u32; count as usize];
        for (node, _) in &self.nodes {
            match given.get_mut(*node as usize) {
                Some(times) => *times += 1,
                None => return Err(format!("`partition` answered for node {node} of {count}")),
            }
        }
        match given.iter().position(|times| *times != 1) {
            Some(node) => Err(format!(
                "`partition` gave {} answers for node {node} of {count}",
                given[node]
            )),
            None => Ok(()),
        }
    }

    /// Whether it takes a node.
    pub fn takes(&self, node: u32) -> bool {
        self.nodes
            .iter()
            .any(|(other, answer)| *other == node && answer.supported != 0)
    }

    /// Whether it takes all of `count` nodes.
    pub fn takes_all(&self, count: u32) -> bool {
        (0..count).all(|node| self.takes(node))
    }

    /// The first reason given for a refusal.
    pub fn reason(&self) -> String {
        let refusal = self.nodes.iter().find(|(_, answer)| answer.supported == 0);
        refusal.map_or(String::new(), |(_, answer)| answer.text.clone())
    }
}

/// What a `compile` call gave: what the host's envelope would say, and the sections.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What the envelope says. Inputs, outputs and states are left empty: see `requirements` and `states`.
    pub meta: Meta,
    /// Name, alignment, bytes.
    pub sections: Vec<(String, u32, Vec<u8>)>,
    /// Of an output, index, alignment, multiple of the size.
    pub requirements: Vec<(bool, u32, u32, u32)>,
    /// States of the graph that sessions keep.
    pub states: Vec<u32>,
    /// How many of its writes the host refused, as its script said.
    pub failed: u64,
}

/// An initialized delegate.
pub struct Instance {
    /// The library that it is of.
    pub library: Arc<Library>,
    /// The handle that `initialize` gave.
    pub handle: *mut c::Delegate,
    /// Blobs that sessions of it retained.
    kept: Mutex<Vec<Arc<BlobHandle>>>,
    ended: bool,
}

// SAFETY: the contract lets a delegate be called from any thread, from several at once unless it asks for SERIALIZED, which cases heed.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

/// Aligned as the contract says, and guarded.
fn image_memory(image: &[u8]) -> Result<Guarded, Refused> {
    let memory = Guarded::new(image.len(), Place::End, 8).and_then(|mut memory| {
        memory.fill(image);
        memory.protect()?;
        Ok(memory)
    });
    memory.map_err(|problem| broken("the kit", &problem))
}

impl Instance {
    pub(crate) fn new(library: Arc<Library>, handle: *mut c::Delegate) -> Instance {
        let ended = false;
        let kept = Mutex::default();
        Instance {
            library,
            handle,
            kept,
            ended,
        }
    }

    /// The devices, by the two calls of the contract.
    ///
    /// # Errors
    /// It refuses, or a record is none.
    pub fn devices(&self) -> Result<Vec<DeviceText>, Refused> {
        let script = Script::default();
        let mut count = 0;
        // SAFETY: the output is valid for the call.
        self.library.call("device_enumerate", &script, |api, call| unsafe {
            api.device_enumerate
                .map(|f| f(self.handle, call, 0, std::ptr::null_mut(), &mut count))
        })?;
        if count > 1024 {
            return Err(broken("device_enumerate", &format!("it lists {count} devices")));
        }
        let mut records = vec![std::ptr::null(); count as usize];
        let mut now = count;
        // SAFETY: as above, with room for `count`.
        self.library.call("device_enumerate", &script, |api, call| unsafe {
            api.device_enumerate
                .map(|f| f(self.handle, call, count, records.as_mut_ptr(), &mut now))
        })?;
        records.truncate(now as usize);
        // SAFETY: the contract makes every record constant until `shutdown`, its texts too.
        let devices = records.into_iter().map(|record| unsafe {
            let raw = read::<c::DeviceInfo>(record)?;
            Ok(DeviceText {
                id: raw.id,
                kind: raw.kind.0,
                name: text("name", raw.name, raw.name_size)?,
                vendor: text("vendor", raw.vendor, raw.vendor_size)?,
                arch: text("arch", raw.arch, raw.arch_size)?,
                driver: text("driver", raw.driver, raw.driver_size)?,
                memory: raw.memory,
            })
        });
        devices
            .collect::<Result<_, String>>()
            .map_err(|problem| broken("device_enumerate", &problem))
    }

    /// One call of `device_enumerate` with room for so many records: the addresses that it wrote there, up to the first place that it left
    /// alone, and the number that it stated. Two places more than the room are watched.
    ///
    /// # Errors
    /// It refuses, or writes beyond the room.
    pub fn enumerate(&self, room: usize) -> Result<(Vec<usize>, u64), Refused> {
        static NOTHING: u64 = 0;
        let untouched: *const c::DeviceInfo = (&raw const NOTHING).cast();
        let mut records = vec![untouched; room + 2];
        let mut count = u64::MAX;
        let place = match room {
            0 => std::ptr::null_mut(),
            _ => records.as_mut_ptr(),
        };
        let script = Script::default();
        // SAFETY: the outputs are valid for the call.
        self.library.call("device_enumerate", &script, |api, call| unsafe {
            api.device_enumerate
                .map(|f| f(self.handle, call, room as u64, place, &mut count))
        })?;
        if records[room..].iter().any(|record| *record != untouched) {
            let text = format!("it wrote more than the {room} records that there was room for");
            return Err(broken("device_enumerate", &text));
        }
        let written = records.iter().take_while(|record| **record != untouched);
        Ok((written.map(|record| record.addr()).collect(), count))
    }

    /// Asks about a graph. `nodes` is the number that the image states.
    ///
    /// # Errors
    /// It refuses the image.
    pub fn partition(&self, image: &[u8], nodes: u32, script: &Script) -> Result<Answers, Refused> {
        self.partition_for(image, nodes, "", script)
    }

    /// The same for a target.
    ///
    /// # Errors
    /// It refuses the image or the target.
    pub fn partition_for(&self, image: &[u8], nodes: u32, target: &str, script: &Script) -> Result<Answers, Refused> {
        let memory = image_memory(image)?;
        let graph = c::Graph {
            image: memory.as_ptr(),
            image_size: image.len() as u64,
            target: target.as_ptr(),
            target_size: target.len() as u64,
            ..c::Graph::new()
        };
        let graph = Handed::new(graph, script.structs)?;
        let sink = Sink::<PartAnswers>::new();
        sink.with(|answers| {
            answers.count = nodes;
            answers.fail_after = script.fail.part_node_verdict;
        });
        let pointer: *const Sink<PartAnswers> = &*sink;
        // SAFETY: the graph and the sink live until the call returns.
        let called = self.library.call("partition", script, |api, call| unsafe {
            api.partition
                .map(|f| f(self.handle, call, graph.as_ptr(), pointer.cast_mut().cast()))
        });
        let answers = sink.end();
        keep_over(sink);
        called?;
        Ok(Answers {
            nodes: answers.nodes,
            sets: answers.sets,
            failed: answers.failed,
        })
    }

    /// Compiles a graph.
    ///
    /// # Errors
    /// It refuses.
    pub fn compile(
        &self,
        image: &[u8],
        weights: &Arc<HostWeights>,
        target: &str,
        script: &Script,
    ) -> Result<Compiled, Refused> {
        let info = self.library.info().map_err(|problem| broken("get_info", &problem))?;
        let memory = image_memory(image)?;
        let handle = weights_handle(weights, false, script);
        let graph = Handed::new(graph_struct(&memory, image, &handle, target), script.structs)?;
        let target_struct = Handed::new(target_struct(target), script.structs)?;
        let sink = Sink::<BlobParts>::new();
        sink.with(|parts| parts.fail = script.fail);
        let pointer: *const Sink<BlobParts> = &*sink;
        // SAFETY: everything handed over lives until the call returns.
        let called = self.library.call("compile", script, |api, call| unsafe {
            api.compile.map(|f| {
                let sink = pointer.cast_mut().cast();
                f(self.handle, call, graph.as_ptr(), target_struct.as_ptr(), sink)
            })
        });
        let parts = sink.end();
        keep_over(sink);
        handle.let_go();
        keep_over(handle);
        called?;
        Ok(compiled(info, image, target, parts))
    }

    /// Compiles graphs together: one blob each.
    ///
    /// # Errors
    /// It refuses.
    pub fn compile_set(
        &self,
        graphs: &[(&[u8], &Arc<HostWeights>)],
        target: &str,
        script: &Script,
    ) -> Result<Vec<Compiled>, Refused> {
        let info = self.library.info().map_err(|problem| broken("get_info", &problem))?;
        let (mut memories, mut handles, mut structs, mut sinks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (image, weights) in graphs {
            let memory = image_memory(image)?;
            let handle = weights_handle(weights, false, script);
            structs.push(Handed::new(
                graph_struct(&memory, image, &handle, target),
                script.structs,
            )?);
            let sink = Sink::<BlobParts>::new();
            sink.with(|parts| parts.fail = script.fail);
            memories.push(memory);
            handles.push(handle);
            sinks.push(sink);
        }
        let target_struct = Handed::new(target_struct(target), script.structs)?;
        let graph_pointers = pointers(&structs);
        let sink_pointers: Vec<*mut c::BlobSink> = sinks
            .iter()
            .map(|sink| {
                let pointer: *const Sink<BlobParts> = &**sink;
                pointer.cast_mut().cast()
            })
            .collect();
        // SAFETY: everything handed over lives until the call returns; both lists have one pointer a graph.
        let called = self.library.call("compile_set", script, |api, call| unsafe {
            api.compile_set.map(|f| {
                f(
                    self.handle,
                    call,
                    graph_pointers.as_ptr(),
                    target_struct.as_ptr(),
                    sink_pointers.as_ptr(),
                    graph_pointers.len() as u64,
                )
            })
        });
        let mut made = Vec::with_capacity(graphs.len());
        for ((sink, handle), (image, _)) in sinks.into_iter().zip(handles).zip(graphs) {
            let parts = sink.end();
            keep_over(sink);
            handle.let_go();
            keep_over(handle);
            made.push(compiled(info.clone(), image, target, parts));
        }
        called.map(|()| made)
    }

    /// Asks about a blob by its metadata: every verdict that was given, in order.
    ///
    /// # Errors
    /// It refuses to answer.
    pub fn blob_check(
        &self,
        meta: &Meta,
        payload_size: u64,
        script: &Script,
    ) -> Result<Vec<(c::BlobVerdict, String)>, Refused> {
        let meta = Handed::new(meta_struct(meta, payload_size), script.structs)?;
        let sink = Sink::<Verdicts>::new();
        let pointer: *const Sink<Verdicts> = &*sink;
        // SAFETY: the metadata and the sink live until the call returns.
        let called = self.library.call("blob_check", script, |api, call| unsafe {
            api.blob_check
                .map(|f| f(self.handle, call, meta.as_ptr(), pointer.cast_mut().cast()))
        });
        let verdicts = sink.end();
        keep_over(sink);
        called.map(|()| verdicts)
    }

    /// Loads a blob.
    ///
    /// # Errors
    /// It refuses.
    pub fn load(
        &self,
        blob: &Compiled,
        weights: &Arc<HostWeights>,
        device: Option<u32>,
        script: &Script,
    ) -> Result<Loaded, Refused> {
        let mut placed = Vec::new();
        for (_, align, bytes) in &blob.sections {
            let mut memory = Guarded::new(bytes.len(), Place::End, *align as usize)
                .map_err(|problem| broken("the kit", &problem))?;
            memory.fill(bytes);
            memory.protect().map_err(|problem| broken("the kit", &problem))?;
            placed.push(memory);
        }
        let sections = blob.sections.iter().zip(&placed).map(|((name, ..), memory)| {
            let section = c::Section {
                name: name.as_ptr(),
                name_size: name.len() as u64,
                data: memory.as_ptr(),
                size: memory.bytes().len() as u64,
                ..c::Section::new()
            };
            Handed::new(section, script.structs)
        });
        let sections: Vec<Handed<c::Section>> = sections.collect::<Result<_, _>>()?;
        let pointers = pointers(&sections);
        let size = blob.sections.iter().map(|(.., bytes)| bytes.len() as u64).sum();
        let meta = Handed::new(meta_struct(&blob.meta, size), script.structs)?;
        let handle = weights_handle(weights, true, script);
        let placed = Arc::new(placed);
        let owner = Arc::new(BlobHandle {
            sections: Mutex::new(Some(placed.clone())),
            ended: AtomicBool::new(false),
            retained: AtomicI64::new(0),
            script: script.clone(),
        });
        let raw = c::Blob {
            owner: match script.fail.no_owner {
                true => std::ptr::null_mut(),
                false => Arc::as_ptr(&owner).cast_mut().cast(),
            },
            meta: meta.as_ptr(),
            sections: list(&pointers, script.structs),
            section_count: pointers.len() as u64,
            weights: pointer_of(&handle),
            device_chosen: u32::from(device.is_some()),
            device: device.unwrap_or(0),
            ..c::Blob::new()
        };
        let raw = Handed::new(raw, script.structs)?;
        let mut session = std::ptr::null_mut();
        // SAFETY: everything handed over lives until the call returns; weights and sections longer, by what is kept.
        let called = self.library.call("session_load", script, |api, call| unsafe {
            api.session_load
                .map(|f| f(self.handle, call, raw.as_ptr(), &mut session))
        });
        handle.ended.store(true, Ordering::SeqCst);
        owner.ended.store(true, Ordering::SeqCst);
        if called.is_err() && owner.is_retained() {
            crate::driver::violation("a load that failed did not release its blob");
            owner.retained.store(0, Ordering::SeqCst);
        }
        // The sections are gone from here on, unless they are retained: a session that kept a pointer to one faults. Their addresses are
        // kept, so that nothing else comes to lie there. The weights stay while they are retained.
        owner.close().map_err(|problem| broken("the kit", &problem))?;
        self.keep(&owner);
        if let Err(refused) = called {
            owner.let_go();
            keep_over(Box::new(owner));
            if handle.retained.load(Ordering::SeqCst) > 0 {
                crate::driver::violation("a load that failed did not release its weights");
            }
            handle.let_go();
            keep_over(handle);
            return Err(refused);
        }
        if session.is_null() {
            return Err(broken("session_load", "it succeeded and gave no session"));
        }
        Ok(Loaded {
            library: self.library.clone(),
            session,
            kept: blob.states.clone(),
            weights: Some(handle),
            blob: Some(owner),
            _sections: placed,
            flying: None,
            ended: false,
        })
    }

    /// Notes a blob that is retained, until it is not any more or the delegate is gone.
    fn keep(&self, owner: &Arc<BlobHandle>) {
        let mut kept = lock(&self.kept);
        kept.retain(|owner| owner.is_retained());
        if owner.is_retained() {
            kept.push(owner.clone());
        }
    }

    /// `buffer_import`: `memory` begins at a multiple of 4096, and has a multiple of so many bytes.
    ///
    /// # Errors
    /// It refuses. The memory is gone.
    pub fn import(&self, memory: Guarded) -> Result<Imported, Refused> {
        let size = memory.size() as u64;
        let buffer = self.import_raw(c::HandleType::HOST_POINTER, memory.as_ptr(), size)?;
        Ok(Imported {
            memory: Some(memory),
            shared: None,
            buffer,
            library: self.library.clone(),
            lent: false,
        })
    }

    /// Imports once more what is imported already. The result must not outlive `first`.
    ///
    /// # Errors
    /// It refuses.
    pub fn import_again(&self, first: &Imported) -> Result<Imported, Refused> {
        let size = first.memory.as_ref().map_or(0, Guarded::size) as u64;
        let buffer = self.import_raw(c::HandleType::HOST_POINTER, first.pointer(), size)?;
        Ok(Imported::shared(self.library.clone(), buffer, None))
    }

    /// Asks to import what no host would ask for. What it takes all the same is released at once.
    ///
    /// # Errors
    /// It refuses, as it should.
    pub fn import_wrong(&self, handle_type: u32, memory: &Guarded, skip: usize, size: u64) -> Result<(), Refused> {
        let pointer = memory.as_ptr().wrapping_add(skip);
        let buffer = self.import_raw(c::HandleType(handle_type), pointer, size)?;
        drop(Imported::shared(self.library.clone(), buffer, None));
        Ok(())
    }

    fn import_raw(&self, handle_type: c::HandleType, pointer: *mut u8, size: u64) -> Result<*mut c::Buffer, Refused> {
        let desc = c::BufferDesc {
            handle_type,
            pointer: pointer.cast(),
            size,
            ..c::BufferDesc::new()
        };
        self.import_desc(&desc)
    }

    pub(super) fn import_desc(&self, desc: &c::BufferDesc) -> Result<*mut c::Buffer, Refused> {
        let mut buffer = std::ptr::null_mut();
        let script = Script::default();
        // SAFETY: the description lives until the call returns; the memory until the buffer is released.
        self.library.call("buffer_import", &script, |api, call| unsafe {
            api.buffer_import.map(|f| f(self.handle, call, desc, &mut buffer))
        })?;
        match buffer.is_null() {
            true => Err(broken("buffer_import", "it succeeded and gave no buffer")),
            false => Ok(buffer),
        }
    }

    /// Ends the delegate.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) && !STUCK.load(Ordering::SeqCst) {
            // SAFETY: the handle is of this library, and not used again.
            let _ = self.library.call("shutdown", &Script::default(), |api, call| unsafe {
                api.shutdown.map(|f| {
                    f(self.handle, call);
                    Status::OK
                })
            });
            for owner in std::mem::take(&mut *lock(&self.kept)) {
                if owner.is_retained() {
                    crate::driver::violation("a delegate that was shut down did not release a blob that it kept");
                }
                owner.let_go();
                keep_over(Box::new(owner));
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.end();
    }
}

fn weights_handle(weights: &Arc<HostWeights>, grant: bool, script: &Script) -> Box<WeightsHandle> {
    Box::new(WeightsHandle {
        weights: Mutex::new(Some(weights.clone())),
        ended: AtomicBool::new(false),
        grant,
        retained: AtomicI64::new(0),
        script: script.clone(),
    })
}

fn pointer_of(handle: &WeightsHandle) -> *mut c::Weights {
    (handle as *const WeightsHandle).cast_mut().cast()
}

/// As the contract hands it over; borrows the texts.
pub(crate) fn meta_struct(meta: &Meta, payload_size: u64) -> c::BlobMeta {
    let recorded = |hash: &[u8; 32]| match hash.iter().all(|byte| *byte == 0) {
        true => std::ptr::null(),
        false => hash.as_ptr(),
    };
    c::BlobMeta {
        delegate: meta.delegate.as_ptr(),
        delegate_size: meta.delegate.len() as u64,
        delegate_version: meta.delegate_version.as_ptr(),
        delegate_version_size: meta.delegate_version.len() as u64,
        format: meta.format.as_ptr(),
        format_size: meta.format.len() as u64,
        target: meta.target.as_ptr(),
        target_size: meta.target.len() as u64,
        precision: meta.precision.as_ptr(),
        precision_size: meta.precision.len() as u64,
        format_version: meta.format_version,
        abi_minor: meta.abi_minor,
        graph_hash: meta.graph_hash.as_ptr(),
        payload_size,
        driver_min: meta.driver_min.as_ptr(),
        driver_min_size: meta.driver_min.len() as u64,
        driver_max: meta.driver_max.as_ptr(),
        driver_max_size: meta.driver_max.len() as u64,
        options_hash: recorded(&meta.options_hash),
        weights_hash: recorded(&meta.weights_hash),
        ..c::BlobMeta::new()
    }
}

/// Memory of the host's that the delegate has taken notice of.
pub struct Imported {
    /// Pages, with a guard on both sides; `None` once they were given back.
    memory: Option<Guarded>,
    /// Memory of a handle in their stead.
    shared: Option<Arc<Seen>>,
    /// What the delegate gave for it.
    pub(super) buffer: *mut c::Buffer,
    library: Arc<Library>,
    /// Another one releases it.
    lent: bool,
}

// SAFETY: the contract lets the delegate's handle be used on any thread.
unsafe impl Send for Imported {}
// SAFETY: as above.
unsafe impl Sync for Imported {}

impl Imported {
    pub(super) fn shared(library: Arc<Library>, buffer: *mut c::Buffer, shared: Option<Arc<Seen>>) -> Imported {
        Imported {
            memory: None,
            shared,
            buffer,
            library,
            lent: false,
        }
    }

    /// The same buffer, which only `owner` releases.
    pub(super) fn borrowed(owner: &Imported, seen: Arc<Seen>) -> Imported {
        let mut other = Imported::shared(owner.library.clone(), owner.buffer, Some(seen));
        other.lent = true;
        other
    }

    pub(super) fn pointer(&self) -> *mut u8 {
        match &self.shared {
            Some(seen) => seen.as_ptr(),
            None => self.memory.as_ref().map_or(std::ptr::null_mut(), Guarded::as_ptr),
        }
    }

    /// Writes bytes, so many from the beginning.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        match (&self.shared, &mut self.memory) {
            (Some(seen), _) => seen.write(offset, bytes),
            (None, Some(memory)) => memory.fill_at(offset, bytes),
            (None, None) => {}
        }
    }

    /// Bytes, so many from the beginning.
    pub fn read(&self, offset: usize, size: usize) -> Vec<u8> {
        if let Some(seen) = &self.shared {
            return seen.read(offset, size);
        }
        let bytes = self.memory.as_ref().map_or(&[][..], Guarded::bytes);
        bytes.get(offset..offset + size).unwrap_or_default().to_vec()
    }

    fn end(&mut self) {
        let buffer = std::mem::replace(&mut self.buffer, std::ptr::null_mut());
        if buffer.is_null() || self.lent || STUCK.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the handle is of this library, and not used again.
        let _ = self
            .library
            .call("buffer_release", &Script::default(), |api, call| unsafe {
                api.buffer_release.map(|f| {
                    f(buffer, call);
                    Status::OK
                })
            });
    }

    /// `buffer_release`; gives the memory back.
    pub fn release(mut self) -> Option<Guarded> {
        self.end();
        self.memory.take()
    }
}

impl Drop for Imported {
    fn drop(&mut self) {
        self.end();
    }
}

/// A graph as the contract hands it over; borrows everything.
fn graph_struct(memory: &Guarded, image: &[u8], weights: &WeightsHandle, target: &str) -> c::Graph {
    c::Graph {
        image: memory.as_ptr(),
        image_size: image.len() as u64,
        weights: pointer_of(weights),
        target: target.as_ptr(),
        target_size: target.len() as u64,
        ..c::Graph::new()
    }
}

/// A target as the contract hands it over; borrows the text.
fn target_struct(target: &str) -> c::Target {
    c::Target {
        name: target.as_ptr(),
        name_size: target.len() as u64,
        ..c::Target::new()
    }
}

/// What a compiler wrote, as the envelope would say it.
fn compiled(info: InfoText, image: &[u8], target: &str, parts: BlobParts) -> Compiled {
    let [driver_min, driver_max] = parts.drivers;
    Compiled {
        meta: Meta {
            delegate: info.name,
            delegate_version: info.version,
            format: info.blob_format,
            format_version: info.blob_format_version,
            target: target.to_string(),
            precision: parts.precision,
            abi_minor: info.abi_minor,
            graph_hash: crate::sha256(image),
            driver_min,
            driver_max,
            ..Meta::default()
        },
        sections: parts.sections,
        requirements: parts.requirements,
        states: parts.states,
        failed: parts.failed,
    }
}

//! Lowers a region for one set of sizes: operators ask it for tensors and give it dispatches.
//!
//! ```text
//! let x = e.input(&node, 0)?;                        // the tensor of argument 0, row-major
//! let y = e.output(&node, 0, Layout::RowMajor)?;     // a new tensor for output 0
//! e.dispatch(kernel, &[read(&x), write(&y)], &[y.count()], grid(y.count(), 64))?;
//! ```

mod homes;
mod parts;
mod rules;

use crate::caps;
use crate::chain::{self, Class};
use crate::facts::Facts;
use crate::fuse;
use crate::kernels::{self, Kernel};
use crate::node::Node;
use crate::operators::movement::views;
use crate::operators::{elementwise, movement, strided};
use crate::packing::{Key, Packing};
use crate::program::Plan;
use crate::schedule::{Binding, Dispatch, Output, PARAMS_ALIGN, Packed, Schedule, Source, Storage};
use crate::tensor::{Layout, Tensor, checked_count};
use delegraph_sdk::image::{ImageView, Kind, NodeIndex, Sizes, Source as Origin, ValueIndex, WeightIndex};
use delegraph_sdk::{DType, Error};
use std::collections::HashMap;

/// A tensor as an operand of a dispatch.
#[derive(Debug, Clone, Copy)]
pub struct Bind {
    binding: Binding,
    writes: bool,
}

impl Bind {
    /// A part of the tensor's bytes: `offset` is a multiple of 256 from its start.
    #[must_use]
    pub fn part(mut self, offset: u64, bytes: u64) -> Bind {
        self.binding.offset += offset;
        self.binding.bytes = bytes.next_multiple_of(16);
        self
    }
}

impl Bind {
    /// The same for a kernel that writes it.
    #[must_use]
    pub fn written(mut self) -> Bind {
        self.writes = true;
        self
    }
}

/// The kernel reads it.
pub fn read(tensor: &Tensor) -> Bind {
    Bind {
        binding: binding(tensor),
        writes: false,
    }
}

/// The kernel writes it, or reads and writes it.
pub fn write(tensor: &Tensor) -> Bind {
    Bind {
        binding: binding(tensor),
        writes: true,
    }
}

fn binding(tensor: &Tensor) -> Binding {
    Binding {
        storage: tensor.storage,
        offset: tensor.offset,
        bytes: tensor.bytes().next_multiple_of(16).max(16),
    }
}

/// Workgroups for `count` invocations in a row, `size` in each: kernels find their place by `linear()` of `include/index.wgsl`.
pub fn grid(count: u32, size: u32) -> [u32; 3] {
    let groups = count.div_ceil(size).max(1);
    match groups <= 32768 {
        true => [groups, 1, 1],
        false => [32768, groups.div_ceil(32768), 1],
    }
}

/// What a kernel that ends with `finish()` of `include/finish.wgsl` needs: where it writes, and what is applied before.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The output: that of the node, or of the last node that was fused to it.
    pub out: Tensor,
    /// The parameters that `finish()` reads: put them at the end of the kernel's.
    pub links: Vec<u32>,
    /// The operands `extra0` and `extra1`.
    pub extra: [Tensor; 2],
}

/// The state of one lowering.
pub struct Encoder<'a> {
    image: ImageView<'a>,
    sizes: &'a Sizes,
    facts: &'a Facts,
    schedule: Schedule,
    /// For each value, the tensors that hold it: one a layout.
    values: Vec<Vec<Tensor>>,
    /// Storages of packed constants.
    packed: HashMap<Key, usize>,
    /// Storages of weights, by id.
    weights: HashMap<u32, usize>,
    nothing: Option<Tensor>,
    flag: Option<Tensor>,
    /// The node that is being lowered ends with an activation that light kernels do not have.
    curves: bool,
    /// Nodes that are fused behind the one that is being lowered.
    behind: Vec<u32>,
    node: u32,
    /// Where in the order of nodes lowering is, and for each value the place where it is read last; outputs are read at the end.
    position: u32,
    last_read: Vec<u32>,
    /// The layouts that values are made in, where there is a choice.
    homes: Vec<Option<Layout>>,
    /// What is lowered of a node that is lowered in parts.
    part: parts::Part,
}

impl<'a> Encoder<'a> {
    /// Lowers the region.
    ///
    /// # Errors
    /// A node that is not taken, a size that no input tells, or what the device cannot; the error names the node.
    pub fn encode(image: ImageView<'a>, plan: &Plan, sizes: &'a Sizes, facts: &'a Facts) -> Result<Schedule, Error> {
        let mut encoder = Encoder {
            image,
            sizes,
            facts,
            schedule: Schedule::default(),
            values: vec![Vec::new(); image.value_count() as usize],
            packed: HashMap::new(),
            weights: HashMap::new(),
            nothing: None,
            flag: None,
            curves: false,
            behind: Vec::new(),
            node: 0,
            position: 0,
            last_read: vec![0; image.value_count() as usize],
            homes: Vec::new(),
            part: parts::Part::default(),
        };
        for (position, value) in image.inputs().iter().enumerate() {
            let dims = encoder.dims(value)?;
            let dtype = encoder.dtype(value)?;
            let state = plan.states.iter().find(|state| state.input == position as u32);
            let source = state.map_or(Source::Input(position as u32), |state| Source::State(state.index));
            let tensor = encoder.place(dtype, &dims, Layout::RowMajor, source)?;
            encoder.set(value, tensor);
        }
        // For each node: the group that ends with it, or that it is a part of.
        let mut group_of: Vec<Option<&[u32]>> = vec![None; image.node_count() as usize];
        for group in &plan.groups {
            for node in group {
                if let Some(slot) = group_of.get_mut(*node as usize) {
                    *slot = Some(group);
                }
            }
        }
        encoder.find_last_reads(&group_of);
        encoder.homes = homes::homes(&image, &group_of, sizes);
        for index in 0..image.node_count() {
            encoder.position = index;
            let group = group_of[index as usize].unwrap_or_default();
            if group.last().is_some_and(|last| *last != index) {
                continue;
            }
            // A group runs where its last node stands.
            let alone = [index];
            let group = if group.is_empty() { &alone[..] } else { group };
            let rule = match encoder.is_large(group)? {
                true => rules::rule(&encoder, group)?,
                false => None,
            };
            let root = image.node(NodeIndex(group.first().copied().unwrap_or(index))).index();
            let outcome = match rule {
                Some(rule) => encoder.by_parts(&rule, &mut |encoder| encoder.lower(group)),
                None => encoder.lower(group),
            };
            outcome.map_err(|e| match e.node {
                None => e.at(root),
                Some(_) => e,
            })?;
        }
        for (position, value) in image.outputs().iter().enumerate() {
            let mut tensor = encoder.tensor(value, Layout::RowMajor)?;
            let state = plan.states.iter().find(|state| state.output == position as u32);
            let state = state.map(|state| state.index);
            if let Some(state) = state {
                tensor = encoder.next_state(&tensor, state)?;
            }
            encoder.schedule.outputs.push(Output {
                binding: binding(&tensor),
                sizes: tensor.dims.iter().map(|d| i64::from(*d)).collect(),
                state,
            });
        }
        encoder.schedule.drop_unread();
        Ok(encoder.schedule)
    }

    /// Lowers a node, or a group of them that runs as one.
    fn lower(&mut self, group: &[u32]) -> Result<(), Error> {
        let [root, behind @ ..] = group else {
            return Err(Error::internal("a group without nodes"));
        };
        (self.behind, self.node, self.curves) = (behind.to_vec(), *root, false);
        let view = self.image.node(NodeIndex(*root));
        if !behind.is_empty() && !fuse::is_root(&view) {
            self.behind.clear();
            let chain = fuse::chain_of(&self.image, group, Some(self.sizes)).map_err(Error::internal)?;
            let last = self.image.node(NodeIndex(group.last().copied().unwrap_or(*root)));
            return elementwise::encode_chain(&chain, &Node::new(last, self.sizes), self);
        }
        let operator = caps::accept(&view).map_err(|refusal| Error::unsupported(refusal.text))?;
        (operator.encode)(&Node::new(view, self.sizes), self)?;
        match self.behind.is_empty() {
            true => Ok(()),
            false => Err(Error::internal(format!("`{}` was not finished", view.op()))),
        }
    }

    /// True if a node of the group reads or makes more than the device binds at once.
    fn is_large(&self, group: &[u32]) -> Result<bool, Error> {
        let range = self.facts.limits.storage_range;
        if range == u64::MAX {
            return Ok(false);
        }
        for index in group {
            let node = self.image.node(NodeIndex(*index));
            for value in node.inputs().chain(node.outputs().iter()) {
                let count: u64 = match self.dims(value)?.as_slice() {
                    [n, c, h, w] => [*n, c.next_multiple_of(4), *h, *w].map(u64::from).iter().product(),
                    dims => dims.iter().map(|dim| u64::from(*dim)).product(),
                };
                if count * self.dtype(value)?.size().unwrap_or(1) as u64 + 16 > range {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Finds where values are read last. A group runs where its last node stands.
    fn find_last_reads(&mut self, group_of: &[Option<&[u32]>]) {
        let image = self.image;
        for index in 0..image.node_count() {
            let group = group_of.get(index as usize).copied().flatten();
            let runs = group.and_then(|group| group.last()).copied().unwrap_or(index);
            for value in image.node(NodeIndex(index)).inputs() {
                let last = &mut self.last_read[value.0 as usize];
                *last = runs.max(*last);
            }
        }
        for value in image.outputs().iter() {
            self.last_read[value.0 as usize] = u32::MAX;
        }
        // What readers look behind is read as long as what it makes.
        for index in (0..image.node_count()).rev() {
            let node = image.node(NodeIndex(index));
            if strided::looks_behind(node.op()) || views::joins_dimensions(node.op()) {
                let outputs = node.outputs().iter().map(|v| self.last_read[v.0 as usize]);
                let until = outputs.max().unwrap_or(0);
                if let Some(value) = node.arg(0).value() {
                    let last = &mut self.last_read[value.0 as usize];
                    *last = until.max(*last);
                }
            }
        }
    }

    /// The tensor at an argument, row-major, if the node may write to it in place of a copy: nobody reads its memory after the node, the node
    /// itself reads none of it through other arguments, and it is no input, state or constant.
    pub fn spare(&self, node: &Node<'_>, argument: usize) -> Option<Tensor> {
        if self.in_parts() {
            return None;
        }
        let value = node.value(argument).ok()?;
        let tensor = self.values[value.0 as usize]
            .iter()
            .find(|t| t.layout == Layout::RowMajor)?;
        let shares = |tensors: &Vec<Tensor>| tensors.iter().any(|t| t.storage == tensor.storage);
        let others = self.values.iter().zip(&self.last_read).enumerate();
        let needed = others
            .filter(|(other, _)| *other != value.0 as usize)
            .any(|(_, (tensors, last))| shares(tensors) && *last >= self.position);
        let once = node.view().inputs().filter(|v| *v == value).count() == 1;
        let last = self.last_read[value.0 as usize] <= self.position;
        let own = self.schedule.storages[tensor.storage].source == Source::Scratch;
        (own && last && once && !needed).then(|| tensor.clone())
    }

    /// The device, or the weakest one while a region is compiled.
    pub fn facts(&self) -> &'a Facts {
        self.facts
    }

    /// The sizes of a value; of the part of it that is lowered now.
    ///
    /// # Errors
    /// One is not known, or too large.
    pub fn dims(&self, value: ValueIndex) -> Result<Vec<u32>, Error> {
        match self.window_dims(value) {
            Some(dims) => Ok(dims),
            None => self.whole_dims(value),
        }
    }

    /// The sizes of all of a value.
    ///
    /// # Errors
    /// As [`Encoder::dims`].
    pub fn whole_dims(&self, value: ValueIndex) -> Result<Vec<u32>, Error> {
        let dims = self.sizes.dims(&self.image, value);
        let dims = dims.ok_or_else(|| Error::invalid("a size is not known from the sizes of the inputs"))?;
        let dims: Option<Vec<u32>> = dims.iter().map(|d| u32::try_from(*d).ok()).collect();
        let dims = dims.ok_or_else(|| Error::unsupported("a size is beyond 32 bits"))?;
        checked_count(&dims)?;
        Ok(dims)
    }

    /// The element type of a value.
    ///
    /// # Errors
    /// It is no tensor.
    pub fn dtype(&self, value: ValueIndex) -> Result<DType, Error> {
        match self.image.value(value).kind() {
            Kind::Tensor(dtype) => Ok(dtype),
            _ => Err(Error::unsupported("a number that is read at run time")),
        }
    }

    /// The tensor that a value is, in a layout; a transfer is made where it lies in another.
    ///
    /// # Errors
    /// It was not made yet, or does not fit the layout.
    pub fn tensor(&mut self, value: ValueIndex, layout: Layout) -> Result<Tensor, Error> {
        let at = value.0 as usize;
        self.weigh_once(value)?;
        if self.in_parts() {
            return self.tensor_part(value, layout);
        }
        if let Some(tensor) = self.values[at].iter().find(|t| t.layout == layout) {
            return Ok(tensor.clone());
        }
        let have = self.values[at].first().cloned();
        let have = have.ok_or_else(|| Error::internal(format!("value {at} is read before it is made")))?;
        let moved = movement::to_layout(self, &have, layout)?;
        self.schedule.transfers += u32::from(moved.storage != have.storage);
        self.values[at].push(moved.clone());
        Ok(moved)
    }

    /// The tensor that a value is in a layout, if it lies so by now.
    pub fn found(&self, value: ValueIndex, layout: Layout) -> Option<Tensor> {
        let tensor = self.values[value.0 as usize].iter().find(|t| t.layout == layout)?;
        self.cut(value, tensor)
    }

    /// The layout that a value lies in by now; [`Layout::RowMajor`] for constants.
    pub fn layout(&self, value: ValueIndex) -> Layout {
        if let Some(layout) = self.part_layout(value) {
            return layout;
        }
        self.values[value.0 as usize]
            .first()
            .map_or(Layout::RowMajor, |t| t.layout)
    }

    /// The layout that a value is to be made in, where its operator has the choice.
    pub fn home(&self, value: ValueIndex) -> Option<Layout> {
        self.homes.get(value.0 as usize).copied().flatten()
    }

    /// The tensor at an argument of a node, row-major.
    ///
    /// # Errors
    /// The argument is no tensor, or as [`Encoder::tensor`].
    pub fn input(&mut self, node: &Node<'_>, argument: usize) -> Result<Tensor, Error> {
        self.tensor(node.value(argument)?, Layout::RowMajor)
    }

    /// A new tensor for an output of a node, of the dtype and sizes that the graph declares.
    ///
    /// # Errors
    /// There is no such output, or it is too large.
    pub fn output(&mut self, node: &Node<'_>, output: usize, layout: Layout) -> Result<Tensor, Error> {
        self.fresh(node.output(output)?, layout)
    }

    /// The output of a node whose kernel ends with `finish()`: with the nodes that are fused to it, if any.
    ///
    /// # Errors
    /// As [`Encoder::output`].
    pub fn finish(&mut self, _node: &Node<'_>, layout: Layout) -> Result<Finish, Error> {
        let group = [vec![self.node], std::mem::take(&mut self.behind)].concat();
        let links = fuse::links_of(&self.image, &group, Some(self.sizes)).map_err(Error::internal)?;
        let mut extra = Vec::new();
        let sources = fuse::tensors_of(&links);
        for value in &sources {
            extra.push(self.tensor(*value, layout)?);
        }
        self.curves = links.iter().any(|link| link.op.is_curve());
        let mut words = vec![links.len() as u32];
        words.extend(chain::words(Class::Float, &links, |value, _| {
            let slot = sources.iter().position(|source| *source == value).unwrap_or(0);
            let tensor = extra.get(slot).ok_or_else(|| Error::internal("a link reads nothing"))?;
            Ok((slot as u32 + 1, tensor.dtype))
        })?);
        let last = self.image.node(NodeIndex(group.last().copied().unwrap_or(self.node)));
        let result = last
            .outputs()
            .get(0)
            .ok_or_else(|| Error::internal("a link makes nothing"))?;
        let out = self.fresh(result, layout)?;
        if extra.len() < 2 {
            let nothing = self.nothing()?;
            extra.resize(2, nothing);
        }
        let extra = <[Tensor; 2]>::try_from(extra).map_err(|_| Error::internal("more operands than buffers"))?;
        Ok(Finish {
            out,
            links: words,
            extra,
        })
    }

    /// A tensor that is no node's output, for a kernel that ends with `finish()`: nothing is applied.
    ///
    /// # Errors
    /// As [`Encoder::output`].
    pub fn unfinished(&mut self, out: Tensor) -> Result<Finish, Error> {
        let nothing = self.nothing()?;
        Ok(Finish {
            out,
            links: vec![0],
            extra: [nothing.clone(), nothing],
        })
    }

    /// A tensor for buffers that nothing is read from.
    ///
    /// # Errors
    /// None that can happen.
    pub fn nothing(&mut self) -> Result<Tensor, Error> {
        if let Some(nothing) = &self.nothing {
            return Ok(nothing.clone());
        }
        let nothing = self.bytes(DType::U8, &[16], vec![0; 16])?;
        self.nothing = Some(nothing.clone());
        Ok(nothing)
    }

    /// Says that a value is this tensor: for outputs that are views, or that were made by hand.
    pub fn set(&mut self, value: ValueIndex, tensor: Tensor) {
        if self.keep_found(value, &tensor) {
            return;
        }
        self.values[value.0 as usize] = vec![tensor];
    }

    /// A new tensor of unspecified content that lives as long as something uses it.
    ///
    /// # Errors
    /// It is too large, or does not fit the layout.
    pub fn make(&mut self, dtype: DType, dims: &[u32], layout: Layout) -> Result<Tensor, Error> {
        self.place(dtype, dims, layout, Source::Scratch)
    }

    /// A tensor of given bytes: small tables.
    ///
    /// # Errors
    /// As [`Encoder::make`].
    pub fn bytes(&mut self, dtype: DType, dims: &[u32], bytes: Vec<u8>) -> Result<Tensor, Error> {
        self.place(dtype, dims, Layout::RowMajor, Source::Bytes(bytes))
    }

    /// Makes a tensor the value of a state after the run: where it is memory of its own, that memory is the state's from the start.
    fn next_state(&mut self, tensor: &Tensor, state: u32) -> Result<Tensor, Error> {
        let storage = &mut self.schedule.storages[tensor.storage];
        if storage.source == Source::Scratch && tensor.offset == 0 && storage.bytes == binding(tensor).bytes {
            storage.source = Source::NextState(state);
            return Ok(tensor.clone());
        }
        let next = self.place(tensor.dtype, &tensor.dims, Layout::RowMajor, Source::NextState(state))?;
        self.copy(tensor, &next)?;
        Ok(next)
    }

    /// Words that a kernel sets where a value is not allowed, an index out of range for example: `atomicOr(flag[0], 1)`. They are 0 at the
    /// start of a run; if one is not at the end, the run fails with `INVALID_ARGUMENT`, and the host runs the region portably, which names
    /// the value.
    ///
    /// # Errors
    /// None that can happen.
    pub fn flag(&mut self) -> Result<Tensor, Error> {
        if let Some(flag) = &self.flag {
            return Ok(flag.clone());
        }
        let flag = self.make(DType::I32, &[4], Layout::RowMajor)?;
        let nothing = self.nothing()?;
        self.dispatch(&kernels::WORDS, &[read(&nothing), write(&flag)], &[4, 1, 0], [1, 1, 1])?;
        self.schedule.flag = Some(binding(&flag));
        self.flag = Some(flag.clone());
        Ok(flag)
    }

    fn place(&mut self, dtype: DType, dims: &[u32], layout: Layout, source: Source) -> Result<Tensor, Error> {
        checked_count(dims)?;
        if layout == Layout::Nhwc4 {
            match dims {
                [n, c, h, w] => checked_count(&[*n, c.next_multiple_of(4), *h, *w])?,
                _ => return Err(Error::internal("only tensors of four dimensions lie channels last")),
            };
        }
        let tensor = Tensor {
            storage: self.schedule.storages.len(),
            offset: 0,
            dtype,
            dims: dims.to_vec(),
            layout,
        };
        self.schedule.storages.push(Storage {
            bytes: tensor.bytes().next_multiple_of(16).max(16),
            source,
        });
        Ok(tensor)
    }

    /// Makes a tensor of a value that is a constant, when it is first read.
    fn weigh_once(&mut self, value: ValueIndex) -> Result<(), Error> {
        let at = value.0 as usize;
        if let (true, Origin::Weight(weight)) = (self.values[at].is_empty(), self.image.value(value).source()) {
            self.values[at] = vec![self.weight(weight)?];
        }
        Ok(())
    }

    /// A constant of the image: the scales of a quantized type, for example.
    ///
    /// # Errors
    /// As [`Encoder::make`].
    pub fn weight(&mut self, index: WeightIndex) -> Result<Tensor, Error> {
        let weight = self.image.weight(index);
        let dims: Option<Vec<u32>> = weight.sizes().map(|d| u32::try_from(d).ok()).collect();
        let dims = dims.ok_or_else(|| Error::unsupported("a size is beyond 32 bits"))?;
        let mut tensor = self.place(weight.dtype(), &dims, Layout::RowMajor, Source::Weight(weight.id()))?;
        // Two values of one weight share its bytes.
        tensor.storage = *self.weights.entry(weight.id()).or_insert(tensor.storage);
        Ok(tensor)
    }

    /// A constant in another form: a tensor of this dtype and these sizes, whose bytes `packing` makes. Values that are no constants have none:
    /// see [`Encoder::is_constant`].
    ///
    /// # Errors
    /// The value is no constant, or as [`Encoder::make`].
    pub fn packed(
        &mut self,
        value: ValueIndex,
        packing: &'static Packing,
        arguments: &[u32],
        dtype: DType,
        dims: &[u32],
    ) -> Result<Tensor, Error> {
        let Origin::Weight(weight) = self.image.value(value).source() else {
            return Err(Error::internal(format!("value {} is no constant", value.0)));
        };
        let weight = self.image.weight(weight);
        let key = Key {
            weight: weight.id(),
            packing: packing.name.to_string(),
            arguments: arguments.to_vec(),
        };
        let of: Option<Vec<u32>> = weight.sizes().map(|d| u32::try_from(d).ok()).collect();
        let of = of.ok_or_else(|| Error::unsupported("a size is beyond 32 bits"))?;
        if let Some(storage) = self.packed.get(&key) {
            checked_count(dims)?;
            return Ok(Tensor {
                storage: *storage,
                offset: 0,
                dtype,
                dims: dims.to_vec(),
                layout: Layout::RowMajor,
            });
        }
        let source = Source::Packed(self.schedule.packed.len());
        let tensor = self.place(dtype, dims, Layout::RowMajor, source)?;
        self.packed.insert(key.clone(), tensor.storage);
        self.schedule.packed.push(Packed {
            key,
            packing,
            dtype: weight.dtype(),
            dims: of,
        });
        Ok(tensor)
    }

    /// True if a value is a constant of the graph.
    pub fn is_constant(&self, value: ValueIndex) -> bool {
        matches!(self.image.value(value).source(), Origin::Weight(_))
    }

    /// Adds a dispatch. `operands` are the kernel's buffers in order; one that no tensor is for gets any other tensor.
    ///
    /// # Errors
    /// A binding or a grid beyond the device's limits, or operands that do not fit the kernel.
    pub fn dispatch(
        &mut self,
        kernel: &'static Kernel,
        operands: &[Bind],
        params: &[u32],
        groups: [u32; 3],
    ) -> Result<(), Error> {
        let limits = &self.facts.limits;
        let kernel = kernel.light.filter(|_| !self.curves).unwrap_or(kernel);
        if operands.len() != kernel.writes.len() || operands.iter().zip(kernel.writes).any(|(o, w)| o.writes && !w) {
            return Err(Error::internal(format!(
                "operands do not fit the kernel `{}`",
                kernel.name
            )));
        }
        if let Some(large) = operands.iter().find(|o| o.binding.bytes > limits.storage_range) {
            return Err(Error::unsupported(format!(
                "a tensor of {} bytes is more than the {} that `{}` binds at once",
                large.binding.bytes, limits.storage_range, self.facts.name
            )));
        }
        if groups.iter().zip(limits.groups).any(|(have, most)| *have > most) {
            return Err(Error::unsupported(format!(
                "`{}` would need {groups:?} workgroups",
                kernel.name
            )));
        }
        if groups.contains(&0) {
            return Ok(());
        }
        let all = &mut self.schedule.params;
        all.resize(all.len().next_multiple_of(PARAMS_ALIGN), 0);
        let start = all.len();
        all.extend_from_slice(params);
        let params = start..all.len().max(start + 1);
        all.resize(params.end, 0);
        self.schedule.dispatches.push(Dispatch {
            kernel,
            bindings: operands.iter().map(|o| o.binding).collect(),
            params,
            groups,
            node: self.node,
        });
        Ok(())
    }
}

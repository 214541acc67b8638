//! Nodes with tensors of more bytes than the device binds at once are lowered in parts.
//!
//! Most operators make what stands at one index of an outer dimension of what stands at that index of their arguments. Such a node is encoded once
//! a part: the operator sees values with fewer rows, and its dispatches bind windows of whole tensors. `rules.rs` says for a node which
//! dimensions of which values go together. Only convolutions know of parts: their rows are made of rows around them.
//!
//! Engines split by themselves what is not of that kind: products and tables their constants, copies what they move (`movement::parts`),
//! reductions their rows (`reduce.rs`).

use super::rules::{Lies, Rule};
use super::{Encoder, read, write};
use crate::kernels;
use crate::operators::movement::{self, View};
use crate::tensor::{Layout, Tensor, checked_count};
use delegraph_sdk::Error;
use delegraph_sdk::image::ValueIndex;
use std::collections::HashMap;

/// What is lowered of a value now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    /// First index, by dimension.
    start: Vec<u32>,
    /// Sizes.
    dims: Vec<u32>,
}

/// The part of a node that is being lowered.
#[derive(Debug, Default)]
pub(super) struct Part {
    windows: HashMap<u32, Window>,
    /// Where values lie in several layouts, this is the one that counts.
    layout: Option<Layout>,
    /// Values are lines of elements, whatever their sizes are.
    flat: bool,
    /// Values that an operator found to be another tensor, which has to be copied to where the whole lies.
    found: Vec<(ValueIndex, Tensor)>,
}

/// Dimensions in the order of memory, with the sizes that they have there.
fn in_memory(layout: Layout, dims: &[u32]) -> Vec<(usize, u32)> {
    match (layout, dims) {
        (Layout::Nhwc4, [n, c, h, w]) => vec![(0, *n), (2, *h), (3, *w), (1, c.next_multiple_of(4))],
        _ => dims.iter().copied().enumerate().collect(),
    }
}

/// Bytes from one index of a dimension to the next. `None`: the indices lie in several pieces, or with padding between them.
fn step(layout: Layout, dims: &[u32], dim: usize, element: u64) -> Option<u64> {
    let order = in_memory(layout, dims);
    let at = order.iter().position(|(d, _)| *d == dim)?;
    let is_outermost = order[..at].iter().all(|(_, size)| *size == 1);
    let padded = layout == Layout::Nhwc4 && dim == 1;
    let inner: u64 = order[at + 1..].iter().map(|(_, size)| u64::from(*size)).product();
    (is_outermost && !padded).then_some(inner * element)
}

impl Encoder<'_> {
    /// True while a node is lowered in parts.
    pub fn in_parts(&self) -> bool {
        !self.part.windows.is_empty()
    }

    /// Where this part of a value begins, and its sizes; `None`: the value has no parts.
    pub fn window(&self, value: ValueIndex) -> Option<(&[u32], &[u32])> {
        let window = self.part.windows.get(&value.0)?;
        Some((&window.start, &window.dims))
    }

    /// The sizes that a value has in this part.
    pub(super) fn window_dims(&self, value: ValueIndex) -> Option<Vec<u32>> {
        self.part.windows.get(&value.0).map(|window| window.dims.clone())
    }

    /// What offsets of windows are multiples of.
    fn alignment(&self) -> u64 {
        self.facts.limits.offset_alignment.max(16)
    }

    /// What this part has of a whole tensor, in place; `None`: it lies in pieces, or begins where no binding can.
    pub(super) fn cut(&self, value: ValueIndex, whole: &Tensor) -> Option<Tensor> {
        let Some(window) = self.part.windows.get(&value.0) else {
            return Some(whole.clone());
        };
        let mut at = 0;
        let mut inner = u64::from(whole.element());
        // Outside of a dimension of which there is a part, there is one index.
        let mut is_part = false;
        for (size, (start, some)) in self.lines(whole).dims.iter().zip(self.lines_of(window, whole)).rev() {
            if is_part && some != 1 {
                return None;
            }
            is_part |= some != *size;
            at += inner * u64::from(start);
            inner *= u64::from(*size);
        }
        (at % self.alignment() == 0).then(|| Tensor {
            offset: whole.offset + at,
            dims: window.dims.clone(),
            ..whole.clone()
        })
    }

    /// The elements of a tensor in the order of memory, padding included.
    fn lines(&self, tensor: &Tensor) -> Tensor {
        let dims = match self.part.flat {
            true => vec![tensor.count()],
            false => in_memory(tensor.layout, &tensor.dims)
                .iter()
                .map(|(_, size)| *size)
                .collect(),
        };
        Tensor {
            layout: Layout::RowMajor,
            dims,
            ..tensor.clone()
        }
    }

    /// Start and size of a window by the dimensions of [`Encoder::lines`].
    fn lines_of(&self, window: &Window, whole: &Tensor) -> Vec<(u32, u32)> {
        if self.part.flat {
            let (start, size) = (window.start.first(), window.dims.first());
            return vec![(start.copied().unwrap_or(0), size.copied().unwrap_or(1))];
        }
        let sizes = in_memory(whole.layout, &window.dims).into_iter();
        sizes
            .map(|(dim, size)| (window.start.get(dim).copied().unwrap_or(0), size))
            .collect()
    }

    /// The same as a view.
    fn boxed(&self, value: ValueIndex, whole: &Tensor) -> View {
        let view = View::of(&self.lines(whole));
        let Some(window) = self.part.windows.get(&value.0) else {
            return view;
        };
        let ranges = self.lines_of(window, whole).into_iter().enumerate();
        ranges.fold(view, |view, (at, (start, size))| {
            view.sliced(at, i64::from(start), size, 1)
        })
    }

    /// The layout that counts while a node is lowered in parts, where the value lies so.
    pub(super) fn part_layout(&self, value: ValueIndex) -> Option<Layout> {
        let layout = self.part.layout?;
        let all = self.values.get(value.0 as usize)?;
        all.iter().any(|tensor| tensor.layout == layout).then_some(layout)
    }

    /// The part of a value in a layout. A transfer is made of the part alone.
    pub(super) fn tensor_part(&mut self, value: ValueIndex, layout: Layout) -> Result<Tensor, Error> {
        let all = &self.values[value.0 as usize];
        let found = all.iter().find(|t| t.layout == layout).or(all.first()).cloned();
        let found = found.ok_or_else(|| Error::internal(format!("value {} is read before it is made", value.0)))?;
        let part = match self.cut(value, &found) {
            Some(part) => part,
            None => {
                let (view, dims) = (self.boxed(value, &found), self.dims(value)?);
                let part = self.make(found.dtype, &dims, found.layout)?;
                movement::strided(self, &view, &self.lines(&part))?;
                part
            }
        };
        if part.layout == layout {
            return Ok(part);
        }
        let moved = movement::to_layout(self, &part, layout)?;
        self.schedule.transfers += u32::from(moved.storage != part.storage);
        Ok(moved)
    }

    /// A tensor for a value that is made now, or the part of it.
    pub(super) fn fresh(&mut self, value: ValueIndex, layout: Layout) -> Result<Tensor, Error> {
        let at = value.0 as usize;
        let dtype = self.dtype(value)?;
        if !self.part.windows.contains_key(&value.0) {
            let tensor = self.make(dtype, &self.dims(value)?, layout)?;
            self.values[at] = vec![tensor.clone()];
            return Ok(tensor);
        }
        let whole = self.whole(value, layout)?;
        if let Some(part) = self.cut(value, &whole) {
            return Ok(part);
        }
        let part = self.make(dtype, &self.dims(value)?, layout)?;
        self.part.found.push((value, part.clone()));
        Ok(part)
    }

    /// The whole tensor of a value whose parts are made.
    fn whole(&mut self, value: ValueIndex, layout: Layout) -> Result<Tensor, Error> {
        let at = value.0 as usize;
        match self.values[at].first() {
            Some(whole) if whole.layout == layout => Ok(whole.clone()),
            Some(_) => Err(Error::internal("parts of a value lie differently")),
            None => {
                let whole = self.make(self.dtype(value)?, &self.whole_dims(value)?, layout)?;
                self.values[at] = vec![whole.clone()];
                Ok(whole)
            }
        }
    }

    /// Keeps for later that a part of a value is this tensor; `false`: the value has no parts.
    pub(super) fn keep_found(&mut self, value: ValueIndex, tensor: &Tensor) -> bool {
        let parted = self.part.windows.contains_key(&value.0);
        if parted {
            self.part.found.push((value, tensor.clone()));
        }
        parted
    }

    /// Lowers a node in parts that the device binds.
    ///
    /// # Errors
    /// Rows that are too large by themselves, or lie so that the device cannot bind their start; or as `encode`.
    pub(super) fn by_parts(
        &mut self,
        rule: &Rule,
        encode: &mut dyn FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.part.layout = match rule.lies {
            Lies::Rows => Some(Layout::RowMajor),
            Lies::ChannelsLast => Some(Layout::Nhwc4),
            Lies::Either => None,
        };
        for along in &rule.arguments {
            self.weigh_once(along.value)?;
            // Parts of what lies otherwise would lie in pieces.
            let moves = match rule.lies {
                Lies::Rows => along.is_cut(),
                Lies::ChannelsLast => along.is_whole || along.halo.is_some(),
                Lies::Either => false,
            };
            if let (Some(layout), true) = (self.part.layout, moves) {
                self.tensor(along.value, layout)?;
            }
        }
        let outcome = self.start(rule).and_then(|()| self.divide(rule, encode));
        self.part = Part::default();
        outcome
    }

    /// Every value of the rule is one window: all of it.
    fn start(&mut self, rule: &Rule) -> Result<(), Error> {
        self.part.flat = rule.flat;
        for along in rule.all() {
            let mut dims = self.whole_dims(along.value)?;
            if rule.flat {
                dims = match along.is_whole {
                    true => vec![checked_count(&dims)?],
                    false => Vec::new(),
                };
            }
            let start = vec![0; dims.len()];
            self.part.windows.insert(along.value.0, Window { start, dims });
        }
        Ok(())
    }

    /// Layouts that a value may be bound in.
    fn layouts(&self, rule: &Rule, value: ValueIndex, rank: usize) -> Vec<Layout> {
        match (rule.lies, rank) {
            (Lies::Either, 4) => vec![Layout::RowMajor, Layout::Nhwc4],
            (Lies::ChannelsLast, 4) if self.values[value.0 as usize].is_empty() => vec![Layout::Nhwc4],
            (Lies::ChannelsLast, 4) => vec![self.layout(value)],
            _ => vec![Layout::RowMajor],
        }
    }

    fn fits(&self, rule: &Rule) -> Result<bool, Error> {
        for along in rule.all() {
            let (dims, dtype) = (self.dims(along.value)?, self.dtype(along.value)?);
            let element = dtype.size().unwrap_or(1) as u64;
            for layout in self.layouts(rule, along.value, dims.len()) {
                let sizes = in_memory(layout, &dims).into_iter();
                let bytes = sizes.map(|(_, size)| u64::from(size)).product::<u64>() * element;
                if bytes.next_multiple_of(16) > self.facts.limits.storage_range && along.is_cut() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn divide(&mut self, rule: &Rule, encode: &mut dyn FnMut(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if self.fits(rule)? {
            encode(self)?;
            return self.copy_found();
        }
        let out = self.dims(rule.first()?)?;
        let order: &[usize] = match rule.lies {
            Lies::ChannelsLast => &[0, 2, 3],
            _ => &[0, 1, 2, 3, 4, 5, 6, 7],
        };
        let dim = order
            .iter()
            .copied()
            .find(|dim| out.get(*dim).is_some_and(|size| *size > 1));
        let Some(dim) = dim.filter(|dim| *dim < rule.stop) else {
            // What has no rows the operator may divide by itself; else its dispatch is refused.
            encode(self)?;
            return self.copy_found();
        };
        let (range, alignment) = (self.facts.limits.storage_range / 16 * 16, self.alignment());
        let (mut most, mut multiple) = (u64::from(out[dim]), 1u64);
        for along in rule.all() {
            let Some(own) = along.dims.get(dim).copied().flatten() else {
                continue;
            };
            let (dims, dtype) = (self.dims(along.value)?, self.dtype(along.value)?);
            let element = dtype.size().unwrap_or(1) as u64;
            for layout in self.layouts(rule, along.value, dims.len()) {
                if along.halo.is_some_and(|(of, _)| of == dim) {
                    continue;
                }
                let all: u64 = in_memory(layout, &dims)
                    .iter()
                    .map(|(_, size)| u64::from(*size))
                    .product();
                let each = all * element / u64::from(dims[own].max(1));
                most = most.min(range / each.max(1));
                // Parts that lie in pieces are copied, wherever they begin.
                let step = step(layout, &dims, own, element).unwrap_or(alignment);
                multiple = multiple.max(alignment >> step.trailing_zeros().min(alignment.trailing_zeros()));
            }
        }
        // A row that is too much by itself is divided further; what begins where no binding can is copied.
        let many = match most {
            0 => 1,
            most if most < multiple => most,
            most => most / multiple * multiple,
        };
        // Progress is made, whatever was reckoned.
        let many = u32::try_from(many).unwrap_or(u32::MAX).min(out[dim].div_ceil(2));
        let begin = self
            .part
            .windows
            .get(&rule.first()?.0)
            .map_or(0, |window| window.start[dim]);
        let before: Vec<_> = rule
            .all()
            .map(|along| (along, self.part.windows.get(&along.value.0).cloned()))
            .collect();
        for first in (0..out[dim]).step_by(many as usize) {
            let size = many.min(out[dim] - first);
            for (along, window) in &before {
                let Some(mut window) = window.clone() else { continue };
                if let Some(own) = along.dims.get(dim).copied().flatten() {
                    let (start, size) = match along.halo.filter(|(of, _)| *of == dim) {
                        Some((_, halo)) => halo.range(begin + first, size, self.whole_dims(along.value)?[own]),
                        None => (window.start[own] + first, size),
                    };
                    (window.start[own], window.dims[own]) = (start, size);
                }
                self.part.windows.insert(along.value.0, window);
            }
            self.divide(rule, encode)?;
        }
        for (along, window) in before {
            if let Some(window) = window {
                self.part.windows.insert(along.value.0, window);
            }
        }
        Ok(())
    }

    /// Copies parts that turned out to be other tensors to where they belong.
    fn copy_found(&mut self) -> Result<(), Error> {
        for (value, tensor) in std::mem::take(&mut self.part.found) {
            let whole = self.whole(value, tensor.layout)?;
            if (self.dims(value)?, whole.dtype) != (tensor.dims.clone(), tensor.dtype) {
                return Err(Error::internal("a part has other sizes than the graph declares"));
            }
            movement::parts::put(self, &View::of(&self.lines(&tensor)), &self.boxed(value, &whole))?;
        }
        Ok(())
    }

    /// Copies a tensor to one of the same type, sizes and layout.
    ///
    /// # Errors
    /// More elements than kernels count.
    pub fn copy(&mut self, from: &Tensor, to: &Tensor) -> Result<(), Error> {
        self.words(Some(from), to)
    }

    /// Makes all bytes of a tensor 0.
    ///
    /// # Errors
    /// More elements than kernels count.
    pub fn clear(&mut self, tensor: &Tensor) -> Result<(), Error> {
        self.words(None, tensor)
    }

    fn words(&mut self, from: Option<&Tensor>, to: &Tensor) -> Result<(), Error> {
        let nothing = self.nothing()?;
        let most = self.facts.limits.storage_range / 256 * 256;
        let bytes = to.bytes();
        let mut at = 0;
        while at < bytes {
            let some = most.min(bytes - at);
            let count = checked_count(&[some.div_ceil(4) as u32])?;
            let source = from.map_or(read(&nothing), |from| read(from).part(at, some));
            let params = [count, u32::from(from.is_none()), 0];
            self.dispatch(
                &kernels::WORDS,
                &[source, write(to).part(at, some)],
                &params,
                super::grid(count, 64),
            )?;
            at += some;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_in_one_piece_behind_dimensions_of_one_element() {
        let rows = |dims: &[u32], dim| step(Layout::RowMajor, dims, dim, 4);
        assert_eq!(rows(&[2, 3, 5], 0), Some(60));
        assert_eq!(rows(&[2, 3, 5], 1), None);
        assert_eq!(rows(&[1, 3, 5], 1), Some(20));
        assert_eq!(rows(&[1, 1, 5], 2), Some(4));
        let last = |dims: &[u32], dim| step(Layout::Nhwc4, dims, dim, 2);
        assert_eq!(last(&[2, 3, 5, 7], 0), Some(4 * 5 * 7 * 2));
        assert_eq!(last(&[1, 3, 5, 7], 2), Some(4 * 7 * 2));
        assert_eq!((last(&[1, 3, 5, 7], 1), last(&[1, 8, 1, 1], 1)), (None, None));
    }
}

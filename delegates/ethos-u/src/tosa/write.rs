//! The FlatBuffer file of a graph (identifier `TOSA`, version 1.0). Slots are numbered as in the open schema.

use super::graph::{Attribute, DType, Graph, Op, Tensor};
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, UnionWIPOffset, Vector, WIPOffset};

const NAN_PROPAGATES: u32 = 1;

type Strings<'a> = WIPOffset<Vector<'a, ForwardsUOffset<&'a str>>>;
type Table = WIPOffset<flatbuffers::TableFinishedWIPOffset>;

/// Place of a field in a table.
fn slot(index: u16) -> u16 {
    4 + 2 * index
}

/// Writes the file.
pub fn write(graph: &Graph) -> Vec<u8> {
    let mut b = FlatBufferBuilder::new();
    let mut operators = Vec::new();
    for (i, tensor) in graph.tensors.iter().enumerate() {
        if tensor.data.is_some() {
            let op = if tensor.dtype == DType::Shape {
                Op::ConstShape
            } else {
                Op::Const
            };
            operators.push(operator(&mut b, graph, op, &Attribute::Plain, &[], &[i]));
        }
    }
    for made in &graph.operators {
        operators.push(operator(
            &mut b,
            graph,
            made.op,
            &made.attribute,
            &made.inputs,
            &made.outputs,
        ));
    }
    let (mut tensors, mut shapes) = (Vec::new(), Vec::new());
    for tensor in &graph.tensors {
        match tensor.dtype {
            DType::Shape => shapes.push(shape(&mut b, tensor)),
            _ => tensors.push(self::tensor(&mut b, tensor)),
        }
    }
    let name = b.create_string("main");
    let operators = b.create_vector(&operators);
    let tensors = b.create_vector(&tensors);
    let shapes = b.create_vector(&shapes);
    let inputs = names(&mut b, graph, &graph.inputs);
    let outputs = names(&mut b, graph, &graph.outputs);
    let block = b.start_table();
    b.push_slot_always(slot(0), name);
    b.push_slot_always(slot(1), operators);
    b.push_slot_always(slot(2), tensors);
    b.push_slot_always(slot(3), inputs);
    b.push_slot_always(slot(4), outputs);
    b.push_slot_always(slot(5), shapes);
    let block = b.end_table(block);
    let blocks = b.create_vector(&[block]);
    let region = b.start_table();
    b.push_slot_always(slot(0), name);
    b.push_slot_always(slot(1), blocks);
    let region = b.end_table(region);
    let regions = b.create_vector(&[region]);
    let version = b.start_table();
    b.push_slot_always(slot(0), 1i32);
    b.push_slot_always(slot(1), 0i32);
    b.push_slot_always(slot(2), 0i32);
    b.push_slot_always(slot(3), false);
    let version = b.end_table(version);
    let root = b.start_table();
    b.push_slot_always(slot(0), version);
    b.push_slot_always(slot(1), regions);
    let root = b.end_table(root);
    b.finish(root, Some("TOSA"));
    b.finished_data().to_vec()
}

fn names<'a>(b: &mut FlatBufferBuilder<'a>, graph: &Graph, tensors: &[usize]) -> Strings<'a> {
    let all: Vec<WIPOffset<&str>> = tensors
        .iter()
        .map(|i| b.create_string(&graph.tensors[*i].name))
        .collect();
    b.create_vector(&all)
}

fn operator(
    b: &mut FlatBufferBuilder<'_>,
    graph: &Graph,
    op: Op,
    attribute: &Attribute,
    inputs: &[usize],
    outputs: &[usize],
) -> Table {
    let attribute: WIPOffset<UnionWIPOffset> = self::attribute(b, attribute).as_union_value();
    let (inputs, outputs) = (names(b, graph, inputs), names(b, graph, outputs));
    let table = b.start_table();
    b.push_slot_always(slot(0), op as u32);
    b.push_slot_always(slot(1), op as u8);
    b.push_slot_always(slot(2), attribute);
    b.push_slot_always(slot(3), inputs);
    b.push_slot_always(slot(4), outputs);
    b.end_table(table)
}

fn attribute(b: &mut FlatBufferBuilder<'_>, attribute: &Attribute) -> Table {
    match attribute {
        Attribute::Plain => {
            let table = b.start_table();
            b.end_table(table)
        }
        Attribute::Conv {
            pad,
            stride,
            dilation,
            accumulator,
        } => {
            let (pad, stride, dilation) = (b.create_vector(pad), b.create_vector(stride), b.create_vector(dilation));
            let table = b.start_table();
            b.push_slot_always(slot(0), pad);
            b.push_slot_always(slot(1), stride);
            b.push_slot_always(slot(2), dilation);
            b.push_slot_always(slot(3), false);
            b.push_slot_always(slot(4), *accumulator as u32);
            b.end_table(table)
        }
        Attribute::TransposeConv {
            out_pad,
            stride,
            accumulator,
        } => {
            let (pad, stride) = (b.create_vector(out_pad), b.create_vector(stride));
            let table = b.start_table();
            b.push_slot_always(slot(0), pad);
            b.push_slot_always(slot(1), stride);
            b.push_slot_always(slot(2), false);
            b.push_slot_always(slot(3), *accumulator as u32);
            b.end_table(table)
        }
        Attribute::AvgPool {
            kernel,
            stride,
            pad,
            accumulator,
        } => pool(b, *kernel, *stride, *pad, *accumulator as u32),
        Attribute::MaxPool { kernel, stride, pad } => pool(b, *kernel, *stride, *pad, NAN_PROPAGATES),
        Attribute::Clamp { low, high } => {
            let (low, high) = (b.create_vector(low), b.create_vector(high));
            let table = b.start_table();
            b.push_slot_always(slot(0), low);
            b.push_slot_always(slot(1), high);
            b.push_slot_always(slot(2), NAN_PROPAGATES);
            b.end_table(table)
        }
        Attribute::Axis(axis) => {
            let table = b.start_table();
            b.push_slot_always(slot(0), *axis);
            b.end_table(table)
        }
        Attribute::AxisNan(axis) => {
            let table = b.start_table();
            b.push_slot_always(slot(0), *axis);
            b.push_slot_always(slot(1), NAN_PROPAGATES);
            b.end_table(table)
        }
        Attribute::Nan => {
            let table = b.start_table();
            b.push_slot_always(slot(0), NAN_PROPAGATES);
            b.end_table(table)
        }
        Attribute::Transpose(order) => {
            let order = b.create_vector(order);
            let table = b.start_table();
            b.push_slot_always(slot(0), order);
            b.end_table(table)
        }
        Attribute::Rescale {
            scale32,
            rounding,
            per_channel,
        } => {
            let table = b.start_table();
            b.push_slot_always(slot(0), *scale32);
            b.push_slot_always(slot(1), *rounding as u32);
            b.push_slot_always(slot(2), *per_channel);
            b.push_slot_always(slot(3), false);
            b.push_slot_always(slot(4), false);
            b.end_table(table)
        }
        Attribute::Rounded => {
            let table = b.start_table();
            b.push_slot_always(slot(0), true);
            b.end_table(table)
        }
        Attribute::Resize { bilinear } => {
            let table = b.start_table();
            b.push_slot_always(slot(0), 1 + u32::from(*bilinear));
            b.end_table(table)
        }
    }
}

fn pool(b: &mut FlatBufferBuilder<'_>, kernel: [i32; 2], stride: [i32; 2], pad: [i32; 4], last: u32) -> Table {
    let (kernel, stride, pad) = (
        b.create_vector(&kernel),
        b.create_vector(&stride),
        b.create_vector(&pad),
    );
    let table = b.start_table();
    b.push_slot_always(slot(0), kernel);
    b.push_slot_always(slot(1), stride);
    b.push_slot_always(slot(2), pad);
    b.push_slot_always(slot(3), last);
    b.end_table(table)
}

fn tensor(b: &mut FlatBufferBuilder<'_>, tensor: &Tensor) -> Table {
    let name = b.create_string(&tensor.name);
    let shape = b.create_vector(&tensor.shape);
    let data = tensor.data.as_ref().map(|data| b.create_vector(data));
    let table = b.start_table();
    b.push_slot_always(slot(0), name);
    b.push_slot_always(slot(1), shape);
    b.push_slot_always(slot(2), tensor.dtype as u32);
    if let Some(data) = data {
        b.push_slot_always(slot(3), data);
    }
    b.end_table(table)
}

fn shape(b: &mut FlatBufferBuilder<'_>, tensor: &Tensor) -> Table {
    let name = b.create_string(&tensor.name);
    let data = b.create_vector(tensor.data.as_deref().unwrap_or_default());
    let rank = tensor.shape.first().copied().unwrap_or(0) as u32;
    let table = b.start_table();
    b.push_slot_always(slot(0), name);
    b.push_slot_always(slot(1), rank);
    b.push_slot_always(slot(2), data);
    b.end_table(table)
}

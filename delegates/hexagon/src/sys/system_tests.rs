//! Descriptions of context binaries, made by hand: each version, and what cannot be.

use super::layout::{self as c, BinaryInfo, BinaryInfoV1, BinaryInfoV3};
use super::system::read_info;
use super::tensor::OwnedTensor;
use super::*;
use crate::graph::{DataType, Quantization, ScaleOffset, Tensor, TensorKind};
use delegraph_sdk::Status;
use std::ptr::null;

/// A description in memory as the library lays it out: the version, 8 bytes on the body.
#[repr(C, align(8))]
struct Described<T> {
    version: u32,
    body: T,
}

impl<T> Described<T> {
    fn read(&self) -> Result<Metadata, delegraph_sdk::Error> {
        // SAFETY: the body is of the struct that the version says, and all that it points to is alive; those with an unknown version are not read.
        unsafe { read_info((&raw const *self).cast::<BinaryInfo>(), 1000) }
    }
}

const VERSION: c::Version = c::Version {
    major: 2,
    minor: 40,
    patch: 1,
};

fn tensor(name: &str, quantization: Quantization) -> Tensor {
    Tensor {
        name: name.to_string(),
        kind: TensorKind::Input,
        data_type: DataType::UFixed8,
        dims: vec![1, 4],
        quantization,
    }
}

fn graph(inputs: &[c::Tensor], outputs: &[c::Tensor]) -> c::GraphInfo {
    c::GraphInfo {
        version: 3,
        name: c"g".as_ptr(),
        input_count: inputs.len() as u32,
        inputs: inputs.as_ptr(),
        output_count: outputs.len() as u32,
        outputs: outputs.as_ptr(),
        // Never read, so that they may be anything.
        updateable_count: 1 << 31,
        updateables: null(),
        blob_size: 0,
        blob: null(),
        start_op: 0,
        end_op: 0,
    }
}

fn version_3(graphs: &[c::GraphInfo]) -> Described<BinaryInfoV3> {
    Described {
        version: 3,
        body: BinaryInfoV3 {
            backend: 6,
            build: c"v2.51".as_ptr(),
            core: VERSION,
            backend_version: VERSION,
            soc_version: null(),
            blob_version: VERSION,
            blob_size: 77,
            tensor_count: 0,
            tensors: null(),
            graph_count: graphs.len() as u32,
            graphs: graphs.as_ptr(),
            platform: null(),
            metadata_size: 0,
            metadata: null(),
            soc: 57,
        },
    }
}

fn version_1(version: u32, graphs: &[c::GraphInfo], tensors: &[c::Tensor]) -> Described<BinaryInfoV1> {
    Described {
        version,
        body: BinaryInfoV1 {
            backend: 6,
            build: c"v2.20".as_ptr(),
            core: VERSION,
            backend_version: VERSION,
            soc_version: c"57".as_ptr(),
            hardware_version: VERSION,
            blob_version: VERSION,
            hardware_size: 0,
            hardware: null(),
            blob_size: 78,
            tensor_count: tensors.len() as u32,
            tensors: tensors.as_ptr(),
            graph_count: graphs.len() as u32,
            graphs: graphs.as_ptr(),
        },
    }
}

#[test]
fn each_quantization_is_read_as_it_was_meant() {
    let pairs = |count: i32| -> Vec<ScaleOffset> {
        let pair = |at: i32| ScaleOffset {
            scale: at as f32 + 0.5,
            offset: -at,
        };
        (0..count).map(pair).collect()
    };
    let all = [
        Quantization::None,
        Quantization::PerTensor(pairs(2)[1]),
        Quantization::PerAxis {
            axis: 1,
            pairs: pairs(4),
        },
        Quantization::Narrow {
            bits: 4,
            pair: pairs(2)[1],
        },
        Quantization::NarrowPerAxis {
            bits: 4,
            axis: 1,
            pairs: pairs(4),
        },
    ];
    let tensors: Vec<Tensor> = all.iter().map(|q| tensor("t", q.clone())).collect();
    let owned: Vec<OwnedTensor<'_>> = tensors.iter().map(|t| OwnedTensor::of(t).unwrap()).collect();
    let mut raw: Vec<c::Tensor> = owned.iter().map(|owned| owned.raw).collect();
    raw.iter_mut()
        .enumerate()
        .for_each(|(at, raw)| raw.body.id = at as u32 + 10);
    // Version 2 of a tensor begins as version 1.
    raw[1].version = 2;
    let graphs = [graph(&raw, &raw[..1])];
    let metadata = version_3(&graphs).read().unwrap();
    assert_eq!(
        (metadata.version, metadata.backend, metadata.soc, metadata.blob_size),
        (3, 6, Some(57), 77)
    );
    assert_eq!(
        (metadata.build_id.as_str(), metadata.soc_version.as_str()),
        ("v2.51", "")
    );
    assert_eq!(metadata.core_version.to_string(), "2.40.1");
    let read = &metadata.graphs[0];
    assert_eq!((read.name.as_str(), read.inputs.len(), read.outputs.len()), ("g", 5, 1));
    for (at, (info, meant)) in read.inputs.iter().zip(&tensors).enumerate() {
        let want = TensorInfo::of(meant, at as u32 + 10);
        assert_eq!(*info, want);
    }
    // Null offsets are zeros.
    raw[4].body.quantize.value.bw_axis = c::BwAxisScaleOffset {
        offsets: null(),
        // SAFETY: the encoding says that it is there.
        ..unsafe { raw[4].body.quantize.value.bw_axis }
    };
    let metadata = version_3(&[graph(&raw[4..], &[])]).read().unwrap();
    let Quantization::NarrowPerAxis { pairs, .. } = &metadata.graphs[0].inputs[0].quantization else {
        panic!("{metadata:?}")
    };
    assert!(pairs.iter().all(|pair| pair.offset == 0));
}

#[test]
fn older_versions_are_read() {
    let meant = tensor("t", Quantization::None);
    let owned = OwnedTensor::of(&meant).unwrap();
    for version in [1, 2] {
        let mut old = graph(&[owned.raw], &[]);
        old.version = 1;
        let metadata = version_1(version, &[old], &[owned.raw]).read().unwrap();
        assert_eq!(
            (metadata.version, metadata.soc, metadata.blob_size),
            (version, None, 78)
        );
        assert_eq!(
            (metadata.build_id.as_str(), metadata.soc_version.as_str()),
            ("v2.20", "57")
        );
        assert_eq!((metadata.graphs.len(), metadata.tensors.len()), (1, 1));
    }
}

#[test]
fn what_is_newer_is_refused_with_its_number() {
    let refused = |described: Result<Metadata, delegraph_sdk::Error>, text: &str| {
        let error = described.unwrap_err();
        assert_eq!(error.code, Status::BLOB_INCOMPATIBLE);
        assert!(error.message.contains(text), "{error}");
    };
    let mut newer = version_3(&[]);
    newer.version = 4;
    refused(newer.read(), "unknown version 4");
    let mut of_graph = graph(&[], &[]);
    of_graph.version = 9;
    refused(
        version_3(&[of_graph]).read(),
        "graph `g` is described in the unknown version 9",
    );
    let meant = tensor("t", Quantization::PerTensor(ScaleOffset { scale: 1.0, offset: 0 }));
    let owned = OwnedTensor::of(&meant).unwrap();
    let mut raw = owned.raw;
    raw.version = 3;
    refused(version_3(&[graph(&[raw], &[])]).read(), "unknown version 3");
    let mut raw = owned.raw;
    raw.body.data_type = 0x0999;
    refused(
        version_3(&[graph(&[raw], &[])]).read(),
        "`t` has the unknown element type 0x0999",
    );
    let mut raw = owned.raw;
    raw.body.quantize.encoding = 7;
    refused(
        version_3(&[graph(&[raw], &[])]).read(),
        "`t` has a quantization of the unknown encoding 7",
    );
}

#[test]
fn counts_that_cannot_be_are_refused() {
    let corrupt = |described: Result<Metadata, delegraph_sdk::Error>, text: &str| {
        let error = described.unwrap_err();
        assert_eq!(error.code, Status::BLOB_CORRUPT);
        assert!(error.message.contains(text), "{error}");
    };
    let mut many = version_3(&[]);
    many.body.graph_count = u32::MAX;
    corrupt(many.read(), "4294967295 graphs");
    many.body.graph_count = 1;
    many.body.graphs = null();
    corrupt(many.read(), "1 graphs");
    let mut of_graph = graph(&[], &[]);
    of_graph.input_count = 1001;
    corrupt(
        version_3(&[of_graph]).read(),
        "`g` has 1001 tensors, of which there can be 1000",
    );
    let mut of_graph = graph(&[], &[]);
    (of_graph.output_count, of_graph.outputs) = (1, null());
    corrupt(version_3(&[of_graph]).read(), "`g` has 1 tensors");
    let meant = tensor("t", Quantization::None);
    let owned = OwnedTensor::of(&meant).unwrap();
    let mut raw = owned.raw;
    raw.body.rank = 65;
    corrupt(version_3(&[graph(&[raw], &[])]).read(), "`t` has 65 dimensions");
    let mut raw = owned.raw;
    raw.body.dims = null();
    corrupt(version_3(&[graph(&[raw], &[])]).read(), "`t` has 2 dimensions");
}

#[test]
fn sizes_that_no_memory_has_are_none() {
    let mut info = TensorInfo::of(&tensor("t", Quantization::None), 1);
    assert_eq!(info.bytes(), Some(4));
    info.dims = vec![u32::MAX; 3];
    assert_eq!(info.bytes(), None);
}

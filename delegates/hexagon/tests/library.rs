//! Qualcomm's library itself, in its emulation on this machine: what is computed is compared with integer arithmetic written out here.

mod common;

use common::*;
use half::f16;

#[test]
fn bytes_are_added_as_integers_say() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    let graph = add();
    qnn.validate(&graph, &graph.nodes[0]).unwrap();
    let a: Vec<u8> = (0..=255).collect();
    let b: Vec<u8> = (0..=255u8).map(|n| n.wrapping_mul(7)).collect();
    let y = &run(&qnn, &graph, &[&a, &b])[0];
    for at in 0..256 {
        let real = f64::from(a[at]) * 0.5 + (f64::from(b[at]) - 8.0) * 0.25;
        let want = (real / 0.75).round().clamp(0.0, 255.0) as u8;
        assert_eq!(y[at], want, "element {at}");
    }
}

#[test]
fn halves_are_multiplied() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    let graph = multiply();
    let numbers = |seed: usize| -> Vec<f16> {
        (0..64)
            .map(|n| f16::from_f32(((n * seed % 29) as f32 - 14.0) / 8.0))
            .collect()
    };
    let (a, b) = (numbers(5), numbers(11));
    let bytes = |list: &[f16]| -> Vec<u8> { list.iter().flat_map(|n| n.to_le_bytes()).collect() };
    let y = &run(&qnn, &graph, &[&bytes(&a), &bytes(&b)])[0];
    for at in 0..64 {
        let got = f16::from_le_bytes([y[2 * at], y[2 * at + 1]]).to_f32();
        let want = a[at].to_f32() * b[at].to_f32();
        assert!(
            (got - want).abs() <= want.abs() / 512.0,
            "element {at}: {got}, not {want}"
        );
    }
}

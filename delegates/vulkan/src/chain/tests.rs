use super::*;

#[test]
fn wgsl_has_the_same_numbers() {
    let text = include_str!("../shaders/include/ops.wgsl");
    let constants: Vec<(&str, u32)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("const ")?.split_once(": u32 = "))
        .map(|(name, rest)| (name, rest.split_once("u;").unwrap().0.parse().unwrap()))
        .collect();
    assert_eq!(constants, OPS);
}

#[test]
fn finish_does_what_it_says() {
    let text = include_str!("../shaders/include/finish.wgsl");
    let cases: Vec<&str> = text
        .split_once("fn finish_link")
        .unwrap()
        .1
        .lines()
        .filter_map(|line| line.trim().strip_prefix("case ")?.split_once(':'))
        .flat_map(|(names, _)| names.split(", "))
        .collect();
    let of = |name: &str| OPS.iter().find(|(other, _)| *other == name).unwrap().1;
    for (name, number) in OPS {
        // An operation that is listed there is one that finishes, and the other way about.
        let finishes = FINISHING.iter().any(|op| *op as u32 == *number);
        assert_eq!(cases.contains(name), finishes, "{name}");
    }
    assert_eq!(cases.len(), FINISHING.len());
    assert_eq!(of("OP_ADD"), Op::Add as u32);
}

fn tensor(dims: &[u32], layout: Layout) -> Tensor {
    Tensor {
        storage: 0,
        offset: 0,
        dtype: DType::F32,
        dims: dims.to_vec(),
        layout,
    }
}

fn places(out: &Tensor, tensors: &[Tensor]) -> (Vec<(u32, [u32; MAX_TENSORS])>, u32) {
    let strides: Vec<Vec<u32>> = tensors.iter().map(|t| broadcast(t, &out.dims).unwrap()).collect();
    let places = Places::new(out, &strides);
    (places.dims, places.limit)
}

#[test]
fn dimensions_are_merged() {
    let row = |dims: &[u32]| tensor(dims, Layout::RowMajor);
    let out = row(&[2, 3, 5]);
    assert_eq!(
        places(&out, &[row(&[2, 3, 5]), row(&[1, 1])]),
        (vec![(30, [1, 0, 0, 0])], u32::MAX)
    );
    assert_eq!(
        places(&out, &[row(&[3, 1])]).0,
        vec![(2, [0; 4]), (3, [1, 0, 0, 0]), (5, [0; 4])]
    );
    assert_eq!(places(&out, &[row(&[3, 5])]).0, vec![(2, [0; 4]), (15, [1, 0, 0, 0])]);
    assert_eq!(places(&row(&[]), &[row(&[])]).0, vec![(1, [0; 4])]);
    assert!(broadcast(&row(&[2]), &[3]).is_err());
}

#[test]
fn channels_last_keeps_its_padding() {
    let whole = tensor(&[2, 3, 4, 5], Layout::Nhwc4);
    let row = |dims: &[u32]| tensor(dims, Layout::RowMajor);
    // As it lies; what lies otherwise is read by its strides.
    assert_eq!(
        places(&whole, std::slice::from_ref(&whole)),
        (vec![(40, [4, 0, 0, 0]), (4, [1, 0, 0, 0])], 3)
    );
    let (dims, limit) = places(&whole, &[row(&[2, 3, 4, 5]), row(&[3, 1, 1])]);
    assert_eq!(
        (dims, limit),
        (vec![(2, [60, 0, 0, 0]), (20, [1, 0, 0, 0]), (4, [20, 1, 0, 0])], 3)
    );
    // Without padding all is one dimension.
    let whole = tensor(&[2, 8, 4, 5], Layout::Nhwc4);
    assert_eq!(
        places(&whole, std::slice::from_ref(&whole)),
        (vec![(320, [1, 0, 0, 0])], u32::MAX)
    );
}

#[test]
fn a_chain_continues_what_it_reads() {
    let value = |i| Operand::Value(ValueIndex(i));
    let chain = |links: &[Link]| Chain {
        dtype: DType::F32,
        links: links.to_vec(),
    };
    let minus = |y| Link::two(Op::Add, y, Operand::Number(Scalar::Int(-1)));
    let difference = chain(&[Link::of(Op::Load, value(0)), minus(value(1))]);
    assert_eq!(difference.continues(ValueIndex(0)), Some(vec![minus(value(1))]));
    assert_eq!(
        difference.continues(ValueIndex(1)),
        Some(vec![Link::of(Op::Rsub, value(0))])
    );
    assert_eq!(difference.continues(ValueIndex(2)), None);
    let square = chain(&[Link::of(Op::Load, value(0)), Link::of(Op::Mul, value(0))]);
    assert_eq!(square.continues(ValueIndex(0)), None);
    let choice = chain(&[Link::of(Op::Load, value(0)), Link::two(Op::Select, value(1), value(2))]);
    assert_eq!(
        choice.continues(ValueIndex(1)),
        Some(vec![Link::two(Op::Keep, value(2), value(0))])
    );
    assert_eq!(
        choice.continues(ValueIndex(2)),
        Some(vec![Link::two(Op::Fill, value(1), value(0))])
    );
    let less = chain(&[Link::of(Op::Load, value(0)), Link::of(Op::Lt, value(1))]);
    assert_eq!(less.continues(ValueIndex(1)), Some(vec![Link::of(Op::Gt, value(0))]));
}

#[test]
fn words_of_links() {
    let links = [
        Link::of(Op::Load, Operand::Value(ValueIndex(7))),
        Link::of(Op::Mul, Operand::Number(Scalar::Float(2.0))),
    ];
    let slot = |_, _| Ok((3, DType::F16));
    let float = words(Class::Float, &links, slot).unwrap();
    assert_eq!(float, [3 << 8 | 1 << 16, 0, 0, 0, 0, 3, 2f32.to_bits(), 0, 0, 0]);
    let long = words(
        Class::Long,
        &[Link::of(Op::Add, Operand::Number(Scalar::Int(-2)))],
        slot,
    )
    .unwrap();
    assert_eq!(long, [1, 0xffff_fffe, 0xffff_ffff, 1, 0]);
}

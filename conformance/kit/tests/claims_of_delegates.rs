//! The manifests of our delegates claim what their predicates take, and nothing else.

#[path = "../examples/claims.rs"]
mod written;

use delegraph_host::{Claims, Manifest};
use delegraph_kit::support::{propose, table};
use delegraph_lower::Operators;
use std::collections::BTreeSet;
use written::{CLAIMANTS, Claimant};

fn read(claimant: &Claimant) -> (String, Manifest) {
    let path = written::in_repository(claimant.manifest);
    let text = std::fs::read_to_string(path).unwrap();
    let manifest = Manifest::parse(&text).unwrap();
    (text, manifest)
}

#[test]
fn the_manifests_are_what_would_be_written_today() {
    for claimant in CLAIMANTS {
        let (text, _) = read(claimant);
        let (today, proposal) = claimant.written().unwrap();
        assert!(
            text == today,
            "{}: run `cargo run -p delegraph-kit --example claims`",
            claimant.manifest
        );
        let is_known = |line: &String| claimant.left.iter().any(|op| line.starts_with(&format!("`{op}`")));
        let left: Vec<&String> = proposal.left.iter().filter(|line| !is_known(line)).collect();
        assert!(
            !claimant.whole || left.is_empty(),
            "{}: taken, and not claimed: {left:?}",
            claimant.manifest
        );
    }
}

#[test]
fn whatever_is_claimed_is_taken_and_every_operator_that_was_asked_about_is_claimed() {
    for (claimant, least) in CLAIMANTS.iter().zip([280, 200, 60, 20]) {
        let (_, manifest) = read(claimant);
        assert_eq!(manifest.claims.problems(&Operators), [""; 0]);
        let asked = claimant.asked(&manifest.claims).unwrap();
        for one in &asked {
            assert!(
                !one.is_broken_promise(),
                "{}: {} is claimed and refused: {:?}",
                claimant.manifest,
                one.question.name(),
                one.taken
            );
        }
        let taken: BTreeSet<&str> = asked
            .iter()
            .filter(|one| one.taken.is_ok())
            .map(|one| &*one.question.op)
            .collect();
        let claimed: BTreeSet<&str> = asked
            .iter()
            .filter(|one| one.claimed.is_ok())
            .map(|one| &*one.question.op)
            .collect();
        let without: Vec<&&str> = taken.difference(&claimed).collect();
        assert!(
            !claimant.whole || without.is_empty(),
            "{}: taken and not claimed: {without:?}",
            claimant.manifest
        );
        assert!(
            claimed.len() >= least,
            "{}: {} are claimed",
            claimant.manifest,
            claimed.len()
        );
        let total = table(&asked).total();
        assert!(total.asked > 15_000, "{total:?}");
        assert!(
            !claimant.whole || total.claimed * 10 > total.taken * 9,
            "{}: {total:?}",
            claimant.manifest
        );
    }
}

#[test]
fn a_delegate_of_one_operator_gets_the_claim_that_its_author_would_write() {
    // `add` of f32 tensors of one shape and rank, neither of them a constant, with `alpha = 1`: the example of `first-delegate.md`.
    let mut asked = CLAIMANTS[0].asked(&Claims::default()).unwrap();
    asked.retain(|one| one.question.op == "aten::add.Tensor");
    for one in &mut asked {
        let view = delegraph_sdk::image::verify(&one.question.image).unwrap();
        let node = view.node(delegraph_sdk::image::NodeIndex(0));
        let result = view.value(node.outputs().get(0).unwrap());
        let fits = |i: usize| {
            node.arg(i).value().is_some_and(|value| {
                let value = view.value(value);
                value.dtype() == Some(delegraph_sdk::DType::F32)
                    && value.weight().is_none()
                    && value.dims().iter().eq(result.dims().iter())
            })
        };
        let takes = fits(0) && fits(1) && node.arg(2).float() == Some(1.0);
        one.taken = if takes { Ok(()) } else { Err("no".to_string()) };
    }
    let taken = asked.iter().filter(|one| one.taken.is_ok()).count();
    assert!(taken > 3 && taken < asked.len(), "{taken} of {}", asked.len());
    let proposal = propose(&asked);
    let text = proposal.claims.to_string();
    let [claim] = proposal.claims.entries.as_slice() else {
        panic!("{text}")
    };
    assert!(text.contains("dtypes = [\"f32\"]") && claim.equal_shapes, "{text}");
    // The proposal, and what the templates' manifests have for it, cover what is taken and nothing else.
    for (name, claims) in std::iter::once(("proposal".to_string(), proposal.claims)).chain(of_templates()) {
        for one in &asked {
            let question = &one.question;
            assert!(
                one.taken.is_ok() || !question.is_claimed(&claims),
                "{name}: {} is claimed and refused",
                question.name()
            );
        }
        let claimed = asked.iter().filter(|one| one.question.is_claimed(&claims)).count();
        assert!(
            claimed > 0 && (name == "proposal" || claimed == taken),
            "{name}: {claimed} of {taken}"
        );
    }
}

/// The claim that stands as a comment at the end of each template's manifest.
fn of_templates() -> Vec<(String, Claims)> {
    let of = |language: &&str| {
        let path = written::in_repository(&format!("delegate-sdk/templates/{language}/my-npu.delegate.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(Manifest::parse(&text).unwrap().claims.is_empty(), "{language}");
        let (before, claim) = text.split_once("# [[op]]").unwrap();
        let manifest = Manifest::parse(&format!("{before}[[op]]{}", claim.replace("\n# ", "\n"))).unwrap();
        (language.to_string(), manifest.claims)
    };
    ["c", "cpp", "rust"].iter().map(of).collect()
}

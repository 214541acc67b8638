//! A blob that is kept beyond the load, under hosts that can keep it and hosts that cannot.

mod common;

use common::run::{Tensors, load_blob};
use common::{Call, Minor, Owner, start, table};
use delegraph_abi::{Status, c};
use delegraph_sdk::{
    Blob, Context, Delegate, Device, Error, Info, KeptBlob, Options, Run, Session, TensorOut, TensorView, roles,
    static_entry_as,
};
use std::sync::atomic::Ordering;

/// Gives the two numbers of a section, which it keeps if it can.
struct Keeper {
    fails: bool,
}

impl Delegate for Keeper {
    const INFO: Info = Info {
        name: "keeper",
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: "keeper",
        format_version: 1,
    };

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Keeper, Error> {
        let fails = options.find("mode") == Some(delegraph_sdk::OptionValue::Str("fails"));
        Ok(Keeper { fails })
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

impl Run for Keeper {
    fn load(
        &self,
        blob: &Blob<'_>,
        _: &delegraph_sdk::Weights<'_>,
        _: &Context<'_>,
    ) -> Result<Box<dyn Session>, Error> {
        let kept = blob.keep();
        if let Err(error) = &kept {
            assert_eq!(error.code, Status::UNSUPPORTED);
        }
        match self.fails {
            true => Err(Error::corrupt("what was kept is given back")),
            false => Ok(Box::new(KeeperSession {
                copied: blob.section("numbers")?.to_vec(),
                kept: kept.ok(),
            })),
        }
    }
}

struct KeeperSession {
    copied: Vec<u8>,
    kept: Option<KeptBlob>,
}

impl Session for KeeperSession {
    fn execute(&mut self, _: &[TensorView<'_>], outputs: &mut [TensorOut<'_>], _: &Context<'_>) -> Result<(), Error> {
        let numbers = match &self.kept {
            Some(kept) => kept.section("numbers")?,
            None => &self.copied,
        };
        outputs[0].bytes[..8].copy_from_slice(numbers);
        outputs[0].set_sizes(&[2])
    }
}

#[test]
fn a_blob_is_kept_where_the_host_can_and_copied_where_not() {
    #[rustfmt::skip]
    let cases = [
        ("a host of 0.0", Minor::Zero, Some(false), false),
        ("a host of 1.0", Minor::First, Some(false), false),
        ("this version, and a blob without an owner", Minor::One, None, false),
        ("this version, which does not keep this one", Minor::One, Some(true), false),
        ("this version", Minor::One, Some(false), true),
        ("a later version", Minor::Later, Some(false), true),
    ];
    for (what, minor, owner, is_kept) in cases {
        for mode in ["", "fails"] {
            let api = table(static_entry_as::<Keeper, roles::Run>(), minor);
            let call = Call::new(minor);
            let delegate = start(api, &call, mode).unwrap();
            let numbers = [3.5f32, -1.0].map(f32::to_ne_bytes).concat();
            let section = c::Section {
                name: "numbers".as_ptr(),
                name_size: 7,
                data: numbers.as_ptr(),
                size: 8,
                ..c::Section::new()
            };
            let sections = [&raw const section];
            let holder = owner.map(|refuses| Owner {
                refuses,
                ..Owner::default()
            });
            let blob = c::Blob {
                sections: sections.as_ptr(),
                section_count: 1,
                owner: holder.as_ref().map_or(std::ptr::null_mut(), Owner::as_ptr),
                ..c::Blob::new()
            };
            let session = load_blob(api, delegate, &call, blob, minor);
            let retained = || holder.as_ref().map_or(0, |owner| owner.retained.load(Ordering::SeqCst));
            let asked = holder.as_ref().map_or(0, |owner| owner.asked.load(Ordering::SeqCst));
            assert_eq!(asked, i64::from(is_kept || owner == Some(true)), "{what}");
            match session {
                Err(status) => {
                    assert_eq!((mode, status, retained()), ("fails", Status::BLOB_CORRUPT, 0), "{what}");
                }
                Ok(session) => {
                    assert_eq!((mode, retained()), ("", i64::from(is_kept)), "{what}");
                    let mut tensors = Tensors::new(minor);
                    assert_eq!(tensors.execute(api, session, &call), Status::OK, "{what}");
                    assert_eq!(tensors.result(), (2, &[3.5, -1.0][..]), "{what}");
                    // SAFETY: the session is live, and not used again.
                    unsafe { api.session_unload.unwrap()(session, call.as_ptr()) }
                    assert_eq!(retained(), 0, "{what}: given back once");
                }
            }
            // SAFETY: as above.
            unsafe { api.shutdown.unwrap()(delegate, call.as_ptr()) }
        }
    }
}

//! Which roles a table has, as types: `static_entry_as::<MyDelegate, (roles::Compile, roles::Submit)>()`.

#[cfg(unix)]
use super::external;
use super::{compile, import, run, state, submit};
use crate::Delegate;
use delegraph_abi::c;

mod sealed {
    /// A role's functions are trusted, so that nobody else may say what they are.
    pub trait Sealed {}
}

/// A set of roles that the delegate `D` can have: one of the types below, or up to seven of them in a tuple.
pub trait Role<D: Delegate>: sealed::Sealed {
    /// Its functions and features, and nothing else.
    #[doc(hidden)]
    const API: c::DelegateApi;
}

/// It partitions and compiles.
pub enum Compile {}
/// As [`Compile`], and it compiles several graphs together ([`crate::Compile::compile_set`]).
pub enum CompileSet {}
/// It loads blobs and runs them.
pub enum Run {}
/// As [`Run`], and sessions take runs that end later ([`crate::Session::submit`]).
pub enum Submit {}
/// As [`Run`], and it uses the host's memory in place.
pub enum Import {}
/// As [`Import`], and it takes and gives memory by handle ([`crate::External`]). Name it in place of [`Import`], or after it.
#[cfg(unix)]
pub enum External {}
/// As [`Run`], and sessions keep states ([`crate::Session::state_commit`] and those below it).
pub enum State {}

impl sealed::Sealed for Compile {}
impl<D: crate::Compile> Role<D> for Compile {
    const API: c::DelegateApi = c::DelegateApi {
        features: [c::Feature::COMPILE.0, 0],
        partition: Some(compile::partition::<D>),
        compile: Some(compile::compile::<D>),
        ..c::DelegateApi::new()
    };
}

impl sealed::Sealed for CompileSet {}
impl<D: crate::Compile> Role<D> for CompileSet {
    const API: c::DelegateApi = c::DelegateApi {
        features: [c::Feature::COMPILE.0 | c::Feature::COMPILE_SET.0, 0],
        compile_set: Some(compile::compile_set::<D>),
        ..<Compile as Role<D>>::API
    };
}

impl sealed::Sealed for Run {}
impl<D: crate::Run> Role<D> for Run {
    const API: c::DelegateApi = c::DelegateApi {
        features: [c::Feature::RUN.0, 0],
        blob_check: Some(run::blob_check::<D>),
        session_load: Some(run::session_load::<D>),
        session_unload: Some(run::session_unload),
        session_execute: Some(run::session_execute),
        ..c::DelegateApi::new()
    };
}

impl sealed::Sealed for Submit {}
impl<D: crate::Run> Role<D> for Submit {
    const API: c::DelegateApi = c::DelegateApi {
        features: [c::Feature::RUN.0 | c::Feature::ASYNC.0, 0],
        session_submit: Some(submit::session_submit),
        ..<Run as Role<D>>::API
    };
}

impl sealed::Sealed for Import {}
impl<D: crate::Import> Role<D> for Import {
    const API: c::DelegateApi = c::DelegateApi {
        features: [c::Feature::RUN.0 | c::Feature::IMPORT.0, 0],
        buffer_import: Some(import::buffer_import::<D>),
        buffer_release: Some(import::buffer_release),
        ..<Run as Role<D>>::API
    };
}

#[cfg(unix)]
impl sealed::Sealed for External {}
#[cfg(unix)]
impl<D: crate::External> Role<D> for External {
    const API: c::DelegateApi = c::DelegateApi {
        features: [c::Feature::RUN.0 | c::Feature::IMPORT.0 | c::Feature::EXTERNAL.0, 0],
        buffer_import: Some(external::buffer_import::<D>),
        buffer_handle_types: Some(external::buffer_handle_types::<D>),
        buffer_export: Some(external::buffer_export::<D>),
        buffer_map: Some(external::buffer_map),
        ..<Import as Role<D>>::API
    };
}

impl sealed::Sealed for State {}
impl<D: crate::Run> Role<D> for State {
    const API: c::DelegateApi = c::DelegateApi {
        features: [c::Feature::RUN.0 | c::Feature::STATE.0, 0],
        session_state_commit: Some(state::session_state_commit),
        session_state_reset: Some(state::session_state_reset),
        session_state_truncate: Some(state::session_state_truncate),
        session_state_snapshot: Some(state::session_state_snapshot),
        session_state_restore: Some(state::session_state_restore),
        ..<Run as Role<D>>::API
    };
}

macro_rules! tuple {
    ($($role:ident)*) => {
        impl<$($role: sealed::Sealed),*> sealed::Sealed for ($($role,)*) {}
        impl<D: Delegate, $($role: Role<D>),*> Role<D> for ($($role,)*) {
            const API: c::DelegateApi = {
                let api = c::DelegateApi::new();
                $(let api = merged(api, &$role::API);)*
                api
            };
        }
    };
}

tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C E);
tuple!(A B C E F);
tuple!(A B C E F G);
tuple!(A B C E F G H);

/// Both tables' functions and features.
pub(super) const fn merged(mut api: c::DelegateApi, role: &c::DelegateApi) -> c::DelegateApi {
    api.features = [api.features[0] | role.features[0], api.features[1] | role.features[1]];
    macro_rules! take {
        ($($function:ident)*) => {
            $(if role.$function.is_some() {
                api.$function = role.$function;
            })*
        };
    }
    take!(partition compile compile_set blob_check session_load session_unload session_execute);
    take!(buffer_import buffer_release session_submit);
    take!(buffer_handle_types buffer_export buffer_map);
    take!(session_state_commit session_state_reset session_state_truncate session_state_snapshot session_state_restore);
    api
}

//! A model: its bytes, its configuration, the delegates that may run it.

use crate::error::{Failure, text};
use delegraph::{Config, Source};
use delegraph_host::Host;
use std::ffi::CString;
use std::sync::Arc;

/// `delegraph_model`.
pub struct Model {
    pub(crate) source: Source,
    /// External constants.
    pub(crate) data: Option<Source>,
    pub(crate) config: Config,
    pub(crate) host: Arc<Host>,
    /// Names of the methods.
    pub(crate) methods: Vec<CString>,
}

impl Model {
    /// Reads what the file has, and finds delegates; loads none.
    pub(crate) fn new(source: Source, config: Config, data: Option<Source>) -> Result<Model, Failure> {
        delegraph::check_config(&config)?;
        let methods = delegraph::methods(&source)?;
        Ok(Model {
            host: Arc::new(delegraph::discover(&config, false)),
            methods: methods.iter().map(|name| text(name)).collect(),
            source,
            data,
            config,
        })
    }
}

/// The header promises that a model may be used by several threads at once, and a session by one after the other.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Model>();
    shared::<crate::Session>();
};

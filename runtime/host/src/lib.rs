//! The plugin host: finds manifests, loads delegates, shakes hands, calls them safely.

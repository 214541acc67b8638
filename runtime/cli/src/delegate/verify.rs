//! `delegraph delegate verify`

use super::sign::candidate_of;
use crate::args::{DelegateVerifyArgs, Global};
use crate::output::{Output, Tint};
use delegraph_host::trust::{CheckedLibrary, Ground, Policy, Trust, TrustOptions};

/// Says whether a delegate is trusted, by the keys that were given, or by the configuration's lock and keys.
///
/// # Errors
/// Wrong use, or a file that is no delegate.
pub fn run(args: &DelegateVerifyArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let mut options = TrustOptions {
        mode: Trust::Require,
        lock: None,
        keys: args.key.clone(),
    };
    if args.key.is_empty() {
        let config = crate::config::resolve(global, &[], &[])?;
        options.lock = config.delegates.lock;
        options.keys = config.delegates.keys;
    }
    if options.lock.is_none() && options.keys.is_empty() {
        return Err(crate::usage(
            "there is nothing to verify it by\n  hint: give a public key by `--key`, or a configuration with `delegates.trust`",
        ));
    }
    let candidate = candidate_of(&args.file)?;
    let bad = |reason: String| crate::bad_input(format!("`{}`: {reason}", args.file.display()));
    if candidate.manifest_path.is_some() && candidate.manifest.is_none() {
        return Err(bad(candidate.refusal.unwrap_or_default()));
    }
    let path = candidate.library.as_deref();
    let path = path.ok_or_else(|| bad(candidate.refusal.clone().unwrap_or_default()))?;
    let library = CheckedLibrary::open(path).map_err(bad)?;
    let manifest = candidate.manifest_path.as_deref().zip(candidate.manifest_sha256);
    let mut files = Vec::new();
    let mut say = |what: &str, path: &std::path::Path, sha256: delegraph_host::trust::Digest| {
        output.data(format!("{what:<10} {sha256}  {}", path.display()));
        files.push(serde_json::json!({ "what": what, "path": path, "sha256": sha256.to_string() }));
    };
    if let Some((path, sha256)) = manifest {
        say("manifest", path, sha256);
    }
    say("library", library.file().path(), library.file().sha256());
    for file in library.dependents() {
        say("dependent", file.path(), file.sha256());
    }
    let verdict = Policy::new(options).judge(&candidate.backend, manifest, &library);
    let (trusted, reason) = match verdict {
        Ok(Ground::Pin(lock)) => (true, format!("pinned by {}", lock.display())),
        Ok(Ground::Signature(key)) => (true, format!("signed by the key {}", key.display())),
        Err(reason) => (false, reason),
    };
    output.data(match trusted {
        true => format!("{}: {reason}", output.tint(Tint::Green, "trusted")),
        false => format!("{}: {reason}", output.tint(Tint::Red, "not trusted")),
    });
    let exit_code = u8::from(!trusted);
    output.json(&serde_json::json!({
        "schema": "delegraph.verify/1", "tool": crate::tool(), "backend": candidate.backend, "trusted": trusted,
        "reason": reason, "files": files, "exit_code": exit_code,
    }))?;
    Ok(exit_code)
}

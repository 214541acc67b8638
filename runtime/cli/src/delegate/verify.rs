//! `delegraph delegate verify`

use super::certificate::{self, Question};
use super::sign::candidate_of;
use crate::args::{DelegateVerifyArgs, Global};
use crate::output::{Output, Tint};
use delegraph_host::Candidate;
use delegraph_host::trust::{CheckedLibrary, Ground, HashList, Keys, Lock, Policy, Trust, TrustOptions};

/// Says whether a delegate is trusted, by the keys that were given, or by the configuration's lock and keys, and whether its
/// certificate of conformance holds, where it has one or the configuration asks for one.
///
/// # Errors
/// Wrong use, or a file that is no delegate or no certificate.
pub fn run(args: &DelegateVerifyArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let mut options = TrustOptions {
        mode: Trust::Require,
        keys: args.key.clone(),
        ..TrustOptions::default()
    };
    let mut only_certificate = args.certificate.is_some();
    if args.key.is_empty() {
        let config = crate::config::resolve(global, &[], &[])?;
        options.conformance = delegraph::demand(&config);
        only_certificate |= config.delegates.trust == Trust::Off && options.conformance.is_some();
        options.lock = config.delegates.lock;
        options.keys = config.delegates.keys;
    }
    let unsigned = options.conformance.as_ref().is_some_and(|demand| demand.unsigned);
    if options.lock.is_none() && options.keys.is_empty() && !unsigned {
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
    // Keys that cannot be read are told with the verdict below.
    let keys = Keys::read(&options.keys).unwrap_or_default();
    let question = Question {
        candidate: &candidate,
        library: &library,
        keys: &keys,
        demand: options.conformance.as_ref(),
        named: args.certificate.as_deref(),
    };
    let answer = certificate::verify(&question, output)?;
    let certified = answer.as_ref().map(|answer| answer.valid);
    let by_itself = stands_by_itself(&candidate, &options);
    let verdict = Policy::new(options).judge(&candidate.backend, manifest, &library);
    let (trusted, reason) = match verdict {
        Ok(Ground::Pin(lock)) => (true, format!("pinned by {}", lock.display())),
        Ok(Ground::Signature(key)) => (true, format!("signed by the key {}", key.display())),
        Err(reason) => (false, reason),
    };
    // Where only the certificate is asked about, it names the same files. What speaks of them beside it has to fit all the same.
    let enough = trusted || (only_certificate && answer.is_some() && !by_itself);
    output.data(match (trusted, enough) {
        (true, _) => format!("{}: {reason}", output.tint(Tint::Green, "trusted")),
        (false, true) => format!("neither pinned nor signed, which is not asked for: {reason}"),
        (false, false) => format!("{}: {reason}", output.tint(Tint::Red, "not trusted")),
    });
    match certified {
        None => {}
        Some(true) => output.data(output.tint(Tint::Green, "certified")),
        Some(false) => output.data(output.tint(Tint::Red, "not certified")),
    }
    let exit_code = u8::from(!enough || certified == Some(false));
    output.json(&serde_json::json!({
        "schema": "delegraph.verify/1", "tool": crate::tool(), "backend": candidate.backend, "trusted": trusted,
        "reason": reason, "files": files, "certificate": answer.map(|answer| answer.object), "exit_code": exit_code,
    }))?;
    Ok(exit_code)
}

/// Whether something beside the certificate speaks of the delegate: a pin of its name, or a signed list.
fn stands_by_itself(candidate: &Candidate, options: &TrustOptions) -> bool {
    let pinned = match options.lock.as_deref().map(Lock::read) {
        None | Some(Ok(None)) => false,
        Some(Ok(Some(lock))) => lock.pins(&candidate.backend).next().is_some(),
        // One that cannot be read could have said no.
        Some(Err(_)) => true,
    };
    let named = candidate.manifest_path.as_deref().or(candidate.library.as_deref());
    pinned || named.is_some_and(|named| HashList::signature_path(&HashList::path_for(named)).exists())
}

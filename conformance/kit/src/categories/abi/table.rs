//! The table, and the structs that a delegate owns.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{listed, open, start, warn};
use crate::driver::Library;
use delegraph_abi::c::{self, Feature};
use delegraph_abi::{layout_hash, newest_minor};

pub fn entry_again(trial: &mut Trial<'_>) -> Outcome {
    let first = open(trial)?;
    let again = open(trial)?;
    if first.table != again.table {
        return Err(Failure::fail("the entry gave another table the second time"));
    }
    let words = |library: &Library| (library.api.struct_size, library.api.features);
    match words(&first) == words(&again) {
        true => Ok(()),
        false => Err(Failure::fail(format!(
            "the table changed between two calls of the entry: size and features were {:?}, they are {:?}",
            words(&first),
            words(&again)
        ))),
    }
}

pub fn sane(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let (api, major) = (library.api, library.major);
    let size = api.struct_size as usize;
    if size > 1 << 16 || !size.is_multiple_of(align_of::<usize>()) {
        return Err(Failure::fail(format!("`struct_size` of the table is {size}")));
    }
    if api.major != major {
        return Err(Failure::fail(format!(
            "`major` of the table is {}, the entry is of major {major}",
            api.major
        )));
    }
    let least = library.least_table();
    if size < least {
        return Err(Failure::fail(format!(
            "`struct_size` of the table is {size}, that of version {major}.0 is {least}"
        )));
    }
    let known = [
        Feature::COMPILE,
        Feature::RUN,
        Feature::SERIALIZED,
        Feature::ASYNC,
        Feature::IMPORT,
        Feature::STATE,
        Feature::COMPILE_SET,
        Feature::EXTERNAL,
    ];
    let known = known.iter().fold(0, |all, feature| all | feature.0);
    let unknown = [api.features[0] & !known, api.features[1]];
    if newest_minor(major).is_some_and(|newest| api.minor <= newest) && unknown != [0, 0] {
        return Err(Failure::fail(format!(
            "`features` of the table has the bits {:#x} and {:#x}, which version {major}.{} does not have",
            unknown[0], unknown[1], api.minor
        )));
    }
    let has = |feature: Feature| api.features[0] & feature.0 != 0;
    if !has(Feature::COMPILE) && !has(Feature::RUN) {
        return Err(Failure::fail(
            "`features` of the table has neither DG_FEATURE_COMPILE nor DG_FEATURE_RUN",
        ));
    }
    for (feature, name) in [
        (Feature::ASYNC, "DG_FEATURE_ASYNC"),
        (Feature::IMPORT, "DG_FEATURE_IMPORT"),
        (Feature::STATE, "DG_FEATURE_STATE"),
        (Feature::EXTERNAL, "DG_FEATURE_EXTERNAL"),
    ] {
        if has(feature) && !has(Feature::RUN) {
            return Err(Failure::fail(format!(
                "`features` of the table has {name} without DG_FEATURE_RUN"
            )));
        }
    }
    if has(Feature::COMPILE_SET) && !has(Feature::COMPILE) {
        return Err(Failure::fail(
            "`features` of the table has DG_FEATURE_COMPILE_SET without DG_FEATURE_COMPILE",
        ));
    }
    if has(Feature::EXTERNAL) && !has(Feature::IMPORT) {
        return Err(Failure::fail(
            "`features` of the table has DG_FEATURE_EXTERNAL without DG_FEATURE_IMPORT",
        ));
    }
    Ok(())
}

pub fn mandatory(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let api = &library.api;
    let mut missing = Vec::new();
    let mut need = |there: bool, function: &'static str| {
        if !there {
            missing.push(function);
        }
    };
    macro_rules! need {
        ($($function:ident)*) => {
            $(need(api.$function.is_some(), stringify!($function));)*
        };
    }
    need!(get_info initialize shutdown device_enumerate);
    if library.has(Feature::COMPILE) {
        need!(partition compile);
    }
    if library.has(Feature::COMPILE_SET) {
        need!(compile_set);
    }
    if library.has(Feature::RUN) {
        need!(blob_check session_load session_unload session_execute);
    }
    if library.has(Feature::IMPORT) {
        need!(buffer_import buffer_release);
    }
    if library.has(Feature::EXTERNAL) {
        need!(buffer_import buffer_release buffer_handle_types buffer_export buffer_map);
    }
    if library.has(Feature::ASYNC) {
        need!(session_submit);
    }
    if library.has(Feature::STATE) {
        need!(session_state_commit session_state_reset session_state_truncate session_state_snapshot session_state_restore);
    }
    match missing.as_slice() {
        [] => Ok(()),
        some => Err(Failure::fail(format!(
            "the table (features {:#x}, {} bytes) lacks {}",
            api.features[0],
            api.struct_size,
            listed(some)
        ))),
    }
}

pub fn info(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let info = library.info()?;
    if library.info()? != info {
        return Err(Failure::fail("`get_info` said something else the second time"));
    }
    for (field, text) in [
        ("name", &info.name),
        ("vendor", &info.vendor),
        ("version", &info.version),
        ("opset", &info.opset),
        ("blob_format", &info.blob_format),
    ] {
        if text.is_empty() {
            return Err(Failure::fail(format!("`{field}` of `dg_delegate_info` is empty")));
        }
    }
    let numbers = info.version.split(['-', '+']).next().unwrap_or("").split('.');
    let semantic = numbers.clone().count() == 3
        && numbers
            .into_iter()
            .all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    if !semantic {
        return Err(Failure::fail(format!(
            "`version` of `dg_delegate_info` is `{}`, which is no semantic version",
            info.version
        )));
    }
    if info.abi_min_minor > info.abi_minor {
        return Err(Failure::fail(format!(
            "`dg_delegate_info` has `abi_min_minor` {} above `abi_minor` {}",
            info.abi_min_minor, info.abi_minor
        )));
    }
    if let Some(right) = layout_hash(library.major, info.abi_minor)
        && ![0, right].contains(&info.layout_hash)
    {
        return Err(Failure::fail(format!(
            "`layout_hash` of `dg_delegate_info` is {:016x}, that of version {}.{} is {right:016x}: was its header changed by hand?",
            info.layout_hash, library.major, info.abi_minor
        )));
    }
    if info.abi_minor != u32::from(library.api.minor) {
        return warn(&[format!(
            "`abi_minor` of `dg_delegate_info` is {}, `minor` of the table {}",
            info.abi_minor, library.api.minor
        )]);
    }
    Ok(())
}

pub fn info_is_manifest(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let info = library.info()?;
    let Some((path, manifest)) = &trial.subject.manifest else {
        return Err(Failure::skip("there is no manifest beside the library"));
    };
    for (field, said, written) in [
        ("name", &info.name, &manifest.name),
        ("vendor", &info.vendor, &manifest.vendor),
        ("version", &info.version, &manifest.version),
    ] {
        if said != written {
            return Err(Failure::fail(format!(
                "`{field}` is `{said}` in `dg_delegate_info`, and `{written}` in `{}`",
                path.display()
            )));
        }
    }
    for (feature, role) in [(Feature::COMPILE, "compile"), (Feature::RUN, "run")] {
        let (has, says) = (library.has(feature), manifest.roles.iter().any(|name| name == role));
        if has != says {
            let (in_table, in_manifest) = (if has { "has" } else { "lacks" }, if says { "has" } else { "lacks" });
            return Err(Failure::fail(format!(
                "the table {in_table} the feature of the role `{role}`, the manifest {in_manifest} the role"
            )));
        }
    }
    if info.abi_min_minor != u32::from(manifest.abi_min_minor) {
        return warn(&[format!(
            "`abi_min_minor` is {} in `dg_delegate_info`, and `min_minor` {} in the manifest",
            info.abi_min_minor, manifest.abi_min_minor
        )]);
    }
    Ok(())
}

pub fn devices(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = start(trial)?;
    let devices = instance.devices()?;
    trial.measure("devices", devices.len() as f64);
    for (i, device) in devices.iter().enumerate() {
        let id = device.id;
        if devices[..i].iter().any(|other| other.id == id) {
            return Err(Failure::fail(format!("`device_enumerate` gave two devices of id {id}")));
        }
        if device.name.is_empty() {
            return Err(Failure::fail(format!("`name` of device {id} is empty")));
        }
        if !(c::DeviceKind::CPU.0..=c::DeviceKind::MCU.0).contains(&device.kind) {
            return Err(Failure::fail(format!(
                "`kind` of device {id} is {}, which is none",
                device.kind
            )));
        }
    }
    Ok(())
}

pub fn devices_room(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = start(trial)?;
    let (_, count) = instance.enumerate(0)?;
    if count > 1024 {
        return Err(Failure::fail(format!("`device_enumerate` counts {count} devices")));
    }
    let all = instance.enumerate(count as usize)?;
    let wanted = (count as usize, count);
    if (all.0.len(), all.1) != wanted {
        return Err(Failure::fail(format!(
            "`device_enumerate` counted {count} devices, then wrote {} and counted {}",
            all.0.len(),
            all.1
        )));
    }
    for room in [count.saturating_sub(1) as usize, count as usize + 3] {
        let (written, stated) = instance.enumerate(room)?;
        if stated != count || written.len() != room.min(count as usize) {
            return Err(Failure::fail(format!(
                "`device_enumerate` with a capacity of {room} wrote {} records and counted {stated}, of {count} devices",
                written.len()
            )));
        }
        if written != all.0[..written.len()] {
            return Err(Failure::fail(
                "`device_enumerate` gave other records: they are constant until `shutdown`",
            ));
        }
    }
    Ok(())
}

pub fn extension(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    library.info()?;
    if library.api.get_extension.is_none() {
        return Err(Failure::skip("the table has no `get_extension`"));
    }
    let long = "x.".repeat(4096);
    for name in ["x.delegraph-kit.nothing", "", "x", long.as_str(), "x.\u{fc}.\0"] {
        for revision in [0, 1, u32::MAX] {
            if library.extension(name, revision).is_some() {
                let shown: String = name.chars().take(40).collect();
                return Err(Failure::fail(format!(
                    "`get_extension` gave a table for {shown:?}, revision {revision}: nobody has that"
                )));
            }
        }
    }
    Ok(())
}

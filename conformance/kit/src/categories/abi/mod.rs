//! What the file is, what its table and structs hold, and what a library may not do to its process.

mod file;
mod manners;
mod options;
mod table;
mod versions;

use crate::case::{Case, case};

/// The cases.
pub const CASES: &[Case] = &[
    case(
        "abi/entry",
        "The library exports `dg_delegate_entry_v1`, or `dg_delegate_entry_v0` of older days, and the entry of the major that its manifest names; others may stand beside it.",
        file::entry,
    ),
    case(
        "abi/exports",
        "A delegate exports one symbol; others are a warning, as they may meet those of another library.",
        file::exports,
    ),
    case(
        "abi/machine",
        "The library is for this machine and system.",
        file::machine,
    ),
    case(
        "abi/executable-stack",
        "The library does not ask for an executable stack, which would change all threads of the process.",
        file::executable_stack,
    ),
    case(
        "abi/text-relocations",
        "The library's code is not written to when it is loaded.",
        file::text_relocations,
    ),
    case(
        "abi/search-path",
        "The library brings no RPATH or RUNPATH outside of its own folder (a warning).",
        file::search_path,
    ),
    case(
        "abi/sanitizers",
        "The library is not built for a sanitizer, which only a host that is built for it loads (a warning).",
        file::sanitizers,
    ),
    case(
        "abi/imports",
        "A delegate installs no signal handlers, does not fork, does not exit: functions that do so are not among its imports (a warning).",
        file::imports,
    ),
    case(
        "abi/undefined-symbols",
        "Whatever the library needs comes from the libraries that it names and from the host's table, not from symbols of the host program.",
        file::undefined_symbols,
    ),
    case(
        "abi/entry-again",
        "The delegate's table is constant for the life of the process: the entry gives the same one each time.",
        table::entry_again,
    ),
    case(
        "abi/table",
        "The table states a sensible size, the major of its entry, a minor, and features that exist in that minor.",
        table::sane,
    ),
    case(
        "abi/mandatory-functions",
        "Every function that the contract makes mandatory, always or with a feature bit, is there.",
        table::mandatory,
    ),
    case(
        "abi/info",
        "`get_info` gives a constant `dg_delegate_info` with its names, a semantic version, and the layout hash of its version or 0.",
        table::info,
    ),
    case(
        "abi/info-is-manifest",
        "Name, vendor, version and roles are those of the manifest.",
        table::info_is_manifest,
    ),
    case(
        "abi/devices",
        "`device_enumerate` gives records of the contract: kinds that exist, ids that differ, texts in UTF-8.",
        table::devices,
    ),
    case(
        "abi/devices-room",
        "`device_enumerate` writes the number of devices, and at most `capacity` records.",
        table::devices_room,
    ),
    case(
        "abi/extension",
        "`get_extension` gives NULL for names that it does not have.",
        table::extension,
    ),
    case(
        "abi/oldest-host",
        "With the table and structs of the first minor of its major a delegate works, or refuses in its entry; it touches nothing behind them.",
        versions::oldest,
    ),
    case(
        "abi/newer-host",
        "Larger tables and structs than one knows are fine: the tail is ignored, and so are features that one does not know.",
        versions::newer,
    ),
    case(
        "abi/extensions",
        "Extensions of structs whose `ext_id` one does not know are stepped over, and empty lists may be NULL.",
        versions::extensions,
    ),
    case(
        "abi/small-structs",
        "A struct smaller than that of the first minor is DG_E_BAD_STRUCT (a warning, as no host in order hands one over).",
        versions::small,
    )
    .hardening(),
    case(
        "abi/unknown-values",
        "A value of an enum that one does not know is refused for what it stands at, never guessed: the node that has it, and no other.",
        versions::unknown_values,
    ),
    case(
        "abi/options-schema",
        "`options_schema` gives constant JSON Schema: an object with `properties`, each of a type of the contract.",
        options::schema,
    ),
    case(
        "abi/options-unknown",
        "`initialize` refuses options that it does not know: DG_E_INVALID_ARGUMENT.",
        options::unknown,
    ),
    case(
        "abi/options-type",
        "`initialize` refuses an option of its own whose `dg_kv_type` is none of the contract's: DG_E_INVALID_ARGUMENT.",
        options::types,
    ),
    case(
        "abi/messages",
        "A call that fails says why through `call_set_error` (a warning).",
        options::messages,
    ),
    case(
        "abi/stdout",
        "A delegate writes nothing to standard output.",
        manners::stdout,
    ),
    case(
        "abi/signal-handlers",
        "A delegate installs no signal handlers.",
        manners::signal_handlers,
    ),
    case(
        "abi/process-state",
        "A delegate leaves the working folder, environment, umask and mode of floating point as they are.",
        manners::process_state,
    ),
];

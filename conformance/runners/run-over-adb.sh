#!/bin/sh
# Runs the conformance kit on an Android device over adb, and brings the report back. The run outlives the connection: give the same command
# again after it was lost, and the run is followed again, or, where the device was switched off, goes on with the cases that have no verdict.
#
# Tried on a stand-in for adb, never on a device.
#
#   run-over-adb.sh --kit KIT.tar.gz --manifest NAME.delegate.toml --out FOLDER [--with FILE]... [--base FOLDER] [--keep] SERIAL -- ARGUMENTS...
#
# SERIAL is what `adb devices` lists. ARGUMENTS go to `delegraph conform run`. Copied are the manifest, the libraries beside it, those that it
# names, and what --with names, which lies beside them in `delegate`. DELEGRAPH_ADB is called in place of `adb`.
#
# The exit code is that of the run: 0 passed, 1 failed; 75: the connection was lost, try again.
set -eu

. "$(dirname "$0")/device.sh"

# The one folder of a device that is not rooted in which a program may be started.
base=/data/local/tmp
parse_arguments "$@"
: "${DELEGRAPH_ADB:=adb}"

# Old adbs end with 0 whatever the command does, and new ones with 1 also where there is no device: the command's code is printed last, and
# read here. None was printed: the connection was lost.
on_device() {
    mark="delegraph-exit-$$"
    rm -f "$work/code"
    $DELEGRAPH_ADB -s "$device" shell "($1
); echo $mark=\$?" </dev/null | tr -d '\r' | while IFS= read -r line; do
        case $line in
            *"$mark="*)
                before=${line%%"$mark="*}
                [ -z "$before" ] || printf '%s\n' "$before"
                printf '%s' "${line##*"$mark="}" >"$work/code"
                ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
    [ -f "$work/code" ] || return 255
    return "$(cat "$work/code")"
}
push() { # folder here, folder there
    on_device "mkdir -p '$2'" || return $?
    $DELEGRAPH_ADB -s "$device" push "$1/." "$2/" >&2 || return 255
}
pull() { # folder there, folder here
    $DELEGRAPH_ADB -s "$device" pull "$1/." "$2" >&2 || return 255
}

run_on_device

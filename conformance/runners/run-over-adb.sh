#!/bin/sh
# Runs the conformance kit on an Android device over adb, and brings the report back. Give the same command again after a lost connection: the
# run on the device goes on, or is resumed. Never run on a device yet, only on a stand-in for adb.
#
#   run-over-adb.sh --kit KIT.tar.gz --manifest NAME.delegate.toml [--library FILE]... --out FOLDER [--keep] SERIAL -- ARGUMENTS...
#
# SERIAL is what `adb devices` lists. ARGUMENTS go to `delegraph conform run`. DELEGRAPH_ADB is called in place of `adb`.
#
# The exit code is that of the run: 0 passed, 1 failed; 75: the connection was lost, try again.
set -eu

. "$(dirname "$0")/device.sh"

base=/data/local/tmp
parse_arguments "$@"
: "${DELEGRAPH_ADB:=adb}"

# Old adbs end with 0 whatever the command does, so that the code is printed last and read here. No code: the connection was lost.
on_device() {
    mark="delegraph-exit-$$"
    code_file=$(mktemp)
    $DELEGRAPH_ADB -s "$device" shell "$1
echo $mark=\$?" </dev/null | while IFS= read -r line; do
        case $line in
            *"$mark="*)
                line=${line%"$(printf '\r')"}
                [ "${line%%"$mark="*}" = "" ] || printf '%s\n' "${line%%"$mark="*}"
                printf '%s' "${line##*"$mark="}" >"$code_file"
                ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
    code=$(cat "$code_file")
    rm -f "$code_file"
    return "${code:-255}"
}
push() { # folder on the device, files...
    folder=$1
    shift
    on_device "mkdir -p '$folder'" || return $?
    for file in "$@"; do
        $DELEGRAPH_ADB -s "$device" push "$file" "$folder/" >&2 || return 255
    done
}
pull() { # folder on the device, folder here
    $DELEGRAPH_ADB -s "$device" pull "$1/." "$2" >&2
}
lost() {
    [ "$1" -eq 255 ]
}

run_on_device

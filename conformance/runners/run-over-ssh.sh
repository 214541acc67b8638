#!/bin/sh
# Runs the conformance kit on a device over ssh, and brings the report back. The run outlives the connection: give the same command again after
# it was lost, and the run is followed again, or, where the device was switched off, goes on with the cases that have no verdict.
#
#   run-over-ssh.sh --kit KIT.tar.gz --manifest NAME.delegate.toml --out FOLDER [--with FILE]... [--port N] [--base FOLDER] [--keep]
#                   [USER@]HOST -- ARGUMENTS...
#
# ARGUMENTS go to `delegraph conform run`: --list core, --shard 1/4, --seed 7. Copied are the manifest, the libraries beside it, those that it
# names, and what --with names, which lies beside them in `delegate`: --waivers delegate/w.toml. The device needs a shell, tar and gzip.
# Keys and known hosts belong into ssh's own configuration, or into DELEGRAPH_SSH, which is called in place of `ssh`.
#
# The exit code is that of the run: 0 passed, 1 failed; 75: the connection was lost, try again.
set -eu

. "$(dirname "$0")/device.sh"

port=22
base=/tmp
parse_arguments "$@"
: "${DELEGRAPH_SSH:=ssh}"

# The device's shell runs the text. A connection that hangs is given up after a minute without an answer.
on_device() {
    $DELEGRAPH_SSH -p "$port" -o BatchMode=yes -o ServerAliveInterval=15 -o ServerAliveCountMax=4 "$device" "$1"
}
# Files travel as archives through such a connection, so that neither scp nor sftp is needed on the device.
push() { # folder here, folder there
    (cd "$1" && tar -cf - .) | on_device "mkdir -p '$2' && cd '$2' && tar -xf -"
}
pull() { # folder there, folder here
    on_device "cd '$1' && tar -cf - ." >"$work/report.tar" || return $?
    tar -xf "$work/report.tar" -C "$2"
}

run_on_device

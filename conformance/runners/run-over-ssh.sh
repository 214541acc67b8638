#!/bin/sh
# Runs the conformance kit on a device over ssh, and brings the report back. Give the same command again after a lost connection: the run on
# the device goes on, or is resumed.
#
#   run-over-ssh.sh --kit KIT.tar.gz --manifest NAME.delegate.toml [--library FILE]... --out FOLDER [--port N] [--keep] [USER@]HOST -- ARGUMENTS...
#
# ARGUMENTS go to `delegraph conform run`: --list core, --shard 1/4, --seed 7, --waivers FILE (a file of the device). The libraries beside the
# manifest that it names are copied; name others that it needs by --library. Options of ssh (keys, known hosts) belong into its own
# configuration, or into DELEGRAPH_SSH, which is called in place of `ssh`.
#
# The exit code is that of the run: 0 passed, 1 failed; 75: the connection was lost, try again.
set -eu

. "$(dirname "$0")/device.sh"

port=22
parse_arguments "$@"
host=$device
: "${DELEGRAPH_SSH:=ssh}"

# The device's shell runs the text. Connections that hang are given up after a minute without an answer.
on_device() {
    $DELEGRAPH_SSH -p "$port" -o BatchMode=yes -o ServerAliveInterval=15 -o ServerAliveCountMax=4 "$host" "$1"
}
# Files come and go as archives through the same connection, so that no scp or sftp is needed on the device.
push() { # what, folder on the device, files...
    folder=$1
    shift
    tar -cf - "$@" | on_device "mkdir -p '$folder' && cd '$folder' && tar -xf -"
}
pull() { # folder on the device, folder here
    on_device "cd '$1' && tar -cf - ." | tar -xf - -C "$2"
}
lost() { # exit code of ssh
    [ "$1" -eq 255 ]
}

run_on_device

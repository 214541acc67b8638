# What run-over-ssh.sh and run-over-adb.sh share; POSIX sh, read by `.`. Each says how to run a command on the device (on_device), carry files
# (push, pull) and tell a lost connection (lost).

die() {
    printf '%s\n' "$*" >&2
    exit 2
}

# Talk goes to standard error, the run's own output to where it goes.
say() {
    printf '%s\n' "$*" >&2
}

base=/tmp

# Sets kit, manifest, libraries, out, keep, device, arguments.
parse_arguments() {
    kit='' manifest='' libraries='' out='' keep=no device='' arguments=''
    while [ $# -gt 0 ]; do
        case $1 in
            --kit | --manifest | --library | --out | --port | --base)
                [ $# -ge 2 ] || die "$1 needs a value"
                case $1 in
                    --kit) kit=$2 ;;
                    --manifest) manifest=$2 ;;
                    --library) libraries="$libraries
$2" ;;
                    --out) out=$2 ;;
                    --port) port=$2 ;;
                    --base) base=$2 ;;
                esac
                shift 2
                ;;
            --keep) keep=yes && shift ;;
            --)
                shift
                for argument in "$@"; do
                    arguments="$arguments $(quoted "$argument")"
                done
                break
                ;;
            -*) die "there is no flag $1; see the head of $0" ;;
            *)
                [ -z "$device" ] || die "two devices: $device and $1"
                device=$1 && shift
                ;;
        esac
    done
    for needed in kit manifest out device; do
        eval "[ -n \"\$$needed\" ]" || die "$needed is missing; see the head of $0"
    done
    for file in "$kit" "$manifest"; do
        [ -f "$file" ] || die "there is no file $file"
    done
}

# One word for the device's shell.
quoted() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

sha256() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

# The libraries that lie beside the manifest and that it names, one a line. The kit on the device reads the manifest itself; this only has
# to find what to copy.
named_libraries() {
    folder=$(dirname "$manifest")
    sed -n 's/^[^#]*=[[:space:]]*["'"'"']\([^"'"'"']*\.\(so\|dylib\|dll\)[0-9.]*\)["'"'"'].*/\1/p' "$manifest" | sort -u | while IFS= read -r name; do
        [ ! -f "$folder/$name" ] || printf '%s\n' "$folder/$name"
    done
}

# 75 is EX_TEMPFAIL: the same command may succeed later.
lost_connection() {
    say "the connection to $device was lost: give the same command again, and the run goes on"
    exit 75
}

attempt() {
    status=0
    "$@" || status=$?
    if lost "$status"; then lost_connection; fi
    return "$status"
}

run_on_device() {
    files=$(named_libraries)
    files="$manifest
$files$libraries"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT INT TERM
    mkdir "$work/delegate"
    printf '%s\n' "$files" | sed '/^$/d' | while IFS= read -r file; do
        [ -f "$file" ] || die "there is no file $file"
        cp "$file" "$work/delegate/"
    done
    [ "$(find "$work/delegate" -type f | wc -l)" -gt 1 ] || die "no library beside $manifest is named in it: give one by --library"
    name=$(basename "$manifest")
    cp "$kit" "$work/kit.tar.gz"

    # The folder on the device is named after all that is run, so that the same command finds it again, and another does not.
    key=$({ cat "$work/kit.tar.gz"; cd "$work/delegate" && sha256 ./*; printf '%s' "$arguments"; } | sha256 | cut -c1-16)
    there="$base/delegraph-conform-$key"
    attempt on_device "mkdir -p '$there'" || die "cannot make $there on $device"
    if ! attempt on_device "test -f '$there/ready'"; then
        say "copying the kit and $name to $device:$there"
        (cd "$work" && attempt push "$there" kit.tar.gz) || exit $?
        # shellcheck disable=SC2046 # the names are made here and have no blanks to split at
        (cd "$work/delegate" && attempt push "$there/delegate" $(ls)) || exit $?
        attempt on_device "cd '$there' && gzip -dc kit.tar.gz | tar -xf - && rm -f kit.tar.gz && rm -rf kit && mv delegraph-conformance-* kit && \
cd kit && if command -v sha256sum >/dev/null 2>&1; then sha256sum -c SHA256SUMS >/dev/null; fi && touch '$there/ready'" ||
            die "the kit could not be unpacked on $device"
    fi

    say "running on $device"
    status=0
    on_device "cd '$there' && kit/bin/delegraph conform run 'delegate/$name' -o report $arguments" || status=$?
    if lost "$status"; then lost_connection; fi

    mkdir -p "$out"
    if attempt on_device "test -d '$there/report'"; then
        attempt pull "$there/report" "$out" || die "the report could not be fetched from $device:$there/report"
        say "the report is in $out"
    fi
    # What is wrong use, or a defect, is looked at on the device; an answer, yes or no, leaves nothing there.
    if [ "$keep" = no ] && [ "$status" -le 1 ]; then
        attempt on_device "rm -rf '$there'" || say "cannot remove $there on $device"
    else
        say "kept on $device: $there"
    fi
    exit "$status"
}

# What run-over-ssh.sh and run-over-adb.sh share; POSIX sh, read by `.`. Each says how to run a command on the device (on_device: ends as the
# command does, or with 255 where the connection is lost), and how to carry a folder there and back (push, pull).

die() {
    printf '%s\n' "$*" >&2
    exit 2
}

# Talk goes to standard error, the run's own output to where it goes.
say() {
    printf '%s\n' "$*" >&2
}

# Sets kit, manifest, more, out, keep, device, arguments.
parse_arguments() {
    kit='' manifest='' more='' out='' keep=no device='' arguments=''
    while [ $# -gt 0 ]; do
        case $1 in
            --kit | --manifest | --with | --out | --port | --base)
                [ $# -ge 2 ] || die "$1 needs a value"
                case $1 in
                    --kit) kit=$2 ;;
                    --manifest) manifest=$2 ;;
                    --with) more="$more
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

# Copies the manifest, the libraries beside it (what a delegate needs lies there), those that it names in folders, and what --with names.
collect() { # folder
    from=$(dirname "$manifest")
    cp "$manifest" "$1/"
    for file in "$from"/*.so "$from"/*.so.*; do
        [ ! -f "$file" ] || cp "$file" "$1/"
    done
    sed -n 's/^[^#]*=[[:space:]]*["'"'"']\([^"'"'"']*\)["'"'"'].*/\1/p' "$manifest" | while IFS= read -r name; do
        case $name in
            /* | *..*) ;;
            */*.so | */*.so.*)
                [ ! -f "$from/$name" ] || { mkdir -p "$1/$(dirname "$name")" && cp "$from/$name" "$1/$name"; }
                ;;
        esac
    done
    printf '%s\n' "$more" | sed '/^$/d' | while IFS= read -r file; do
        [ -f "$file" ] || die "there is no file $file"
        cp "$file" "$1/"
    done
}

# What runs on the device. The run is a process of its own that writes to a file, so that it outlives the connection; this follows the file.
# Called again, it follows the run that there is, or begins one, which goes on with the cases that have no verdict.
device_script() { # name of the manifest, arguments of `conform run`
    cat <<EOT
cd "\$(dirname "\$0")" || exit 2
running() {
    [ -f pid ] && kill -0 "\$(cat pid)" 2>/dev/null && grep -q run-to-the-end "/proc/\$(cat pid)/cmdline" 2>/dev/null
}
if [ ! -f code ] && ! running; then
    rm -f pid
    : >log
    cat >run-to-the-end.sh <<'EOR'
echo \$\$ >pid.new
mv pid.new pid
kit/bin/delegraph conform run delegate/$(quoted "$1") -o report$2
code=\$?
# Ended by a signal, as a device does that runs out of memory: no answer.
[ "\$code" -lt 128 ] || exit
echo "\$code" >code.new
mv code.new code
EOR
    # A session of its own: what ends the connection's processes does not end it.
    apart=
    for way in setsid nohup; do
        if [ -z "\$apart" ] && command -v \$way >/dev/null 2>&1; then apart=\$way; fi
    done
    \$apart sh run-to-the-end.sh >log 2>&1 </dev/null &
    waited=0
    while [ ! -f pid ] && [ "\$waited" -lt 30 ]; do
        sleep 1
        waited=\$((waited + 1))
    done
fi
seen=0
while :; do
    ended=no
    if [ -f code ] || ! running; then ended=yes; fi
    size=\$(wc -c <log)
    if [ "\$size" -gt "\$seen" ]; then
        tail -c "+\$((seen + 1))" log | head -c "\$((size - seen))"
        seen=\$size
    fi
    [ "\$ended" = no ] || break
    sleep 1
done
# It can end between the two questions.
[ -f code ] || sleep 1
[ -f code ] || { echo "the run was ended from outside"; exit 75; }
exit "\$(cat code)"
EOT
}

# 75 is EX_TEMPFAIL: the same command may succeed later.
again() {
    say "$1: give the same command again, and the run goes on"
    exit 75
}

# Runs what talks to the device; a lost connection ends the script.
attempt() {
    status=0
    "$@" || status=$?
    [ "$status" -ne 255 ] || again "the connection to $device was lost"
    return "$status"
}

run_on_device() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM HUP
    mkdir -p "$work/kit" "$work/delegate"
    collect "$work/delegate"
    name=$(basename "$manifest")
    cp "$kit" "$work/kit/kit.tar.gz"
    device_script "$name" "$arguments" >"$work/kit/run.sh"

    # The folder on the device is named after all that is run, so that the same command finds it again, and another does not.
    key=$({
        sha256 <"$work/kit/kit.tar.gz"
        sha256 <"$work/kit/run.sh"
        (cd "$work/delegate" && find . -type f | LC_ALL=C sort | while IFS= read -r file; do printf '%s ' "$file" && sha256 <"$file"; done)
    } | sha256 | cut -c1-16)
    there="$base/delegraph-conform-$key"
    if attempt on_device "test -f '$there/ready'"; then
        say "the kit is on $device: $there"
    else
        say "copying the kit and $name to $device:$there"
        attempt push "$work/kit" "$there" || die "cannot copy the kit to $device:$there"
        attempt push "$work/delegate" "$there/delegate" || die "cannot copy the delegate to $device:$there"
        unpack="cd '$there' && rm -rf kit delegraph-conformance-* && gzip -dc kit.tar.gz | tar -xf - && mv delegraph-conformance-* kit"
        unpack="$unpack && cd kit && { ! command -v sha256sum >/dev/null 2>&1 || sha256sum -c SHA256SUMS >/dev/null; }"
        attempt on_device "$unpack && cd .. && rm -f kit.tar.gz && : >ready" || die "the kit cannot be unpacked on $device: $there"
    fi

    say "running on $device"
    answer=0
    attempt on_device "sh '$there/run.sh'" || answer=$?
    [ "$answer" -ne 75 ] || again "the run on $device did not end by itself"

    mkdir -p "$out"
    if attempt on_device "test -d '$there/report'"; then
        attempt pull "$there/report" "$out" || die "the report cannot be fetched from $device:$there/report"
        say "the report is in $out"
    fi
    # An answer, yes or no, leaves nothing on the device; anything else can be looked at there.
    if [ "$keep" = no ] && [ "$answer" -le 1 ]; then
        attempt on_device "rm -rf '$there'" || say "cannot remove $device:$there"
    else
        say "kept on $device: $there"
    fi
    exit "$answer"
}

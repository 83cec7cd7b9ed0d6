#!/bin/sh
# Makes the component dist/hello.wasm of hello.py: the script, its Python interpreter and the
# interface in wit/, in one file. The tools live in .venv, made at the first build.
set -eu

python=.venv/bin/python3
[ -x "$python" ] || python3 -m venv .venv
# Installed again only when what is required has changed.
if ! cmp -s requirements.txt .venv/requirements.txt; then
    "$python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/requirements.txt
fi
mkdir -p dist
.venv/bin/componentize-py -d wit -w wasi:http/proxy@0.2.0 componentize hello -o dist/hello.wasm

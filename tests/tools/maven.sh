#!/usr/bin/env bash
# Prints the path of Maven. If it is not on PATH, it is downloaded from Maven Central into the
# cache. Needs Python 3. Concurrent calls are safe: the installation that is complete first is kept.
set -euo pipefail

if command -v mvn; then exit 0; fi

version=3.9.9
sha512=a555254d6b53d267965a3404ecb14e53c3827c09c3b94b5678835887ab404556bfaf78dcfe03ba76fa2508649dca8531c74bca4d5846513522404d48e8c4ac8b
name=apache-maven-$version
home=${VOXLOOM_CACHE:-$HOME/.cache/voxloom}/$name

if [ ! -x "$home/bin/mvn" ]; then
    mkdir -p "$(dirname "$home")"
    new=$(mktemp -d "$home.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    python3 - "https://repo.maven.apache.org/maven2/org/apache/maven/apache-maven/$version/$name-bin.tar.gz" "$sha512" "$new" <<'PYTHON'
import hashlib, io, sys, tarfile, urllib.request

url, wanted, folder = sys.argv[1:]
archive = urllib.request.urlopen(url, timeout=120).read()
if hashlib.sha512(archive).hexdigest() != wanted:
    sys.exit(f"{url} is not the archive that was expected (its SHA-512 differs)")
tarfile.open(fileobj=io.BytesIO(archive)).extractall(folder)
PYTHON
    if ln -sn "$(basename "$new")/$name" "$home" 2>/dev/null; then trap - EXIT; fi
fi
echo "$home/bin/mvn"

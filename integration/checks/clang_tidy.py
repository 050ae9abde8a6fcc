#!/usr/bin/env python3
"""clang-tidy over the product's sources, in parallel; what has not changed since it last passed is not read again.

    clang_tidy.py BUILD_DIRECTORY [FILE..]     BUILD_DIRECTORY holds compile_commands.json

"Not changed" is a hash of the preprocessed source, the command and .clang-tidy, kept in .cache/clang-tidy.
"""

import concurrent.futures
import hashlib
import json
import os
import shlex
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.path.join(ROOT, ".cache", "clang-tidy")
ROOMS = ("sidecar/", "iouring/", "routes/", "certs/")


def wanted(path):
    return path.startswith(ROOMS) and not path.endswith(("_test.c", "_fuzz.c", "_bench.c"))


def commands(build, only):
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as stream:
        entries = json.load(stream)
    found = {}
    for entry in entries:
        path = os.path.relpath(os.path.realpath(entry["file"]), ROOT)
        if wanted(path) and (not only or path in only):
            found[path] = entry
    return found


def fingerprint(entry):
    words = [word for word in shlex.split(entry["command"]) if os.path.basename(word) != "ccache"]
    if "-o" in words:
        at = words.index("-o")
        del words[at : at + 2]
    words = [word for word in words if word != "-c"]
    # With its comments: NOLINT is one.
    preprocessed = subprocess.run(words + ["-E", "-C", "-P"], cwd=entry["directory"], capture_output=True, check=False)
    with open(os.path.join(ROOT, ".clang-tidy"), "rb") as stream:
        settings = stream.read()
    return hashlib.sha256(settings + " ".join(words).encode() + preprocessed.stdout).hexdigest()


def run(build, path, entry):
    stamp = os.path.join(CACHE, fingerprint(entry))
    if os.path.exists(stamp):
        return path, 0, ""
    done = subprocess.run(
        ["clang-tidy", "--quiet", "-p", build, path], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode == 0:
        with open(stamp, "w", encoding="utf-8"):
            pass
    return path, done.returncode, done.stdout + ("" if done.returncode == 0 else done.stderr)


def main():
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    os.makedirs(CACHE, exist_ok=True)
    build = os.path.abspath(sys.argv[1])
    todo = commands(build, set(sys.argv[2:]))
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for path, status, text in pool.map(lambda item: run(build, *item), sorted(todo.items())):
            if status != 0:
                failed += 1
                print(f"{path}:\n{text}")
    print(f"{len(todo) - failed} passed, {failed} failed")
    return 1 if failed or not todo else 0


if __name__ == "__main__":
    sys.exit(main())

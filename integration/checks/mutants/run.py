#!/usr/bin/env python3
"""Tests prove that they can fail: plant one defect at a time, and require a named test to fail.

    run.py [--list] [NAME..]      all of the *.mutant files beside this one, or those named

A mutant is a file of this form; the `-` lines are found in FILE (by their text without indentation, exactly once) and replaced by
the `+` lines:

    why: what a user would see
    file: iouring/io_uring.c
    target: io_uring_test
    test: io_uring/rearms_after_enobufs
    - original line
    + defective line

All happens in a copy of the tree (build-mutants/), never in the checkout. Each named test must pass there before anything is
planted, and must have run at least one case: a test that fails anyway proves nothing. The build is the sanitizers' one, because a
block freed early is often seen by nothing else.
"""

import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
WORK = os.path.join(ROOT, "build-mutants")
TREE = os.path.join(WORK, "tree")
BUILD = os.path.join(WORK, "build")
TEST_SECONDS = 60


class Mutant:
    def __init__(self, name):
        self.name = name
        self.fields = {}
        self.original = []
        self.defect = []
        with open(os.path.join(HERE, name + ".mutant"), encoding="utf-8") as stream:
            for line in stream.read().split("\n"):
                if line.startswith("-"):
                    self.original.append(line[1:].strip())
                elif line.startswith("+"):
                    self.defect.append(line[1:].strip())
                elif ":" in line:
                    key, value = line.split(":", 1)
                    self.fields[key.strip()] = value.strip()
        for key in ("why", "file", "target", "test"):
            if not self.fields.get(key):
                raise ValueError(f"{name}.mutant: no `{key}:`")
        if not self.original:
            raise ValueError(f"{name}.mutant: no `-` line")

    def path(self):
        return os.path.join(TREE, self.fields["file"])

    def planted(self):
        """The text of the file with the defect in it; None if the original is not there exactly once."""
        with open(self.path(), encoding="utf-8") as stream:
            lines = stream.read().split("\n")
        wanted = len(self.original)
        places = [at for at in range(len(lines)) if [line.strip() for line in lines[at : at + wanted]] == self.original]
        if len(places) != 1:
            return None
        lines[places[0] : places[0] + wanted] = self.defect
        return "\n".join(lines)


def copy_tree():
    """Bring the copy up to date, touching only what differs, so that the next build is a small one."""
    listing = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True
    )
    wanted = {path for path in listing.stdout.decode().split("\0") if path and os.path.isfile(os.path.join(ROOT, path))}
    for directory, _, names in os.walk(TREE):
        for name in names:
            full = os.path.join(directory, name)
            if os.path.relpath(full, TREE) not in wanted:
                os.unlink(full)
    for path in wanted:
        source, target = os.path.join(ROOT, path), os.path.join(TREE, path)
        with open(source, "rb") as stream:
            content = stream.read()
        if os.path.exists(target):
            with open(target, "rb") as stream:
                if stream.read() == content:
                    continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as stream:
            stream.write(content)
        shutil.copymode(source, target)


def build(target):
    done = subprocess.run(["cmake", "--build", BUILD, "--target", target], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout[-3000:]


def configure():
    subprocess.run(
        ["cmake", "-S", TREE, "-B", BUILD, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Asan", "-DOUTRIGGER_TESTS=ON",
         "-DOUTRIGGER_WARNINGS_AS_ERRORS=OFF"],
        check=True, stdout=subprocess.DEVNULL,
    )


def run_test(mutant):
    """(failed, cases): whether the named test failed, and how many cases of it ran."""
    command = [os.path.join(BUILD, "tests", mutant.fields["target"]), "--filter", mutant.fields["test"], "--timeout", str(TEST_SECONDS)]
    try:
        done = subprocess.run(
            command, cwd=TREE, capture_output=True, text=True, errors="replace", check=False, timeout=2 * TEST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return True, 1
    output = done.stdout + done.stderr
    cases = re.search(r"Tested: (?:\x1b\[[\d;]*m)*(\d+)", output)
    failed = done.returncode != 0 or re.search(r"(Address|Leak|UndefinedBehavior)Sanitizer|runtime error:", output) is not None
    return failed, int(cases.group(1)) if cases else 0


def baseline(mutants):
    """Names of mutants whose test does not pass on the sound tree, with the reason."""
    bad = {}
    seen = {}
    for mutant in mutants:
        key = (mutant.fields["target"], mutant.fields["test"])
        if key not in seen:
            built, text = build(mutant.fields["target"])
            if not built:
                seen[key] = "the sound tree does not build: " + text[-500:]
            else:
                failed, cases = run_test(mutant)
                seen[key] = "its test fails on the sound tree" if failed else ("" if cases > 0 else "no test of that name")
        if seen[key]:
            bad[mutant.name] = seen[key]
    return bad


def try_one(mutant):
    """An empty text if the defect was caught, else what is wrong."""
    planted = mutant.planted()
    if planted is None:
        return f"stale: its original is not in {mutant.fields['file']} exactly once"
    with open(mutant.path(), encoding="utf-8") as stream:
        sound = stream.read()
    try:
        with open(mutant.path(), "w", encoding="utf-8") as stream:
            stream.write(planted)
        built, text = build(mutant.fields["target"])
        if not built:
            return "does not compile, so it proves nothing: " + text[-500:]
        failed, _ = run_test(mutant)
        return "" if failed else f"SURVIVED {mutant.fields['test']}"
    finally:
        with open(mutant.path(), "w", encoding="utf-8") as stream:
            stream.write(sound)


def main():
    names = [word for word in sys.argv[1:] if not word.startswith("-")]
    if not names:
        names = sorted(name[: -len(".mutant")] for name in os.listdir(HERE) if name.endswith(".mutant"))
    mutants = [Mutant(name) for name in names]
    if "--list" in sys.argv:
        for mutant in mutants:
            print(f"{mutant.name}: {mutant.fields['file']}: {mutant.fields['test']}: {mutant.fields['why']}")
        return 0
    copy_tree()
    configure()
    bad = baseline(mutants)
    passed = 0
    for mutant in mutants:
        wrong = bad.get(mutant.name) or try_one(mutant)
        passed += not wrong
        print(f"{mutant.name}: {wrong or 'caught by ' + mutant.fields['test']}", flush=True)
    print(f"{passed} passed, {len(mutants) - passed} failed")
    return 0 if mutants and passed == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())

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

All happens in copies of the tree (build-mutants/, one for each processor), never in the checkout. Each named test must pass there before anything is
planted, and must have run at least one case: a test that fails anyway proves nothing. The build is the sanitizers' one, because a
block freed early is often seen by nothing else.
"""

import concurrent.futures
import os
import queue
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
WORK = os.path.join(ROOT, "build-mutants")
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

    def planted(self, sound):
        """The text of the file with the defect in it; None if the original is not there exactly once."""
        lines = sound.split("\n")
        wanted = len(self.original)
        places = [at for at in range(len(lines)) if [line.strip() for line in lines[at : at + wanted]] == self.original]
        if len(places) != 1:
            return None
        lines[places[0] : places[0] + wanted] = self.defect
        return "\n".join(lines)


class Copy:
    """One copy of the tree and its build."""

    def __init__(self, number, jobs):
        self.tree = os.path.join(WORK, str(number), "tree")
        self.build_directory = os.path.join(WORK, str(number), "build")
        self.jobs = jobs
        self.seen = {}  # (target, test): what is wrong with it on the sound tree, or nothing

    def bring_up_to_date(self):
        """Touch only what differs, so that the next build is a small one."""
        listing = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True
        )
        wanted = {path for path in listing.stdout.decode().split("\0") if path and os.path.isfile(os.path.join(ROOT, path))}
        for directory, _, names in os.walk(self.tree):
            for name in names:
                full = os.path.join(directory, name)
                if os.path.relpath(full, self.tree) not in wanted:
                    os.unlink(full)
        for path in wanted:
            source, target = os.path.join(ROOT, path), os.path.join(self.tree, path)
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

    def configure(self):
        subprocess.run(
            ["cmake", "-S", self.tree, "-B", self.build_directory, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Asan", "-DOUTRIGGER_TESTS=ON",
             "-DOUTRIGGER_WARNINGS_AS_ERRORS=OFF"],
            check=True, stdout=subprocess.DEVNULL,
        )

    def build(self, target):
        # The copies compile the same text at different places: to ccache it is one.
        environment = {**os.environ, "CCACHE_BASEDIR": os.path.dirname(self.tree), "CCACHE_NOHASHDIR": "1"}
        command = ["cmake", "--build", self.build_directory, "-j", str(self.jobs), "--target", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.returncode == 0, done.stdout[-3000:]

    def run_test(self, mutant):
        """(failed, cases): whether the named test failed, and how many cases of it ran."""
        program = os.path.join(self.build_directory, "tests", mutant.fields["target"])
        command = [program, "--filter", mutant.fields["test"], "--timeout", str(TEST_SECONDS)]
        try:
            done = subprocess.run(
                command, cwd=self.tree, capture_output=True, text=True, errors="replace", check=False, timeout=2 * TEST_SECONDS
            )
        except subprocess.TimeoutExpired:
            return True, 1
        output = done.stdout + done.stderr
        cases = re.search(r"Tested: (?:\x1b\[[\d;]*m)*(\d+)", output)
        failed = done.returncode != 0 or re.search(r"(Address|Leak|UndefinedBehavior)Sanitizer|runtime error:", output) is not None
        return failed, int(cases.group(1)) if cases else 0

    def wrong_on_the_sound_tree(self, mutant):
        key = (mutant.fields["target"], mutant.fields["test"])
        if key not in self.seen:
            built, text = self.build(mutant.fields["target"])
            if not built:
                self.seen[key] = "the sound tree does not build: " + text[-500:]
            else:
                failed, cases = self.run_test(mutant)
                self.seen[key] = "its test fails on the sound tree" if failed else ("" if cases > 0 else "no test of that name")
        return self.seen[key]

    def attempt(self, mutant):
        """An empty text if the defect was caught, else what is wrong."""
        wrong = self.wrong_on_the_sound_tree(mutant)
        if wrong:
            return wrong
        path = os.path.join(self.tree, mutant.fields["file"])
        with open(path, encoding="utf-8") as stream:
            sound = stream.read()
        planted = mutant.planted(sound)
        if planted is None:
            return f"stale: its original is not in {mutant.fields['file']} exactly once"
        try:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(planted)
            built, text = self.build(mutant.fields["target"])
            if not built:
                return "does not compile, so it proves nothing: " + text[-500:]
            failed, _ = self.run_test(mutant)
            return "" if failed else f"SURVIVED {mutant.fields['test']}"
        finally:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(sound)


def main():
    names = [word for word in sys.argv[1:] if not word.startswith("-")]
    if any(word.startswith("-") and word != "--list" for word in sys.argv[1:]):
        print(__doc__.strip())
        return 0 if "--help" in sys.argv or "-h" in sys.argv else 2
    if not names:
        names = sorted(name[: -len(".mutant")] for name in os.listdir(HERE) if name.endswith(".mutant"))
    mutants = [Mutant(name) for name in names]
    if "--list" in sys.argv:
        for mutant in mutants:
            print(f"{mutant.name}: {mutant.fields['file']}: {mutant.fields['test']}: {mutant.fields['why']}")
        return 0

    processors = os.cpu_count() or 1
    count = max(1, min(processors, len(mutants) // 4))
    copies = queue.Queue()
    for number in range(count):
        copies.put(Copy(number, max(1, processors // count)))

    def attempt_all(target):
        copy = copies.get()
        copy.bring_up_to_date()
        copy.configure()
        results = []
        while True:
            try:
                mutant = target.get_nowait()
            except queue.Empty:
                return results
            wrong = copy.attempt(mutant)
            print(f"{mutant.name}: {wrong or 'caught by ' + mutant.fields['test']}", flush=True)
            results.append(not wrong)

    # In order of what they build, so that a copy seldom links a program that it does not need again.
    todo = queue.Queue()
    for mutant in sorted(mutants, key=lambda mutant: (mutant.fields["target"], mutant.fields["test"])):
        todo.put(mutant)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        results = [result for future in [pool.submit(attempt_all, todo) for _ in range(count)] for result in future.result()]
    passed = sum(results)
    print(f"{passed} passed, {len(mutants) - passed} failed")
    return 0 if mutants and passed == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())

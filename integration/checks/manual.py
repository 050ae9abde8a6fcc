#!/usr/bin/env python3
"""The man page names the commands and flags of --help, and no others.

    manual.py PROGRAM MAN_PAGE
"""

import re
import subprocess
import sys


def help_of(program, *words):
    done = subprocess.run([program, *words, "--help"], capture_output=True, text=True, check=False, timeout=10)
    if done.returncode != 0 or not done.stdout:
        raise SystemExit(f"{' '.join(words)} --help: exit status {done.returncode}, and what it printed must be on standard output")
    return done.stdout


def main():
    program, path = sys.argv[1:]
    with open(path, encoding="utf-8") as stream:
        page = stream.read()
    wanted = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", help_of(program)))
    commands = re.findall(r"^\.Cm (\w+)$", page.split(".Sh DESCRIPTION")[0], re.M)
    for command in dict.fromkeys(commands):
        wanted |= set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", help_of(program, command)))
    written = set()
    for line in page.split("\n"):
        if line.startswith((".Fl", ".It Fl", ".Op Fl")):
            written |= set(re.findall(r"(?<=[ |])-([a-z][a-z-]+)", line))
    for flag in sorted(wanted - written):
        print(f"{path}: --{flag} is in --help and not in the manual")
    for flag in sorted(written - wanted):
        print(f"{path}: --{flag} is in the manual and not in --help")
    wrong = len(wanted ^ written)
    print(f"{len(wanted & written)} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""House rules that no compiler knows, read from the text of the tree.

    tidy.py [ROOT]      print `file:line: rule`, then `N passed, N failed` (files); exit 1 if any rule was broken

Standard library only, and fast: it is an ordinary test. An exception is written where it is made, with its reason:
/* tidy: allow RULE: why */ on the line itself or on the line above.
"""

import os
import re
import subprocess
import sys

ROOMS = ("sidecar", "iouring", "routes", "certs", "integration")

# Who may include whom. A library is its directory; sidecar/base is a library of its own.
MAY_INCLUDE = {
    "base": {"base"},
    "iouring": {"base", "iouring"},
    "routes": {"base", "routes"},
    "certs": {"base", "certs"},
    "sidecar": {"base", "iouring", "routes", "certs", "control", "proxy", "http", "upstream", "cli"},
    # Codecs turn bytes into events and know neither sockets nor who calls them.
    "sidecar/http": {"base", "http"},
}
LIBRARIES = {"base", "iouring", "routes", "certs", "control", "proxy", "http", "upstream", "cli"}

# Each third-party library has one home: the files whose path begins so.
HOMES = (
    (re.compile(r"^liburing(\.h|/)"), "liburing", ("iouring/",)),
    (re.compile(r"^yaml\.h$"), "libyaml", ("routes/",)),
    (re.compile(r"^pcre2(posix)?\.h$"), "PCRE2", ("routes/",)),
    (re.compile(r"^openssl/"), "OpenSSL", ("certs/",)),
    (re.compile(r"^nghttp2/"), "nghttp2", ("sidecar/http/http2",)),
    (re.compile(r"^jansson\.h$"), "Jansson", ("sidecar/base/json",)),
)

BANNED = {
    name: why
    for names, why in (
        ("strcpy strcat sprintf vsprintf gets stpcpy", "does not know the size of its target"),
        ("atoi atol atoll atof strtol strtoul strtoll strtoull", "hides errors: bytes_parse_decimal"),
        ("strtok strtok_r", "writes into its input"),
        ("alloca", "has no bound"),
        ("setjmp longjmp", "hides control flow"),
    )
    for name in names.split()
}
ATOMICS_IN = ("mailbox.c", "mailbox.h", "snapshot.c", "snapshot.h", "stats.h", "stats.c", "stats_cells.h", "stats_read.c", "log.c", "log.h",
              "cluster.c", "cluster.h",
              # parts of a snapshot, counted with it and never on the request path
              "resource.c", "table.c", "load.c")
FUNCTION_LINES_MAX = 70
KEYWORDS = {"if", "while", "for", "switch", "return", "sizeof", "do", "else", "case", "typedef", "struct", "enum", "union"}


def code_only(text):
    """The text with comments and the insides of literals blanked, line for line; and where // comments begin."""
    out = []
    slashes = []
    state = "code"
    line = 1
    i = 0
    while i < len(text):
        char = text[i]
        pair = text[i : i + 2]
        if char == "\n":
            line += 1
            out.append("\n")
            if state == "slashes":
                state = "code"
            i += 1
            continue
        if state == "code":
            if pair == "/*":
                state = "comment"
                out.append("  ")
                i += 2
                continue
            if pair == "//":
                state = "slashes"
                slashes.append(line)
                out.append("  ")
                i += 2
                continue
            if char in "\"'":
                state = char
            out.append(char)
        elif state == "comment":
            if pair == "*/":
                state = "code"
                out.append("  ")
                i += 2
                continue
            out.append(" ")
        elif state == "slashes":
            out.append(" ")
        else:
            if char == "\\":
                out.append("  " if text[i + 1 : i + 2] != "\n" else " ")
                i += 1 if text[i + 1 : i + 2] == "\n" else 2
                continue
            if char == state:
                state = "code"
                out.append(char)
            else:
                out.append(" ")
        i += 1
    return "".join(out), slashes


class File:
    def __init__(self, root, path):
        self.path = path
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as stream:
            self.text = stream.read()
        self.lines = self.text.split("\n")
        self.code, self.slashes = code_only(self.text)
        self.code_lines = self.code.split("\n")
        self.name = os.path.basename(path)
        self.is_test = self.name.endswith(("_test.c", "_fuzz.c", "_test.h", "_fuzz.h")) or self.text.startswith(("/* Test support", "/*\n * Test support"))
        self.is_header = path.endswith(".h")
        self.found = []

    def say(self, line, rule, text):
        for near in (line, line - 1):
            if 0 < near <= len(self.lines) and f"tidy: allow {rule}:" in self.lines[near - 1]:
                return
        self.found.append((line, f"{rule}: {text}"))


def library_of(path):
    if path.startswith("sidecar/base/"):
        return "base"
    if path.startswith("sidecar/http/"):
        return "sidecar/http"
    return path.split("/")[0]


def check_includes(file):
    library = library_of(file.path)
    allowed = MAY_INCLUDE[library]
    for number, line in enumerate(file.lines, 1):
        match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if not match:
            continue
        quote, target = match.groups()
        if quote == "<":
            for pattern, name, homes in HOMES:
                if not pattern.match(target):
                    continue
                if not file.path.startswith(homes):
                    file.say(number, "one-home", f"<{target}> ({name}) belongs to {', '.join(homes)}")
                elif file.is_header:
                    file.say(number, "opaque", f"no header of ours includes <{target}>")
            if target.startswith("criterion/") and not file.is_test:
                file.say(number, "layering", "only tests include Criterion")
            continue
        room = target.split("/")[0] if "/" in target else ""
        if target.endswith(".c"):
            file.say(number, "layering", f'"{target}": sources are not included')
        elif "/" not in target or room not in LIBRARIES:
            # The front door ("limits.h") is for the program only, and for its codecs the bounds alone.
            front_door = "/" not in target and (library == "sidecar" or (library == "sidecar/http" and target == "limits.h"))
            if not front_door:
                file.say(number, "layering", f'"{target}": project includes name their directory ("base/error.h")')
        elif room not in allowed and not (file.is_test and library == "sidecar/http" and room == "iouring"):
            file.say(number, "layering", f'{library} may not include "{target}"')
        if target.endswith("_test.h") and not file.is_test:
            file.say(number, "layering", f'"{target}" is for tests')


def check_calls(file):
    for number, line in enumerate(file.code_lines, 1):
        for match in re.finditer(r"(?<![\w.>])([A-Za-z_]\w*)\s*\(", line):
            name = match.group(1)
            if name in BANNED and not (file.is_test and name == "strtok_r"):
                file.say(number, "banned-call", f"{name} {BANNED[name]}")
            elif name in ("getenv", "secure_getenv") and file.name != "options.c":
                file.say(number, "banned-call", f"{name} outside options.c: flags and environment are one table")
            elif name in ("sleep", "usleep") and file.is_test:
                file.say(number, "banned-call", f"{name} in a test: wait for what happens, not for time")
        if re.search(r"\bpthread_(mutex|cond|rwlock|spin)|\b_Atomic\b|\batomic_\w+\s*\(|<stdatomic\.h>|\b__atomic_|\b__sync_", line):
            if file.name not in ATOMICS_IN and not file.is_test:
                file.say(number, "crossing", "threads meet only in the five crossings of design 4.1: " + line.strip())
        if re.match(r"\s*extern\s+(?!const\b)[\w\s*]+;", line) and "(" not in line and file.is_header:
            file.say(number, "extern", "mutable variables are not shared")
        if re.match(r"\s*typedef\s+(struct|enum|union)\b", line):
            file.say(number, "typedef", "struct and enum names are written out")
        if re.search(r"\b(__thread|_Thread_local|thread_local)\b", line) and "check.c" != file.name:
            file.say(number, "thread-local", "state has an owner; thread-local scratch has none")


def check_comments(file):
    for line in file.slashes:
        file.say(line, "slashes", "// is for debugging; comments are /* sentences */")
    for number, line in enumerate(file.lines, 1):
        if re.search(r"\b(TODO|FIXME|XXX)\b", line) and not re.search(r"\b(TODO|FIXME|XXX)\b.{0,3}#\d+", line):
            file.say(number, "todo", "needs the number of an issue")
    if not file.text.lstrip().startswith("/*"):
        file.say(1, "opening", "a file opens with what it is for")
    if file.is_header and not re.search(r"^#pragma once$", file.text, re.M):
        file.say(1, "once", "#pragma once is missing")


def check_functions(file):
    """Length, and no conditional compilation inside. A body is what stands between { and } in the first column."""
    opened = None
    for number, line in enumerate(file.code_lines, 1):
        if line.startswith("{"):
            opened = number
        elif line.startswith("}") and opened is not None:
            if line.rstrip() == "}":
                start = opened
                while start > 1 and file.code_lines[start - 2].strip() and not file.code_lines[start - 2].startswith(("#", "}")):
                    start -= 1
                length = number - start + 1
                if length > FUNCTION_LINES_MAX:
                    file.say(start, "function-length", f"{length} lines, at most {FUNCTION_LINES_MAX}")
            opened = None
        elif opened is not None and re.match(r"\s*#\s*(if|ifdef|ifndef|elif|else)\b", line):
            file.say(number, "conditional", "no #if inside a function: a variant is another file or function")


def check_exported(file):
    """Every function that a header declares is explained: by a comment above it, beside it, or above its group."""
    statement = []
    start = 0
    covered = False
    in_macro = False
    depth = 0
    for number, (line, code) in enumerate(zip(file.lines, file.code_lines), 1):
        stripped = code.strip()
        if in_macro or stripped.startswith("#"):
            in_macro = code.rstrip().endswith("\\")
            covered = False
            continue
        if depth == 0 and not statement:
            if not stripped:
                if line.strip():
                    covered = True  # a comment
                else:
                    covered = False
                continue
            start = number
        if depth > 0:
            depth += code.count("{") - code.count("}")
            if depth == 0:
                statement = []
                covered = False
            continue
        statement.append(stripped)
        depth += code.count("{") - code.count("}")
        if depth > 0 or "{" in code:
            statement = [] if depth == 0 else statement
            continue
        if stripped.endswith(";"):
            whole = " ".join(statement)
            statement = []
            name = re.match(r"(?!typedef|struct \w+;|enum \w+;|_Static_assert|static_assert|extern)[\w\s*]+?\b(\w+)\s*\(", whole)
            if name and name.group(1) not in KEYWORDS and "(*" not in whole.split(name.group(1))[0]:
                beside = "/*" in file.lines[number - 1]
                # What a destroyer does is house style: it accepts NULL and what is half built.
                ends = name.group(1).endswith(("_destroy", "_finish", "_close", "_unref"))
                if not covered and not beside and not ends:
                    file.say(start, "contract", f"{name.group(1)} is exported without a comment")
                covered = True  # declarations directly below belong to the same comment


def check_listed(root, files):
    """Sources and headers are listed by hand: a file that no list names is built and checked by nobody."""
    for file in files:
        directory = os.path.dirname(file.path)
        if directory.startswith("integration"):
            continue
        room = directory
        while room and not os.path.exists(os.path.join(root, room, "CMakeLists.txt")):
            room = os.path.dirname(room)
        with open(os.path.join(root, room, "CMakeLists.txt"), encoding="utf-8") as stream:
            listing = stream.read()
        relative = os.path.relpath(file.path, room)
        stem = re.sub(r"_(test|fuzz)\.c$", "", relative)
        named = re.search(rf"(?<![\w/]){re.escape(relative)}(?!\w)", listing)
        if relative.endswith(".h") and file.is_test:
            named = True  # its tests include it
        # foreach(module arena buffer) outrigger_test(.. ${module}_test.c): the variable stands for the stem.
        base = os.path.basename(stem)
        by_loop = stem != relative and re.search(rf"foreach\([^)]*\b{re.escape(base)}\b[^)]*\)", listing)
        if not named and not by_loop:
            file.say(1, "unlisted", f"{room}/CMakeLists.txt does not name it")


def check_map(root, path):
    """Names in the README that look like paths of this tree must exist."""
    found = []
    full = os.path.join(root, path)
    if not os.path.exists(full):
        return found
    with open(full, encoding="utf-8") as stream:
        lines = stream.read().split("\n")
    in_map = fenced = False
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            in_map = "map of the tree" in line.lower()
        if line.startswith("```"):
            fenced = not fenced
            continue
        names = re.findall(r"`((?:%s)/[^`\s]*)`" % "|".join(ROOMS), line)
        names += re.findall(r"\]\(((?:%s)/[^)\s#]*)\)" % "|".join(ROOMS), line)
        if in_map and fenced and line.strip():
            names.append(line.split()[0])
        for name in names:
            for one in expand(name.rstrip(".,:;")):
                if not os.path.exists(os.path.join(root, one)):
                    found.append((number, f"map: {one} does not exist"))
    return found


def expand(name):
    """`x.{h,c}` is two names; a name with <placeholders> or * names none."""
    if any(char in name for char in "<>*$"):
        return []
    match = re.match(r"(.*)\{([^}]*)\}(.*)", name)
    if not match:
        return [name]
    return [match.group(1) + part + match.group(3) for part in match.group(2).split(",")]


def check_text(root, path):
    """Nothing that is true only on the machine where it was written."""
    found = []
    try:
        with open(os.path.join(root, path), encoding="utf-8") as stream:
            text = stream.read()
    except (UnicodeDecodeError, OSError):
        return found
    for number, line in enumerate(text.split("\n"), 1):
        if "tidy: allow machine-path:" in line:
            continue
        if re.search(r"(?<![\w.])/(home/\w+|root/\w+|work/(trees|main|shared|bin)\b)", line):
            found.append((number, "machine-path: " + line.strip()[:80]))
    return found


def tree_files(root):
    """What git knows or would add; every file below ROOMS where there is no git."""
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, check=False)
    inside = os.path.exists(os.path.join(root, ".git"))
    if inside and listing.returncode == 0:
        paths = [path for path in listing.stdout.decode().split("\0") if path]
    else:
        paths = []
        for directory, directories, names in os.walk(root):
            directories[:] = [d for d in directories if not d.startswith((".", "build", "__pycache__"))]
            paths += [os.path.relpath(os.path.join(directory, name), root) for name in names]
    return sorted(path for path in paths if os.path.isfile(os.path.join(root, path)))


def check_tree(root):
    paths = tree_files(root)
    found = []
    files = [File(root, path) for path in paths if path.endswith((".c", ".h")) and path.split("/")[0] in ROOMS]
    for file in files:
        check_comments(file)
        check_functions(file)
        if not file.path.startswith("integration/"):
            check_includes(file)
            check_calls(file)
            if file.is_header:
                check_exported(file)
    check_listed(root, files)
    for file in files:
        found += [(file.path, line, text) for line, text in file.found]
    found += [("README.md", line, text) for line, text in check_map(root, "README.md")]
    for path in paths:
        if not path.startswith("integration/corpus/"):
            found += [(path, line, text) for line, text in check_text(root, path)]
    return paths, found


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(here))
    paths, found = check_tree(root)
    for path, line, text in found:
        print(f"{path}:{line}: {text}")
    bad = len({path for path, _, _ in found})
    print(f"{len(paths) - bad} passed, {bad} failed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

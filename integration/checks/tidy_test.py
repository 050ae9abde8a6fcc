#!/usr/bin/env python3
"""tidy.py must be able to fail: one planted breach of each rule in a tree of its own, and one tree that is clean."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tidy  # noqa: E402

CLEAN = {
    "iouring/CMakeLists.txt": "outrigger_library(NAME iouring SOURCES a.c HEADERS a.h)\n",
    "iouring/a.h": '/* What a is for. */\n#pragma once\n\n#include "base/error.h"\n\n/* Start it. */\nint io_start(int fd);\n',
    "iouring/a.c": '/* How a does it. */\n#include "iouring/a.h"\n\nint io_start(int fd)\n{\n    return fd; /* "//" */\n}\n',
}
LONG = "static int f(void)\n{\n" + "    g();\n" * 70 + "}\n"


def broken(path, addition, listing=None):
    tree = dict(CLEAN)
    tree[path] = tree.get(path, "/* For the test. */\n") + addition
    if listing:
        room = path.split("/")[0]
        tree[f"{room}/CMakeLists.txt"] = tree.get(f"{room}/CMakeLists.txt", "") + listing
    return tree


CASES = {
    "wrong arrow": ("layering", broken("iouring/a.c", '#include "routes/match.h"\n')),
    "codec that knows sockets": ("layering", broken("sidecar/http/x.c", '#include "iouring/io.h"\n', "http/x.c\n")),
    "include without directory": ("layering", broken("iouring/a.c", '#include "a.h"\n')),
    "second home": ("one-home", broken("iouring/a.c", "#include <yaml.h>\n")),
    "third party in a header": ("opaque", broken("iouring/a.h", "#include <liburing.h>\n")),
    "banned call": ("banned-call", broken("iouring/a.c", "static int f(void)\n{\n    return atoi(x);\n}\n")),
    "environment": ("banned-call", broken("iouring/a.c", 'static char *f(void)\n{\n    return getenv("X");\n}\n')),
    "sleep in a test": ("banned-call", broken("iouring/a_test.c", "static void f(void)\n{\n    usleep(1);\n}\n", "a_test.c\n")),
    "no contract": ("contract", broken("iouring/a.h", "\nint io_stop(int fd);\n")),
    "slashes": ("slashes", broken("iouring/a.c", "int x; // why\n")),
    "mutex": ("crossing", broken("iouring/a.c", "static pthread_mutex_t lock;\n")),
    "long function": ("function-length", broken("iouring/a.c", LONG)),
    "condition in a body": ("conditional", broken("iouring/a.c", "static int f(void)\n{\n#ifdef X\n#endif\n}\n")),
    "typedef": ("typedef", broken("iouring/a.h", "typedef struct x x;\n")),
    "unlisted": ("unlisted", broken("iouring/b.c", "")),
    "todo": ("todo", broken("iouring/a.c", "/* TODO later */\n")),
    "no opening": ("opening", {**CLEAN, "iouring/a.c": "int x;\n"}),
    "no once": ("once", {**CLEAN, "iouring/a.h": "/* What. */\n"}),
    "map": ("map", {**CLEAN, "README.md": "# Map of the tree\n\n```\niouring/gone.c   what\n```\n"}),
    "machine path": ("machine-path", {**CLEAN, "README.md": "see /" + "home/somebody/x\n"}),
}


def check(tree):
    with tempfile.TemporaryDirectory() as root:
        for path, text in tree.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as stream:
                stream.write(text)
        for path in list(tree):
            room = os.path.join(root, path.split("/")[0])
            if os.path.isdir(room) and not os.path.exists(os.path.join(room, "CMakeLists.txt")):
                with open(os.path.join(room, "CMakeLists.txt"), "w", encoding="utf-8") as stream:
                    stream.write("")
        return [text.split(":")[0] for _, _, text in tidy.check_tree(root)[1]]


class Tidy(unittest.TestCase):
    def test_a_clean_tree_passes(self):
        self.assertEqual(check(CLEAN), [])

    def test_each_breach_is_found_and_nothing_else(self):
        for name, (rule, tree) in CASES.items():
            with self.subTest(name):
                self.assertEqual(check(tree), [rule])

    def test_an_exception_is_written_where_it_is_made(self):
        tree = broken("iouring/a.c", "/* tidy: allow one-home: for the test */\n#include <yaml.h>\n")
        self.assertEqual(check(tree), [])


if __name__ == "__main__":
    unittest.main()

"""`outrigger check`: what it prints, its JSON and its exit status."""

import json
import os
import resource
import subprocess

import pytest

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}]}
"""

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - backendRefs: [{name: web, port: PORT}]
"""


def check(outrigger, *arguments):
    return subprocess.run([outrigger, "check", *map(str, arguments)], capture_output=True, text=True, timeout=20)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "services.yaml").write_text(SERVICE)
    return tmp_path


def test_a_sound_directory_is_clean(outrigger, directory):
    (directory / "routes.yaml").write_text(ROUTE.replace("PORT", "80"))
    done = check(outrigger, directory)
    assert done.returncode == 0, done.stdout
    assert done.stdout == "2 objects in 2 files: 0 errors, 0 warnings\n"


def test_a_warning_shows_place_line_caret_code_and_suggestion(outrigger, directory):
    (directory / "routes.yaml").write_text(ROUTE.replace("PORT", "8080"))
    done = check(outrigger, directory)
    assert done.returncode == 0
    assert done.stdout == (
        f"{directory}/routes.yaml:7:37: warning: 8080 is a target port of Service shop/web; "
        "references name the Service's own port 80 [target-port]\n"
        "     7 |   - backendRefs: [{name: web, port: 8080}]\n"
        "       |                                     ^\n"
        "       = did you mean `port: 80`?\n"
        "2 objects in 2 files: 0 errors, 1 warning\n")


def test_an_error_is_exit_1(outrigger, directory):
    (directory / "routes.yaml").write_text(ROUTE.replace("PORT", "eighty"))
    done = check(outrigger, directory)
    assert done.returncode == 1
    assert f"{directory}/routes.yaml:7:37: error: spec.rules[0].backendRefs[0].port: " in done.stdout
    assert "[wrong-type]" in done.stdout
    assert done.stdout.endswith("1 error, 0 warnings\n")


def test_json_for_programs(outrigger, directory):
    (directory / "routes.yaml").write_text(ROUTE.replace("PORT", "8080"))
    found = json.loads(check(outrigger, "--json", directory).stdout)
    assert (found["errors"], found["warnings"]) == (0, 1)
    assert found["diagnostics"] == [{
        "file": f"{directory}/routes.yaml", "line": 7, "column": 37, "severity": "warning", "code": "target-port",
        "message": "8080 is a target port of Service shop/web; references name the Service's own port 80",
        "suggestion": "port: 80"}]


def test_files_by_name_and_long_or_hostile_lines(outrigger, tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "annotations": {"x": "' + "é" * 300 +
                    '"}}, "spec": {"ports": [{"port": 0}]}}')
    done = check(outrigger, file)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{file}:1:")
    assert len(lines[1]) < 120
    caret = lines[2].index("^")
    assert lines[1][caret] == "0"
    file.write_bytes(b"a: \x1b[31mred\n")
    done = check(outrigger, file)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout


def test_usage_is_exit_2_and_a_missing_path_exit_1(outrigger, tmp_path):
    assert check(outrigger).returncode == 2
    assert check(outrigger, "--unknown").returncode == 2
    missing = check(outrigger, tmp_path / "none")
    assert missing.returncode == 1
    assert str(tmp_path / "none") in missing.stderr
    found = json.loads(check(outrigger, "--json", tmp_path / "none").stdout)
    assert found["errors"] == 1
    assert found["diagnostics"][0]["file"] == str(tmp_path / "none")
    assert found["diagnostics"][0]["code"] == "path-unreadable"


def test_files_of_one_name_in_two_directories_are_told_apart(outrigger, tmp_path):
    for name, port in (("one", "80"), ("two", "eighty")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(SERVICE.replace("name: web", f"name: {name}").replace("port: 80,", f"port: {port},"))
    done = check(outrigger, tmp_path / "one", tmp_path / "two")
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith(f"{tmp_path}/two/a.yaml:4:"), done.stdout
    assert "eighty" in done.stdout.splitlines()[1]


def test_wide_characters_and_controls_before_the_caret(outrigger, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("\ufeff{apiVersion: v1, kind: Service, metadata: {name: a, annotations: {a: 日本, b: \"\u202e\"}}, spec: {ports: [{port: 0}]}}\n")
    done = check(outrigger, file)
    lines = done.stdout.splitlines()
    assert "\u202e" not in done.stdout and "\ufeff" not in done.stdout
    columns = [c for c in lines[1] for _ in range(2 if c in "日本" else 1)]
    assert columns[lines[2].index("^")] == "0", done.stdout


def test_many_mistakes_are_told_at_once(outrigger, directory):
    (directory / "a.yaml").write_text(ROUTE.replace("PORT", "0"))
    (directory / "b.yaml").write_text(ROUTE.replace("PORT", "70000").replace("name: web, namespace", "name: b, namespace"))
    (directory / "c.yaml").write_text("[")
    done = check(outrigger, directory)
    assert done.returncode == 1
    assert done.stdout.endswith("3 errors, 0 warnings\n"), done.stdout


LAUGHS = "".join(f"{chr(97 + i)}: &{chr(97 + i)} [{','.join(['x' if i == 0 else '*' + chr(96 + i)] * 9)}]\n" for i in range(9))
PORT = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: %s}]}\n"


HOSTILE = [
    ("h1 aliases", LAUGHS.encode(), "alias"),
    ("h2 depth", b"[" * 1000000, "too-deep"),
    ("h2 flow mappings", b"{a: " * 64000, "too-deep"),
    ("h3 duplicate key", b"port: 1\nport: 2\n", "duplicate-key"),
    ("h4 scalar", b"x" * 2000000, "too-long"),
    ("h4 file", b"# comment\n" * 900000, "file-too-large"),
    ("h4 nodes in brackets", b"x: [" + b"1," * 3900000 + b"1]", "too-many-nodes"),
    ("h4 nodes of keys", b"x:\n" + b"".join(b"  k%d: 1\n" % i for i in range(600000)), "too-many-nodes"),
    ("h4 documents", b"---\n" * 1000000, "too-many-nodes"),
    ("h5 NUL", b'host: "a\\0b"\n', "nul-byte"),
    ("h5 tag", b"a: !python/object {}\n", "tag"),
    ("h5 merge key", b"<<: {a: b}\n", "merge-key"),
    ("h5 encoding", b"a: \xc3\x28\n", "not-utf8"),
    ("h6 hexadecimal", (PORT % "0x50").encode(), "wrong-type"),
    ("h6 out of range", (PORT % "65536").encode(), "out-of-range"),
    ("h6 truth", (PORT % "no").encode(), "wrong-type"),
]


@pytest.mark.parametrize("name, content, code", HOSTILE, ids=[case[0] for case in HOSTILE])
def test_hostile_files_are_refused_with_a_code_and_little_work(outrigger, tmp_path, name, content, code):
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = check(outrigger, file)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 1, name
    assert f"[{code}]" in done.stdout, done.stdout[:500]
    assert len(done.stdout) < 2000
    # 50 ms in the build that is shipped; the others are slower, and sanitizers much slower.
    assert after.ru_utime - before.ru_utime < 2.0, name


def test_only_regular_files_are_read(outrigger, tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    done = check(outrigger, tmp_path)
    assert done.returncode == 1
    assert "[file-not-regular]" in done.stdout
    os.unlink(tmp_path / "fifo.yaml")
    os.symlink("/etc/passwd", tmp_path / "link.yaml")
    done = check(outrigger, tmp_path)
    assert done.returncode == 1
    assert "leaves its directory" in done.stdout

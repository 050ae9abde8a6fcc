"""`outrigger check`: what it prints, its JSON and its exit status."""

import json
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
        f"{directory}/routes.yaml:7:19: warning: 8080 is a target port of Service shop/web; "
        "references name the Service's own port 80 [target-port]\n"
        "     7 |   - backendRefs: [{name: web, port: 8080}]\n"
        "       |                   ^\n"
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
        "file": f"{directory}/routes.yaml", "line": 7, "column": 19, "severity": "warning", "code": "target-port",
        "message": "8080 is a target port of Service shop/web; references name the Service's own port 80",
        "suggestion": "port: 80"}]


def test_files_by_name_and_long_or_hostile_lines(outrigger, tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {"x": "' + "é" * 300 +
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


def test_many_mistakes_are_told_at_once(outrigger, directory):
    (directory / "a.yaml").write_text(ROUTE.replace("PORT", "0"))
    (directory / "b.yaml").write_text(ROUTE.replace("PORT", "70000").replace("name: web, namespace", "name: b, namespace"))
    (directory / "c.yaml").write_text("[")
    done = check(outrigger, directory)
    assert done.returncode == 1
    assert done.stdout.endswith("3 errors, 0 warnings\n"), done.stdout

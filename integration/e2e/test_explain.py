"""`outrigger explain`: its JSON to the letter of the contract, its statuses, and that the order of files and documents decides nothing."""

import json
import os
import random
import re
import subprocess

import pytest
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
CONFORMANCE = os.path.join(os.path.dirname(HERE), "conformance")
NUMBER = (int, float)

OBJECTS = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 81}, {name: tls, port: 443}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop}
spec: {clusterIP: None, selector: {a: b}, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - name: canary
    matches: [{path: {value: /a}, headers: [{name: x-a, value: "1"}]}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}]
    backendRefs: [{name: web, port: 80, weight: 3}, {name: gone, port: 80}]
  - {matches: [{path: {value: /gone}}], backendRefs: [{name: gone, port: 80}]}
  - {matches: [{path: {value: /zero}}], backendRefs: [{name: web, port: 80, weight: 0}]}
  - {matches: [{path: {value: /empty}}], backendRefs: [{name: empty, port: 80}]}
  - {matches: [{path: {value: /away}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 81}]
  rules: [{matches: [{method: {service: a.B}}], backendRefs: [{name: gone, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: names, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 443}]
  hostnames: [a.test]
  rules: [{backendRefs: [{name: web, port: 443}]}]
"""


def explain(outrigger, directory, *arguments, namespace="shop"):
    command = [outrigger, "explain", "--config", str(directory), "--namespace", namespace, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "objects.yaml").write_text(OBJECTS)
    return tmp_path


def check_place(place):
    assert isinstance(place["route"], str) and "/" in place["route"]
    assert isinstance(place["rule"], str)
    assert isinstance(place["match"], int)
    assert place["file"] == "objects.yaml"
    assert isinstance(place["line"], int) and place["line"] > 0


def check_shape(answer):
    """Every member of contract section 3 with its type."""
    assert answer["generation"] == 1
    assert answer["service"] is None or isinstance(answer["service"], str)
    assert isinstance(answer["port"], int)
    assert answer["routeKind"] in (None, "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
    assert answer["set"] in (None, "producer", "consumer")
    if answer["chosen"] is not None:
        check_place(answer["chosen"])
    assert isinstance(answer["filters"], list)
    for row in answer["backends"]:
        assert isinstance(row["ref"], str) and isinstance(row["valid"], bool)
        assert isinstance(row["weight"], int) and isinstance(row["endpoints"], int)
        assert isinstance(row["share"], NUMBER) and 0 <= row["share"] <= 1
    response = answer["response"]
    assert response is None or (set(response) >= {"status", "cause"})
    for row in answer["rejected"]:
        check_place(row)
        assert set(row["failed"]) == {"predicate", "wanted", "got"}
        assert all(isinstance(value, str) and value for value in row["failed"].values())


ANSWERS = [
    (["--to", "web.shop:80", "/none"], {"status": 404, "cause": "no_route"}),
    (["--to", "web.shop:80", "/gone"], {"status": 500, "cause": "invalid_backend"}),
    (["--to", "web.shop:80", "/zero"], {"status": 500, "cause": "no_backend"}),
    (["--to", "web.shop:80", "/empty"], {"status": 503, "cause": "no_endpoints"}),
    (["--to", "web.shop:80", "/%zz"], {"status": 400, "cause": "request_malformed"}),
    (["--to", "web.shop:80", "/away"], {"status": 302, "cause": None}),
    (["--to", "web.shop:81", "/a.B/C"], {"status": 200, "cause": "invalid_backend"}),
    (["--to", "web.shop:81", "/a.C/C"], {"status": 200, "cause": "no_route"}),
    (["--to", "web.shop:81", "-X", "GET", "/x"], {"status": 404, "cause": "no_route"}),
    (["--to", "web.shop:443", "--sni", "b.test"], {"status": None, "cause": "no_route"}),
    (["--to", "web.shop:443", "--sni", "a.test"], None),
    (["--to", "web.shop:80", "-H", "x-a: 1", "/a"], None),
    (["--to", "10.0.0.1:80", "-H", "x-a: 1", "/a"], None),
    (["--to", "192.0.2.1:80", "/a"], None),
]


@pytest.mark.parametrize("arguments, response", ANSWERS, ids=[" ".join(row[0][1:]) for row in ANSWERS])
def test_the_members_of_the_contract(outrigger, directory, arguments, response):
    done = explain(outrigger, directory, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    check_shape(answer)
    got = answer["response"]
    assert (got and {name: got[name] for name in response}) == response
    text = explain(outrigger, directory, *arguments)
    assert text.returncode == 0
    assert response is None or response["cause"] is None or f"({response['cause']})" in text.stdout


def test_shares_and_what_is_wrong_with_a_backend(outrigger, directory):
    answer = json.loads(explain(outrigger, directory, "--json", "--to", "web.shop:80", "-H", "X-A: 1", "/a/b?c").stdout)
    rows = {row["ref"]: row for row in answer["backends"]}
    assert (rows["web.shop:80"]["share"], rows["web.shop:80"]["valid"], rows["web.shop:80"]["weight"]) == (0.75, True, 3)
    assert (rows["gone.shop:80"]["share"], rows["gone.shop:80"]["valid"], rows["gone.shop:80"]["endpoints"]) == (0.25, False, 0)
    assert answer["chosen"]["rule"] == "canary"
    failed = {row["rule"]: row["failed"] for row in answer["rejected"]}
    assert sorted(failed) == ["1", "2", "3", "4"]
    assert failed["1"] == {"predicate": "path", "wanted": "PathPrefix /gone", "got": "/a/b"}


STATUSES = [
    ([], 2),
    (["--to", "web:80"], 2),
    (["--to", "web.shop"], 2),
    (["--to", "web.shop:http"], 2),
    (["--to", "web.shop:80", "-H", "nothing"], 2),
    (["--to", "web.shop:80", "/a", "/b"], 2),
    (["--to", "web.shop:80", "--unknown"], 2),
    (["--to", "wbe.shop:80"], 1),
    (["--to", "web.shop:8080"], 1),
    (["--to", "web.shop:80"], 0),
]


@pytest.mark.parametrize("arguments, status", STATUSES, ids=[" ".join(row[0]) for row in STATUSES])
def test_exit_statuses(outrigger, directory, arguments, status):
    done = explain(outrigger, directory, *arguments)
    assert done.returncode == status, done.stderr
    assert (done.stderr == "") == (status == 0)
    assert (done.stdout == "") == (status != 0)


def test_what_was_meant_and_what_is_wrong_with_the_files(outrigger, directory):
    assert "did you mean web.shop?" in explain(outrigger, directory, "--to", "wbe.shop:80").stderr
    assert "it has 80, 81, 443" in explain(outrigger, directory, "--to", "web.shop:8080").stderr
    (directory / "broken.yaml").write_text("a: b\n")
    done = explain(outrigger, directory, "--to", "web.shop:80")
    assert done.returncode == 1
    assert "broken.yaml:1:1: apiVersion is missing" in done.stderr


def load_tests():
    tests = []
    for name in sorted(os.listdir(os.path.join(CONFORMANCE, "cases"))):
        with open(os.path.join(CONFORMANCE, "cases", name), encoding="utf-8") as file:
            tests += [test for test in yaml.safe_load_all(file) if test]
    return tests


def without_places(value):
    if isinstance(value, dict):
        return {name: without_places(member) for name, member in value.items() if name not in ("file", "line")}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    return re.sub(r"\(line \d+\)", "", value) if isinstance(value, str) else value


def answer_of(outrigger, directory, case, options):
    arguments = ["--json", "--to", case["to"], *options]
    for header in case.get("headers", ()):
        arguments += ["-H", header]
    if case.get("grpc"):
        arguments += ["-H", "content-type: application/grpc"]
    arguments += ["-X", case["method"]] if "method" in case else []
    arguments += ["--sni", case["sni"]] if case.get("sni") else []
    arguments += ["--udp"] if case.get("protocol") == "udp" else []
    done = explain(outrigger, directory, *arguments, case.get("path", "/"), namespace=case.get("from", "mesh"))
    assert done.returncode == 0, done.stderr
    answer = without_places(json.loads(done.stdout))
    answer["notes"].sort(key=str)
    return answer


def test_the_order_of_files_and_documents_decides_nothing(outrigger, tmp_path):
    seed = int(os.environ.get("OUTRIGGER_TEST_SEED", random.SystemRandom().randrange(1 << 31)))
    print("seed", seed)
    draw = random.Random(seed)
    with open(os.path.join(CONFORMANCE, "fixture.yaml"), encoding="utf-8") as file:
        fixture = yaml.safe_load(file)["items"]
    every = load_tests()
    for step in range(20):
        # Several tests at once, so that their routes compete for the same ports.
        tests = draw.sample(every, 3)
        objects = {(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]): item
                   for item in fixture + [item for test in tests for item in test["objects"]]}
        cases = draw.sample([case for test in tests for case in test["requests"]], 3)
        wanted = None
        for order in range(3):
            directory = tmp_path / f"{step}-{order}"
            directory.mkdir()
            items = draw.sample(list(objects.values()), len(objects))
            names = draw.sample(["a.yaml", "b.yml", "m.json", "z.yaml"], draw.randint(1, 4))
            for index, name in enumerate(names):
                part = items[index::len(names)]
                text = json.dumps({"apiVersion": "v1", "kind": "List", "items": part}) if name.endswith("json") else yaml.safe_dump_all(part)
                (directory / name).write_text(text)
            got = [answer_of(outrigger, directory, case, tests[0].get("options", [])) for case in cases]
            wanted = got if wanted is None else wanted
            assert got == wanted, f"seed {seed}, tests {[test['test'] for test in tests]}"

"""HTTPRoutes over the wire: where a request goes, what is changed on its way, and what the client is told."""

import time

import pytest

import servers
from http_peers import Raw, Web, curl, request
from objects import backend, endpoint_slice, header, http_route, path, port, rule, service

VIP = "10.96.0.20"


def version(name, server, cluster_ip="None", app_protocol="http"):
    """A Service and the slice that leads to one server."""
    return [service(name, None if cluster_ip == "None" else cluster_ip, [port(80, "http", app_protocol)]),
            endpoint_slice(name, ["127.0.0.1"], server.port, "http")]


@pytest.fixture
def shop(serving, listen):
    """shop(rules...) -> a proxy before Service web, whose versions v1 and v2 are servers that tell their names."""

    def make(*rules, options=(), objects=()):
        one, two = serving(Web, name="v1"), serving(Web, name="v2")
        items = [*version("web", one, VIP), *version("web-v1", one, "10.96.0.21"), *version("web-v2", two, "10.96.0.22"), *objects]
        if rules:
            items.append(http_route("main", "web", list(rules)))
        proxy = listen(*items, options=options)
        proxy.one, proxy.two, proxy.items = one, two, items
        proxy.ask = lambda *words, **named: ask(proxy, *words, **named)
        return proxy

    return make


def ask(proxy, target="/", **named):
    with Raw(proxy.host, "127.0.0.1", proxy.port) as client:
        return client.ask(request(target, **named), named.get("method", "GET"))


def served_by(response):
    return response.get("X-Served-By")


V1, V2 = backend("web-v1", 80), backend("web-v2", 80)


# ---- where it goes ----


def test_without_routes_a_request_passes_byte_for_byte(shop):
    proxy = shop()
    fields = ["x-Odd-CASE: Kept  ", "Accept: a", "accept: b", "X-Empty:"]
    response = proxy.ask("/a/../b//c?x=%2e&&y", fields=fields)
    assert response.status == 200
    [head] = proxy.one.heads
    assert head.start == "GET /a/../b//c?x=%2e&&y HTTP/1.1"
    names = [name for name, _ in head.fields]
    assert [name for name in names if name.lower() in ("host", "x-odd-case", "accept", "x-empty")] == [
        "Host", "x-Odd-CASE", "Accept", "accept", "X-Empty"]
    assert head.get("Host") == "web.shop"


@pytest.mark.parametrize("target, fields, method, wanted", [
    ("/exact", (), "GET", "v2"),
    ("/exact/more", (), "GET", "v1"),
    ("/prefix", (), "GET", "v2"),
    ("/prefix/more?x=1", (), "GET", "v2"),
    ("/prefixed", (), "GET", "v1"),
    ("/", ("X-Tester: yes",), "GET", "v2"),
    ("/", ("x-tester: yes",), "GET", "v2"),
    ("/", ("X-Tester: YES",), "GET", "v1"),
    ("/", (), "DELETE", "v2"),
    ("/?beta=1", (), "GET", "v2"),
    ("/?beta=2", (), "GET", "v1"),
    ("/a/../prefix/x", (), "GET", "v2"),
])
def test_a_request_goes_where_its_rule_says(shop, target, fields, method, wanted):
    proxy = shop(
        rule([V2], [path("/exact", "Exact")]),
        rule([V2], [path("/prefix")]),
        rule([V2], [header("x-tester", "yes")]),
        rule([V2], [{"method": "DELETE"}]),
        rule([V2], [{"queryParams": [{"name": "beta", "value": "1"}]}]),
        rule([V1]),
    )
    response = proxy.ask(target, fields=fields, method=method)
    assert (response.status, served_by(response)) == (200, wanted)


def test_a_regular_expression_matches_the_whole_path_and_ranks_below_every_prefix(shop):
    proxy = shop(rule([V2], [path("/re/[0-9]+", "RegularExpression")]), rule([V1], [path("/re/7")]))
    assert served_by(proxy.ask("/re/12")) == "v2"
    assert served_by(proxy.ask("/re/7")) == "v1"
    assert proxy.ask("/re/12x").status == 404
    assert proxy.ask("/x/re/12").status == 404


def test_weights_are_real_percentages(shop):
    proxy = shop(rule([backend("web-v1", 80, 90), backend("web-v2", 80, 10)]))
    with Raw(proxy.host, "127.0.0.1", proxy.port) as client:
        answers = [served_by(client.ask(request())) for _ in range(500)]
    # Four standard deviations of a fair draw.
    assert 23 <= answers.count("v2") <= 77, answers.count("v2")


def test_a_weight_of_zero_gets_nothing(shop):
    proxy = shop(rule([backend("web-v1", 80, 1), backend("web-v2", 80, 0)]))
    assert {served_by(proxy.ask()) for _ in range(50)} == {"v1"}


def test_a_rule_without_backends_leads_to_the_service_itself(shop):
    proxy = shop(rule(matches=[path("/")]))
    assert served_by(proxy.ask()) == "v1"


def test_routes_of_the_clients_namespace_replace_the_producers(shop):
    other = [service("pay", "10.96.0.30", [port(80, "http", "http")], namespace="bank")]
    # --namespace is shop: its own route for bank/pay counts, the producer's does not.
    consumer = http_route("mine", "pay", [rule(filters=[{"type": "RequestRedirect", "requestRedirect": {"path": {
        "type": "ReplaceFullPath", "replaceFullPath": "/consumer"}}}])])
    consumer["spec"]["parentRefs"][0]["namespace"] = "bank"
    producer = http_route("theirs", "pay", [rule(filters=[{"type": "RequestRedirect", "requestRedirect": {"path": {
        "type": "ReplaceFullPath", "replaceFullPath": "/producer"}}}])], namespace="bank")
    proxy = shop(rule([V1]), objects=[*other, consumer, producer])
    code, answer = proxy.admin("/explain?to=pay.bank:80&method=GET&path=/")
    assert code == 200
    assert answer["set"] == "consumer" and answer["chosen"]["route"] == "shop/mine"


# ---- what is changed ----


def test_request_headers_are_set_added_and_removed(shop):
    proxy = shop(rule([V1], filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": {
        "set": [{"name": "X-Set", "value": "new"}], "add": [{"name": "X-Add", "value": "more"}], "remove": ["X-Gone"]}}]))
    proxy.ask(fields=["X-Set: old", "X-Add: some", "X-Gone: secret", "x-gone: too", "X-Kept: yes"])
    [head] = proxy.one.heads
    assert head.get("X-Set") == "new"
    assert head.get("X-Add").replace(" ", "") == "some,more"
    assert head.get("X-Gone") is None
    assert head.get("X-Kept") == "yes"


def test_response_headers_are_set_added_and_removed(shop):
    proxy = shop(rule([V1], filters=[{"type": "ResponseHeaderModifier", "responseHeaderModifier": {
        "set": [{"name": "X-Served-By", "value": "hidden"}], "add": [{"name": "X-Add", "value": "1"}],
        "remove": ["Content-Type"]}}]))
    response = proxy.ask()
    assert (response.get("X-Served-By"), response.get("X-Add")) == ("hidden", "1")


@pytest.mark.parametrize("fields, target, status, location", [
    ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"}}, "/old/x?q=1", 302, "/new?q=1"),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}, "statusCode": 301}, "/old/x", 301, "/new/x"),
    ({"scheme": "https", "hostname": "example.com", "statusCode": 308}, "/old/x", 308, "https://example.com/old/x"),
    ({"hostname": "example.com", "port": 8443}, "/old", 302, "http://example.com:8443/old"),
], ids=["full path", "prefix", "scheme and host", "host and port"])
def test_redirects(shop, fields, target, status, location):
    proxy = shop(rule(matches=[path("/old")], filters=[{"type": "RequestRedirect", "requestRedirect": fields}]))
    response = proxy.ask(target, host="web.shop")
    assert response.status == status
    got = response.get("Location")
    assert got == location or got.endswith(location) and got.startswith("http://web.shop"), got
    assert not proxy.one.heads, "no backend is asked"


@pytest.mark.parametrize("fields, target, first_line, authority", [
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"}}, "/api/items?x=1", "GET /v2/items?x=1 HTTP/1.1", "web.shop"),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}, "/api", "GET / HTTP/1.1", "web.shop"),
    ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/one"}}, "/api/items", "GET /one HTTP/1.1", "web.shop"),
    ({"hostname": "inner.example"}, "/api", "GET /api HTTP/1.1", "inner.example"),
], ids=["prefix", "prefix to root", "full path", "host"])
def test_rewrites(shop, fields, target, first_line, authority):
    proxy = shop(rule([V1], [path("/api")], [{"type": "URLRewrite", "urlRewrite": fields}]))
    assert proxy.ask(target).status == 200
    [head] = proxy.one.heads
    assert (head.start, head.get("Host")) == (first_line, authority)


def test_filters_of_a_backend_come_after_those_of_its_rule(shop):
    modifier = "RequestHeaderModifier"
    chosen = {**V1, "filters": [{"type": modifier, "requestHeaderModifier": {"set": [{"name": "X-Who", "value": "backend"}]}}]}
    proxy = shop(rule([chosen], filters=[{"type": modifier, "requestHeaderModifier": {
        "set": [{"name": "X-Who", "value": "rule"}, {"name": "X-Rule", "value": "1"}]}}]))
    proxy.ask()
    [head] = proxy.one.heads
    assert (head.get("X-Who"), head.get("X-Rule")) == ("backend", "1")


def test_a_request_id_is_added_where_there_is_none_and_kept_where_there_is(shop):
    proxy = shop(rule([V1]))
    proxy.ask()
    proxy.ask(fields=["X-Request-Id: mine-1"])
    made, kept = (head.get("x-request-id") for head in proxy.one.heads)
    assert made and kept == "mine-1"


# ---- what the client is told ----


@pytest.mark.parametrize("rules, status, cause", [
    ([rule([V1], [path("/only")])], 404, "no_route"),
    ([rule([backend("nobody", 80)])], 500, "invalid_backend"),
    ([rule([backend("web-v1", 81)])], 500, "invalid_backend"),
    ([rule([backend("web-v1", 80, 0)])], 500, "no_backend"),
    ([rule([backend("empty", 80)])], 503, "no_endpoints"),
    ([rule([backend("refusing", 80)])], 503, "connect_refused"),
], ids=["no match", "unknown backend", "unknown port", "weight 0", "no endpoints", "refused"])
def test_what_cannot_be_served_is_answered_with_its_cause(shop, host, rules, status, cause):
    objects = [service("empty", None, [port(80, "http", "http")]),
               service("refusing", None, [port(80, "http", "http")]),
               endpoint_slice("refusing", ["127.0.0.1"], servers.free_port(host), "http")]
    proxy = shop(*rules, objects=objects)
    response = proxy.ask()
    assert response.status == status
    assert f'details="{cause}"' in response.get("proxy-status", ""), response.head.raw
    assert response.get("proxy-status").startswith("outrigger;")
    [line] = proxy.wait_access_lines(1)
    assert (line["cause"], line["status"]) == (cause, status)


def test_a_half_invalid_split_fails_only_its_share(shop):
    proxy = shop(rule([V1, backend("nobody", 80)]))
    codes = [proxy.ask().status for _ in range(200)]
    assert set(codes) == {200, 500}
    assert 60 <= codes.count(500) <= 140


@pytest.mark.parametrize("timeouts, cause", [({"request": "200ms"}, "request_timeout"),
                                             ({"backendRequest": "200ms"}, "backend_timeout")])
def test_timeouts_of_a_rule_are_504(shop, timeouts, cause):
    proxy = shop(rule([V1], timeouts=timeouts))
    began = time.monotonic()
    response = proxy.ask("/?delay=3")
    assert response.status == 504
    assert 0.15 < time.monotonic() - began < 1.5
    assert cause in response.get("proxy-status")
    assert proxy.ask().status == 200


# ---- what the operator is told ----


def test_the_access_log_names_route_rule_place_and_times(shop):
    proxy = shop(rule([V2], [path("/beta")]), rule([V1]))
    proxy.ask("/beta/x", fields=["X-Request-Id: r-1"])
    [line] = proxy.wait_access_lines(1)
    assert (line["method"], line["path"], line["status"], line["route"], line["request_id"]) == (
        "GET", "/beta/x", 200, "shop/main", "r-1")
    assert line["at"].startswith("objects.yaml:") or "objects.yaml:" in line["at"]
    assert line["generation"] == 1 and "web-v2" in line["backend"]
    assert line["endpoint"] == f"127.0.0.1:{proxy.two.port}"
    assert line["sent_bytes"] > 0 and float(line["total_ms"]) >= float(line["first_byte_ms"]) >= 0


def test_explain_on_the_running_proxy_says_where_a_request_would_go_and_why(shop):
    proxy = shop(rule([V2], [path("/beta")]), rule([V2], [header("x-tester", "yes")]), rule([V1]))
    for target, fields in (("/beta", ()), ("/", ("x-tester: yes",)), ("/", ())):
        query = "".join(f"&header={field.replace(': ', ':')}" for field in fields)
        code, answer = proxy.admin(f"/explain?to=web.shop:80&method=GET&path={target}{query}")
        assert code == 200
        response = proxy.ask(target, fields=fields)
        chosen = answer["backends"][0]["ref"]
        assert served_by(response) in chosen, (answer, served_by(response))
    failed = [entry["failed"]["predicate"] for entry in answer["rejected"]]
    assert len(failed) >= 2, answer


def test_routes_show_hits(shop):
    proxy = shop(rule([V2], [path("/beta")]), rule([V1]))
    for _ in range(3):
        proxy.ask("/beta")
    proxy.ask("/")

    def hits():
        found = []

        def walk(item):
            if isinstance(item, dict):
                if "hits" in item:
                    found.append(item["hits"])
                for value in item.values():
                    walk(value)
            elif isinstance(item, list):
                for value in item:
                    walk(value)

        walk(proxy.admin("/routes")[1])
        return sorted(found)

    servers.wait_until(lambda: hits()[-2:] == [1, 3], f"hits of both rules: {hits()}")


def test_metrics_have_one_series_for_each_outcome(shop):
    proxy = shop(rule([V2], [path("/beta")]), rule([V1]))
    for _ in range(3):
        proxy.ask("/beta")
    proxy.ask("/?status=418")
    servers.wait_until(lambda: proxy.metric("outrigger_requests_total", direction="outbound", route="shop/main") == 4, "four requests")
    assert proxy.metric("outrigger_requests_total", code="200") == 3
    assert proxy.metric("outrigger_requests_total", code="418") == 1
    assert proxy.metric("outrigger_request_duration_seconds_count", direction="outbound") == 4
    assert proxy.metric("outrigger_connections_total", protocol="http1") == 4


# ---- protocol of a port ----


@pytest.mark.parametrize("name, app_protocol", [("http", None), ("http-main", None), ("main", "http"), ("main", "HTTP"),
                                                ("main", "kubernetes.io/ws"), ("main", None)])
def test_declared_and_detected_ports_are_routed(serving, listen, name, app_protocol):
    server = serving(Web, name="v1")
    proxy = listen(service("web", VIP, [port(80, name, app_protocol)]), endpoint_slice("web", ["127.0.0.1"], server.port, name),
                   http_route("main", "web", [rule(filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": {
                       "set": [{"name": "X-Routed", "value": "yes"}]}}])]))
    assert ask(proxy).status == 200
    assert server.heads[0].get("X-Routed") == "yes"


def test_a_detected_request_may_come_byte_by_byte(serving, listen):
    server = serving(Web, name="v1")
    proxy = listen(service("web", VIP, [port(80, "main")]), endpoint_slice("web", ["127.0.0.1"], server.port, "main"),
                   http_route("main", "web", [rule(filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": {
                       "set": [{"name": "X-Routed", "value": "yes"}]}}])]))
    with Raw(proxy.host, "127.0.0.1", proxy.port) as client:
        for byte in request("/slow"):
            client.send(bytes([byte]))
        assert client.response().status == 200
    assert server.heads[0].get("X-Routed") == "yes"


def test_a_port_declared_tcp_is_not_touched(serving, listen):
    server = serving(servers.Echo)
    proxy = listen(service("web", VIP, [port(80, "web", "tcp")]), endpoint_slice("web", ["127.0.0.1"], server.port, "web"))
    with Raw(proxy.host, "127.0.0.1", proxy.port) as client:
        client.send(request("/"))
        assert servers.read_exactly(client.connection, len(request("/"))) == request("/")


# ---- through redirection ----


def test_a_pods_requests_are_routed_through_real_redirection(world, mesh):
    addresses = {"web": VIP, "web-v1": "10.96.0.21", "web-v2": "10.96.0.22"}
    pods = {"web": "10.1.1.11", "web-v1": "10.1.1.11", "web-v2": "10.1.1.12"}
    for address in {*pods.values()}:
        world.add_pod(address)
    objects = []
    for name, vip in addresses.items():
        objects += [service(name, vip, [port(80, "http")]), endpoint_slice(name, [pods[name]], 8080, "http")]
    route = http_route("main", "web", [rule([V2], [header("x-tester", "yes")]), rule([V1])])
    with Web(world.node, "10.1.1.11", 8080, name="v1"), Web(world.node, "10.1.1.12", 8080, name="v2"):
        mesh(*objects, route)
        status, body = curl(world.pod, f"http://{VIP}/")
        assert status == 200 and '"server": "v1"' in body
        status, body = curl(world.pod, "-H", "X-Tester: yes", f"http://{VIP}/")
        assert status == 200 and '"server": "v2"' in body


def test_requests_that_arrive_reach_the_application(world, mesh):
    proxy = mesh()
    with Web(world.pod, "0.0.0.0", 8080, name="application") as server:
        status, body = curl(world.node, "http://10.1.0.2:8080/x")
        assert status == 200 and '"server": "application"' in body
        assert server.heads[0].start == "GET /x HTTP/1.1"
    servers.wait_until(lambda: proxy.metric("outrigger_connections_total", direction="inbound") == 1, "it is counted")

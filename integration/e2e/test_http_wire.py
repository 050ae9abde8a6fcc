"""HTTP/1.1 on the wire: framing, reuse, interim answers, tunnels, and what hostile peers on either side get."""

import hashlib
import os
import socket
import threading

import pytest

import servers
from http_peers import WEBSOCKET, Raw, Scripted, Web, curl, read_response, request
from objects import endpoint_slice, port, service

SERVICE = service("web", "10.96.0.20", [port(80, "http", "http")])


def slice_of(server):
    return endpoint_slice("web", ["127.0.0.1"], server.port, "http")


@pytest.fixture
def web(serving, listen):
    """web() -> a proxy in front of one recording server."""

    def make(options=(), **more):
        server = serving(Web, **more)
        proxy = listen(SERVICE, slice_of(server), options=options)
        proxy.server = server
        return proxy

    return make


@pytest.fixture
def scripted(serving, listen):
    """scripted(bytes) -> a proxy in front of a server that answers with exactly these bytes."""

    def make(answer, hold=False):
        server = serving(Scripted, 0, answer, hold)
        proxy = listen(SERVICE, slice_of(server))
        proxy.server = server
        return proxy

    return make


def client_of(proxy, **options):
    return Raw(proxy.host, "127.0.0.1", proxy.port, **options)


# ---- connections ----


def test_requests_share_a_connection_on_both_sides(web):
    proxy = web()
    with client_of(proxy) as client:
        for number in range(100):
            assert client.ask(request(f"/{number}")).json()["start"] == f"GET /{number} HTTP/1.1"
    assert proxy.server.accepted == 1


def test_pipelined_requests_are_answered_in_order(web):
    proxy = web()
    with client_of(proxy) as client:
        client.send(b"".join(request(f"/{number}", "POST", body=b"x" * number) for number in range(50)))
        for number in range(50):
            answer = client.response().json()
            assert (answer["start"], answer["size"]) == (f"POST /{number} HTTP/1.1", number)


def test_connection_close_of_the_client_is_honoured(web):
    proxy = web()
    with client_of(proxy) as client:
        assert client.ask(request(fields=["Connection: close"])).status == 200
        assert client.is_ended()


def test_hop_by_hop_fields_stay_on_their_hop(web):
    proxy = web()
    with client_of(proxy) as client:
        client.ask(request(fields=["Connection: X-Private, keep-alive", "X-Private: 1", "Keep-Alive: 5", "TE: trailers",
                                   "Proxy-Authorization: secret"]))
    [head] = proxy.server.heads
    for name in ("X-Private", "Keep-Alive"):
        assert head.get(name) is None, head.raw


def test_a_server_that_closes_after_each_answer_is_no_error(web):
    proxy = web(requests_each=3)
    with client_of(proxy) as client:
        answers = [client.ask(request(f"/{number}")).status for number in range(100)]
    assert answers == [200] * 100
    assert len(proxy.server.heads) == 100, "each request arrives once"


def test_http_1_0_clients_are_served_and_closed(web):
    proxy = web()
    with client_of(proxy) as client:
        response = client.ask(b"GET /old HTTP/1.0\r\nHost: web.shop\r\n\r\n")
        assert response.status == 200 and client.is_ended()


def test_an_answer_that_ends_with_the_connection_is_delivered_whole(web):
    proxy = web()
    with client_of(proxy) as client:
        response = client.ask(request("/?until_close=1&bytes=100000"))
        assert len(response.body) == 100000
    with client_of(proxy) as client:
        response = client.ask(b"GET /?until_close=1&bytes=5000 HTTP/1.0\r\nHost: web.shop\r\n\r\n")
        assert len(response.body) == 5000


# ---- bodies ----


@pytest.mark.parametrize("pieces", [[b"hello"], [b"a" * 70000], [b"1"] * 300],
                         ids=["one", "large", "many"])
def test_a_chunked_request_arrives_whole(web, pieces):
    proxy = web()
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    with client_of(proxy) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        answer = client.response().json()
        assert answer["sha256"] == hashlib.sha256(b"".join(pieces)).hexdigest()
        assert client.ask(request()).status == 200


def test_trailers_pass_in_both_directions(web):
    proxy = web()
    with client_of(proxy) as client:
        response = client.ask(b"POST /?trailer=1 HTTP/1.1\r\nHost: web.shop\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n"
                              b"Trailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n")
        assert response.trailers == ["X-Checksum: of-the-body"]
        assert response.json()["trailers"] == ["X-Sum: 7"]


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_do_not_hold_the_next(web, status):
    proxy = web()
    with client_of(proxy) as client:
        assert client.ask(request(f"/?status={status}")).status == status
        assert client.ask(request("/next")).json()["start"] == "GET /next HTTP/1.1"


def test_head_has_the_length_and_no_body(web):
    proxy = web()
    with client_of(proxy) as client:
        response = client.ask(request("/?bytes=12345", "HEAD"), "HEAD")
        assert response.get("Content-Length") == "12345"
        assert client.ask(request("/next")).json()["start"] == "GET /next HTTP/1.1"


def test_expect_100_continue_is_answered_before_the_body(web):
    proxy = web()
    with client_of(proxy) as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert client.reader.head().start.startswith("HTTP/1.1 100")
        client.send(b"hello")
        assert client.response().json()["size"] == 5


def test_an_early_answer_reaches_a_client_that_is_still_sending(web):
    proxy = web()
    with client_of(proxy) as client:
        client.send(b"POST /?early=1&status=413 HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 50000000\r\n\r\n" + bytes(100000))
        assert client.response().status == 413
    with client_of(proxy) as client:
        assert client.ask(request()).status == 200


@pytest.mark.parametrize("split", ["bytes", "lines", "late body"])
def test_segments_do_not_matter(web, split):
    proxy = web()
    whole = request("/segments", "POST", fields=["X-A: 1", "X-B: 2"], body=b"0123456789")
    pieces = {"bytes": [whole[at:at + 1] for at in range(len(whole))],
              "lines": whole.splitlines(keepends=True),
              "late body": [whole[:-10], whole[-10:-5], whole[-5:]]}[split]
    with client_of(proxy) as client:
        client.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.send(piece)
        answer = client.response().json()
        assert answer["size"] == 10 and answer["start"] == "POST /segments HTTP/1.1"


# ---- real clients ----


@pytest.mark.slow
def test_curl_uploads_and_downloads_large_bodies(web, directory):
    proxy = web()
    data = os.urandom(8 << 20)
    upload = os.path.join(directory, "upload")
    with open(upload, "wb") as file:
        file.write(data)
    url = f"http://127.0.0.1:{proxy.port}/"
    for words in ([], ["-H", "Transfer-Encoding: chunked"], ["-0"]):
        if words == ["-0"]:
            words = ["--http1.0"]
        status, body = curl(proxy.host, "-T", upload, *words, url)
        assert status == 200 and hashlib.sha256(data).hexdigest() in body, words
    target = os.path.join(directory, "download")
    for more in ("", "&chunked=1", "&until_close=1"):
        status, _ = curl(proxy.host, "-o", target, f"{url}?bytes=20000000{more}")
        assert status == 200 and os.path.getsize(target) == 20000000


@pytest.mark.slow
def test_slow_readers_of_large_answers_hold_back_their_servers(web):
    proxy = web()
    with client_of(proxy) as client:
        client.ask(request("/?bytes=3000000"))  # what the proxy keeps for all that come after
    base = proxy.resident_bytes()
    readers = [client_of(proxy) for _ in range(16)]
    for reader in readers:
        reader.send(request("/?bytes=20000000"))
    for reader in readers:
        reader.reader.take(1000)
    before = -1

    def is_still():
        nonlocal before
        before, last = proxy.cpu_seconds(), before
        return before == last

    servers.wait_until(is_still, "the proxy rests")
    assert proxy.resident_bytes() - base < 16 * (256 << 10) + (1 << 20)
    for reader in readers:
        reader.connection.close()


# ---- tunnels ----


def test_an_upgrade_becomes_a_tunnel_in_both_directions(web):
    proxy = web()
    with client_of(proxy) as client:
        client.send(request("/socket", fields=WEBSOCKET))
        response = client.response()
        assert response.status == 101 and response.get("Upgrade") == "websocket"
        assert client.reader.take(8) == b"welcome "
        for word in (b"hello", b"x" * 100000):
            client.send(word)
            assert client.reader.take(len(word)) == word.upper()
        client.connection.shutdown(socket.SHUT_WR)
        assert client.is_ended()


def test_a_tunnel_never_begins_on_a_used_connection(web):
    """E3: what an upstream left behind on a pooled connection cannot be taken for the answer to an upgrade."""
    proxy = web()
    with client_of(proxy) as client:
        assert client.ask(request()).status == 200
        assert client.ask(request("/?refuse=1", fields=WEBSOCKET)).status == 200
        assert client.ask(request()).status == 200
    assert proxy.server.accepted == 2, "one for both ordinary requests, one for the upgrade"


def test_a_refused_upgrade_is_an_ordinary_answer(scripted):
    proxy = scripted(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", hold=True)
    with client_of(proxy) as client:
        response = client.ask(request(fields=WEBSOCKET))
        assert (response.status, response.body) == (403, b"no")


def test_bytes_after_an_upgrade_are_not_tunnelled_before_the_101(web):
    """E2: what follows a refused upgrade is the next request, never bytes for the upstream."""
    proxy = web()
    with client_of(proxy) as client:
        client.send(request("/?refuse=1", fields=WEBSOCKET) + request("/next"))
        assert client.response().status == 200
        assert client.response().json()["start"] == "GET /next HTTP/1.1"


@pytest.mark.parametrize("fields, status", [
    (WEBSOCKET[:3], 400),
    ([*WEBSOCKET[:2], "Sec-WebSocket-Version: 12", WEBSOCKET[3]], 426),
    ([*WEBSOCKET[:3], "Sec-WebSocket-Key: short"], 400),
    ([*WEBSOCKET, "Content-Length: 5"], 400),
], ids=["no key", "old version", "short key", "with a body"])
def test_a_malformed_upgrade_is_refused(web, fields, status):
    proxy = web()
    with client_of(proxy) as client:
        client.send(request("/socket", fields=fields) + b"hello")
        assert client.response().status == status
    assert not proxy.server.heads


def test_other_upgrades_are_ordinary_requests(web):
    """E1, E4: only WebSocket is tunnelled; h2c never."""
    proxy = web()
    with client_of(proxy) as client:
        response = client.ask(request("/x", fields=["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]))
        assert response.status == 200
    [head] = proxy.server.heads
    assert head.get("Upgrade") is None and head.get("HTTP2-Settings") is None


# ---- hostile clients ----

A = b"POST / HTTP/1.1\r\nHost: web.shop\r\n"
REFUSED = {
    "A1 both lengths": (A + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", 400),
    "A2 vertical tab": (A + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "A2 chunked twice": (A + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "A2 two lines": (A + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "A2 unknown coding": (A + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "A3 coding in 1.0": (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "A4 two lengths": (A + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "A4 a list": (A + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "A5 plus": (A + b"Content-Length: +5\r\n\r\nhello", 400),
    "A5 hex": (A + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "A5 empty": (A + b"Content-Length: \r\n\r\n", 400),
    "A5 huge": (A + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    "A6 chunk size": (A + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
    "A7 bare LF in chunk": (A + b"Transfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n", 400),
    "A7 spill": (A + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", 400),
    "A8 bare LF": (b"GET / HTTP/1.1\nHost: web.shop\n\n", 400),
    "A9 folded": (A + b"Content-Length: 0\r\nX-A: 1\r\n b\r\n\r\n", 400),
    "A10 space before colon": (A + b"Content-Length : 5\r\n\r\nhello", 400),
    "A11 no colon": (A + b"Content-Length: 0\r\nfoo bar\r\n\r\n", 400),
    "A11 empty name": (A + b"Content-Length: 0\r\n: x\r\n\r\n", 400),
    "A12 NUL": (A + b"Content-Length: 0\r\nX-A: a\x00b\r\n\r\n", 400),
    "A13 two spaces": (b"GET  / HTTP/1.1\r\nHost: web.shop\r\n\r\n", 400),
    "A13 fragment": (b"GET /a#b HTTP/1.1\r\nHost: web.shop\r\n\r\n", 400),
    "A13 version": (b"GET / HTTP/2.0\r\nHost: web.shop\r\n\r\n", 505),
    "A14 no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "A14 two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "A14 path in host": (b"GET / HTTP/1.1\r\nHost: a/abc?bar=\r\n\r\n", 400),
    "A15 absolute form of another host": (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    "A20 long target": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "A20 many fields": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(110)) + b"\r\n", 431),
    "A20 large head": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 7000) for n in range(10)) + b"\r\n", 431),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_malformed_request_is_refused_and_never_forwarded(web, case):
    proxy = web()
    data, status = REFUSED[case]
    with client_of(proxy) as client:
        client.send(data)
        response = client.response()
        assert response.status == status, case
        assert client.is_ended(), "the connection is closed"
    with client_of(proxy) as client:
        assert client.ask(request("/clean")).status == 200
    assert [head.start for head in proxy.server.heads] == ["GET /clean HTTP/1.1"]
    lines = proxy.wait_access_lines(2)
    assert "request_malformed" in [line["cause"] for line in lines] or status in (414, 431, 501, 505)


def test_a_request_hidden_in_a_body_stays_a_body(web):
    proxy = web()
    hidden = request("/admin")
    with client_of(proxy) as client:
        assert client.ask(request("/", "POST", body=hidden)).json()["size"] == len(hidden)
        assert client.ask(request("/after")).status == 200
    assert [head.start for head in proxy.server.heads] == ["POST / HTTP/1.1", "GET /after HTTP/1.1"]


def test_a_client_that_leaves_in_the_middle_of_its_body_costs_nobody_else(web):
    proxy = web()
    for _ in range(20):
        with client_of(proxy) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 1000\r\n\r\npart")
    with client_of(proxy) as client:
        assert client.ask(request()).status == 200
    assert [head.start for head in proxy.server.heads] == ["GET / HTTP/1.1"]


# ---- hostile servers ----


MALFORMED = {
    "no status line": b"garbage\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
    "large head": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 7000) for n in range(10)) + b"\r\n",
    "long status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "cut in its head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "nothing": b"",
    "upgrade that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_answer_is_502(scripted, case):
    proxy = scripted(MALFORMED[case])
    with client_of(proxy) as client:
        response = client.ask(request())
        assert response.status == 502
        assert "details=\"upstream_" in response.get("proxy-status")


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
], ids=["length", "chunked", "malformed chunk"])
def test_a_truncated_answer_is_never_passed_off_as_whole(scripted, answer):
    proxy = scripted(answer)
    with client_of(proxy) as client:
        client.send(request())
        with pytest.raises((EOFError, ConnectionResetError)):
            client.response()
    [line] = proxy.wait_access_lines(1)
    assert line["cause"] in ("upstream_reset", "upstream_malformed")


def test_a_flood_of_interim_answers_is_bounded(scripted):
    proxy = scripted(b"HTTP/1.1 100 Continue\r\n\r\n" * 100000 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    base = proxy.resident_bytes()
    with client_of(proxy) as client:
        client.send(request())
        try:
            read_response(client.reader)
        except (EOFError, ConnectionResetError):
            pass
    assert proxy.resident_bytes() - base < 2 << 20
    assert proxy.is_ready()


def test_bytes_after_an_answer_are_not_the_next_answer(serving, listen):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    server = serving(Scripted, 0, answer + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", True)
    proxy = listen(SERVICE, slice_of(server))
    with client_of(proxy) as client:
        for _ in range(5):
            assert client.ask(request()).body == b"ok"


# ---- many at once ----


def test_many_clients_get_their_own_answers(web):
    """A small ledger: interleaved keep-alive requests with bodies, every answer belongs to its request."""
    proxy = web()
    wrong = []

    def client_body(number):
        try:
            with client_of(proxy) as client:
                for turn in range(100):
                    body = f"{number}-{turn}".encode() * (turn + 1)
                    answer = client.ask(request(f"/{number}/{turn}", "POST", body=body)).json()
                    if answer["start"] != f"POST /{number}/{turn} HTTP/1.1" or answer["sha256"] != hashlib.sha256(body).hexdigest():
                        wrong.append((number, turn, answer))
        except Exception as error:  # any failure is a lost request
            wrong.append((number, error))

    threads = [threading.Thread(target=client_body, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]
    assert len(proxy.server.heads) == 1600, "each request arrived once"


@pytest.mark.slow
@pytest.mark.skipif(not servers.is_installed("wrk"), reason="wrk is not installed")
def test_wrk_sees_no_error_in_front_of_nginx(host, listen, directory):
    if not servers.is_installed("nginx"):
        pytest.skip("nginx is not installed")
    upstream = servers.free_port(host)
    configuration = os.path.join(directory, "nginx.conf")
    with open(configuration, "w") as file:
        file.write(f"""daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
uwsgi_temp_path {directory}; scgi_temp_path {directory};
server {{ listen 127.0.0.1:{upstream}; keepalive_requests 1000; location / {{ return 200 "hello"; }} }} }}
""")
    with servers.program(host, "nginx", "-c", configuration, log=os.path.join(directory, "nginx.log"), ready=("127.0.0.1", upstream)):
        proxy = listen(SERVICE, endpoint_slice("web", ["127.0.0.1"], upstream, "http"), options=["--log-level", "warning"])
        done = host.run("wrk", "-t1", "-c32", "-d2s", f"http://127.0.0.1:{proxy.port}/")
        assert done.returncode == 0, done.stderr
        assert "Socket errors" not in done.stdout and "Non-2xx" not in done.stdout, done.stdout
        requests = int(done.stdout.split(" requests in ")[0].split()[-1])
        assert requests > 1000
        servers.wait_until(lambda: proxy.metric("outrigger_requests_total", code="200") >= requests, "all are counted")

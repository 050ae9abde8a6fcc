"""The vectors of http1_requests.txt and http1_responses.txt over the wire: what a recording upstream gets, and what the client gets.

The same rows run against the codec alone, in every cut, in sidecar/http/http1_test.c. Here a whole proxy is between two sockets: it
adds x-request-id and Date, which are taken out before comparing, and it may cut chunks elsewhere, so chunks are joined.
"""

import contextlib
import os
import re
import select
import socket
import threading

import pytest

import servers
from objects import endpoint_slice, port, service

HERE = os.path.dirname(os.path.abspath(__file__))
SERVICE = service("web", "10.96.0.20", [port(80, "http", "http")])
ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}
QUIET_SECONDS = 0.1  # how long silence is looked at where silence is what is expected


def decode(text):
    """The bytes, and how they end: "", "end", "reset" or "truncated"."""
    out, end, repeat = bytearray(), "", 0
    while text:
        if match := re.match(r"\*(\d+)»", text):
            out[repeat:] = bytes(out[repeat:]) * int(match[1])
            text = text[match.end():]
        elif match := re.match(r"\\x([0-9a-f]{2})", text):
            out.append(int(match[1], 16))
            text = text[4:]
        elif text[0] == "\\":
            out += ESCAPES[text[1]]
            text = text[2:]
        else:
            if text[0] == "«":
                repeat = len(out)
            elif text[0] in "␄␡✂":
                end = {"␄": "end", "␡": "reset", "✂": "truncated"}[text[0]]
            else:
                out += b"\r\n" if text[0] == "⏎" else text[0].encode()
            text = text[1:]
    return bytes(out), end


def rows(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return [line.rstrip("\n").split("\t") for line in file if line.strip() and not line.startswith("#")]


def groups(name):
    found = {}
    for row in rows(name):
        found.setdefault(row[0].split(".")[0], []).append(row)
    return found


REQUESTS = groups("http1_requests.txt")
RESPONSES = groups("http1_responses.txt")


# ---- messages ----


def chunks(data):
    """(canonical bytes, rest) of a chunked body, or (canonical so far, None)."""
    content = b""
    while match := re.match(rb"([0-9a-fA-F]+)\r\n", data):
        size = int(match[1], 16)
        data = data[match.end():]
        if size == 0:
            trailers = re.match(rb"((?:[^\r]+\r\n)*)\r\n", data)
            line = b"%x\r\n%s\r\n" % (len(content), content) if content else b""
            if trailers:
                return line + b"0\r\n" + trailers[0], data[trailers.end():]
            return line, None
        content += data[:size]
        if len(data) < size + 2:
            break
        data = data[size + 2:]
    return (b"%x\r\n%s\r\n" % (len(content), content) if content else b""), None


def take(data, method=None):
    """The first message of `data`: (canonical bytes, rest), or (canonical so far, None) while it is not whole.

    `method`: of the request that a response answers; None: a request.
    """
    at = data.find(b"\r\n\r\n")
    if at < 0:
        return data, None
    head, rest = data[:at + 4], data[at + 4:]
    length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.I)
    is_chunked = re.search(rb"\r\ntransfer-encoding: chunked\r\n", head, re.I)
    head = re.sub(rb"\r\n(?:x-request-id|date): [^\r]*(?=\r\n)", b"", head, flags=re.I)
    status = int(data[9:12]) if method else 0
    if method == "HEAD" or (status and (status < 200 or status in (204, 304))):
        return head, rest
    if is_chunked:
        body, rest = chunks(rest)
        return head + body, rest
    if length:
        size = int(length[1])
        return head + rest[:size], (rest[size:] if len(rest) >= size else None)
    if method:
        return head + rest, None  # to the end of the connection
    return head, rest


class Recorder(servers.Server):
    """Keeps every request as it came and answers each whole one with an empty 200."""

    def __init__(self, host, address, port_number=0):
        super().__init__(host, address, port_number)
        self.whole = []
        self.partial = []

    def clear(self):
        with self.lock:
            self.whole.clear()
            self.partial.clear()

    def handle(self, connection):
        data = b""
        while True:
            canonical, rest = take(data)
            if rest is not None:
                with self.lock:
                    self.whole.append(canonical)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                data = rest
                continue
            try:
                part = connection.recv(65536)
            except OSError:
                part = b""
            if not part:
                if data:
                    with self.lock:
                        self.partial.append(canonical)
                return
            data += part


def without_framing_of_nothing(message):
    """An empty chunked body that was whole before the upstream was chosen is passed on as a length of 0."""
    return re.sub(rb"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n$", b"\r\nContent-Length: 0\r\n\r\n", message)


def head_and_content(message):
    head, _, body = message.partition(b"\r\n\r\n")
    chunk = re.match(rb"[0-9a-f]+\r\n(.*)\r\n$", body, re.S)
    return head, chunk[1] if chunk else body


def split_whole(data):
    whole = []
    while data:
        canonical, rest = take(data)
        if rest is None:
            return whole, canonical
        whole.append(canonical)
        data = rest
    return whole, b""


def read_until(connection, is_done):
    """Bytes until `is_done(bytes)` or the end; (bytes, ended)."""
    data = b""
    while not is_done(data):
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            return data, True
        if not part:
            return data, True
        data += part
    return data, False


def is_silent(connection):
    return not select.select([connection], [], [], QUIET_SECONDS)[0]


def statuses_of(data):
    return [match.decode() for match in re.findall(rb"(?:^|\r\n\r\n)HTTP/1.1 (\d{3}) ", data)]


def check_request(proxy, row):
    name, outcome, sent, passed = row
    data, end = decode(sent)
    wanted, tail = split_whole(decode(sent if passed == "=" else "" if passed == "-" else passed)[0])
    is_closed = outcome.endswith("c")
    statuses = [status for status in outcome.rstrip("c").split(",") if status not in ("", "-")]
    proxy.server.clear()
    with servers.connect(proxy.host, "127.0.0.1", proxy.port) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
            if end:
                client.shutdown(socket.SHUT_WR)
        got, ended = read_until(client, lambda data: len(statuses_of(data)) == len(statuses) and
                                data.count(b"\r\n\r\n") == len(statuses) and not is_closed)
        assert statuses_of(got) == statuses, (name, got)
        assert ended == is_closed, (name, got)
        assert is_closed or is_silent(client), name
        for status in statuses:
            assert status == "200" or b"\r\nproxy-status: outrigger; " in got, (name, got)
    servers.wait_until(lambda: len(proxy.server.whole) >= len(wanted),
                       f"{name}: the upstream has its requests; it has {proxy.server.whole}")
    assert list(map(without_framing_of_nothing, proxy.server.whole)) == list(map(without_framing_of_nothing, wanted)), name
    # How much of a broken message goes on before it breaks is a matter of time: none of it, or a beginning; perhaps
    # only while the next row is looked at.
    proxy.tails.append(tail)
    for partial in proxy.server.partial:
        head, content = head_and_content(partial)
        assert any(head == other and whole.startswith(content) for other, whole in map(head_and_content, proxy.tails)), \
            (name, partial, tail)


@pytest.mark.parametrize("group", REQUESTS)
def test_requests_are_passed_on_exactly_or_refused(serving, listen, group):
    server = serving(Recorder)
    proxy = listen(SERVICE, endpoint_slice("web", ["127.0.0.1"], server.port, "http"))
    proxy.server = server
    proxy.tails = []
    for row in REQUESTS[group]:
        check_request(proxy, row)


# ---- responses ----


ASKED = {
    "GET": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    "GET10": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    "WS": (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"),
}


class Script(servers.Server):
    """Answers every whole request with `answer`, then ends as it says."""

    def __init__(self, host, address, port_number=0):
        super().__init__(host, address, port_number)
        self.answer = b""
        self.end = ""
        self.asked = 0

    def handle(self, connection):
        data = b""
        while True:
            _, rest = take(data)
            if rest is not None:
                data = rest
                with self.lock:
                    self.asked += 1
                    answer, end = self.answer, self.end
                connection.sendall(answer)
                if end == "reset":
                    servers.reset(connection)
                if end:
                    return
                continue
            part = connection.recv(65536)
            if not part:
                return
            data += part


def relayed(data, method):
    """Canonical bytes of the interim responses and the final one, and whether it is whole."""
    out = b""
    while True:
        canonical, rest = take(data, method)
        out += canonical
        if rest is None or re.match(rb"HTTP/1.1 (?!1)\d", canonical):
            return out, rest is not None
        if canonical.startswith(b"HTTP/1.1 101"):
            return out + rest, False
        data = rest


def check_response(proxy, row):
    name, asked, outcome, sent, wanted = row
    server = proxy.server
    server.answer, server.end = decode(sent)
    method = "HEAD" if asked == "HEAD" else "GET"
    expected, end = decode(sent if wanted == "=" else "" if wanted == "502" else wanted)
    expected = expected if wanted != "502" and b"502 Bad" not in expected else None
    server.asked = 0
    with servers.connect(proxy.host, "127.0.0.1", proxy.port) as client:
        client.sendall(ASKED[asked])
        if outcome == "wait":
            servers.wait_until(lambda: server.asked > 0, f"{name}: the upstream was asked")
            return
        goal = relayed(expected, method)[0] if expected is not None else None
        got, ended = read_until(client, lambda data: not end and (
            relayed(data, method)[1] or (outcome == "tunnel" and relayed(data, method)[0] == goal)))
    if goal is None:
        assert re.search(rb"(?:^|\r\n\r\n)HTTP/1.1 50[23] ", got), (name, got)
        return
    canonical, is_whole = relayed(got, method)
    if "reset" in (outcome, end):  # what was on its way is lost with it
        (head, content), (head_wanted, content_wanted) = map(head_and_content, (canonical, goal))
        assert not is_whole or outcome == "reset" and re.match(rb"HTTP/1.1 50[23] ", got), (name, got)
        assert is_whole or head_wanted.startswith(head) and content_wanted.startswith(content), (name, got)
        return
    assert canonical == goal, name
    assert ended or end == "", name


@pytest.mark.parametrize("group", RESPONSES)
def test_responses_are_relayed_exactly_or_refused(serving, listen, group):
    server = serving(Script)
    proxy = listen(SERVICE, endpoint_slice("web", ["127.0.0.1"], server.port, "http"))
    proxy.server = server
    for row in RESPONSES[group]:
        if "✂" not in row[3]:  # needs TLS
            check_response(proxy, row)


def test_every_row_is_there():
    assert sum(len(group) for group in REQUESTS.values()) == 715
    assert sum(len(group) for group in RESPONSES.values()) == 157

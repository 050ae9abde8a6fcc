"""HTTP/1.1 peers that keep every byte: a small server that records what it received, and a raw client.

The server answers with JSON that says what it saw, so that a test reads both sides from one response. Its behaviour is chosen by
the path's query: `?status=204`, `?chunked=1`, `?bytes=N`, `?close=1`, `?delay=0.5`, `?trailer=1`, `?early=1` (answer before the body).
"""

import base64
import contextlib
import hashlib
import http.client
import json
import threading
import urllib.parse

import servers

WEBSOCKET = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
WEBSOCKET_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


class Head:
    def __init__(self, raw):
        self.raw = raw
        lines = raw.decode("latin-1").split("\r\n")
        self.start = lines[0]
        self.fields = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:] if line]

    def get(self, name, default=None):
        """All values joined, as RFC 9110 5.3 has it."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(values) if values else default


class Reader:
    """Bytes of a connection, by line and by count."""

    def __init__(self, connection):
        self.connection = connection
        self.buffer = b""

    def fill(self):
        data = self.connection.recv(65536)
        self.buffer += data
        return bool(data)

    def take(self, size):
        while len(self.buffer) < size:
            if not self.fill():
                raise EOFError(f"{size - len(self.buffer)} bytes short")
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def until(self, mark):
        while mark not in self.buffer:
            if not self.fill():
                raise EOFError(f"ended before {mark!r}, after {self.buffer[-80:]!r}")
        at = self.buffer.index(mark) + len(mark)
        data, self.buffer = self.buffer[:at], self.buffer[at:]
        return data

    def rest(self):
        while self.fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def head(self):
        return Head(self.until(b"\r\n\r\n")[:-4])

    def chunked(self):
        """The body and the trailer lines."""
        parts = []
        while True:
            size = int(self.until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                break
            parts.append(self.take(size))
            assert self.take(2) == b"\r\n"
        trailers = []
        while (line := self.until(b"\r\n")) != b"\r\n":
            trailers.append(line[:-2].decode("latin-1"))
        return b"".join(parts), trailers


class Response:
    def __init__(self, head, body, trailers):
        self.head = head
        self.status = int(head.start.split(" ")[1])
        self.body = body
        self.trailers = trailers
        self.interim = []

    def get(self, name, default=None):
        return self.head.get(name, default)

    def json(self):
        return json.loads(self.body)


def read_response(reader, method="GET"):
    interim = []
    while True:
        head = reader.head()
        status = int(head.start.split(" ")[1])
        if status == 101 or status >= 200:
            break
        interim.append(head)
    trailers = []
    if method == "HEAD" or status in (101, 204, 304):
        body = b""
    elif "chunked" in head.get("Transfer-Encoding", ""):
        body, trailers = reader.chunked()
    elif head.get("Content-Length") is not None:
        body = reader.take(int(head.get("Content-Length")))
    else:
        body = reader.rest()
    response = Response(head, body, trailers)
    response.interim = interim
    return response


class Raw:
    """A client that writes exactly these bytes."""

    def __init__(self, host, address, port, timeout=servers.DEADLINE):
        self.connection = servers.connect(host, address, port, timeout=timeout)
        self.reader = Reader(self.connection)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def send(self, data):
        self.connection.sendall(data)

    def response(self, method="GET"):
        return read_response(self.reader, method)

    def ask(self, data, method="GET"):
        self.send(data)
        return self.response(method)

    def is_ended(self):
        """Does the peer close, without another byte?"""
        try:
            return self.reader.rest() == b""
        except ConnectionResetError:
            return True


def request(path="/", method="GET", host="web.shop", fields=(), body=None):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


class Web(servers.Server):
    """The recording server. `heads` and `raw` are what arrived, in order."""

    def __init__(self, host, address, port=0, name="web", requests_each=None):
        super().__init__(host, address, port)
        self.name = name
        self.heads = []
        self.bodies = []
        self.requests_each = requests_each  # close a connection without a word after so many

    def handle(self, connection):
        reader = Reader(connection)
        served = 0
        while True:
            try:
                head = reader.head()
            except EOFError:
                return
            query = dict(urllib.parse.parse_qsl(head.start.split(" ")[1].partition("?")[2]))
            if "reset" in query:
                servers.reset(connection)
                return
            if "hangup" in query:
                return
            if "upgrade" in (head.get("Connection") or "").lower() and "refuse" not in query:
                self.tunnel(connection, reader, head)
                return
            if head.get("Expect") == "100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if "early" in query:
                self.answer(connection, head, b"", [], {**query, "close": "1"})
                # Reads on, as a good server does before it closes, so that the answer is not lost to a reset.
                with contextlib.suppress(OSError, EOFError):
                    reader.rest()
                return
            body, trailers = self.body(reader, head)
            if "delay" in query:
                threading.Event().wait(float(query["delay"]))
            self.answer(connection, head, body, trailers, query)
            served += 1
            if "close" in query or served == self.requests_each or head.start.endswith("HTTP/1.0"):
                return

    def body(self, reader, head):
        if "chunked" in (head.get("Transfer-Encoding") or ""):
            return reader.chunked()
        return reader.take(int(head.get("Content-Length") or 0)), []

    def answer(self, connection, head, body, trailers, query):
        with self.lock:
            self.heads.append(head)
            self.bodies.append(body)
        method = head.start.split(" ")[0]
        status = int(query.get("status", 200))
        fields = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Other')}", f"X-Served-By: {self.name}"]
        fields += filter(None, (head.get("X-Echo-Set-Header") or "").split(";"))  # what the client wants to see come back
        if "close" in query:
            fields.append("Connection: close")
        if "bytes" in query:
            content = bytes(range(256)) * (int(query["bytes"]) // 256 + 1)
            content = content[:int(query["bytes"])]
        else:
            content = json.dumps({"server": self.name, "start": head.start, "fields": head.fields, "size": len(body),
                                  "sha256": hashlib.sha256(body).hexdigest(), "trailers": trailers}).encode()
        if status in (204, 304):
            connection.sendall("\r\n".join(fields).encode() + b"\r\n\r\n")
            return
        if "chunked" in query or "trailer" in query:
            fields.append("Transfer-Encoding: chunked")
            pieces = [content[at:at + 1000] for at in range(0, len(content), 1000)]
            data = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n"
            data += b"X-Checksum: of-the-body\r\n\r\n" if "trailer" in query else b"\r\n"
        elif "until_close" in query:
            data = content
        else:
            fields.append(f"Content-Length: {len(content)}")
            data = content
        connection.sendall("\r\n".join(fields).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else data))
        if "until_close" in query:
            raise OSError("closes")

    def tunnel(self, connection, reader, head):
        """101, then every byte comes back in upper case."""
        with self.lock:
            self.heads.append(head)
        accept = base64.b64encode(hashlib.sha1((head.get("Sec-WebSocket-Key", "") + WEBSOCKET_SUFFIX).encode()).digest())
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\nwelcome ")
        data = reader.buffer
        while True:
            if data:
                connection.sendall(data.upper())
            data = connection.recv(65536)
            if not data:
                return


class Scripted(servers.Server):
    """Answers the first request of each connection with exactly these bytes, then closes (or holds)."""

    def __init__(self, host, address, port, answer, hold=False):
        super().__init__(host, address, port)
        self.answer = answer
        self.hold = hold

    def handle(self, connection):
        reader = Reader(connection)
        try:
            reader.head()
        except EOFError:
            return
        connection.sendall(self.answer)
        if self.hold:
            reader.rest()


def curl(host, *arguments, timeout=30):
    """Run curl; returns (status, body)."""
    done = host.run("curl", "-sS", "--max-time", timeout, "-w", "\n%{http_code}", *arguments, timeout=timeout + 5)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body

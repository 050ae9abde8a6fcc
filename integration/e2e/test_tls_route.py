"""TLSRoute: the server name of the ClientHello chooses, however it is cut; the proxy has no key and changes no byte."""

import contextlib
import socket
import ssl
import struct
import time

import pytest

import servers
from objects import endpoint_slice, port, service
from servers import Sealed, read_all, sealed_greeting

RECORD_MAX = 1 << 14


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    return servers.certificate(str(tmp_path_factory.mktemp("certificate")))


@pytest.fixture
def proxy(serving, listen, pem):
    """`gate` sends one.example.com to one, *.example.com to two."""
    one, two = serving(Sealed, 0, "one", pem), serving(Sealed, 0, "two", pem)
    made = listen(
        service("gate", "10.96.0.30", [port(443, "tls", "tls")]),
        *(item for number, server in enumerate((one, two)) for item in (
            service(server.greeting.decode().strip(), f"10.96.0.{31 + number}", [port(443, "tls", "tls")]),
            endpoint_slice(server.greeting.decode().strip(), ["127.0.0.1"], server.port, "tls"))),
        *({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute", "metadata": {"namespace": "shop", "name": name},
           "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "gate"}], "hostnames": [host],
                    "rules": [{"backendRefs": [{"name": name, "port": 443}]}]}}
          for name, host in (("one", "one.example.com"), ("two", "*.example.com"))),
        to="gate.shop:443")
    made.one, made.two = one, two
    return made


def dial(proxy):
    connection = servers.connect(proxy.host, "127.0.0.1", proxy.port)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return contextlib.closing(connection)


def ask(proxy, name, pem):
    with dial(proxy) as connection:
        return sealed_greeting(connection, name, pem).decode().strip()


class Client:
    """A TLS client whose bytes the test sends as it likes."""

    def __init__(self, connection, name, pem, protocols=()):
        self.connection = connection
        self.from_peer, self.to_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(pem)
        if protocols:
            context.set_alpn_protocols(protocols)
        self.tls = context.wrap_bio(self.from_peer, self.to_peer, server_hostname=name)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.hello = self.to_peer.read()

    def read_all(self):
        """What the server says, once the hello is sent."""
        said = b""
        while True:
            try:
                part = self.tls.read(65536)  # shakes hands first
                if not part:
                    return said
                said += part
            except ssl.SSLWantReadError:
                self.connection.sendall(self.to_peer.read())
                if data := self.connection.recv(65536):
                    self.from_peer.write(data)
                else:
                    self.from_peer.write_eof()
            except ssl.SSLZeroReturnError:
                return said


def in_records(hello, size):
    """The same handshake message in records of at most `size` bytes (RFC 8446 5.1)."""
    message = b""
    version = hello[1:3]
    while hello:
        length = struct.unpack("!H", hello[3:5])[0]
        message += hello[5:5 + length]
        hello = hello[5 + length:]
    return b"".join(b"\x16" + version + struct.pack("!H", len(part)) + part
                    for part in (message[at:at + size] for at in range(0, len(message), size)))


def test_the_server_name_chooses_and_reaches_the_server(proxy, pem):
    assert ask(proxy, "one.example.com", pem) == "one"
    assert ask(proxy, "other.example.com", pem) == "two"
    assert ask(proxy, "ONE.Example.Com", pem) == "one"
    assert proxy.one.names == ["one.example.com", "ONE.Example.Com"] and proxy.two.names == ["other.example.com"]
    assert [line["route"] for line in proxy.wait_access_lines(3)] == ["shop/one", "shop/two", "shop/one"]


@pytest.mark.parametrize("sizes", [[1] * 80, [5, 4, 39], [60, 1, 1, 1], [100, 50]], ids=["bytes", "headers", "few", "halves"])
def test_a_hello_may_come_in_any_segments(proxy, pem, sizes):
    with dial(proxy) as connection:
        client = Client(connection, "one.example.com", pem)
        rest = client.hello
        for size in sizes:
            connection.sendall(rest[:size])
            rest = rest[size:]
            time.sleep(0.002)  # a segment of its own
        connection.sendall(rest)
        assert client.read_all() == b"one\n"


@pytest.mark.parametrize("size", [1, 37, 200])
def test_a_hello_may_be_larger_than_its_records(proxy, pem, size):
    with dial(proxy) as connection:
        client = Client(connection, "one.example.com", pem)
        connection.sendall(in_records(client.hello, size))
        assert client.read_all() == b"one\n"


def test_a_hello_of_many_kilobytes_passes_whole(proxy, pem):
    """Nearly as large as one record may be, in several: the server gets it whole."""
    protocols = [f"protocol-{number:03d}-{'x' * 180}" for number in range(78)]
    with dial(proxy) as connection:
        client = Client(connection, "one.example.com", pem, protocols)
        assert 15_000 < len(client.hello) < RECORD_MAX
        connection.sendall(in_records(client.hello, 4000))
        assert client.read_all() == b"one\n"


def refused(proxy, data, is_ended=False):
    """A reset, and not a byte."""
    with dial(proxy) as connection:
        connection.sendall(data)
        if is_ended:
            connection.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            pytest.fail(f"answered {read_all(connection)!r}")


def test_without_a_match_the_connection_is_reset(proxy, pem):
    for name in ("one.example.org", "example.com", "xone.example.com.evil", ""):
        with pytest.raises(ConnectionResetError):
            ask(proxy, name, pem)
    lines = proxy.wait_access_lines(4)
    assert [line["cause"] for line in lines] == ["no_route"] * 4
    assert proxy.one.accepted + proxy.two.accepted == 0


def test_what_is_no_hello_is_reset(proxy, pem):
    """Also half of one with an end behind it, and one that is larger than anybody sends (sidecar/limits.h)."""
    with dial(proxy) as connection:
        hello = Client(connection, "one.example.com", pem).hello
        huge = Client(connection, "one.example.com", pem, [f"{number:03d}-{'x' * 200}" for number in range(90)]).hello
    assert len(huge) > RECORD_MAX
    refused(proxy, b"GET / HTTP/1.1\r\nHost: one.example.com\r\n\r\n")
    refused(proxy, b"\x16\x03\x01\x00\x05\x02" + hello[6:])
    refused(proxy, hello[:60], is_ended=True)
    refused(proxy, huge)
    assert proxy.one.accepted + proxy.two.accepted == 0


def test_many_hellos_at_once_find_their_servers(proxy, pem):
    """Half of each is sent before the rest of any."""
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(40):
            connection = stack.enter_context(dial(proxy))
            name = "one" if number % 2 == 0 else "two"
            clients.append((Client(connection, f"{name}.example.com", pem), name))
        for client, _ in clients:
            client.connection.sendall(client.hello[:90])
        for client, _ in clients:
            client.connection.sendall(client.hello[90:])
        assert [client.read_all().decode().strip() for client, _ in clients] == [name for _, name in clients]

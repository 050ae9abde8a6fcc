"""Opaque TCP through --listen, for where there is no privilege: test_redirected.py says the same of redirected connections."""

import contextlib
import fcntl
import os
import random
import select
import socket
import struct
import termios
import threading
import time

import pytest

import objects
from servers import (DEADLINE, Collector, Echo, Named, Resetter, Server, connect, make_narrow, read_all, read_exactly, reset,
                     wait_until)

SERVICE_PORT = 5432


def free_port(address="127.0.0.1"):
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def database(addresses, port, cluster_ip="127.0.0.1", service_port=SERVICE_PORT, protocol="tcp"):
    """Service db and one slice of it."""
    return (
        objects.service("db", cluster_ip, [objects.port(service_port, "main", protocol, target=port)]),
        objects.endpoint_slice("db", addresses, port, "main"),
    )


@pytest.fixture
def serve(host):
    """serve(Echo, ...) on an ephemeral loopback port; ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda kind, address="127.0.0.1", port=0, *more: stack.enter_context(kind(host, address, port, *more))


@pytest.fixture
def run(config, host, start, io):
    """run(*objects) -> a ready proxy with `dial()`; on both I/O back ends."""

    def make(*items, options=(), service_port=SERVICE_PORT, **more):
        local = free_port()
        directory = config(*items)
        words = ["--outbound-port", 0, "--inbound-port", 0, "--listen", f"127.0.0.1:{local}=db.shop:{service_port}", *options]
        running = start(directory, host, io=io, health=free_port(), options=words, **more)
        running.dial = lambda timeout=10, **how: connect(host, "127.0.0.1", local, timeout, **how)
        running.objects = directory
        return running

    return make


def ping(running, timeout=10):
    with running.dial(timeout) as client:
        client.sendall(b"ping")
        assert read_exactly(client, 4) == b"ping"


def test_bytes_pass_both_ways(run, serve):
    running = run(*database(["127.0.0.1"], serve(Echo).port))
    data = random.Random(1).randbytes(3_000_000)
    with running.dial() as client:
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        assert read_all(client) == data
        sender.join()


def test_a_server_that_speaks_first_is_heard_at_once(run, serve):
    running = run(*database(["127.0.0.1"], serve(Named, "127.0.0.1", 0, "220 ready").port))
    with running.dial() as client:
        assert read_all(client) == b"220 ready\n"


def test_a_half_closed_client_still_gets_its_answer(run, serve):
    backend = serve(Collector, "127.0.0.1", 0, b"done")
    running = run(*database(["127.0.0.1"], backend.port))
    with running.dial() as client:
        client.sendall(b"x" * 100_000)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"done"
    assert len(backend.received[0]) == 100_000


class EndsFirst(Server):
    """Says bye and ends its own direction; keeps what still comes."""

    heard = None

    def handle(self, connection):
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        self.heard = read_all(connection)


def test_a_half_closed_server_still_hears_its_client(run, serve):
    backend = serve(EndsFirst)
    running = run(*database(["127.0.0.1"], backend.port))
    with running.dial() as client:
        assert read_all(client) == b"bye"
        client.sendall(b"still here")
    wait_until(lambda: backend.heard == b"still here", "the server hears its client")


def test_a_reset_of_the_server_reaches_the_client_as_a_reset(run, serve):
    running = run(*database(["127.0.0.1"], serve(Resetter).port))
    with running.dial() as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            read_all(client)


def test_a_reset_of_the_client_reaches_the_server_as_a_reset(run, serve):
    backend = serve(Collector)
    running = run(*database(["127.0.0.1"], backend.port))
    client = running.dial()
    client.sendall(b"x")
    wait_until(lambda: backend.accepted == 1, "the connection arrives")
    reset(client)
    wait_until(lambda: backend.ends == ["reset"], "a reset")


class Holder(Server):
    """Holds each connection and leaves it alone."""

    def handle(self, connection):
        while not self.closed:
            time.sleep(0.1)


def send_until_full(sender, seconds=0.5):
    """Until nothing was taken for so long."""
    sender.setblocking(False)
    sent = 0
    while select.select([], [sender], [], seconds)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += sender.send(bytes(65536))
    return sent


def seconds_to_reset(connection):
    """How long it takes until `connection`, which is not read, is broken."""
    poll = select.poll()
    poll.register(connection, 0)
    began = time.monotonic()
    events = poll.poll(DEADLINE * 1000)
    assert events and events[0][1] & select.POLLERR, f"no reset within {DEADLINE} s"
    return time.monotonic() - began


def unacknowledged(connection):
    """Bytes sent that the peer's kernel does not have yet."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]


def pipes_of(running):
    directory = f"/proc/{running.process.pid}/fd"
    count = 0
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            count += os.readlink(os.path.join(directory, name)).startswith("pipe:")
    return count


UPLOAD = b"POST / HTTP/1.1\r\nHost: db\r\nContent-Length: 1000000000\r\n\r\n"


# Not ("server", "http"): what came of an answer still goes to its reader; the framing tells that it is cut.
@pytest.mark.parametrize("who, way", [("client", "spliced"), ("client", "by-blocks"), ("client", "http"), ("server", "spliced"),
                                      ("server", "by-blocks")])
def test_a_reset_passes_when_the_other_side_reads_nothing(run, serve, who, way):
    """A pair that is full both ways, whose sender resets: nobody receives from it any more, and the other end is told all the same."""
    backend = serve(Holder)
    running = run(*database(["127.0.0.1"], backend.port, protocol="http" if way == "http" else "tcp"))
    pipes = pipes_of(running)
    if way == "by-blocks":
        make_narrow(backend.listener)  # less than the bulk that splicing begins with fits on the way
    with running.dial(narrow=way == "by-blocks") as client:
        if way == "http":
            client.sendall(UPLOAD)
        wait_until(lambda: backend.connections, "the connection arrives")
        sender, reader = (client, backend.connections[0]) if who == "client" else (backend.connections[0], client)
        assert send_until_full(sender) > 60_000
        assert (pipes_of(running) > pipes) == (way == "spliced")
        reset(sender)
        assert seconds_to_reset(reader) < DEADLINE / 10
    wait_until(lambda: running.metric("outrigger_connections_active", direction="outbound") == 0, "the pair is gone")


def send_while_acknowledged(connection, piece=bytes(4096)):
    """Send until the peer's kernel takes no more; how many bytes it has."""
    sent = 0
    while True:
        connection.sendall(piece)
        until = time.monotonic() + 0.3
        while unacknowledged(connection) > 0:
            if time.monotonic() > until:
                return sent
            time.sleep(0)
        sent += len(piece)


def test_a_slow_client_gets_what_came_of_a_response_before_its_reset(run, serve):
    """What a direct connection would have had in the client's kernel is in the proxy's: early news of the reset is not worth it."""
    backend = serve(Holder)
    running = run(*database(["127.0.0.1"], backend.port, protocol="http"))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    with running.dial(narrow=True) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: db\r\n\r\n")
        wait_until(lambda: backend.connections, "the request arrives")
        server = backend.connections[0]
        server.sendall(head)
        arrived = send_while_acknowledged(server)
        reset(server)
        time.sleep(0.6)  # long after the proxy looks for resets of connections that it does not receive from
        client.settimeout(DEADLINE)
        assert len(read_all(client)) >= len(head) + arrived


def test_a_half_close_behind_bytes_that_nobody_reads_is_no_reset(run, serve):
    backend = serve(Holder)
    running = run(*database(["127.0.0.1"], backend.port))
    with running.dial() as client:
        wait_until(lambda: backend.connections, "the connection arrives")
        sent = send_until_full(client)
        client.shutdown(socket.SHUT_WR)
        server = backend.connections[0]
        time.sleep(0.5)  # a few looks at a connection that nothing is received from
        assert len(read_all(server)) == sent
        server.sendall(b"thanks")
        client.settimeout(DEADLINE)
        assert read_exactly(client, 6) == b"thanks"


def test_a_reset_behind_a_half_close_is_passed_on(run, serve):
    """After the client's end nothing can be received from it, and the server has nothing to send."""
    backend = serve(Holder)
    running = run(*database(["127.0.0.1"], backend.port))
    client = running.dial()
    client.sendall(b"x")
    client.shutdown(socket.SHUT_WR)
    wait_until(lambda: backend.connections, "the connection arrives")
    server = backend.connections[0]
    assert read_all(server) == b"x"
    reset(client)
    assert seconds_to_reset(server) < DEADLINE / 10


def test_a_dead_endpoint_costs_no_connection(run, serve):
    port = free_port()
    for last in (2, 3, 4):
        serve(Echo, f"127.0.1.{last}", port)
    running = run(*database([f"127.0.1.{last}" for last in (2, 3, 4, 5)], port))
    for _ in range(500):
        ping(running)
    code, rows = running.admin("/endpoints")
    assert code == 200
    ejected = [row["address"] for row in rows if row["state"] == "ejected"]
    assert ejected == [f"127.0.1.5:{port}"], rows


def test_a_client_that_resets_before_a_byte_is_a_line_and_counts(config, host, start, io, serve):
    """Its protocol was not known yet, so that no server was dialled."""
    backend = serve(Echo)
    local = free_port()
    items = (objects.service("db", "127.0.0.1", [objects.port(SERVICE_PORT, "main")]),
             objects.endpoint_slice("db", ["127.0.0.1"], backend.port, "main"))
    running = start(config(*items), host, io=io, health=free_port(), options=[
        "--outbound-port", 0, "--inbound-port", 0, "--listen", f"{local}=db.shop:{SERVICE_PORT}", "--detect-timeout", "5s"])
    reset(connect(host, "127.0.0.1", local))
    [line] = running.wait_access_lines(1)
    assert (line["cause"], line["parent"], line["attempts"]) == ("downstream_reset", f"shop/db:{SERVICE_PORT}", 0)
    assert running.metric("outrigger_connections_total", direction="outbound", protocol="tcp") == 1
    assert backend.accepted == 0


def test_what_is_refused_counts_as_a_connection_too(config, host, start, io):
    local = free_port()
    running = start(config(), host, io=io, health=free_port(), options=[
        "--outbound-port", 0, "--inbound-port", 0, "--listen", f"{local}=db.shop:{SERVICE_PORT}"])
    with contextlib.suppress(ConnectionResetError), connect(host, "127.0.0.1", local) as client:
        read_all(client)
    [line] = running.wait_access_lines(1)
    assert line["cause"] == "no_endpoints"
    assert running.metric("outrigger_connections_total", direction="outbound") == 1
    assert running.metric("outrigger_refused_total", cause="no_endpoints") == 1


def test_the_fallback_to_the_cluster_ip_and_ejections_are_logged_once(run, serve):
    dead = free_port()
    service_port = serve(Echo).port
    running = run(*database([f"127.0.1.{last}" for last in (2, 3)], dead, service_port=service_port), service_port=service_port)
    for _ in range(20):
        ping(running)
    backend = f"backend=db.shop:{service_port}"
    wait_until(lambda: running.log().count(backend) >= 3, "three lines")
    lines = [line for line in running.log().splitlines() if backend in line]
    [told] = [line for line in lines if "no endpoint can be reached: the ClusterIP is dialled" in line]
    assert f"address=127.0.0.1:{service_port}" in told and "level=warning" in told
    ejected = [line for line in lines if "endpoint ejected" in line]
    assert len(ejected) == 2 and all("cause=connect_refused seconds=5" in line for line in ejected)
    assert running.metric("outrigger_cluster_ip_fallbacks_total", backend=f"db.shop:{service_port}") == 20


def test_the_line_of_a_failed_connection_names_the_endpoint_that_was_dialled_last(run):
    dead = free_port()
    items = (objects.service("db", None, [objects.port(SERVICE_PORT, "main", "tcp")]),
             objects.endpoint_slice("db", ["127.0.1.2"], dead, "main"))
    running = run(*items)
    with pytest.raises(ConnectionResetError), running.dial() as client:
        read_all(client)
    [line] = running.wait_access_lines(1)
    assert (line["cause"], line["endpoint"], line["attempts"]) == ("connect_refused", f"127.0.1.2:{dead}", 1)


def test_slices_without_a_ready_endpoint_fall_back_to_the_cluster_ip_too(run, serve):
    port = serve(Echo).port
    running = run(objects.service("db", "127.0.0.1", [objects.port(port, "main", "tcp")]),
                  objects.endpoint_slice("db", ["127.0.1.2"], port, "main", ready=False), service_port=port)
    ping(running)
    [line] = running.wait_access_lines(1)
    assert (line["cause"], line["endpoint"], line.get("fallback")) == ("none", f"127.0.0.1:{port}", "cluster_ip")
    assert running.metric("outrigger_cluster_ip_fallbacks_total", backend=f"db.shop:{port}") == 1


def test_without_slices_the_cluster_ip_is_no_fallback(run, serve):
    port = serve(Echo).port
    running = run(objects.service("db", "127.0.0.1", [objects.port(port, "main", "tcp")]), service_port=port)
    ping(running)
    [line] = running.wait_access_lines(1)
    assert line["endpoint"] == f"127.0.0.1:{port}" and "fallback" not in line
    assert running.metric("outrigger_cluster_ip_fallbacks_total") == 0


@pytest.mark.parametrize("listen, endpoint", [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.7"), ("[::1]", "::1"), ("[::]", "::1")])
def test_a_listen_port_whose_endpoint_is_itself_is_a_loop(config, host, start, io, listen, endpoint):
    local = free_port()
    items = (objects.service("db", None, [objects.port(SERVICE_PORT, "main", "tcp")]),
             objects.endpoint_slice("db", [endpoint], local, "main"))
    running = start(config(*items), host, io=io, health=free_port(), options=[
        "--outbound-port", 0, "--inbound-port", 0, "--listen", f"{listen}:{local}=db.shop:{SERVICE_PORT}"])
    with contextlib.suppress(ConnectionResetError), connect(host, endpoint, local) as client:
        assert read_all(client) == b""
    [line] = running.wait_access_lines(1)
    assert line["cause"] == "loop"
    assert running.metric("outrigger_refused_total", cause="loop") == 1
    assert running.metric("outrigger_connections_total") == 1

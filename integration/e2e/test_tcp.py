"""Opaque TCP through --listen: bytes both ways, both kinds of end, endpoints that are dead, stale or absent. No privilege."""

import contextlib
import random
import resource
import signal
import socket
import threading

import pytest

import objects
from servers import Collector, Echo, Named, Resetter, Server, connect, read_all, read_exactly, reset, wait_until

SERVICE_PORT = 5432


def free_port(address="127.0.0.1"):
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def database(addresses, port, cluster_ip="127.0.0.1", service_port=SERVICE_PORT):
    """Service db and one slice of it."""
    return (
        objects.service("db", cluster_ip, [objects.port(service_port, "main", "tcp", target=port)]),
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
        running.dial = lambda timeout=10: connect(host, "127.0.0.1", local, timeout)
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


def test_endpoints_share_the_connections(run, serve):
    port = free_port()
    backends = [serve(Echo, f"127.0.1.{last}", port) for last in (2, 3, 4)]
    running = run(*database([f"127.0.1.{last}" for last in (2, 3, 4)], port))
    clients = [running.dial() for _ in range(90)]
    for client in clients:
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
    assert all(20 <= backend.accepted <= 40 for backend in backends), [backend.accepted for backend in backends]
    for client in clients:
        client.close()


def test_when_every_slice_is_stale_the_cluster_ip_serves(run, serve):
    # What kube-proxy would do at the ClusterIP: something answers on the Service's own port.
    backend = serve(Echo, "127.0.2.1")
    gone = free_port()
    running = run(
        *database(["127.0.1.8", "127.0.1.9"], gone, "127.0.2.1", backend.port), service_port=backend.port
    )
    for _ in range(20):
        ping(running)


def test_a_new_slice_is_used_after_a_reload(run, serve):
    old, new = serve(Named, "127.0.0.1", 0, "old"), serve(Named, "127.0.0.1", 0, "new")
    running = run(*database(["127.0.0.1"], old.port))
    with running.dial() as client:
        assert read_all(client) == b"old\n"
    running.objects.write(*database(["127.0.0.1"], new.port))
    code, body = running.reload()
    assert code == 200 and body["generation"] >= 2, body
    with running.dial() as client:
        assert read_all(client) == b"new\n"


def test_a_refused_configuration_leaves_the_last_good_one(run, serve):
    running = run(*database(["127.0.0.1"], serve(Echo).port))
    running.objects.write_files({"objects.yaml": "kind: Service\nmetadata: [\n"})
    code, body = running.reload()
    assert code == 409 and body["diagnostics"][0]["line"] >= 1, body
    state = running.status()
    assert state["generation"] == 1 and state["lastRefused"]["diagnostics"], state
    ping(running)


class Flood(Server):
    """Sends without end to who asks with "f", "ok" to others."""

    def handle(self, connection):
        if connection.recv(1) == b"f":
            while True:
                connection.sendall(b"z" * 65536)
        connection.sendall(b"ok")


def test_clients_that_never_read_cost_only_themselves(run, serve):
    backend = serve(Flood)
    running = run(*database(["127.0.0.1"], backend.port))
    deaf = [running.dial() for _ in range(64)]
    for client in deaf:
        client.sendall(b"f")
    wait_until(lambda: backend.accepted == 64, "all floods run")
    for _ in range(50):
        with running.dial(2) as client:
            client.sendall(b"q")
            assert read_exactly(client, 2) == b"ok"
    for client in deaf:
        client.close()


def test_drain_waits_for_what_is_open_and_exits_0(run, serve):
    running = run(*database(["127.0.0.1"], serve(Echo).port))
    client = running.dial()
    client.sendall(b"a")
    assert read_exactly(client, 1) == b"a"
    running.signal(signal.SIGTERM)
    wait_until(lambda: running.get("/healthz/ready")[0] == 503, "readiness is withdrawn")
    assert "draining" in running.get("/healthz/ready")[1]
    client.sendall(b"b")
    assert read_exactly(client, 1) == b"b"
    client.close()
    assert running.process.wait(10) == 0


def test_a_drain_that_is_cut_off_exits_4(run, serve):
    running = run(*database(["127.0.0.1"], serve(Echo).port), options=["--drain-seconds", 1])
    with running.dial() as client:
        client.sendall(b"a")
        assert read_exactly(client, 1) == b"a"
        running.signal(signal.SIGTERM)
        assert running.process.wait(10) == 4


def test_few_descriptors_pause_the_listener_and_it_serves_again(run, serve):
    running = run(*database(["127.0.0.1"], serve(Echo).port), limits={resource.RLIMIT_NOFILE: 64})
    crowd = [running.dial() for _ in range(200)]
    for client in crowd:
        client.close()

    def served():
        try:
            ping(running, 2)
            return True
        except (OSError, EOFError):
            return False

    wait_until(served, "it serves again")
    assert running.get("/healthz/live")[0] == 200


def test_the_io_back_end_is_the_one_asked_for(run, serve, io):
    running = run(*database(["127.0.0.1"], serve(Echo).port))
    state = running.status()
    assert io in str(state["io"]) and state["ready"] is True and state["generation"] == 1, state

"""Opaque TCP through --listen: bytes both ways, both kinds of end, endpoints that are dead, stale or absent."""

import os
import random
import signal
import socket
import struct
import threading

import pytest

from conftest import echo, endpoint_slice, eventually, free_port, greet, read_all, read_exactly, service

TARGET = "db.shop:5432"


def objects(addresses, port, cluster_ip="127.0.0.1", target=None):
    return service("db", port=5432, target=target or port, cluster_ip=cluster_ip, app_protocol="tcp") + endpoint_slice(
        "db", addresses, port
    )


def reset(connection):
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_bytes_pass_both_ways(proxy, server):
    backend = server(echo)
    running = proxy(objects(["127.0.0.1"], backend.port), listen=[TARGET])
    data = random.Random(1).randbytes(3_000_000)
    with running.connect(TARGET) as client:
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        assert read_all(client) == data
        sender.join()


def test_a_server_that_speaks_first_is_heard_at_once(proxy, server):
    backend = server(greet(b"220 ready\r\n"))
    running = proxy(objects(["127.0.0.1"], backend.port), listen=[TARGET])
    with running.connect(TARGET) as client:
        assert read_exactly(client, 11) == b"220 ready\r\n"


def test_a_half_closed_client_still_gets_its_answer(proxy, server):
    def sum_up(connection, _server):
        connection.sendall(b"%d" % len(read_all(connection)))

    backend = server(sum_up)
    running = proxy(objects(["127.0.0.1"], backend.port), listen=[TARGET])
    with running.connect(TARGET) as client:
        client.sendall(b"x" * 100_000)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"100000"


def test_a_half_closed_server_still_hears_its_client(proxy, server):
    heard = []

    def end_first(connection, _server):
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        heard.append(read_all(connection))

    backend = server(end_first)
    running = proxy(objects(["127.0.0.1"], backend.port), listen=[TARGET])
    with running.connect(TARGET) as client:
        assert read_all(client) == b"bye"
        client.sendall(b"still here")
    eventually(lambda: heard == [b"still here"])


def test_a_reset_of_the_server_reaches_the_client_as_a_reset(proxy, server):
    def hang_up(connection, _server):
        connection.recv(1)
        reset(connection)

    backend = server(hang_up)
    running = proxy(objects(["127.0.0.1"], backend.port), listen=[TARGET])
    with running.connect(TARGET) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            while client.recv(100):
                pass


def test_a_reset_of_the_client_reaches_the_server_as_a_reset(proxy, server):
    seen = []

    def listen(connection, _server):
        try:
            seen.append(read_all(connection))
        except ConnectionResetError:
            seen.append("reset")

    backend = server(listen)
    running = proxy(objects(["127.0.0.1"], backend.port), listen=[TARGET])
    client = running.connect(TARGET)
    client.sendall(b"x")
    eventually(lambda: backend.accepted == 1)
    reset(client)
    eventually(lambda: seen == ["reset"], what=f"a reset, not {seen}")


def test_a_dead_endpoint_costs_no_connection(proxy, server):
    port = free_port()
    for last in (2, 3, 4):
        server(echo, address=f"127.0.1.{last}", port=port)
    running = proxy(objects([f"127.0.1.{last}" for last in (2, 3, 4, 5)], port, target=1), listen=[TARGET])
    for _ in range(500):
        with running.connect(TARGET) as client:
            client.sendall(b"ping")
            assert read_exactly(client, 4) == b"ping"
    states = {row["address"]: row["state"] for row in running.admin("/endpoints")[1] if "127.0.1" in row["address"]}
    assert [address for address, state in states.items() if state == "ejected"] == [f"127.0.1.5:{port}"], states


def test_endpoints_share_the_connections(proxy, server):
    port = free_port()
    servers = [server(echo, address=f"127.0.1.{last}", port=port) for last in (2, 3, 4)]
    running = proxy(objects([f"127.0.1.{last}" for last in (2, 3, 4)], port), listen=[TARGET])
    clients = [running.connect(TARGET) for _ in range(90)]
    for client in clients:
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
    for one in servers:
        assert 20 <= one.accepted <= 40, [each.accepted for each in servers]
    for client in clients:
        client.close()


def test_when_every_slice_is_stale_the_cluster_ip_serves(proxy, server):
    stale = free_port("127.0.1.9")
    # The ClusterIP stands for what kube-proxy would do: something answers on the Service's own port.
    port = free_port("127.0.2.1")
    server(echo, address="127.0.2.1", port=port)
    text = service("db", port=port, target=stale, cluster_ip="127.0.2.1", app_protocol="tcp") + endpoint_slice(
        "db", ["127.0.1.8", "127.0.1.9"], stale
    )
    target = f"db.shop:{port}"
    running = proxy(text, listen=[target])
    for _ in range(20):
        with running.connect(target) as client:
            client.sendall(b"ping")
            assert read_exactly(client, 4) == b"ping"


def test_a_new_slice_is_used_after_a_reload(proxy, server):
    def name(text):
        return lambda connection, _server: connection.sendall(text)

    old, new = server(name(b"old")), server(name(b"new"))
    running = proxy(objects(["127.0.0.1"], old.port), listen=[TARGET])
    with running.connect(TARGET) as client:
        assert read_all(client) == b"old"
    status, body = running.reload(objects(["127.0.0.1"], new.port))
    assert status == 200 and body["generation"] == 2, body
    with running.connect(TARGET) as client:
        assert read_all(client) == b"new"


def test_a_refused_configuration_leaves_the_last_good_one(proxy, server):
    backend = server(echo)
    running = proxy(objects(["127.0.0.1"], backend.port), listen=[TARGET])
    status, body = running.reload("kind: Service\nmetadata: [\n")
    assert status == 409
    assert body["diagnostics"][0]["line"] >= 1
    _, state = running.admin("/status")
    assert state["generation"] == 1 and state["lastRefused"]["diagnostics"]
    with running.connect(TARGET) as client:
        client.sendall(b"ping")
        assert read_exactly(client, 4) == b"ping"


def test_a_client_that_never_reads_costs_only_itself(proxy, server):
    def flood(connection, _server):
        if connection.recv(1) == b"f":
            while True:
                connection.sendall(b"z" * 65536)
        connection.sendall(b"ok")

    backend = server(flood)
    running = proxy(objects(["127.0.0.1"], backend.port), "--workers", 1, listen=[TARGET])
    deaf = [running.connect(TARGET) for _ in range(64)]
    for client in deaf:
        client.sendall(b"f")
    eventually(lambda: backend.accepted == 64)
    for _ in range(50):
        with running.connect(TARGET, timeout=2) as client:
            client.sendall(b"q")
            assert read_exactly(client, 2) == b"ok"
    for client in deaf:
        client.close()


def test_drain_waits_for_what_is_open_and_exits_0(proxy, server):
    backend = server(echo)
    running = proxy(objects(["127.0.0.1"], backend.port), listen=[TARGET])
    client = running.connect(TARGET)
    client.sendall(b"a")
    assert read_exactly(client, 1) == b"a"
    running.signal(signal.SIGTERM)
    eventually(lambda: running.get_health("/healthz/ready")[0] == 503)
    assert "draining" in running.get_health("/healthz/ready")[1]
    client.sendall(b"b")
    assert read_exactly(client, 1) == b"b"
    client.close()
    assert running.wait() == 0


def test_a_drain_that_is_cut_off_exits_4(proxy, server):
    backend = server(echo)
    running = proxy(objects(["127.0.0.1"], backend.port), "--drain-seconds", 1, listen=[TARGET])
    with running.connect(TARGET) as client:
        client.sendall(b"a")
        assert read_exactly(client, 1) == b"a"
        running.signal(signal.SIGTERM)
        assert running.wait() == 4


def test_few_descriptors_pause_the_listener_and_it_serves_again(proxy, server):
    backend = server(echo)
    running = proxy(
        objects(["127.0.0.1"], backend.port), "--workers", 1, listen=[TARGET], prefix=["prlimit", "--nofile=64"]
    )
    crowd = [running.connect(TARGET) for _ in range(200)]
    for client in crowd:
        client.close()

    def served():
        with running.connect(TARGET, timeout=2) as client:
            try:
                client.sendall(b"ping")
                return client.recv(4) == b"ping"
            except OSError:
                return False

    eventually(served)
    assert running.get_health("/healthz/live")[0] == 200


def test_the_io_back_end_is_the_one_asked_for(proxy):
    asked = os.environ.get("OUTRIGGER_TEST_IO")
    running = proxy("")
    _, state = running.admin("/status")
    if asked:
        assert asked in str(state["io"])
    assert state["ready"] is True and state["generation"] == 1

"""Opaque TCP through real redirection, v4 and v6: what an application sees must be what it would have seen without the proxy."""

import asyncio
import hashlib
import socket
import threading
import time

import pytest

import netns
import servers
from objects import endpoint_slice, port, service
from proxy import INBOUND, OUTBOUND, UID

VIP, VIP6 = "10.96.0.10", "fd00:96::10"
PODS = [f"10.1.1.{number}" for number in range(11, 15)]
PODS6 = [f"fd00:1:1::{number}" for number in range(11, 15)]
WORLD, WORLD6 = "198.51.100.7", "2001:db8:7::7"
PORT = 5432

DATABASE = service("database", VIP, [port(PORT, "tcp")])


def slices(*addresses):
    return endpoint_slice("database", list(addresses), PORT, "tcp")


def ask(world, address, port_number=PORT, timeout=5):
    """Who answers?"""
    with servers.connect(world.pod, address, port_number, timeout=timeout) as client:
        return servers.read_all(client).decode().strip()


def echo_once(world, address, port_number=PORT, data=b"hello"):
    with servers.connect(world.pod, address, port_number) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return servers.read_all(client)


# ---- where a connection goes ----


def test_a_cluster_ip_leads_to_an_endpoint(world, mesh):
    world.add_pod(PODS[0])
    with servers.Named(world.node, PODS[0], PORT, "endpoint"):
        mesh(DATABASE, slices(PODS[0]))
        assert ask(world, VIP) == "endpoint"


def test_all_ready_endpoints_share_the_connections(world, mesh):
    made = []
    for address in PODS:
        world.add_pod(address)
        made.append(servers.Named(world.node, address, PORT, address).__enter__())
    mesh(DATABASE, slices(*PODS))
    answers = [ask(world, VIP) for _ in range(80)]
    assert set(answers) == set(PODS)
    assert min(answers.count(address) for address in PODS) >= 5, answers


def test_endpoints_that_are_not_ready_get_nothing(world, mesh):
    world.add_pod(PODS[0])
    world.add_pod(PODS[1])
    unready = endpoint_slice("database", [PODS[1]], PORT, "tcp", suffix="other", ready=False)
    with servers.Named(world.node, PODS[0], PORT, "ready"), servers.Named(world.node, PODS[1], PORT, "not ready"):
        mesh(DATABASE, slices(PODS[0]), unready)
        assert {ask(world, VIP) for _ in range(30)} == {"ready"}


def test_a_service_without_slices_is_its_cluster_ip(world, mesh):
    world.add_cluster_ip(VIP)
    with servers.Named(world.node, VIP, PORT, "cluster ip"):
        mesh(DATABASE)
        assert ask(world, VIP) == "cluster ip"


def test_ipv6_services_lead_to_ipv6_endpoints(world, mesh):
    world.add_pod(PODS6[0])
    with servers.Named(world.node, PODS6[0], PORT, "six"):
        mesh(service("database", VIP6, [port(PORT, "tcp")]), slices(PODS6[0]))
        assert ask(world, VIP6) == "six"


def test_a_dual_stack_service_prefers_the_family_that_was_dialled(world, mesh):
    for address in (PODS[0], PODS6[0]):
        world.add_pod(address)
    with servers.Named(world.node, PODS[0], PORT, "four"), servers.Named(world.node, PODS6[0], PORT, "six"):
        mesh(service("database", VIP, [port(PORT, "tcp")], cluster_ips=[VIP, VIP6]),
             endpoint_slice("database", [PODS[0]], PORT, "tcp", suffix="four", pods=["database-0"]),
             endpoint_slice("database", [PODS6[0]], PORT, "tcp", suffix="six", pods=["database-0"]))
        assert {ask(world, VIP) for _ in range(10)} == {"four"}
        assert {ask(world, VIP6) for _ in range(10)} == {"six"}


def test_unknown_destinations_pass_through(world, mesh):
    for address in (WORLD, WORLD6):
        world.node.add_address(address)
    with servers.Echo(world.node, WORLD, 7777), servers.Echo(world.node, WORLD6, 7777):
        proxy = mesh(DATABASE)
        assert echo_once(world, WORLD, 7777, b"four") == b"four"
        assert echo_once(world, WORLD6, 7777, b"six") == b"six"
        # Another port of a known ClusterIP is no port of the Service.
        world.add_cluster_ip(VIP)
        with servers.Named(world.node, VIP, 9999, "other port"):
            assert ask(world, VIP, 9999) == "other port"
        assert proxy.metric("outrigger_connections_total", direction="outbound") >= 3


@pytest.mark.parametrize("known", [False, True], ids=["passing-through", "one-pod"])
def test_a_lost_syn_is_sent_again_where_there_is_one_address_only(world, mesh, known):
    """As without the proxy: the kernel sends another one after a second."""
    world.node.add_address(WORLD)
    world.add_pod(PODS[0])
    objects = [service("alone", None, [port(PORT, "tcp")]), endpoint_slice("alone", [PODS[0]], PORT, "tcp")] if known else [DATABASE]
    address = PODS[0] if known else WORLD
    with servers.Echo(world.node, address, PORT):
        mesh(*objects)
        world.node.run("nft", "-f", "-", check=True, input=(
            f"table ip lossy {{\nchain input {{\ntype filter hook input priority 0;\nip daddr {address} drop\n}}\n}}\n"))
        heal = threading.Timer(0.4, lambda: world.node.run("nft", "delete", "table", "ip", "lossy"))
        heal.start()
        began = time.monotonic()
        assert echo_once(world, address) == b"hello"
        assert time.monotonic() - began > 0.8
        heal.join()


def test_registry_only_refuses_unknown_destinations(world, mesh):
    world.node.add_address(WORLD)
    world.add_pod(PODS[0])
    with servers.Named(world.node, WORLD, 7777, "world"), servers.Named(world.node, PODS[0], PORT, "endpoint"):
        proxy = mesh(DATABASE, slices(PODS[0]), options=["--outbound-policy", "registry-only"])
        with pytest.raises(ConnectionResetError):
            ask(world, WORLD, 7777)
        assert ask(world, VIP) == "endpoint"
        servers.wait_until(lambda: proxy.metric("outrigger_refused_total") >= 1, "the refusal is counted")


@pytest.mark.parametrize("address, everywhere", [(netns.POD, "0.0.0.0"), (netns.POD6, "::")], ids=["ipv4", "ipv6"])
def test_what_arrives_reaches_the_application(world, mesh, address, everywhere):
    proxy = mesh()
    with servers.Echo(world.pod, everywhere, 8080):
        with servers.connect(world.node, address, 8080) as client:
            client.sendall(b"over the wire")
            client.shutdown(socket.SHUT_WR)
            assert servers.read_all(client) == b"over the wire"
    servers.wait_until(lambda: proxy.metric("outrigger_connections_total", direction="inbound") >= 1, "it is counted")


def congestion_control(host, *which):
    """Of the one established connection that the filter of ss(8) selects."""
    [_, details] = host.run("ss", "-Htin", "state", "established", *which).stdout.splitlines()
    return details.split()[0]


@pytest.mark.parametrize("address, everywhere", [(netns.POD, "0.0.0.0"), (netns.POD6, "::")], ids=["ipv4", "ipv6"])
def test_only_connections_that_leave_the_pod_are_paced(world, mesh, address, everywhere):
    """By the node's choice of congestion control; reno has no pacing."""
    vip, endpoint = (VIP, PODS[0]) if address == netns.POD else (VIP6, PODS6[0])
    world.add_pod(endpoint)
    default = world.pod.run("cat", "/proc/sys/net/ipv4/tcp_congestion_control").stdout.strip()
    mesh(service("database", vip, [port(PORT, "tcp")]), slices(endpoint))
    with servers.Echo(world.pod, everywhere, 8080), servers.connect(world.node, address, 8080) as client:
        client.sendall(b"in")
        assert servers.read_exactly(client, 2) == b"in"
        assert congestion_control(world.pod, "dport", "=", ":8080") == "reno"
        assert congestion_control(world.pod, "sport", "=", f":{INBOUND}") == default
    with servers.Echo(world.node, endpoint, PORT), servers.connect(world.pod, vip, PORT) as client:
        client.sendall(b"out")
        assert servers.read_exactly(client, 3) == b"out"
        assert congestion_control(world.pod, "sport", "=", f":{OUTBOUND}") == "reno"
        assert congestion_control(world.pod, "dst", f"[{endpoint}]") == default


def test_an_application_port_that_refuses_is_a_reset_for_the_peer(world, mesh):
    proxy = mesh()
    with pytest.raises(ConnectionResetError):
        with servers.connect(world.node, netns.POD, 8081) as client:
            client.sendall(b"x")
            servers.read_all(client)
    assert proxy.is_ready()


@pytest.mark.parametrize("address, everywhere, vip", [(netns.PEER, "0.0.0.0", VIP), (netns.PEER6, "::", VIP6)], ids=["ipv4", "ipv6"])
def test_two_pods_talk_through_both_their_sidecars(world, mesh, outrigger, config, start, io, address, everywhere, vip):
    peer = world.add_second_pod()
    result = peer.run(outrigger, "intercept", "--install", "--proxy-uid", UID)
    assert result.returncode == 0, result.stderr
    theirs = start(config(), peer, uid=UID, io=io)
    ours = mesh(service("database", vip, [port(PORT, "tcp")]), slices(address))
    with servers.Collector(peer, everywhere, PORT, reply=b"stored") as server:
        assert echo_once(world, vip, data=b"a" * 300000) == b"stored"
        assert [len(data) for data in server.received] == [300000]
    [line] = ours.wait_access_lines(1)
    assert line["direction"] == "outbound" and line["endpoint"].endswith(f":{PORT}")
    [line] = theirs.wait_access_lines(1)
    assert line["direction"] == "inbound" and line["received_bytes"] == 300000


# ---- what passes ----


def test_a_server_that_speaks_first_is_heard_at_once(world, mesh):
    world.add_pod(PODS[0])
    world.node.add_address(WORLD)
    with servers.Named(world.node, PODS[0], PORT, "declared"), servers.Named(world.node, WORLD, 25, "unknown"):
        mesh(DATABASE, slices(PODS[0]))
        for address, port_number, name in ((VIP, PORT, "declared"), (WORLD, 25, "unknown")):
            began = time.monotonic()
            assert ask(world, address, port_number) == name
            assert time.monotonic() - began < 0.2, "detection must not delay what is declared or unknown"


def test_a_server_that_speaks_first_on_an_undeclared_port_is_remembered(world, mesh):
    world.add_pod(PODS[0])
    with servers.Named(world.node, PODS[0], PORT, "mysql"):
        mesh(service("database", VIP, [port(PORT, "main")]), endpoint_slice("database", [PODS[0]], PORT, "main"))
        assert ask(world, VIP) == "mysql"
        began = time.monotonic()
        assert ask(world, VIP) == "mysql"
        assert time.monotonic() - began < 0.2


def test_a_half_close_of_the_client_is_passed_on(world, mesh):
    world.add_pod(PODS[0])
    with servers.Collector(world.node, PODS[0], PORT, reply=b"got it all") as server:
        mesh(DATABASE, slices(PODS[0]))
        assert echo_once(world, VIP, data=b"everything") == b"got it all"
        assert server.received == [b"everything"]
        assert server.ends == ["end"]


def test_a_half_close_of_the_server_is_passed_on(world, mesh):
    world.add_pod(PODS[0])
    received = []

    class Closes(servers.Server):
        def handle(self, connection):
            connection.sendall(b"no more from me")
            connection.shutdown(socket.SHUT_WR)
            received.append(servers.read_all(connection))

    with Closes(world.node, PODS[0], PORT):
        mesh(DATABASE, slices(PODS[0]))
        with servers.connect(world.pod, VIP, PORT) as client:
            assert servers.read_all(client) == b"no more from me"
            for _ in range(3):
                client.sendall(b"still ")
            client.sendall(b"talking")
            client.shutdown(socket.SHUT_WR)
            servers.wait_until(lambda: received, "the server hears the rest")
        assert received == [b"still still still talking"]


def test_a_reset_of_the_client_is_passed_on(world, mesh):
    world.add_pod(PODS[0])
    with servers.Collector(world.node, PODS[0], PORT) as server:
        mesh(DATABASE, slices(PODS[0]))
        client = servers.connect(world.pod, VIP, PORT)
        client.sendall(b"begin")
        servers.wait_until(lambda: server.accepted == 1, "the connection arrives")
        servers.reset(client)
        servers.wait_until(lambda: server.ends, "the server hears the end")
        assert server.ends == ["reset"]


def test_a_reset_of_the_server_is_passed_on(world, mesh):
    world.add_pod(PODS[0])
    with servers.Resetter(world.node, PODS[0], PORT):
        mesh(DATABASE, slices(PODS[0]))
        with servers.connect(world.pod, VIP, PORT) as client:
            client.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                servers.read_all(client)


@pytest.mark.slow
def test_large_transfers_arrive_unchanged_in_both_directions(world, mesh):
    world.add_pod(PODS[0])
    chunk = bytes(range(256)) * 256
    sent = hashlib.sha256()
    with servers.Echo(world.node, PODS[0], PORT):
        mesh(DATABASE, slices(PODS[0]))
        with servers.connect(world.pod, VIP, PORT) as client:

            def send():
                for number in range(512):
                    data = number.to_bytes(4, "big") + chunk
                    sent.update(data)
                    client.sendall(data)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            received = hashlib.sha256()
            while data := client.recv(1 << 18):
                received.update(data)
            sender.join()
    assert received.hexdigest() == sent.hexdigest()


@pytest.mark.slow
def test_five_hundred_connections_at_once_keep_their_bytes_apart(world, mesh):
    world.add_pod(PODS[0])

    async def client(number):
        reader, writer = await asyncio.open_connection(VIP, PORT)
        data = f"connection {number} ".encode() * 500
        writer.write(data)
        writer.write_eof()
        received = await reader.read(-1)
        writer.close()
        return received == data

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def all_of_them():
        return await asyncio.gather(*(client(number) for number in range(500)))

    with servers.Loop(world.node) as far, servers.Loop(world.pod) as near:
        far.serve(echo, PODS[0], PORT)
        mesh(DATABASE, slices(PODS[0]))
        assert all(near.run(all_of_them()))


# ---- loops ----


@pytest.mark.parametrize("from_node, address, port_number", [
    (True, netns.POD, INBOUND), (True, netns.POD, OUTBOUND), (True, netns.POD6, INBOUND),
    (False, "127.0.0.1", OUTBOUND), (False, "::1", OUTBOUND),
])
def test_connections_to_the_proxy_itself_are_refused_and_counted(world, mesh, from_node, address, port_number):
    proxy = mesh()
    with pytest.raises(ConnectionResetError):
        with servers.connect(world.node if from_node else world.pod, address, port_number) as client:
            client.sendall(b"x")
            servers.read_all(client)
    servers.wait_until(lambda: proxy.metric("outrigger_refused_total", cause="loop") == 1, "one loop is counted")
    assert proxy.is_ready()


@pytest.mark.parametrize("options", [[], ["--pod-ip", netns.POD]])
def test_every_address_of_the_pod_is_its_own(world, mesh, options):
    """One on lo, and those that --pod-ip leaves out: what they lead to is the proxy."""
    world.pod.add_address("10.9.9.9")
    world.node.ip("route", "add", "10.9.9.9/32", "via", netns.POD)
    proxy = mesh(options=options)
    for count, address in ((1, "10.9.9.9"), (2, netns.POD6), (3, netns.POD)):
        with pytest.raises(ConnectionResetError), servers.connect(world.node, address, INBOUND) as client:
            client.sendall(b"x")
            servers.read_all(client)
        servers.wait_until(lambda: proxy.metric("outrigger_refused_total", cause="loop") == count, "a loop is counted")
    assert proxy.metric("outrigger_connections_total", direction="inbound") == 3


# ---- what is told ----


def test_each_connection_has_one_access_log_line_and_its_metrics(world, mesh):
    world.add_pod(PODS[0])
    with servers.Echo(world.node, PODS[0], PORT):
        proxy = mesh(DATABASE, slices(PODS[0]))
        for _ in range(3):
            echo_once(world, VIP, data=b"12345")
        lines = proxy.wait_access_lines(3)
        servers.wait_until(lambda: proxy.metric("outrigger_requests_total", direction="outbound") == 3, "three are counted")
    assert len(lines) == 3
    for line in lines:
        assert line["direction"] == "outbound"
        assert f"{PODS[0]}:{PORT}" in line["endpoint"]
        assert "database" in line["parent"]
    assert proxy.metric("outrigger_connections_total", direction="outbound") == 3
    servers.wait_until(lambda: proxy.metric("outrigger_connections_active", direction="outbound") == 0, "none is active")

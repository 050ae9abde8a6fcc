"""Endpoints that are always a little stale: nothing a client sees may depend on slices being true this second."""

import asyncio
import contextlib
import time

import pytest

import servers
from objects import endpoint_slice, port, service

VIP = "10.96.0.10"
PODS = [f"10.1.1.{number}" for number in range(11, 15)]
PORT = 5432
DATABASE = service("database", VIP, [port(PORT, "tcp")])
SLICES = endpoint_slice("database", PODS, PORT, "tcp")


async def serve_name(reader, writer):
    writer.write(writer.get_extra_info("sockname")[0].encode())
    writer.close()


async def ask():
    try:
        reader, writer = await asyncio.open_connection(VIP, PORT)
        answer = await reader.read(-1)
        writer.close()
        return answer.decode() or "empty"
    except OSError as error:
        return f"failed: {error}"


async def ask_many(total, at_once):
    answers = []

    async def client():
        while len(answers) < total:
            answers.append("pending")
            at = len(answers) - 1
            answers[at] = await ask()

    await asyncio.gather(*(client() for _ in range(at_once)))
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("death", ["refuses", "swallows"])
def test_one_dead_endpoint_of_four_costs_no_connection(world, mesh, death):
    for address in PODS:
        world.add_pod(address)
    if death == "swallows":
        world.node.run("nft", "-f", "-", check=True, input=(
            f"table ip dead {{\nchain input {{\ntype filter hook input priority 0;\nip daddr {PODS[3]} drop\n}}\n}}\n"))
    with servers.Loop(world.node) as far, servers.Loop(world.pod) as near:
        for address in PODS[:3]:
            far.serve(serve_name, address, PORT)
        proxy = mesh(DATABASE, SLICES)
        answers = near.run(ask_many(2000, 16))
        failed = [answer for answer in answers if answer not in PODS[:3]]
        assert not failed, (len(failed), failed[:3])
        for address in PODS[:3]:
            assert answers.count(address) > 400, {one: answers.count(one) for one in PODS}
        servers.wait_until(lambda: proxy.metric("outrigger_endpoint_failures_total") >= 1, "the failure is counted")
        [row] = [row for row in proxy.admin("/endpoints")[1] if PODS[3] in row["address"]]
        assert row["state"] == "ejected"


def test_stale_slices_fall_back_to_the_cluster_ip(world, mesh):
    for address in PODS:
        world.add_pod(address)  # the node answers with RST: the pods are gone
    world.add_cluster_ip(VIP)
    with servers.Loop(world.node) as far, servers.Loop(world.pod) as near:
        far.serve(serve_name, VIP, PORT)
        proxy = mesh(DATABASE, SLICES)
        answers = near.run(ask_many(100, 8))
        assert set(answers) == {VIP}
        rows = proxy.admin("/endpoints")[1]
        assert any(row["source"] == "clusterIP" for row in rows)


def test_slices_that_swallow_everything_fall_back_within_the_three_seconds(world, mesh):
    for address in PODS:
        world.add_pod(address)
    world.add_cluster_ip(VIP)
    world.node.run("nft", "-f", "-", check=True, input=(
        "table ip dead {\nchain input {\ntype filter hook input priority 0;\nip daddr 10.1.1.0/24 drop\n}\n}\n"))
    with servers.Loop(world.node) as far, servers.Loop(world.pod) as near:
        far.serve(serve_name, VIP, PORT)
        mesh(DATABASE, SLICES)
        began = time.monotonic()
        assert near.run(ask()) == VIP
        assert time.monotonic() - began < 4.5


def test_without_any_reachable_address_the_client_sees_a_reset(world, mesh):
    for address in (*PODS, VIP):
        world.add_pod(address)
    proxy = mesh(DATABASE, SLICES)
    with servers.Loop(world.pod) as near:
        answer = near.run(ask())
    assert answer.startswith("failed"), answer
    [line] = proxy.wait_access_lines(1)
    assert line["cause"] == "connect_refused"


def test_an_endpoint_that_comes_back_is_used_again(world, mesh):
    for address in PODS[:2]:
        world.add_pod(address)
    with servers.Loop(world.node) as far, servers.Loop(world.pod) as near:
        far.serve(serve_name, PODS[0], PORT)
        mesh(DATABASE, endpoint_slice("database", PODS[:2], PORT, "tcp"))
        assert set(near.run(ask_many(50, 4))) == {PODS[0]}
        far.serve(serve_name, PODS[1], PORT)

        def is_used_again():
            return PODS[1] in near.run(ask_many(20, 4))

        servers.wait_until(is_used_again, "the endpoint is tried again after its 5 s", 12)


def test_new_slices_are_in_force_within_a_second(world, mesh):
    for address in PODS[:2]:
        world.add_pod(address)
    with servers.Loop(world.node) as far, servers.Loop(world.pod) as near:
        for address in PODS[:2]:
            far.serve(serve_name, address, PORT)
        proxy = mesh(DATABASE, endpoint_slice("database", PODS[:1], PORT, "tcp"))
        assert near.run(ask()) == PODS[0]
        proxy.config.write(DATABASE, endpoint_slice("database", PODS[1:2], PORT, "tcp"))
        servers.wait_until(lambda: near.run(ask()) == PODS[1], "the new endpoint is used", 1.5)
        with contextlib.suppress(KeyError):
            assert proxy.status()["generation"] == 2

"""The process: start, readiness, signals, drain, exit statuses, the admin socket, and --listen without any privilege."""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time

import pytest

import netns
import servers
from objects import endpoint_slice, port, service
from proxy import HEALTH, OUTBOUND, UID

VIP = "10.96.0.10"


@pytest.fixture
def restricted(host, config, start, io):
    """restricted(port of the upstream, ...) -> a proxy with one --listen port before it, in the machine's own namespace."""

    def make(upstream_port, options=(), app_protocol="tcp", port_name="main", **more):
        objects = [service("echo", VIP, [port(80, port_name, app_protocol)]),
                   endpoint_slice("echo", ["127.0.0.1"], upstream_port, port_name)]
        directory = config(*objects)
        listen_port = servers.free_port(host)
        made = start(directory, host, io=io, health=servers.free_port(host), options=[
            "--outbound-port", 0, "--inbound-port", 0, "--listen", f"{listen_port}=echo.shop:80", *options], **more)
        made.config = directory
        made.objects = objects
        made.listen_port = listen_port
        return made

    return make


def echo_once(host, port_number, data=b"hello"):
    with servers.connect(host, "127.0.0.1", port_number) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return servers.read_all(client)


def greeting(host, port_number):
    with servers.connect(host, "127.0.0.1", port_number) as client:
        return servers.read_all(client)


# ---- --listen ----


def test_a_listen_port_counts_as_dialled_to_its_service(host, restricted):
    with servers.Echo(host, "127.0.0.1") as server:
        proxy = restricted(server.port)
        assert echo_once(host, proxy.listen_port) == b"hello"
        [line] = proxy.wait_access_lines(1)
        assert "echo" in line["parent"]


# ---- exit statuses ----


def run(outrigger, *arguments, environment=None):
    return subprocess.run([outrigger, *map(str, arguments)], capture_output=True, text=True, timeout=20,
                          env={**os.environ, **(environment or {})})


def quiet_options(host, directory):
    return ["--health-port", servers.free_port(host), "--inbound-port", 0, "--outbound-port", 0,
            "--admin-socket", os.path.join(directory, "admin.sock")]


def test_a_configuration_that_is_refused_at_first_start_is_status_78(host, outrigger, directory):
    with open(os.path.join(directory, "broken.yaml"), "w") as file:
        file.write("kind: Service\n  apiVersion: [\n")
    result = run(outrigger, "proxy", "--config", directory, *quiet_options(host, directory))
    assert result.returncode == 78, result.stderr
    assert re.search(r"broken\.yaml:\d+:\d+", result.stderr + result.stdout)


def test_a_missing_directory_is_status_1_with_its_name(host, outrigger, directory):
    result = run(outrigger, "proxy", "--config", directory + "/none", *quiet_options(host, directory))
    assert result.returncode == 1, result.stderr
    assert directory + "/none" in result.stderr + result.stdout


def test_a_port_in_use_is_status_1_with_its_number(host, outrigger, directory):
    os.mkdir(directory + "/config")
    with servers.Echo(host, "127.0.0.1") as server:
        result = run(outrigger, "proxy", "--config", directory + "/config", "--inbound-port", 0, "--health-port", 0,
                     "--outbound-port", server.port, "--admin-socket", directory + "/admin.sock")
    assert result.returncode == 1, result.stderr
    assert str(server.port) in result.stderr + result.stdout


@pytest.mark.parametrize("flag", ["--outbound-port", "--inbound-port", "--health-port"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_that_one_family_has_in_use_is_one_line_with_flag_and_port(host, outrigger, directory, flag, address):
    os.mkdir(directory + "/config")
    with servers.Echo(host, address) as server:
        options = dict(zip(*[iter(quiet_options(host, directory))] * 2)) | {flag: server.port}
        result = run(outrigger, "proxy", "--config", directory + "/config", *(word for pair in options.items() for word in pair))
    assert result.returncode == 1, result.stderr
    [line] = [line for line in result.stderr.splitlines() if "level=error" in line]
    assert flag in line and f":{server.port}" in line


def test_two_listen_flags_with_one_address_are_status_1_with_it(host, outrigger, directory):
    number = servers.free_port(host)
    result = run(outrigger, "proxy", "--config", directory, *quiet_options(host, directory),
                 "--listen", f"{number}=a.shop:80", "--listen", f"127.0.0.1:{number}=b.shop:80")
    assert result.returncode == 1 and f"--listen address=127.0.0.1:{number}" in result.stderr


def test_a_killed_proxy_can_be_started_again_at_once(host, restricted, start, config):
    proxy = restricted(servers.free_port(host))
    for _ in range(5):
        proxy.process.kill()
        proxy.process.wait(5)
        proxy.start()  # on the socket and the ports of the dead one, which the kernel takes apart by and by
    assert proxy.status()["ready"]


@pytest.mark.parametrize("path, reason", [("/closed/below/admin.sock", "cannot make the directory"), ("/closed/admin.sock", "Permission denied"),
                                          ("/file/admin.sock", "Not a directory"), ("/file", "no socket"), ("/" + "x" * 110, "longer than")])
def test_an_admin_socket_that_cannot_be_is_status_1_with_path_and_reason(world, outrigger, directory, config, path, reason):
    os.mkdir(directory + "/closed")
    with open(directory + "/file", "w"):
        pass
    os.chmod(directory + "/file", 0o666)
    result = world.pod.run(outrigger, "proxy", "--config", config().path, "--outbound-port", 0, "--inbound-port", 0, "--health-port", 0,
                           "--admin-socket", directory + path, uid=UID)
    assert result.returncode == 1, result.stderr
    [line] = [line for line in result.stderr.splitlines() if "level=error" in line]
    assert "flag=--admin-socket" in line and directory + path in line and reason in line
    assert os.path.isfile(directory + "/file")


def test_the_socket_of_a_living_process_is_left_alone(host, restricted, outrigger, directory):
    proxy = restricted(servers.free_port(host))
    result = run(outrigger, "proxy", "--config", directory, "--outbound-port", 0, "--inbound-port", 0, "--health-port", 0,
                 "--admin-socket", proxy.admin_path)
    assert result.returncode == 1 and proxy.admin_path in result.stderr
    assert proxy.status()["ready"]


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["proxy"], ["proxy", "--config", ".", "--io", "poll"],
                                       ["proxy", "--config", ".", "--surplus"]])
def test_a_wrong_command_line_is_status_2(outrigger, arguments):
    result = run(outrigger, *arguments)
    assert result.returncode == 2
    assert result.stderr


def test_version_and_help_are_status_0(outrigger):
    assert re.match(r"outrigger \d+\.\d+", run(outrigger, "--version").stdout)
    for words in (["--help"], ["-h"], ["admin", "status", "--help"],
                  *([command, flag] for command in ("proxy", "intercept", "check", "explain", "admin") for flag in ("--help", "-h"))):
        result = run(outrigger, *words)
        assert result.returncode == 0 and "usage" in result.stdout.lower() and not result.stderr, words


# ---- signals and drain ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_proxy_ends_at_once_with_status_0(host, restricted, number):
    proxy = restricted(servers.free_port(host))
    began = time.monotonic()
    proxy.signal(number)
    assert proxy.process.wait(5) == 0
    assert time.monotonic() - began < 2


def test_draining_finishes_what_is_open(host, restricted):
    with servers.Echo(host, "127.0.0.1") as server:
        proxy = restricted(server.port)
        with servers.connect(host, "127.0.0.1", proxy.listen_port) as client:
            client.sendall(b"before ")
            assert servers.read_exactly(client, 7) == b"before "
            proxy.signal(signal.SIGTERM)
            servers.wait_until(lambda: proxy.get("/healthz/ready")[0] == 503, "readiness is 503")
            assert "draining" in proxy.get("/healthz/ready")[1]
            assert proxy.get("/healthz/live")[0] == 200
            assert echo_once(host, proxy.listen_port) == b"hello", "outbound still accepts"
            client.sendall(b"after")
            client.shutdown(socket.SHUT_WR)
            assert servers.read_all(client) == b"after"
        assert proxy.process.wait(5) == 0


def test_the_drain_deadline_cuts_and_says_so_with_status_4(host, restricted):
    with servers.Echo(host, "127.0.0.1") as server:
        proxy = restricted(server.port, ["--drain-seconds", 1])
        with servers.connect(host, "127.0.0.1", proxy.listen_port) as client:
            client.sendall(b"x")
            servers.read_exactly(client, 1)
            proxy.signal(signal.SIGTERM)
            began = time.monotonic()
            assert proxy.process.wait(5) == 4
            assert 0.5 < time.monotonic() - began < 3
            with pytest.raises(ConnectionResetError):
                servers.read_all(client)
        [line] = proxy.access_lines()
        assert line["cause"] == "drain"


def test_a_drain_waits_for_connections_whose_protocol_is_not_known_yet(host, restricted):
    """The server speaks first, and the proxy waits for the client's first bytes until 300 ms have passed."""
    with servers.Named(host, "127.0.0.1", 0, "220 ready") as server:
        proxy = restricted(server.port, app_protocol=None, port_name="db")
        with servers.connect(host, "127.0.0.1", proxy.listen_port) as client:
            servers.wait_until(lambda: proxy.metric("outrigger_connections_active", direction="outbound") == 1, "it is accepted")
            proxy.signal(signal.SIGTERM)
            assert servers.read_all(client) == b"220 ready\n"
        assert proxy.process.wait(5) == 0


def test_a_second_signal_stops_at_once(host, restricted):
    with servers.Echo(host, "127.0.0.1") as server:
        proxy = restricted(server.port)
        with servers.connect(host, "127.0.0.1", proxy.listen_port) as client:
            client.sendall(b"x")
            servers.read_exactly(client, 1)
            proxy.signal(signal.SIGTERM)
            servers.wait_until(lambda: proxy.get("/healthz/ready")[0] == 503, "it drains")
            proxy.signal(signal.SIGTERM)
            assert proxy.process.wait(2) == 4


def test_sighup_reads_everything_again(host, restricted):
    with servers.Named(host, "127.0.0.1", 0, "one") as one, servers.Named(host, "127.0.0.1", 0, "two") as two:
        proxy = restricted(one.port)
        assert greeting(host, proxy.listen_port) == b"one\n"
        proxy.config.write(proxy.objects[0], endpoint_slice("echo", ["127.0.0.1"], two.port, "main"))
        proxy.signal(signal.SIGHUP)
        proxy.wait_generation(2)
        servers.wait_until(lambda: greeting(host, proxy.listen_port) == b"two\n", "the new endpoint is used", 2)


def test_a_broken_edit_keeps_the_last_good_configuration(host, restricted):
    with servers.Named(host, "127.0.0.1", 0, "good") as server:
        proxy = restricted(server.port)
        before = proxy.status()
        proxy.config.write_files({"objects.yaml": "kind: Service\nmetadata: {name: [\n"})
        code, body = proxy.reload()
        assert code == 409, body
        [diagnostic, *_] = body["diagnostics"]
        assert diagnostic["file"].endswith("objects.yaml") and diagnostic["line"] >= 2
        after = proxy.status()
        assert (after["generation"], after["hash"]) == (before["generation"], before["hash"])
        assert after["lastRefused"]["diagnostics"]
        assert proxy.metric("outrigger_config_reloads_total", result="refused") >= 1 or \
            proxy.metric("outrigger_config_reloads_total") >= 1
        assert greeting(host, proxy.listen_port) == b"good\n"
        proxy.config.write(*proxy.objects)
        code, body = proxy.reload()
        assert code == 200, body
        assert proxy.status()["lastRefused"] is None or proxy.status()["hash"] == before["hash"]


# ---- health and admin ----


def test_the_health_port_answers_its_four_paths(host, restricted):
    proxy = restricted(servers.free_port(host))
    assert proxy.get("/healthz/ready") == (200, "ready\n")
    assert proxy.get("/healthz/live")[0] == 200
    code, text = proxy.get("/metrics")
    assert code == 200 and "# TYPE outrigger_config_generation gauge" in text
    assert proxy.get("/other")[0] == 404


@contextlib.contextmanager
def stopped_thread(process, name):
    """One thread of it does not run any more (ptrace: a signal would stop them all)."""
    def comm(task):
        with open(f"/proc/{process.pid}/task/{task}/comm") as file:
            return file.read().strip()

    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long] * 4
    ptrace.restype = ctypes.c_long
    seize, interrupt, detach, wait_all = 0x4206, 0x4207, 17, 0x40000000
    [thread] = [int(task) for task in os.listdir(f"/proc/{process.pid}/task") if comm(task) == name]
    if ptrace(seize, thread, 0, 0) != 0:
        pytest.skip("ptrace is not allowed here")
    ptrace(interrupt, thread, 0, 0)
    os.waitpid(thread, wait_all)
    try:
        yield
    finally:
        ptrace(detach, thread, 0, 0)


@pytest.mark.slow
def test_a_stuck_worker_fails_liveness_and_is_told_to_who_asks_it(host, restricted):
    proxy = restricted(servers.free_port(host), workers=2)
    with stopped_thread(proxy.process, "worker-1"):
        assert proxy.get("/healthz/live") == (503, "worker: stuck\n")
        began = time.monotonic()
        assert proxy.get("/healthz/live")[0] == 503
        assert proxy.get("/healthz/ready")[0] == 200 and proxy.admin("/status")[0] == 200
        assert time.monotonic() - began < 1, "what is known already is said at once, and control waits for nobody"
        code, body = proxy.admin("/connections")
        assert code == 503 and body["code"] == "timeout"
    servers.wait_until(lambda: proxy.get("/healthz/live") == (200, "live\n"), "it lives again")
    assert proxy.admin("/connections") == (200, [])


@pytest.mark.parametrize("words", [b"", b"GET /healthz/li", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 50],
                         ids=["silent", "half a head", "no reader"])
def test_clients_that_go_no_further_keep_no_probe_out(host, restricted, words):
    proxy = restricted(servers.free_port(host))
    silent = [servers.connect(host, "127.0.0.1", proxy.health) for _ in range(200)]
    try:
        for client in silent:
            try:
                client.sendall(words)
            except OSError:
                pass  # it had to make room already
        for _ in range(10):
            began = time.monotonic()
            assert proxy.get("/healthz/live") == (200, "live\n")
            assert time.monotonic() - began < 1
    finally:
        for client in silent:
            client.close()


def test_admin_commands_answer(host, restricted, io):
    with servers.Echo(host, "127.0.0.1") as server:
        proxy = restricted(server.port)
        status = proxy.status()
        assert status["ready"] is True and status["notReady"] == []
        assert status["generation"] == 1 and re.fullmatch(r"[0-9a-f]{12}", status["hash"])
        assert status["workers"] == 1 and io in status["io"]
        with servers.connect(host, "127.0.0.1", proxy.listen_port) as client:
            client.sendall(b"x")
            servers.read_exactly(client, 1)
            code, connections = proxy.admin("/connections")
            assert code == 200 and len(connections) >= 1
            code, endpoints = proxy.admin("/endpoints")
            [row] = [row for row in endpoints if str(server.port) in row["address"]]
            assert row["source"] == "slice" and row["state"] == "ready" and row["connections"] >= 1
        code, objects = proxy.admin("/config")
        assert {(item["kind"], item["name"]) for item in objects} >= {("Service", "echo")}
        code, body = proxy.reload()
        assert code == 200 and body["hash"] == status["hash"]
        assert proxy.admin("/nothing")[0] == 404
        code, body = proxy.admin("/reload")
        assert code == 405 and {"code", "message"} <= set(body)


def test_the_admin_command_line_speaks_to_the_socket(host, restricted, outrigger):
    proxy = restricted(servers.free_port(host))
    result = run(outrigger, "admin", "--socket", proxy.admin_path, "--json", "status")
    assert result.returncode == 0 and '"generation"' in result.stdout
    result = run(outrigger, "admin", "--socket", proxy.admin_path, "status")
    assert result.returncode == 0 and result.stdout
    result = run(outrigger, "admin", "status", "--json", "--socket", proxy.admin_path)
    assert result.returncode == 0 and '"generation"' in result.stdout
    result = run(outrigger, "admin", "--socket", proxy.admin_path, "statsu")
    assert result.returncode == 2 and "statsu" in result.stderr.splitlines()[0]
    result = run(outrigger, "admin", "--socket", proxy.admin_path + "-none", "status")
    assert result.returncode == 1 and proxy.admin_path in result.stderr


def test_the_admin_socket_is_closed_to_others(host, restricted):
    proxy = restricted(servers.free_port(host))
    assert os.stat(proxy.admin_path).st_mode & 0o777 == 0o600


# ---- standard streams ----


def test_closed_standard_streams_are_not_taken_by_what_the_proxy_opens(host, outrigger, config):
    directory = config()
    number = servers.free_port(host)
    command = [outrigger, "proxy", "--config", directory.path, "--outbound-port", 0, "--inbound-port", 0, "--health-port", number,
               "--admin-socket", os.path.join(os.path.dirname(directory.path), "closed.sock")]
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *map(str, command)])
    try:
        servers.wait_until(lambda: servers.accepts(host, "127.0.0.1", number), "it is there")
        for fd in range(3):
            assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == "/dev/null"
    finally:
        process.terminate()
        assert process.wait(5) == 0


def test_lines_that_nobody_reads_hold_nothing_up_and_are_counted(host, outrigger, config):
    number, local = servers.free_port(host), servers.free_port(host)
    reader, writer = os.pipe()
    with servers.Echo(host, "127.0.0.1") as server:
        directory = config(service("echo", VIP, [port(80, "main", "tcp")]), endpoint_slice("echo", ["127.0.0.1"], server.port, "main"))
        socket_path = os.path.join(os.path.dirname(directory.path), "unread.sock")
        process = subprocess.Popen(list(map(str, [
            outrigger, "proxy", "--config", directory.path, "--outbound-port", 0, "--inbound-port", 0, "--health-port", number,
            "--admin-socket", socket_path, "--access-log", "json", "--listen", f"{local}=echo.shop:80"])), stdout=writer, stderr=writer)
        try:
            servers.wait_until(lambda: servers.accepts(host, "127.0.0.1", number), "it is there")
            for _ in range(400):
                assert echo_once(host, local) == b"hello"

            def dropped():
                result = run(outrigger, "admin", "--socket", socket_path, "--json", "stats")
                return json.loads(result.stdout)["outrigger_log_lines_dropped_total"]

            servers.wait_until(lambda: dropped() > 0, "lost lines are counted")
            lines = os.read(reader, 1 << 20).decode().splitlines()
            odd = [line for line in lines if not (line.startswith(("{", "2")) and line.endswith(("}", '"')) or "msg=" in line)]
            assert not odd, "\n".join(odd)  # a sanitizer's report comes this way too
            os.close(reader)
            reader = None
            assert echo_once(host, local) == b"hello", "nor when the reader is gone"
        finally:
            process.terminate()
            assert process.wait(5) == 0
            os.close(writer)
            if reader is not None:
                os.close(reader)


# ---- interception as the proxy sees it ----


def test_required_interception_is_ready_only_with_working_rules(world, outrigger, config, start, io):
    proxy = start(config(), world.pod, uid=UID, io=io, options=["--require-interception"], wait=False)

    def reasons():
        try:
            return proxy.get("/healthz/ready")
        except OSError:
            return 0, ""

    servers.wait_until(lambda: reasons()[0] == 503 and "interception" in reasons()[1], "it says that nothing is redirected")
    world.pod.run(outrigger, "intercept", "--install", "--proxy-uid", UID, check=True)
    servers.wait_until(lambda: reasons() == (200, "ready\n"), "it is ready once the rules work", 15)
    # What the self-test sends must end here: passed through, it would come back for ever.
    assert proxy.metric("outrigger_connections_active", direction="outbound") == 0
    assert proxy.metric("outrigger_refused_total", cause="loop") == 0
    world.pod.run(outrigger, "intercept", "--remove", check=True)
    servers.wait_until(lambda: reasons()[0] == 503, "it notices that they are gone", 40)


@pytest.mark.parametrize("missing", ["IPv4", "IPv6"])
def test_the_self_test_passes_where_there_is_one_family_only(world, outrigger, config, start, io, missing):
    if missing == "IPv4":
        world.pod.run("ip", "-4", "address", "flush", "dev", "eth0", check=True)
    else:
        world.pod.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", check=True)
    world.pod.run(outrigger, "intercept", "--install", "--proxy-uid", UID, check=True)
    proxy = start(config(), world.pod, uid=UID, io=io, options=["--require-interception"])
    status = proxy.status()
    assert status["ready"] and status["interception"] == "passed" and status["notices"] == []


@pytest.mark.parametrize("family, missing", [("4", "IPv6"), ("6", "IPv4")])
def test_a_family_that_is_not_redirected_is_said(world, outrigger, config, start, io, family, missing):
    world.pod.run(outrigger, "intercept", "--install", "--proxy-uid", UID, "--family", family, check=True)
    proxy = start(config(), world.pod, uid=UID, io=io, options=["--require-interception"])
    servers.wait_until(lambda: any(missing in notice for notice in proxy.status()["notices"]), "a notice")
    servers.wait_until(lambda: proxy.log().count(f"connections over {missing} are not redirected") == 1, "one line")
    world.pod.run(outrigger, "intercept", "--install", "--proxy-uid", UID, check=True)
    servers.wait_until(lambda: proxy.status()["notices"] == [], "the notice goes")
    world.pod.run(outrigger, "intercept", "--remove", check=True)
    servers.wait_until(lambda: not proxy.status()["ready"], "without any it is not ready")


def test_outbound_is_bound_to_loopback_only(world, config, start, io):
    start(config(), world.pod, uid=UID, io=io)
    listening = world.pod.run("ss", "-ltnH").stdout
    assert {line.split()[3] for line in listening.splitlines() if f":{OUTBOUND}" in line} == {
        f"127.0.0.1:{OUTBOUND}", f"[::1]:{OUTBOUND}"}
    # The health port is for the kubelet: it must answer from outside.
    with servers.connect(world.node, netns.POD, HEALTH) as client:
        client.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 200 " in servers.read_all(client)


@pytest.mark.parametrize("workers, kilobytes", [(1, 4), (1, 20), (2, 34), (3, 60)])
def test_where_locked_memory_is_short_it_runs_on_epoll_and_says_so(world, config, start, workers, kilobytes):
    """Not even one ring fits; the probe's does and control's or a worker's does not: locked memory counts for the user."""
    uid = 61000 + os.getpid() % 4000
    proxy = start(config(), world.pod, uid=uid, workers=workers, limits={resource.RLIMIT_MEMLOCK: kilobytes << 10})
    status = proxy.status()
    assert status["io"] == "epoll" and "locked memory" in status["ioReason"] and "RLIMIT_MEMLOCK" in status["ioRemedy"]
    assert proxy.metric("outrigger_io_backend", backend="epoll") == 1
    lines = [line for line in proxy.log().splitlines() if "io_uring is not in use" in line]
    assert len(lines) == 1 and "locked memory" in lines[0] and "remedy=" in lines[0]


def test_a_namespace_without_ipv6_is_one_log_line(world, config, start, io):
    world.pod.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", check=True)
    proxy = start(config(), world.pod, uid=UID, io=io)
    assert proxy.is_ready()

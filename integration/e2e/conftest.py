"""What end-to-end tests share: the program as a process, real servers beside it, objects as text.

    OUTRIGGER_BINARY    the program under test; default: the first of build-release, build, build-dev that is there
    OUTRIGGER_TEST_IO   uring or epoll: the back end that every proxy of the run is started with; default: auto

    OUTRIGGER_TEST_SECONDS   how long anything may take; default: 10

No test sleeps: it waits for what it wants to see, with a deadline (`eventually`). Every port is the system's choice.
"""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("OUTRIGGER_TEST_SECONDS", "10"))


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: not run with the sanitizers' programs, which are many times slower")


def binary():
    named = os.environ.get("OUTRIGGER_BINARY")
    if named:
        return named
    for build in ("build-release", "build", "build-dev"):
        if (ROOT / build / "outrigger").exists():
            return str(ROOT / build / "outrigger")
    raise RuntimeError("no build of outrigger; set OUTRIGGER_BINARY")


def eventually(condition, seconds=SECONDS, what=""):
    """The first true value of `condition()`; an assertion error when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.01)


def free_port(address="127.0.0.1"):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


# ---- objects as text ----------------------------------------------------------------------------


def service(name, namespace="shop", cluster_ip="10.96.0.10", port=80, target=None, app_protocol=None, port_name="main"):
    protocol = f", appProtocol: {app_protocol}" if app_protocol else ""
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{clusterIP: {cluster_ip}, clusterIPs: [{cluster_ip}],\n"
        f"  ports: [{{name: {port_name}, port: {port}, targetPort: {target or port}, protocol: TCP{protocol}}}]}}\n---\n"
    )


def endpoint_slice(name, addresses, port, namespace="shop", port_name="main", suffix="a", ready=True, app_protocol=None):
    """One slice of Service `name`: all `addresses` listen on `port`."""
    family = "IPv6" if addresses and ":" in addresses[0] else "IPv4"
    protocol = f", appProtocol: {app_protocol}" if app_protocol else ""
    endpoints = "".join(
        f"- {{addresses: ['{address}'], conditions: {{ready: {'true' if ready else 'false'}}}}}\n" for address in addresses
    )
    return (
        f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{suffix}, namespace: {namespace},\n"
        f"  labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: {family}\n"
        f"ports: [{{name: {port_name}, port: {port}, protocol: TCP{protocol}}}]\n"
        + (f"endpoints:\n{endpoints}" if endpoints else "endpoints: []\n")
        + "---\n"
    )


# ---- servers beside the program -----------------------------------------------------------------


class Server:
    """A TCP server of threads: `handler(connection, server)` for each connection, the socket closed after it."""

    def __init__(self, handler, address="127.0.0.1", port=0, backlog=1024):
        self.handler = handler
        self.accepted = 0
        self.lock = threading.Lock()
        self.connections = set()
        self.listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port))
        self.listener.listen(backlog)
        self.address, self.port = self.listener.getsockname()[:2]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.accepted += 1
                self.connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self.handler(connection, self)
        except OSError:
            pass
        finally:
            with self.lock:
                self.connections.discard(connection)
            connection.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.thread.join(SECONDS)


def echo(connection, _server):
    """Give back what comes, until its end; then end."""
    while True:
        data = connection.recv(65536)
        if not data:
            connection.shutdown(socket.SHUT_WR)
            return
        connection.sendall(data)


def greet(text):
    """A server that speaks first: `text`, then echo."""

    def handler(connection, server):
        connection.sendall(text)
        echo(connection, server)

    return handler


def read_all(connection):
    parts = []
    while True:
        data = connection.recv(65536)
        if not data:
            return b"".join(parts)
        parts.append(data)


def read_exactly(connection, size):
    parts = b""
    while len(parts) < size:
        data = connection.recv(size - len(parts))
        assert data, f"the stream ended after {len(parts)} of {size} bytes"
        parts += data
    return parts


@pytest.fixture
def server():
    """A factory of servers that end with the test: server(echo), server(greet(b"hi"), address="127.0.1.2")."""
    opened = []

    def make(handler=echo, **options):
        opened.append(Server(handler, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


# ---- the program --------------------------------------------------------------------------------


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("admin", timeout=SECONDS)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Proxy:
    """One running `outrigger proxy` with a configuration directory of its own."""

    def __init__(self, directory, objects, arguments=(), listen=(), environment=None, prefix=()):
        self.directory = directory
        self.config = directory / "config"
        self.config.mkdir(exist_ok=True)
        self.socket = str(directory / "admin.sock")
        self.log_path = directory / "log"
        self.health = free_port()
        self.ports = {}  # "web.shop:80" -> local port
        words = [*prefix, binary(), "proxy", "--config", str(self.config), "--admin-socket", self.socket]
        words += ["--health-port", str(self.health)]
        if not any(str(word).startswith("--outbound-port") for word in arguments):
            words += ["--outbound-port", "0"]
        if not any(str(word).startswith("--inbound-port") for word in arguments):
            words += ["--inbound-port", "0"]
        if os.environ.get("OUTRIGGER_TEST_IO") and "--io" not in arguments:
            words += ["--io", os.environ["OUTRIGGER_TEST_IO"]]
        for target in listen:
            self.ports[target] = free_port()
            words += ["--listen", f"127.0.0.1:{self.ports[target]}={target}"]
        words += [str(word) for word in arguments]
        self.words = words
        self.write(objects)
        self.log_file = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            words, stdout=self.log_file, stderr=self.log_file, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
        )

    def write(self, objects, name="objects.yaml"):
        """Replace one file of the configuration, as an editor would: all at once."""
        fresh = self.directory / "fresh"
        fresh.write_text(objects)
        fresh.rename(self.config / name)

    def reload(self, objects=None, name="objects.yaml"):
        """Write, then have it decided: (status, body) of POST /reload."""
        if objects is not None:
            self.write(objects, name)
        return self.admin("/reload", method="POST")

    def wait_ready(self, seconds=SECONDS):
        def ready():
            assert self.process.poll() is None, f"exit status {self.process.returncode}:\n{self.log()}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.get_health("/healthz/ready")[0] == 200
            return False

        eventually(ready, seconds, "readiness\n" + self.log())
        return self

    def get_health(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.health, timeout=SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def admin(self, path, method="GET", accept="application/json"):
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, headers={"Accept": accept})
            answer = connection.getresponse()
            body = answer.read().decode()
            return answer.status, json.loads(body) if "json" in (answer.getheader("content-type") or "") else body
        finally:
            connection.close()

    def metric(self, name, **labels):
        """The sum of the samples of `name` that carry `labels`; 0 when there is none."""
        total = 0.0
        for line in self.get_health("/metrics")[1].split("\n"):
            if not line.startswith((name + "{", name + " ")):
                continue
            if all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def connect(self, target, timeout=SECONDS):
        return socket.create_connection(("127.0.0.1", self.ports[target]), timeout=timeout)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=SECONDS):
        return self.process.wait(seconds)

    def stop(self, status=0):
        """SIGTERM; the exit status must be `status`."""
        self.signal(signal.SIGTERM)
        got = self.wait(SECONDS + 30)
        assert got == status, f"exit status {got}, not {status}:\n{self.log()}"

    def end(self):
        """Whatever state it is in, it is gone afterwards; a crash or a sanitizer's report fails the test."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(1)
            except subprocess.TimeoutExpired:
                self.process.terminate()  # the second one stops at once
                try:
                    self.process.wait(SECONDS)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
                    raise AssertionError("a second SIGTERM did not stop it:\n" + self.log()) from None
        self.log_file.close()
        crashed = self.process.returncode < 0 and self.process.returncode not in (-signal.SIGKILL,)
        assert not crashed, f"ended by signal {-self.process.returncode}:\n{self.log()}"
        assert "Sanitizer" not in self.log() and "runtime error:" not in self.log(), self.log()


@pytest.fixture
def proxy(tmp_path):
    """A factory of running proxies: proxy(objects, "--workers", 1, listen=["web.shop:80"]) is ready when it returns."""
    started = []

    def start(objects="", *arguments, listen=(), wait=True, environment=None, prefix=()):
        directory = tmp_path / f"proxy{len(started)}"
        directory.mkdir()
        one = Proxy(directory, objects, arguments, listen, environment, prefix)
        started.append(one)
        return one.wait_ready() if wait else one

    yield start
    for one in started:
        one.end()


@pytest.fixture
def outrigger():
    """Run another subcommand to its end: outrigger("check", path) -> CompletedProcess."""

    def run(*words, seconds=SECONDS, stdin=None, environment=None):
        return subprocess.run(
            [binary(), *map(str, words)], capture_output=True, text=True, timeout=seconds, check=False, input=stdin,
            env={**os.environ, **(environment or {})},
        )

    return run

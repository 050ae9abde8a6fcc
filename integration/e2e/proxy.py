"""Starts `outrigger proxy`, waits for it through the health port, asks it questions, and stops it by its pid."""

import http.client
import functools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time

from servers import connect, wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UID = 1337
OUTBOUND, INBOUND, HEALTH = 15001, 15006, 15021


def binary():
    """$OUTRIGGER_BINARY, $OUTRIGGER, or the build that changed last."""
    if path := os.environ.get("OUTRIGGER_BINARY") or os.environ.get("OUTRIGGER"):
        return os.path.abspath(path)
    names = ("build", "build-release", "build-dev", "build-asan", "build-tsan")
    found = [path for name in names if os.access(path := os.path.join(ROOT, name, "outrigger"), os.X_OK)]
    return max(found, key=os.path.getmtime) if found else None


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("admin", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@functools.lru_cache
def is_sanitized(path):
    with open(path, "rb") as file:
        text = file.read()
    return b"__asan_init" in text or b"__tsan_init" in text


class Proxy:
    """`options` are flags of the program; io and workers are always set, so that a test says what it runs on."""

    def __init__(self, host, config, directory, io="auto", uid=None, workers=1, health=HEALTH, options=(), limits=None,
                 access_log="json"):
        self.host = host
        self.directory = str(directory)
        self.admin_path = os.path.join(self.directory, "admin.sock")
        self.log_path = os.path.join(self.directory, "proxy.log")
        self.health = health
        self.uid = uid
        self.limits = limits or {}
        self.process = None
        self.arguments = [
            binary(), "proxy", "--config", config.path, "--namespace", "shop", "--admin-socket", self.admin_path,
            "--health-port", health, "--workers", workers, "--io", io, "--access-log", access_log, *options,
        ]

    def start(self, wait=True):
        os.chmod(self.directory, 0o777)

        def limit():
            for name, value in self.limits.items():
                resource.setrlimit(name, (value, value))

        # pytest's own directories are closed to others: the proxy runs as another user with a log that is open already.
        with open(self.log_path, "ab") as log:
            self.process = self.host.popen(*self.arguments, uid=self.uid, stdout=log, stderr=log,
                                           stdin=subprocess.DEVNULL, preexec_fn=limit if self.limits else None)
        if wait:
            wait_until(self.is_ready, f"the proxy is ready; its log:\n{self.log()}")
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """SIGTERM, a second one, SIGKILL; returns the exit status."""
        if self.process is None:
            return 0
        for number, seconds in ((signal.SIGTERM, 1), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        return self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def get(self, path):
        """Status and body of a GET to the health port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.health, timeout=5)
        connection.sock = connect(self.host, "127.0.0.1", self.health, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def is_ready(self):
        status = self.process.poll()
        assert status is None, f"the proxy ended with status {status}:\n{self.log()[-4000:]}"
        try:
            return self.get("/healthz/ready")[0] == 200
        except OSError:
            return False

    def admin(self, path, method="GET", timeout=10):
        """Status and decoded JSON of an admin command."""
        connection = UnixConnection(self.admin_path, timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read().decode()
            return response.status, json.loads(body) if body.strip() else None
        finally:
            connection.close()

    def status(self):
        code, body = self.admin("/status")
        assert code == 200, body
        return body

    def reload(self):
        return self.admin("/reload", "POST")

    def metrics(self):
        """Name to {labels as text: value}."""
        code, text = self.get("/metrics")
        assert code == 200
        series = {}
        for line in text.splitlines():
            if match := re.fullmatch(r"([a-z_0-9]+)(?:\{(.*)\})? (\S+)", line):
                series.setdefault(match[1], {})[match[2] or ""] = float(match[3])
        return series

    def metric(self, name, **labels):
        """The sum of the series of `name` that carry these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(value for text, value in self.metrics().get(name, {}).items() if all(part in text for part in wanted))

    def access_lines(self):
        """The access log lines so far, as dictionaries."""
        lines = []
        for line in self.log().splitlines():
            if line.startswith("{"):
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    pass  # a line that is being written
        return [line for line in lines if "direction" in line]

    def wait_access_lines(self, count, seconds=5):
        wait_until(lambda: len(self.access_lines()) >= count, f"{count} access log lines", seconds)
        return self.access_lines()

    def resident_bytes(self):
        """0 for a sanitizer's build, whose memory (quarantine, shadow) says nothing of ours: the release build is the measure."""
        if is_sanitized(self.arguments[0]):
            return 0
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1]) * 1024

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_generation(self, generation, seconds=5):
        deadline = time.monotonic() + seconds
        wait_until(lambda: self.status()["generation"] >= generation, f"generation {generation}",
                   deadline - time.monotonic())

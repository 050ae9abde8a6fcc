"""Real servers on threads of their own, and small clients.

Each server is a context manager with `address` and `port`; `host` is a namespace of netns.py (or Host). All sockets are made
inside the namespace. Servers keep what a test asks about: accepted connections, bytes, ends and resets.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import subprocess
import threading
import time

SO_ORIGINAL_DST = 80
DEADLINE = float(os.environ.get("OUTRIGGER_TEST_SECONDS", "10"))  # longer where the program is a sanitizer's


def wait_until(condition, what, seconds=DEADLINE):
    """Bounded waiting for something that another process or thread does."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds} s not: {what}")
        pause.wait(0.01)


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(host, address, port, backlog=1024):
    def make():
        listener = socket.socket(family_of(address), socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(backlog)
        return listener

    return host.call(make)


def make_narrow(connection):
    """Before it is connected, or of a listener: few bytes fit into the buffers on both sides. The other side's begin with room for
    some segments, which on loopback are huge."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


def connect(host, address, port, timeout=DEADLINE, uid=None, receive_buffer=None, narrow=False):
    def make():
        client = socket.socket(family_of(address), socket.SOCK_STREAM)
        client.settimeout(timeout)
        if narrow:
            make_narrow(client)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            client.connect((address, port))
        except BaseException:
            client.close()
            raise
        return client

    return host.call(make, uid=uid)


def accepts(host, address, port):
    try:
        connect(host, address, port, timeout=1).close()
    except OSError:
        return False
    return True


def original_destination(connection):
    if connection.family == socket.AF_INET6:
        data = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        return socket.inet_ntop(socket.AF_INET6, data[8:24]), struct.unpack("!H", data[2:4])[0]
    data = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    return socket.inet_ntop(socket.AF_INET, data[4:8]), struct.unpack("!H", data[2:4])[0]


def read_all(connection):
    """Everything up to the end; ConnectionResetError when the end is a reset."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def read_exactly(connection, size):
    parts = []
    while size > 0:
        part = connection.recv(size)
        if not part:
            raise EOFError(f"{size} bytes short")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def reset(connection):
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Server:
    """Accepts on a thread; each connection is handled by `handle` on a thread of its own."""

    def __init__(self, host, address, port=0, backlog=1024):
        self.listener = listen(host, address, port, backlog)
        self.address, self.port = self.listener.getsockname()[:2]
        self.host = host
        self.accepted = 0
        self.lock = threading.Lock()
        self.connections = []
        self.closed = False

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.closed = True
        # Only a shutdown wakes the thread that waits in accept.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def accept(self):
        while not self.closed:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.accepted += 1
                self.connections.append(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            self.handle(connection)
        except OSError:
            pass
        finally:
            connection.close()
            with self.lock:
                self.connections.remove(connection)

    def handle(self, connection):
        raise NotImplementedError


class Echo(Server):
    """Sends back what it reads; answers the end with the end."""

    def handle(self, connection):
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


class Named(Server):
    """Speaks first, says its name and closes: which server answered?"""

    def __init__(self, host, address, port, name):
        super().__init__(host, address, port)
        self.greeting = name.encode() + b"\n"

    def handle(self, connection):
        connection.sendall(self.greeting)


def certificate(directory, name="test"):
    """A key and a certificate of its own issue, in one new file; its path."""
    path = os.path.join(directory, f"{name}.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-keyout", path + ".key", "-out", path], check=True, capture_output=True)
    with open(path, "ab") as both, open(path + ".key", "rb") as key:
        both.write(key.read())
    return path


class Sealed(Server):
    """Ends TLS, says its name and closes; keeps the server name of each ClientHello. A client that does not begin is greeted plainly."""

    def __init__(self, host, address, port, name, path):
        super().__init__(host, address, port)
        self.greeting = name.encode() + b"\n"
        self.names = []
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(path)
        self.tls.sni_callback = lambda _, name, __: self.names.append(name)

    def handle(self, connection):
        connection.settimeout(0.3)
        try:
            begins = connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            begins = None
        connection.settimeout(DEADLINE)
        if begins is None:
            connection.sendall(self.greeting)
        elif begins:
            with self.tls.wrap_socket(connection, server_side=True) as sealed:
                sealed.sendall(self.greeting)
                with contextlib.suppress(OSError):
                    sealed.unwrap()


def sealed_greeting(connection, name, path):
    """What a TLS server with the certificate in `path` says to a client that asks for `name` ("": sends no server name)."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.load_verify_locations(path)
    with tls.wrap_socket(connection, server_hostname=name or None) as sealed:
        return read_all(sealed)


class Collector(Server):
    """Keeps what each connection sent and how it ended: "end" or "reset"; `reply` is sent after the end."""

    def __init__(self, host, address, port=0, reply=b""):
        super().__init__(host, address, port)
        self.reply = reply
        self.received = []
        self.ends = []

    def handle(self, connection):
        try:
            data = read_all(connection)
            end = "end"
        except ConnectionResetError:
            data = b""
            end = "reset"
        self.received.append(data)
        self.ends.append(end)
        if end == "end" and self.reply:
            connection.sendall(self.reply)


class Resetter(Server):
    """Reads one byte, then resets."""

    def handle(self, connection):
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Redirected(Server):
    """Stands where the proxy will: keeps where each connection was going, and answers with it."""

    def __init__(self, host, address, port):
        super().__init__(host, address, port)
        self.seen = []

    def handle(self, connection):
        address, port = original_destination(connection)
        self.seen.append((address, port))
        connection.sendall(f"{address} {port}\n".encode())


class Loop:
    """An asyncio loop on a thread inside a namespace, for hundreds of connections."""

    def __init__(self, host):
        self.host = host
        self.loop = asyncio.new_event_loop()
        self.tasks = set()
        self.thread = threading.Thread(target=self.body, daemon=True)

    def body(self):
        self.host.enter()
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        async def cancel():
            # What is cancelled here complains of nothing that a test wants to know.
            self.loop.set_exception_handler(lambda *_: None)
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        with contextlib.suppress(Exception):
            self.run(cancel(), 5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()

    def run(self, coroutine, timeout=60):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def serve(self, handler, address, port, backlog=4096):
        """Start an asyncio stream server; returns its port."""

        async def kept(reader, writer):
            # asyncio itself only holds a weak reference: a handler that waits for nothing would be collected.
            task = asyncio.current_task()
            self.tasks.add(task)
            try:
                await handler(reader, writer)
            finally:
                self.tasks.discard(task)

        async def start():
            server = await asyncio.start_server(kept, address, port, backlog=backlog)
            return server.sockets[0].getsockname()[1]

        return self.run(start())


def is_refused(error):
    return isinstance(error, ConnectionRefusedError) or getattr(error, "errno", 0) == errno.ECONNREFUSED


@contextlib.contextmanager
def program(host, *arguments, log, ready, uid=None):
    """A server program (nginx, haproxy) until the block ends; `ready` is a (address, port) that must accept."""
    with open(log, "wb") as output:
        process = host.popen(*arguments, uid=uid, stdout=output, stderr=subprocess.STDOUT)

    def accepts():
        assert process.poll() is None, f"{arguments[0]} ended: {open(log).read()[-1000:]}"
        with contextlib.suppress(OSError):
            connect(host, *ready, timeout=1).close()
            return True
        return False

    try:
        wait_until(accepts, f"{arguments[0]} accepts on {ready}")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_installed(name):
    return any(os.access(os.path.join(directory, name), os.X_OK)
               for directory in ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"))


def free_port(host, address="127.0.0.1"):
    """A port that nobody has; the caller takes it soon."""
    with listen(host, address, 0) as listener:
        return listener.getsockname()[1]

"""Network namespaces that look like a pod and the node it stands on.

A `Namespace` runs programs (`popen`, `run`) and Python functions (`call`) inside itself. A function runs in a thread of its
own that has entered the namespace; a socket stays in the namespace it was made in, so what the function returns may be used
anywhere. `world()` makes the two namespaces of every test:

    pod   eth0 10.1.0.2/24, fd00:1::2/64, everything else through the node
    node  eth0 10.1.0.1/24, fd00:1::1/64, and whatever addresses a test adds: other pods, ClusterIPs, the internet
"""

import contextlib
import ctypes
import itertools
import json
import os
import subprocess
import threading

CLONE_NEWNET = 0x40000000
SYS_SETRESUID = {"x86_64": 117, "aarch64": 147}[os.uname().machine]
SYS_SETRESGID = {"x86_64": 119, "aarch64": 149}[os.uname().machine]

POD = "10.1.0.2"
NODE = "10.1.0.1"
POD6 = "fd00:1::2"
NODE6 = "fd00:1::1"
PEER = "10.1.2.2"
PEER6 = "fd00:2::2"

libc = ctypes.CDLL(None, use_errno=True)
counter = itertools.count()


def can_make():
    """Network namespaces need root (or CAP_SYS_ADMIN and CAP_NET_ADMIN)."""
    probe = subprocess.run(["ip", "netns", "add", f"or-probe-{os.getpid()}"], capture_output=True)
    if probe.returncode != 0:
        return False
    subprocess.run(["ip", "netns", "del", f"or-probe-{os.getpid()}"], check=True)
    return True


def check(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become_user(uid):
    """This thread alone takes the user id: the C library's setresuid would change every thread."""
    check(libc.syscall(SYS_SETRESGID, uid, uid, uid))
    check(libc.syscall(SYS_SETRESUID, uid, uid, uid))


class Place:
    """Where programs run: `command` says how."""

    def run(self, *arguments, uid=None, timeout=20, **options):
        options.setdefault("capture_output", True)
        options.setdefault("text", True)
        return subprocess.run(self.command(arguments, uid), timeout=timeout, **options)

    def popen(self, *arguments, uid=None, **options):
        return subprocess.Popen(self.command(arguments, uid), **options)


class Namespace(Place):
    def __init__(self, label):
        self.name = f"or-{label}-{os.getpid()}-{next(counter)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.path = f"/run/netns/{self.name}"
        # Without duplicate address detection an address is usable at once.
        self.run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0", check=True)
        self.ip("link", "set", "lo", "up")

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], check=False)

    def ip(self, *arguments):
        subprocess.run(["ip", "-n", self.name, *arguments], check=True)

    def command(self, arguments, uid=None):
        """The command line that runs `arguments` inside; every step replaces itself, so the pid is the program's."""
        prefix = ["nsenter", f"--net={self.path}", "--"]
        if uid is not None:
            prefix += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
        return prefix + [str(argument) for argument in arguments]

    def call(self, function, *arguments, uid=None):
        """Run the function in a thread inside the namespace and hand on what it returns or raises."""
        outcome = {}

        def body():
            try:
                with open(self.path) as entry:
                    check(libc.setns(entry.fileno(), CLONE_NEWNET))
                if uid is not None:
                    become_user(uid)
                outcome["value"] = function(*arguments)
            except BaseException as error:  # handed to the caller's thread
                outcome["error"] = error

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    def enter(self):
        """For the first statement of a thread that stays inside."""
        with open(self.path) as entry:
            check(libc.setns(entry.fileno(), CLONE_NEWNET))

    def add_address(self, address, device="lo"):
        bits = 128 if ":" in address else 32
        options = ["nodad"] if bits == 128 else []
        self.ip("address", "add", f"{address}/{bits}", "dev", device, *options)


class Host(Place):
    """The machine's own namespace behind the same calls, for tests that need no privilege."""

    name = None

    def command(self, arguments, uid=None):
        assert uid is None
        return [str(argument) for argument in arguments]

    def call(self, function, *arguments, uid=None):
        assert uid is None
        return function(*arguments)

    def enter(self):
        pass


class World:
    def __init__(self, pod, node, stack):
        self.pod = pod
        self.node = node
        self.stack = stack

    def add_second_pod(self):
        """A pod with a namespace of its own, at PEER and PEER6; the node routes between the two."""
        peer = Namespace("peer")
        self.stack.callback(peer.close)
        attach(peer, self.node, "eth1", "10.1.2", "fd00:2")
        self.node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", check=True)
        return peer

    def add_pod(self, address):
        """An address of another pod: the node answers for it."""
        self.node.add_address(address)

    add_cluster_ip = add_pod


def attach(namespace, node, device, prefix, prefix6):
    """A veth pair: prefix.2 on eth0 of the namespace, prefix.1 on `device` of the node, everything else through the node."""
    namespace.ip("link", "add", "eth0", "type", "veth", "peer", "name", device, "netns", node.name)
    ends = ((namespace, "eth0", f"{prefix}.2", f"{prefix6}::2"), (node, device, f"{prefix}.1", f"{prefix6}::1"))
    for side, name, address, address6 in ends:
        side.ip("address", "add", f"{address}/24", "dev", name)
        side.ip("address", "add", f"{address6}/64", "dev", name, "nodad")
        side.ip("link", "set", name, "up")
    # The kernel defers the first neighbour discovery of a new link by a second; nobody here needs it.
    for (side, name, _, _), (other, other_name, _, other6) in (ends, ends[::-1]):
        mac = json.loads(other.run("ip", "-json", "link", "show", other_name).stdout)[0]["address"]
        side.ip("neighbour", "replace", other6, "lladdr", mac, "dev", name, "nud", "permanent")
    namespace.ip("route", "add", "default", "via", f"{prefix}.1")
    namespace.ip("route", "add", "default", "via", f"{prefix6}::1")


@contextlib.contextmanager
def world():
    with contextlib.ExitStack() as stack:
        pod = Namespace("pod")
        stack.callback(pod.close)
        node = Namespace("node")
        stack.callback(node.close)
        attach(pod, node, "eth0", "10.1.0", "fd00:1")
        yield World(pod, node, stack)

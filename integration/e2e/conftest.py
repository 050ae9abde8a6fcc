"""Fixtures of the end-to-end tests.

    world   a pod-like namespace and its node            host   the machine's own namespace, for --listen without privilege
    io      every test that names it runs on io_uring and on epoll
    start   start(config, host=.., ...) -> a ready Proxy; all are stopped in reverse order, their logs shown on failure
    config  config(objects...) -> a mounted directory
"""

import contextlib
import itertools
import os
import re
import resource
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import netns  # noqa: E402
import objects  # noqa: E402
import proxy as proxy_module  # noqa: E402
import servers  # noqa: E402

# A thousand connections from one test, each with two ends here.
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))

CRASH = re.compile(r"Sanitizer|runtime error:|check failed")
os.environ.setdefault("TSAN_OPTIONS", f"suppressions={proxy_module.ROOT}/integration/checks/tsan/suppressions")
ONLY_IO = os.environ.get("OUTRIGGER_TEST_IO")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the log of each proxy it started."""
    report = (yield).get_result()
    if report.failed:
        for proxy in getattr(item, "proxies", ()):
            if os.path.exists(proxy.log_path):
                report.sections.append((f"log of {' '.join(map(str, proxy.arguments[1:]))}", proxy.log()[-8000:]))


@pytest.fixture(scope="session")
def outrigger():
    path = proxy_module.binary()
    if path is None:
        pytest.fail("no outrigger: build it, or set OUTRIGGER")
    return path


@pytest.fixture(scope="session")
def privilege():
    if not netns.can_make():
        pytest.skip("network namespaces need root or CAP_SYS_ADMIN and CAP_NET_ADMIN")


@pytest.fixture
def world(privilege):
    with netns.world() as made:
        yield made


@pytest.fixture
def host():
    return netns.Host()


@pytest.fixture
def directory():
    """A directory that another user may enter, unlike pytest's own; removed afterwards."""
    path = tempfile.mkdtemp(prefix="outrigger-e2e-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: measures, or needs thousands of exchanges; left out under sanitizers")


def pytest_generate_tests(metafunc):
    """OUTRIGGER_TEST_IO=uring|epoll takes one of the two: integration/test runs them one after the other."""
    if "io" in metafunc.fixturenames:
        metafunc.parametrize("io", [ONLY_IO] if ONLY_IO else ["uring", "epoll"])


def pytest_collection_modifyitems(config, items):
    """What does not depend on the I/O back end runs with the first of them only."""
    if ONLY_IO == "epoll":
        dropped = [item for item in items if "io" not in item.fixturenames]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if "io" in item.fixturenames]


@pytest.fixture
def config(directory):
    numbers = itertools.count()

    def make(*items):
        return objects.ConfigDirectory(os.path.join(directory, f"config-{next(numbers)}"), *items)

    return make


@pytest.fixture
def start(request, directory, outrigger):
    request.node.proxies = []
    numbers = itertools.count()

    def make(config, host, **options):
        wait = options.pop("wait", True)
        place = os.path.join(directory, f"proxy-{next(numbers)}")
        os.mkdir(place)
        proxy = proxy_module.Proxy(host, config, place, **options)
        request.node.proxies.append(proxy)
        return proxy.start(wait)

    yield make
    # All are stopped before any is judged. 4: the drain was cut off, by our second signal.
    statuses = [(proxy, proxy.stop()) for proxy in reversed(request.node.proxies)]
    for proxy, status in statuses:
        assert status in (0, 4), f"the proxy ended with status {status}:\n{proxy.log()[-4000:]}"
        assert not CRASH.search(proxy.log()), proxy.log()[-8000:]


@pytest.fixture
def mesh(world, outrigger, config, start, io):
    """mesh(objects...) -> a ready proxy in the pod, behind real redirection, with those objects mounted."""

    def make(*items, options=(), intercept=(), **more):
        result = world.pod.run(outrigger, "intercept", "--install", "--proxy-uid", proxy_module.UID, *intercept)
        assert result.returncode == 0, result.stdout + result.stderr
        directory = config(*items)
        made = start(directory, world.pod, uid=proxy_module.UID, io=io, options=options, **more)
        made.config = directory
        return made

    return make


@pytest.fixture
def serving(host):
    """serving(Kind, ...) -> a started server on loopback, ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda kind, *arguments, **options: stack.enter_context(kind(host, "127.0.0.1", *arguments, **options))


@pytest.fixture
def listen(host, config, start, io):
    """listen(objects...) -> a ready proxy whose `port` counts as dialled to `to`, in the machine's own namespace."""

    def make(*items, to="web.shop:80", options=(), **more):
        directory = config(*items)
        port = servers.free_port(host)
        made = start(directory, host, io=io, health=servers.free_port(host), options=[
            "--outbound-port", 0, "--inbound-port", 0, "--listen", f"{port}={to}", *options], **more)
        made.config = directory
        made.port = port
        return made

    return make

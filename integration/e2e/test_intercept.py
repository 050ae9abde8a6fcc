"""`outrigger intercept` in network namespaces: where connections really arrive, on both back ends and in both families."""

import re
import shutil
import socket
import subprocess

import pytest

import netns
import servers

UID = 1337
APP_UID = 1000
OUTBOUND, INBOUND = 15001, 15006
VIP = {4: "10.96.0.10", 6: "fd00:96::10"}
POD = {4: netns.POD, 6: netns.POD6}
NODE = {4: netns.NODE, 6: netns.NODE6}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ANY = {4: "0.0.0.0", 6: "::"}


@pytest.fixture(params=["nft", "iptables"])
def backend(request):
    if request.param == "iptables" and not servers.is_installed("iptables-restore"):
        pytest.skip("iptables is not installed")
    return request.param


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request):
    return request.param


def intercept(world, outrigger, *arguments, **options):
    return world.pod.run(outrigger, "intercept", *arguments, **options)


def install(world, outrigger, backend, *arguments):
    result = intercept(world, outrigger, "--install", "--proxy-uid", UID, "--backend", backend, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def ruleset(world):
    """Every rule of the namespace, without counters and comments of the tools."""
    text = ""
    for command in (["nft", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"]):
        text += world.pod.run(*command).stdout
    text = re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]", "", text)
    return [line for line in text.splitlines() if not line.startswith("#")]


def ours(rules):
    return sorted(line for line in rules if "outrigger" in line.lower())


def ask(host, address, port, uid=None):
    """Who answers at this address?"""
    with servers.connect(host, address, port, timeout=3, uid=uid) as client:
        return servers.read_all(client).decode().strip()


def test_connections_that_leave_arrive_at_the_outbound_port(world, outrigger, backend, family):
    install(world, outrigger, backend)
    world.node.add_address(VIP[family])
    with servers.Redirected(world.pod, LOOPBACK[family], OUTBOUND), servers.Named(world.node, VIP[family], 80, "direct"):
        assert ask(world.pod, VIP[family], 80, uid=APP_UID) == f"{VIP[family]} 80"
        assert ask(world.pod, VIP[family], 80, uid=UID) == "direct", "the proxy's own connections pass"


def test_connections_that_arrive_reach_the_inbound_port(world, outrigger, backend, family):
    install(world, outrigger, backend, "--exclude-inbound-ports", "9000,9001")
    with servers.Redirected(world.pod, ANY[family], INBOUND), \
         servers.Named(world.pod, ANY[family], 8080, "application"), \
         servers.Named(world.pod, ANY[family], 9001, "excluded"), \
         servers.Named(world.pod, ANY[family], 15021, "health"):
        assert ask(world.node, POD[family], 8080) == f"{POD[family]} 8080"
        assert ask(world.node, POD[family], 9001) == "excluded"
        assert ask(world.node, POD[family], 15021) == "health"
        # What would loop is seen as what it is: the original port is the proxy's own, so that it can refuse.
        assert ask(world.node, POD[family], INBOUND) == f"{POD[family]} {INBOUND}"
        assert ask(world.node, POD[family], OUTBOUND) == f"{POD[family]} {OUTBOUND}"


def test_the_pod_reaches_itself_without_the_proxy(world, outrigger, backend, family):
    install(world, outrigger, backend)
    with servers.Named(world.pod, ANY[family], 8080, "application"), servers.Redirected(world.pod, LOOPBACK[family], OUTBOUND):
        assert ask(world.pod, POD[family], 8080, uid=APP_UID) == "application"
        assert ask(world.pod, LOOPBACK[family], 8080, uid=APP_UID) == "application"
        assert ask(world.pod, POD[family], 8080, uid=UID) == "application"


def test_excluded_ports_and_networks_leave_directly(world, outrigger, backend, family):
    network = {4: "10.96.7.0/24", 6: "fd00:97::/64"}[family]
    inside = {4: "10.96.7.9", 6: "fd00:97::9"}[family]
    install(world, outrigger, backend, "--exclude-outbound-ports", "5432", "--exclude-outbound-cidrs", network)
    world.node.add_address(VIP[family])
    world.node.add_address(inside)
    with servers.Redirected(world.pod, LOOPBACK[family], OUTBOUND), \
         servers.Named(world.node, VIP[family], 5432, "database"), \
         servers.Named(world.node, inside, 80, "network"):
        assert ask(world.pod, VIP[family], 5432, uid=APP_UID) == "database"
        assert ask(world.pod, inside, 80, uid=APP_UID) == "network"
        assert ask(world.pod, VIP[family], 80, uid=APP_UID) == f"{VIP[family]} 80"


def test_the_self_test_address_is_redirected_even_for_the_proxy(world, outrigger, backend, family):
    install(world, outrigger, backend)
    address = {4: "192.0.2.2", 6: "2001:db8::2"}[family]
    with servers.Redirected(world.pod, LOOPBACK[family], OUTBOUND):
        assert ask(world.pod, address, OUTBOUND, uid=UID) == f"{address} {OUTBOUND}"


def test_installing_twice_is_installing_once(world, outrigger, backend):
    install(world, outrigger, backend)
    once = ruleset(world)
    install(world, outrigger, backend)
    assert ruleset(world) == once


def test_installing_again_replaces_what_was_wanted_before(world, outrigger, backend):
    install(world, outrigger, backend, "--udp", "--exclude-inbound-ports", "22")
    install(world, outrigger, backend)
    again = ruleset(world)
    assert "0x4f52" not in world.pod.run("ip", "rule", "show").stdout
    intercept(world, outrigger, "--remove")
    install(world, outrigger, backend)
    fresh = ruleset(world)
    # iptables lists chains in the order in which they were made.
    assert ours(again) == ours(fresh)


def test_installing_with_the_other_back_end_takes_the_first_ones_rules_away(world, outrigger, backend):
    other = {"nft": "iptables", "iptables": "nft"}[backend]
    install(world, outrigger, backend)
    fresh = ours(ruleset(world))
    intercept(world, outrigger, "--remove")
    install(world, outrigger, other)
    install(world, outrigger, backend)
    assert ours(ruleset(world)) == fresh


def test_removing_leaves_nothing(world, outrigger, backend):
    install(world, outrigger, backend, "--udp")
    for _ in range(2):
        result = intercept(world, outrigger, "--remove")
        assert result.returncode == 0, result.stderr
        assert not ours(ruleset(world))
        for ip in ("-4", "-6"):
            assert "0x4f52" not in world.pod.run("ip", ip, "rule", "show").stdout
            assert not world.pod.run("ip", ip, "route", "show", "table", "20306").stdout
    world.node.add_address(VIP[4])
    with servers.Named(world.node, VIP[4], 80, "direct"):
        assert ask(world.pod, VIP[4], 80, uid=APP_UID) == "direct"


def test_check_passes_on_what_was_installed_and_says_what_is_missing(world, outrigger, backend):
    arguments = ["--check", "--proxy-uid", UID, "--backend", backend]
    before = intercept(world, outrigger, *arguments)
    assert before.returncode == 1
    assert "outrigger intercept --install" in before.stdout
    install(world, outrigger, backend)
    good = intercept(world, outrigger, *arguments)
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.count("a connection to the self-test's address arrives at port 15001") == 2
    other = intercept(world, outrigger, "--check", "--proxy-uid", 1400, "--backend", backend)
    assert other.returncode == 1
    assert "missing rule: out: the proxy itself passes, uid 1400" in other.stdout


def test_check_finds_a_rule_that_somebody_deleted(world, outrigger):
    install(world, outrigger, "nft")
    listing = world.pod.run("nft", "-a", "list", "chain", "inet", "outrigger", "outbound").stdout
    handle = re.search(r"out: loopback passes.*handle (\d+)", listing)[1]
    world.pod.run("nft", "delete", "rule", "inet", "outrigger", "outbound", "handle", handle, check=True)
    result = intercept(world, outrigger, "--check", "--proxy-uid", UID)
    assert result.returncode == 1
    assert "missing rule: out: loopback passes" in result.stdout


def test_check_finds_rules_that_are_there_and_do_not_work(world, outrigger):
    install(world, outrigger, "nft")
    world.pod.run("nft", "-f", "-", check=True, input=(
        "table inet other {\nchain output {\ntype nat hook output priority -110; policy accept;\n"
        "tcp dport 15001 redirect to :9\n}\n}\n"))
    result = intercept(world, outrigger, "--check", "--proxy-uid", UID)
    assert result.returncode == 1
    assert "does not arrive at port 15001" in result.stdout


def test_print_gives_the_tools_what_install_gives_them(world, outrigger, backend):
    printed = intercept(world, outrigger, "--print", "--proxy-uid", UID, "--backend", backend)
    assert printed.returncode == 0
    if backend == "nft":
        world.pod.run("nft", "-f", "-", input=printed.stdout, check=True)
    else:
        four, six = printed.stdout.split("# ip6tables-restore --noflush\n")
        world.pod.run("iptables-restore", "--noflush", input=four, check=True)
        world.pod.run("ip6tables-restore", "--noflush", input=six, check=True)
    by_hand = ruleset(world)
    assert ours(by_hand)
    install(world, outrigger, backend)
    assert ruleset(world) == by_hand


def test_print_needs_no_privilege(outrigger):
    command = [outrigger, "intercept", "--print", "--proxy-uid", "1337"]
    if netns.os.getuid() == 0:
        command = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"] + command
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "table inet outrigger" in result.stdout


@pytest.mark.parametrize("action", ["--install", "--check", "--remove"])
def test_without_the_privilege_one_message_names_it_and_the_remedy(world, outrigger, action):
    result = world.pod.run("setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", outrigger, "intercept", action,
                           "--proxy-uid", UID)
    assert result.returncode == 1
    assert "NET_ADMIN is missing" in result.stderr and len(result.stderr.splitlines()) == 1
    assert "capabilities" in result.stderr


def test_a_file_capability_that_is_only_permitted_is_enough_for_another_user(world, outrigger, directory):
    copy = shutil.copy(outrigger, directory)
    subprocess.run(["setcap", "cap_net_admin,cap_net_raw+p", copy], check=True)
    result = world.pod.run(copy, "intercept", "--install", "--proxy-uid", UID, uid=65534)
    assert result.returncode == 0, result.stdout + result.stderr
    assert intercept(world, outrigger, "--check", "--proxy-uid", UID).returncode == 0


def test_without_nft_iptables_is_used(world, outrigger):
    hidden = ("unshare", "--mount", "sh", "-c",
              'for f in /usr/sbin/nft /sbin/nft; do [ -e $f ] && mount --bind /dev/null $f; done; exec "$@"', "sh")
    result = world.pod.run(*hidden, outrigger, "intercept", "--install", "--proxy-uid", UID)
    assert result.returncode == 0, result.stderr
    assert "in force by iptables" in result.stdout
    refused = world.pod.run(*hidden, outrigger, "intercept", "--install", "--proxy-uid", UID, "--backend", "nft")
    assert refused.returncode == 1
    assert "install the package nftables" in refused.stderr


def test_one_family_leaves_the_other_alone(world, outrigger, backend):
    install(world, outrigger, backend, "--family", "4")
    for address in VIP.values():
        world.node.add_address(address)
    with servers.Redirected(world.pod, LOOPBACK[4], OUTBOUND), servers.Named(world.node, VIP[6], 80, "direct"):
        assert ask(world.pod, VIP[4], 80, uid=APP_UID) == f"{VIP[4]} 80"
        assert ask(world.pod, VIP[6], 80, uid=APP_UID) == "direct"


def test_a_namespace_without_ipv6_is_no_failure(world, outrigger, backend):
    world.pod.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", check=True)
    result = install(world, outrigger, backend)
    assert "no address of it" in result.stdout
    with servers.Redirected(world.pod, LOOPBACK[4], OUTBOUND):
        assert ask(world.pod, VIP[4], 80, uid=APP_UID) == f"{VIP[4]} 80"


def test_datagrams_are_handed_over_with_their_destination(world, outrigger, backend, family):
    """TPROXY: what leaves reaches a transparent socket on the outbound port, which can answer as the destination."""
    install(world, outrigger, backend, "--udp")
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    level, transparent, receive, information = (
        (socket.IPPROTO_IPV6, 75, 74, 74) if family == 6 else (socket.SOL_IP, 19, 20, 20))

    def proxy_socket(address, port):
        made = socket.socket(kind, socket.SOCK_DGRAM)
        made.setsockopt(level, transparent, 1)
        made.setsockopt(level, receive, 1)
        made.settimeout(3)
        made.bind((address, port))
        return made

    def application_socket():
        made = socket.socket(kind, socket.SOCK_DGRAM)
        made.settimeout(3)
        return made

    listener = world.pod.call(proxy_socket, LOOPBACK[family], OUTBOUND)
    application = world.pod.call(application_socket, uid=APP_UID)
    with listener, application:
        application.sendto(b"question", (VIP[family], 7000))
        data, ancillary, _, peer = listener.recvmsg(100, 200)
        assert data == b"question"
        [(_, kind_seen, value)] = ancillary
        assert kind_seen == information
        destination = (socket.inet_ntop(kind, value[8:24]) if family == 6 else socket.inet_ntop(kind, value[4:8]))
        assert destination == VIP[family]

        def answer():
            with socket.socket(kind, socket.SOCK_DGRAM) as made:
                made.setsockopt(level, transparent, 1)
                made.bind((VIP[family], 7000))
                made.sendto(b"answer", peer[:2])

        # setresuid drops the capability that a transparent socket needs, so this part of the proxy runs as root here;
        # to the pod's own address it leaves by lo, which passes.
        world.pod.call(answer)
        reply, source = application.recvfrom(100)
        assert (reply, source[0]) == (b"answer", VIP[family])


@pytest.mark.parametrize("arguments, message", [
    ([], "one of --install, --check, --print, --remove is needed"),
    (["--install"], "--proxy-uid is needed"),
    (["--install", "--check"], "at a time"),
    (["--print", "--proxy-uid", "x"], "--proxy-uid: not usable: 'x'"),
    (["--print", "--proxy-uid", "1", "--outbound-port", "70000"], "--outbound-port: not usable"),
    (["--print", "--proxy-uid", "1", "--exclude-outbound-cidrs", "10.0.0.0/40"], "--exclude-outbound-cidrs: not usable"),
    (["--print", "--proxy-uid", "1", "--outbound-port", "0", "--inbound-port", "0"], "nothing to redirect"),
    (["--print", "--proxy-uid", "1", "surplus"], "unexpected argument: surplus"),
    (["--print", "--proxy-uid", "1", "--backend", "ebpf"], "--backend: not usable: 'ebpf'"),
])
def test_a_wrong_command_line_is_refused_with_status_2(outrigger, arguments, message):
    result = subprocess.run([outrigger, "intercept", *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert message in result.stderr

"""What faults mean in a participant's network namespace: rules of iptables, queues of tc. Pure.

Whatever is active at a moment becomes one `Network` for each participant, and `commands` leads from one to the next.
The rules name no participant but the members of a partition; loopback is left alone, so that health checks and the
status are answered whatever happens.

A partition is made of rules that drop packets. `docker network disconnect` would take the interface away, and with it
the address and every open connection, where a cut cable leaves both. Losses are drawn by iptables and not by netem, so
that they need no kernel module that may be missing. Which packet is lost, delayed or damaged is drawn by the kernel and
cannot be seeded; who is hit, by what and when, is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedpg_lab.faults.backend import Fault, FaultKind

DEVICE = "eth0"
"""A container's only link; Docker gives it this name."""
INCOMING = "ifb0"
"""What arrives takes a detour through this device: a queue can only delay what is sent."""
QUEUE_PACKETS = 10_000
"""Room for what is on its way on a slow link; a shorter queue would lose packets too."""
QUEUE_S = 0.5
"""How much may wait for a narrow link before packets are lost, in seconds of its bandwidth."""
QUEUE_BYTES_MIN = 32 * 1024
BURST_BYTES_MIN = 2048
"""At least one packet has to fit."""
BURST_S = 0.02

Command = tuple[str, ...]

_BEYOND_LOOPBACK = {"INPUT": ("!", "-i", "lo"), "OUTPUT": ("!", "-o", "lo")}
_PEER = {"INPUT": "-s", "OUTPUT": "-d"}
_RESETTING = ("-p", "tcp", "!", "--tcp-flags", "RST", "RST", "-j", "REJECT", "--reject-with", "tcp-reset")
"""The resets themselves must get through."""


@dataclass(frozen=True)
class Network:
    """What holds in one participant's namespace."""

    rules: tuple[str, ...] = ()
    """Lines of the filter table, without its own chains."""
    is_reset: bool = False
    netem: Command = ()
    """What netem does both ways; nothing if empty."""
    bytes_per_s: float | None = None
    """Each way."""

    @property
    def is_shaped(self) -> bool:
        """Whether packets go through queues of ours."""
        return bool(self.netem) or self.bytes_per_s is not None


def network_of(participant: int, faults: Iterable[Fault], addresses: Mapping[int, str]) -> Network:
    """What these faults, in the order in which they began, make of a participant's network.

    Of two of a kind the later one holds, except that partitions add up: each keeps its promise. `addresses` are
    everyone's, by index.
    """
    network = Network()
    last: dict[FaultKind, Fault] = {}
    cuts: list[Fault] = []
    for fault in faults:
        if participant in fault.targets:
            last[fault.kind] = fault
            if fault.kind is FaultKind.PARTITION:
                cuts.append(fault)
    rules: list[str] = []
    for number, cut in enumerate(cuts, start=1):
        rules += _cut_off(number, [addresses[member] for member in cut.targets if member != participant])
    if FaultKind.BLACK_HOLE in last:
        rules.append(_rule("OUTPUT", "-j", "DROP"))
    if loss := last.get(FaultKind.LOSS):
        drawn = ("-m", "statistic", "--mode", "random", "--probability", f"{loss.fraction:.6f}", "-j", "DROP")
        rules += [_rule("INPUT", *drawn), _rule("OUTPUT", *drawn)]
    if FaultKind.RESET in last:
        rules += [_rule("INPUT", *_RESETTING), _rule("OUTPUT", *_RESETTING)]
        network = replace(network, is_reset=True)
    if bandwidth := last.get(FaultKind.BANDWIDTH):
        network = replace(network, bytes_per_s=bandwidth.bytes_per_s)
    return replace(network, rules=tuple(rules), netem=_netem(last))


def commands(before: Network, after: Network, restore: str) -> list[Command]:
    """What leads from one network to the other, to be run in order in the namespace.

    `restore` is the flavour of iptables-restore that works here. It replaces the table in one step, so that there is no
    moment between the rules.
    """
    steps: list[Command] = []
    if after.rules != before.rules:
        steps.append(("sh", "-c", f"printf '%s\\n' \"$@\" | {restore}", restore, *filter_table(after.rules)))
    if after.is_reset and not before.is_reset:
        # Otherwise connections would be reset at their next packet, and an idle one has none for a while.
        elsewhere = "( not src 127.0.0.0/8 and not src [::1] )"
        steps.append(("ss", "--tcp", "--kill", "--no-header", "state", "connected", elsewhere))
    if (after.netem, after.bytes_per_s) != (before.netem, before.bytes_per_s):
        if before.is_shaped:
            steps += unshaping()
        if after.is_shaped:
            steps += _shaping(after)
    return steps


def filter_table(rules: Sequence[str]) -> list[str]:
    """The whole filter table with these rules, as iptables-restore reads it."""
    chains = sorted({rule.split()[1] for rule in rules} - set(_BEYOND_LOOPBACK))
    own = [f":{chain} ACCEPT [0:0]" for chain in ("INPUT", "FORWARD", "OUTPUT")]
    return ["*filter", *own, *(f":{chain} - [0:0]" for chain in chains), *rules, "COMMIT"]


def detour(device: str) -> list[Command]:
    """Send what arrives at a device through a device of its own, where it can be queued."""
    redirect = ("u32", "match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", INCOMING)
    return [
        ("ip", "link", "add", INCOMING, "type", "ifb"),
        ("ip", "link", "set", INCOMING, "up"),
        ("tc", "qdisc", "add", "dev", device, "handle", "ffff:", "ingress"),
        ("tc", "filter", "add", "dev", device, "parent", "ffff:", "protocol", "all", "prio", "1", *redirect),
    ]


def unshaping() -> list[Command]:
    """Take the queues away, with what waits in them: TCP sends it again."""
    return [
        ("tc", "qdisc", "del", "dev", DEVICE, "root"),
        ("tc", "qdisc", "del", "dev", DEVICE, "ingress"),
        ("ip", "link", "del", INCOMING),
    ]


def _shaping(network: Network) -> list[Command]:
    steps = detour(DEVICE)
    for device in (DEVICE, INCOMING):
        add = ("tc", "qdisc", "add", "dev", device)
        place: Command = ("root", "handle", "1:")
        if network.netem:
            steps.append((*add, *place, "netem", *network.netem))
            place = ("parent", "1:1", "handle", "10:")
        if network.bytes_per_s is not None:
            steps.append((*add, *place, *token_bucket(network.bytes_per_s)))
    return steps


def token_bucket(bytes_per_s: float) -> Command:
    """A queue that lets no more through. tc's unit `bps` is bytes per second.

    Below 8 of them the kernel's clock is too short for a packet, and none passes.
    """
    burst = max(BURST_BYTES_MIN, round(bytes_per_s * BURST_S))
    limit = max(QUEUE_BYTES_MIN, round(bytes_per_s * QUEUE_S))
    return ("tbf", "rate", f"{max(1, round(bytes_per_s))}bps", "burst", f"{burst}b", "limit", f"{limit}b")


def _netem(last: Mapping[FaultKind, Fault]) -> Command:
    what: Command = ()
    if latency := last.get(FaultKind.LATENCY):
        what += ("delay", f"{latency.delay_s * 1e3:.3f}ms")
        if latency.jitter_s:
            what += (f"{latency.jitter_s * 1e3:.3f}ms",)
    if corruption := last.get(FaultKind.CORRUPTION):
        what += ("corrupt", f"{corruption.fraction * 100:.4f}%")
    return (*what, "limit", str(QUEUE_PACKETS)) if what else ()


def _cut_off(number: int, members: Sequence[str]) -> list[str]:
    """Drop everything, except what passes between the members of a partition."""
    if not members:
        return [_rule(chain, "-j", "DROP") for chain in _BEYOND_LOOPBACK]
    rules = []
    for chain, peer in _PEER.items():
        cut = f"CUT-{number}-{chain}"
        rules.append(_rule(chain, "-j", cut))
        rules += [f"-A {cut} {peer} {member}/32 -j RETURN" for member in members]
        rules.append(f"-A {cut} -j DROP")
    return rules


def _rule(chain: str, *rest: str) -> str:
    return " ".join(("-A", chain, *_BEYOND_LOOPBACK[chain], *rest))

"""What the kernel under a Docker engine needs for the faults of a scenario, found out before anything starts. Pure.

A helper container tries each thing in a network namespace of its own, which is gone with it.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedpg_lab.faults.backend import FaultKind
from fedpg_lab.faults.docker.network_rules import INCOMING, Command, detour, filter_table, token_bucket

FLAVOURS = ("iptables-nft-restore", "iptables-legacy-restore")
"""The two iptables, of which a kernel may know one alone; the first that works is taken."""

SHAPED = frozenset({FaultKind.LATENCY, FaultKind.CORRUPTION, FaultKind.BANDWIDTH})
FILTERED = frozenset({FaultKind.PARTITION, FaultKind.BLACK_HOLE, FaultKind.LOSS, FaultKind.RESET})
"""Kinds that are made in the network namespace: by queues, and by rules."""

_PROBE_RATE_BYTES_PER_S = 1e6
_QUEUES: Mapping[str, Command] = {
    "sch_netem": ("netem", "delay", "1ms"),
    "sch_tbf": token_bucket(_PROBE_RATE_BYTES_PER_S),
}
_DETOUR = "ifb, sch_ingress, cls_u32 and act_mirred"
_TABLES: Mapping[str, tuple[str, ...]] = {
    "iptables": (),
    "xt_statistic": ("-A INPUT -m statistic --mode random --probability 0.5 -j DROP",),
    "ipt_REJECT": ("-A INPUT -p tcp -j REJECT --reject-with tcp-reset",),
}
_NEEDED: Mapping[str, frozenset[FaultKind]] = {
    "sch_netem": frozenset({FaultKind.LATENCY, FaultKind.CORRUPTION}),
    "sch_tbf": frozenset({FaultKind.BANDWIDTH}),
    _DETOUR: SHAPED,
    "iptables": FILTERED,
    "xt_statistic": frozenset({FaultKind.LOSS}),
    "ipt_REJECT": frozenset({FaultKind.RESET}),
}
"""Which kernel modules which kinds cannot do without."""


@dataclass(frozen=True)
class Kernel:
    """What was found of one."""

    modules: frozenset[str]
    """Of those asked about."""
    restore: str
    """The flavour of iptables-restore to use."""


def probe_script() -> str:
    """A shell script that tries everything in its own namespace and prints the name of what works, a line each."""
    tries: list[tuple[str, list[Command]]] = [
        (name, [("tc", "qdisc", "add", "dev", "lo", "root", *queue), ("tc", "qdisc", "del", "dev", "lo", "root")])
        for name, queue in _QUEUES.items()
    ]
    tries.append((_DETOUR, [*detour("lo"), ("tc", "qdisc", "add", "dev", INCOMING, "root", *_QUEUES["sch_tbf"])]))
    lines = [f"({_all_of(steps)}) >/dev/null 2>&1 && echo {shlex.quote(name)}" for name, steps in tries]
    for flavour in FLAVOURS:
        for name, rules in _TABLES.items():
            table = shlex.join(filter_table(rules))
            lines.append(f"printf '%s\\n' {table} | {flavour} >/dev/null 2>&1 && echo '{flavour} {name}'")
    return "\n".join([*lines, "true"])


def read_probe(output: str) -> Kernel:
    """What the script has printed."""
    found = {line.strip() for line in output.splitlines()}
    tables = {flavour: {name for name in _TABLES if f"{flavour} {name}" in found} for flavour in FLAVOURS}
    restore = max(FLAVOURS, key=lambda flavour: len(tables[flavour]))  # the first of those that can do the most
    return Kernel(frozenset(found & {*_QUEUES, _DETOUR} | tables[restore]), restore)


def refusal(kinds: Collection[FaultKind], kernel: Kernel) -> str | None:
    """One sentence if the kernel lacks what these kinds need, else None."""
    missing = [name for name, needing in _NEEDED.items() if needing & set(kinds) and name not in kernel.modules]
    if not missing:
        return None
    refused = [kind.value for kind in FaultKind if kind in kinds and any(kind in _NEEDED[name] for name in missing)]
    return (
        f"the Docker engine's kernel has no {' and no '.join(missing)}, without which there is no "
        f"{' and no '.join(refused)}: use an engine on a kernel with it, or --backend local"
    )


def _all_of(steps: list[Command]) -> str:
    return " && ".join(map(shlex.join, steps))

"""Faults on containers become rules of iptables and queues of tc, exactly these, and healing takes them away."""

from __future__ import annotations

import pytest
from fedpg_lab.faults.backend import SERVER, Fault, FaultKind
from fedpg_lab.faults.docker.containers import cpu_quota
from fedpg_lab.faults.docker.network_rules import Command, Network, commands, filter_table, network_of

ADDRESSES = {SERVER: "10.0.0.10", 1: "10.0.0.1", 2: "10.0.0.2", 3: "10.0.0.3"}
RESTORE = "iptables-nft-restore"
UNTOUCHED = ("*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", "COMMIT")
DETOUR = [
    "ip link add ifb0 type ifb",
    "ip link set ifb0 up",
    "tc qdisc add dev eth0 handle ffff: ingress",
    "tc filter add dev eth0 parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev ifb0",
]
STRAIGHT = ["tc qdisc del dev eth0 root", "tc qdisc del dev eth0 ingress", "ip link del ifb0"]
CUT = ["-A INPUT ! -i lo -j DROP", "-A OUTPUT ! -o lo -j DROP"]


def of(participant: int, *faults: Fault) -> Network:
    return network_of(participant, faults, ADDRESSES)


def written(steps: list[Command]) -> list[str]:
    return [" ".join(step) for step in steps]


@pytest.mark.parametrize(
    ("fault", "rules"),
    [
        (Fault(FaultKind.PARTITION, (1,)), CUT),
        (Fault(FaultKind.BLACK_HOLE, (1,)), ["-A OUTPUT ! -o lo -j DROP"]),
        (
            Fault(FaultKind.LOSS, (1,), fraction=0.1),
            [
                "-A INPUT ! -i lo -m statistic --mode random --probability 0.100000 -j DROP",
                "-A OUTPUT ! -o lo -m statistic --mode random --probability 0.100000 -j DROP",
            ],
        ),
        (
            Fault(FaultKind.RESET, (1,)),
            [
                "-A INPUT ! -i lo -p tcp ! --tcp-flags RST RST -j REJECT --reject-with tcp-reset",
                "-A OUTPUT ! -o lo -p tcp ! --tcp-flags RST RST -j REJECT --reject-with tcp-reset",
            ],
        ),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Fault) else "",
)
def test_what_drops_and_rejects_packets(fault: Fault, rules: list[str]) -> None:
    assert list(of(1, fault).rules) == rules
    assert of(2, fault) == Network()


def test_a_partition_lets_its_members_talk_to_each_other() -> None:
    for faults in ([Fault(FaultKind.PARTITION, (SERVER, 1, 3))], [Fault(FaultKind.PARTITION, (1, 3))]):
        members = [ADDRESSES[member] for member in faults[0].targets if member != 1]
        assert list(of(1, *faults).rules) == [
            "-A INPUT ! -i lo -j CUT-1-INPUT",
            *[f"-A CUT-1-INPUT -s {address}/32 -j RETURN" for address in members],
            "-A CUT-1-INPUT -j DROP",
            "-A OUTPUT ! -o lo -j CUT-1-OUTPUT",
            *[f"-A CUT-1-OUTPUT -d {address}/32 -j RETURN" for address in members],
            "-A CUT-1-OUTPUT -j DROP",
        ]


def test_a_chain_of_a_partition_is_declared_before_its_rules() -> None:
    table = filter_table(of(1, Fault(FaultKind.PARTITION, (1, 3)), Fault(FaultKind.PARTITION, (1, 2))).rules)
    declared = [line.split()[0].removeprefix(":") for line in table if line.startswith(":")]
    assert declared[3:] == ["CUT-1-INPUT", "CUT-1-OUTPUT", "CUT-2-INPUT", "CUT-2-OUTPUT"]
    used = {line.split()[1] for line in table if line.startswith("-A")}
    assert used <= set(declared)


def test_partitions_add_up_and_of_other_kinds_the_later_one_holds() -> None:
    alone, together = Fault(FaultKind.PARTITION, (1,)), Fault(FaultKind.PARTITION, (1, 2))
    for order in ((alone, together), (together, alone)):
        assert set(CUT) <= set(of(1, *order).rules)
    first, second = (Fault(FaultKind.LOSS, (1,), fraction=fraction) for fraction in (0.1, 0.2))
    assert of(1, first, second) == of(1, second)


def test_the_table_is_replaced_in_one_step_and_healing_leaves_it_as_it_was() -> None:
    cut = of(1, Fault(FaultKind.PARTITION, (1,)))
    replace = ("sh", "-c", "printf '%s\\n' \"$@\" | iptables-nft-restore", "iptables-nft-restore")
    assert commands(Network(), cut, RESTORE) == [(*replace, *UNTOUCHED[:-1], *CUT, "COMMIT")]
    assert commands(cut, Network(), RESTORE) == [(*replace, *UNTOUCHED)]
    assert commands(cut, cut, RESTORE) == []


def test_a_reset_ends_the_connections_there_are_once_and_none_over_loopback() -> None:
    fault = Fault(FaultKind.RESET, (1,))
    kill = "ss --tcp --kill --no-header state connected ( not src 127.0.0.0/8 and not src [::1] )"
    assert written(commands(Network(), of(1, fault), RESTORE))[1:] == [kill]
    more = of(1, fault, Fault(FaultKind.BLACK_HOLE, (1,)))
    assert kill not in written(commands(of(1, fault), more, RESTORE))


def test_a_narrow_link_is_narrow_both_ways() -> None:
    narrow = of(2, Fault(FaultKind.BANDWIDTH, (2,), bytes_per_s=200e3))
    bucket = "root handle 1: tbf rate 200000bps burst 4000b limit 100000b"
    assert written(commands(Network(), narrow, RESTORE)) == [
        *DETOUR,
        f"tc qdisc add dev eth0 {bucket}",
        f"tc qdisc add dev ifb0 {bucket}",
    ]
    assert written(commands(narrow, Network(), RESTORE)) == STRAIGHT


def test_delay_and_damage_come_before_the_narrow_link() -> None:
    faults = [
        Fault(FaultKind.LATENCY, (2,), delay_s=0.2, jitter_s=0.05),
        Fault(FaultKind.CORRUPTION, (2,), fraction=0.05),
        Fault(FaultKind.BANDWIDTH, (2,), bytes_per_s=1.0),
    ]
    netem = "root handle 1: netem delay 200.000ms 50.000ms corrupt 5.0000% limit 10000"
    bucket = "parent 1:1 handle 10: tbf rate 1bps burst 2048b limit 32768b"
    queues = [f"tc qdisc add dev {device} {what}" for device in ("eth0", "ifb0") for what in (netem, bucket)]
    assert written(commands(Network(), of(2, *faults), RESTORE)) == [*DETOUR, *queues]


def test_a_change_of_a_queue_puts_the_new_one_in_the_place_of_the_old_one() -> None:
    slow, slower = (of(2, Fault(FaultKind.LATENCY, (2,), delay_s=delay_s)) for delay_s in (0.1, 0.3))
    queues = [
        f"tc qdisc add dev {device} root handle 1: netem delay 300.000ms limit 10000" for device in ("eth0", "ifb0")
    ]
    assert written(commands(slow, slower, RESTORE)) == [*STRAIGHT, *DETOUR, *queues]


def test_a_fault_of_the_program_is_none_of_the_network() -> None:
    for kind in (FaultKind.KILL, FaultKind.STOP, FaultKind.PAUSE, FaultKind.SLOW_CPU):
        assert of(1, Fault(kind, (1,), fraction=0.5)) == Network()


@pytest.mark.parametrize(
    ("fraction", "period_us", "quota_us"),
    [(0.5, 100_000, 50_000), (0.01, 100_000, 1_000), (0.001, 1_000_000, 1_000), (1.0, 100_000, 100_000)],
)
def test_a_share_of_a_core_is_what_the_kernel_can_express(fraction: float, period_us: int, quota_us: int) -> None:
    assert cpu_quota(fraction) == (period_us, quota_us)
    assert quota_us / period_us == pytest.approx(fraction)
    assert cpu_quota(None)[1] == -1

"""What comes with FedPG, by name: one line per part. The parts are imported when they are built, not before."""

from __future__ import annotations

from typing import Any

from fedpg_common.choices import Choice, Choices

ALGORITHMS: Choices[Any] = Choices(
    "algorithm",
    {
        "fedpg-br": "fedpg_server.learning.algorithms.fedpg_br:FedPGBR",
        "fedpg-guard": "fedpg_server.learning.algorithms.fedpg_guard:FedPGGuard",
        "svrpg": "fedpg_server.learning.algorithms.svrpg:SVRPG",
        "gpomdp": "fedpg_server.learning.algorithms.gpomdp:GPOMDP",
        "res-nharpg": "fedpg_server.learning.algorithms.res_nharpg:ResNHARPG",
        "byzpg": "fedpg_server.learning.algorithms.byzpg:ByzPG",
    },
)
"""How the server turns a round's μ into the next policy (`fedpg_server.learning.algorithms.base.Algorithm`)."""

ALGORITHM_TITLES = {
    "gpomdp": "GPOMDP",
    "svrpg": "SVRPG",
    "byzpg": "ByzPG",
    "res-nharpg": "Res-NHARPG",
    "fedpg-br": "FedPG-BR",
    "fedpg-guard": "FedPG-Guard",
}
"""How their papers write them, in the order of the figures. Others are called what their choice is."""

ALGORITHM_BASELINES = {"fedpg-guard": "time"}
"""The baseline of the gradient estimate where the task names none (`fedpg_common.tasks.BASELINES`)."""

HALVES_BATCHES = ("res-nharpg",)
"""Algorithms whose agents sample one half of a batch with another policy than the round's: it is 2 trajectories at
least, and not to be cut short."""

ENVIRONMENTS: Choices[Any] = Choices(
    "environment",
    {
        "CartPole-v1": "fedpg_common.environments.cartpole:CartPoleBatch",
        "LunarLander-v3": "fedpg_common.environments.lunar_lander:LunarLanderBatch",
        "HalfCheetah-v5": "fedpg_common.environments.half_cheetah:HalfCheetahBatch",
        "InvertedPendulum-v5": "fedpg_common.environments.inverted_pendulum:InvertedPendulumBatch",
    },
)
"""Fast batches (`fedpg_common.environments.base.EnvironmentBatch`), by the Gymnasium id whose episodes they play.

Any other environment of Gymnasium's registry is played by its own class, and so is one of these with options that its
batch does not take.
"""

WRAPPERS: Choices[Any] = Choices("wrapper", {})
"""What an environment is wrapped in: MODULE:NAME, called with the environment and its settings."""

PRE_AGGREGATORS: Choices[Any] = Choices(
    "pre-aggregator",
    {
        "nnm": "fedpg_common.learning.aggregators.nnm:NearestNeighbourMixing",
        "bucketing": "fedpg_common.learning.aggregators.bucketing:Bucketing",
        "clipping": "fedpg_common.learning.aggregators.clipping:StaticClipping",
        "arc": "fedpg_common.learning.aggregators.clipping:AdaptiveClipping",
        "momentum": "fedpg_common.learning.aggregators.momentum:Momentum",
    },
)
"""What an aggregator may be run `after` (`fedpg_common.learning.aggregators.base.PreAggregator`)."""

AGGREGATORS: Choices[Any] = Choices(
    "aggregator",
    {
        "fedpg": "fedpg_common.learning.aggregators.fedpg:FedPG",
        "mean": "fedpg_common.learning.aggregators.mean:Mean",
        "median": "fedpg_common.learning.aggregators.median:Median",
        "trimmed-mean": "fedpg_common.learning.aggregators.trimmed_mean:TrimmedMean",
        "krum": "fedpg_common.learning.aggregators.krum:Krum",
        "multi-krum": "fedpg_common.learning.aggregators.krum:MultiKrum",
        "history": "fedpg_common.learning.aggregators.history:History",
        "meamed": "fedpg_common.learning.aggregators.meamed:MeaMed",
        "geometric-median": "fedpg_common.learning.aggregators.geometric_median:GeometricMedian",
        "mda": "fedpg_common.learning.aggregators.mda:MDA",
        "bulyan": "fedpg_common.learning.aggregators.bulyan:Bulyan",
        "centered-clipping": "fedpg_common.learning.aggregators.clipping:CenteredClipping",
        "caf": "fedpg_common.learning.aggregators.spectral:CAF",
        "smea": "fedpg_common.learning.aggregators.spectral:SMEA",
        "monna": "fedpg_common.learning.aggregators.server_trust:MoNNA",
        "fltrust": "fedpg_common.learning.aggregators.server_trust:FLTrust",
        "signguard": "fedpg_common.learning.aggregators.sign_guard:SignGuard",
        "dnc": "fedpg_common.learning.aggregators.dnc:DnC",
    },
    {
        name: f"it mixes votes before an aggregator, as in --aggregator krum --set 'aggregator.after=[\"{name}\"]'"
        for name in PRE_AGGREGATORS.shipped
    },
)
"""How a round's votes become μ (`fedpg_common.learning.aggregators.base.Aggregator`)."""


_ALONE = {
    "random-noise": "fedpg_client.attacks.gradients:RandomNoise",
    "random-action": "fedpg_client.attacks.actions:RandomAction",
    "constant-action": "fedpg_client.attacks.actions:ConstantAction",
    "sign-flipping": "fedpg_client.attacks.gradients:SignFlipping",
    "zero-gradient": "fedpg_client.attacks.gradients:ZeroGradient",
    "reward-flipping": "fedpg_client.attacks.rewards:RewardFlipping",
    "random-reward": "fedpg_client.attacks.rewards:RandomReward",
    "boundary-split": "fedpg_client.attacks.boundary_split:BoundarySplit",
}

_TOGETHER = {
    "fedpg": "fedpg_client.attacks.colluding:FedPGAttack",
    "alie": "fedpg_client.attacks.moments:ALIE",
    "alie-optimised": "fedpg_client.attacks.moments:OptimisedALIE",
    "ipm": "fedpg_client.attacks.moments:IPM",
    "ipm-optimised": "fedpg_client.attacks.moments:OptimisedIPM",
    "min-max": "fedpg_client.attacks.geometry:MinMax",
    "min-sum": "fedpg_client.attacks.geometry:MinSum",
    "mimic": "fedpg_client.attacks.geometry:Mimic",
    "trim": "fedpg_client.attacks.trim:Trim",
    "trim-partial": "fedpg_client.attacks.trim:PartialTrim",
    "normalized": "fedpg_client.attacks.normalized:Normalized",
    "normalized-partial": "fedpg_client.attacks.normalized:PartialNormalized",
    "normalized-grid": "fedpg_client.attacks.normalized:NormalizedGrid",
    "boundary": "fedpg_client.attacks.boundary:Boundary",
    "worst-down": "fedpg_client.attacks.boundary:WorstDown",
    "worst-angle": "fedpg_client.attacks.boundary:WorstAngle",
    "patient": "fedpg_client.attacks.boundary:Patient",
    "drift": "fedpg_client.attacks.boundary:Drift",
    "turns": "fedpg_client.attacks.boundary:Turns",
    "inside": "fedpg_client.attacks.adaptive:Inside",
    "seesaw": "fedpg_client.attacks.adaptive:Seesaw",
    "frame": "fedpg_client.attacks.adaptive:Frame",
}

_ON_THE_LEARNING = {**_ALONE, **_TOGETHER}

_ON_THE_PROTOCOL = {
    "replay": "fedpg_client.attacks.protocol.submissions:Replay",
    "equivocation": "fedpg_client.attacks.protocol.submissions:Equivocation",
    "stale-round": "fedpg_client.attacks.protocol.submissions:StaleRound",
    "wrong-shape": "fedpg_client.attacks.protocol.submissions:WrongShape",
    "not-finite": "fedpg_client.attacks.protocol.submissions:NotFinite",
    "oversized": "fedpg_client.attacks.protocol.submissions:Oversized",
    "impersonation": "fedpg_client.attacks.protocol.submissions:Impersonation",
    "slow-loris": "fedpg_client.attacks.protocol.connections:SlowLoris",
    "flood": "fedpg_client.attacks.protocol.connections:Flood",
    "silence": "fedpg_client.attacks.protocol.submissions:Silence",
    "garbage": "fedpg_client.attacks.protocol.connections:Garbage",
}

ATTACKS: Choices[Any] = Choices("attack", {**_ON_THE_LEARNING, **_ON_THE_PROTOCOL})
"""What a Byzantine agent does (`fedpg_client.attacks.base.Attack`)."""

ATTACKS_HELP = f"on the learning {', '.join(_ON_THE_LEARNING)}; on the protocol {', '.join(_ON_THE_PROTOCOL)}"
"""The shipped attacks, as the help of a command lists them."""


def acts_alone(attack: Choice) -> bool:
    """Whether a shipped attack needs nothing but what its agent has; see `fedpg_client.attacks.Knowledge`.

    False for an attack of somebody's own: what it needs, it says itself.
    """
    return attack.name in _ALONE or attack.name in _ON_THE_PROTOCOL


def casts_honest_vote(attack: Choice) -> bool:
    """Whether an attack is on the protocol alone: what the agent votes with is honest, or it does not vote.

    An attack of somebody's own counts as one on the learning.
    """
    return attack.name in _ON_THE_PROTOCOL

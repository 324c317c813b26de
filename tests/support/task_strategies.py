"""Random tasks and federations for the tests of their encodings."""

from __future__ import annotations

from typing import Any

from fedpg_common.choices import SETTING, Choice, Choices
from fedpg_common.federation import SEED_MAX, Federation
from fedpg_common.shipped import AGGREGATORS, ALGORITHMS, ATTACKS
from fedpg_common.tasks import ACTIVATIONS, BASELINES, BATCH_MAX, SCALE_MAX, SCALE_MIN, WHOLE_MAX, Reward, Task
from fedpg_common.worlds import Heterogeneity, World
from hypothesis import strategies as st

NAMES = st.text(min_size=1, max_size=12).filter(str.isprintable)
COUNTS = st.integers(1, WHOLE_MAX)
BATCHES = st.integers(1, BATCH_MAX)
POSITIVE = st.floats(SCALE_MIN, SCALE_MAX)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5).filter(str.isprintable),
)
OPTIONS = st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=3)), max_size=3)


WRAPPERS = st.lists(
    st.sampled_from(["my_module:Wrap", "a.b:C"]) | st.fixed_dictionaries({"name": st.just("a:B"), "size": SCALARS}),
    max_size=2,
).map(tuple)
PERCEIVED = st.floats(-1e6, 1e6)
REWARD_FIELDS = st.fixed_dictionaries({}, optional={"scale": PERCEIVED, "shift": PERCEIVED, "noise": st.floats(0, 1e6)})
WORLDS = st.builds(World, OPTIONS, st.none() | WRAPPERS, REWARD_FIELDS)
RANGES = st.tuples(PERCEIVED, PERCEIVED).map(lambda pair: (min(pair), max(pair)))
RANGE_NAMES = st.sampled_from(["gravity", "length", "reward.noise", "reward.scale"])
HETEROGENEITY = st.builds(Heterogeneity, st.dictionaries(RANGE_NAMES, RANGES, min_size=1), st.floats(0, 3))


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Any task that is allowed."""
    fewest = draw(BATCHES)
    fields: dict[str, Any] = {
        name: draw(COUNTS) for name in ("horizon", "evaluation_horizon", "trajectories", "inner_steps")
    }
    return Task(
        name=draw(NAMES),
        environment=draw(NAMES),
        hidden=tuple(draw(st.lists(COUNTS, max_size=3))),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        gamma=draw(st.floats(0, 1)),
        learning_rate=draw(POSITIVE),
        batch_size=draw(BATCHES),
        batch_size_min=fewest,
        batch_size_max=draw(st.integers(fewest, BATCH_MAX)),
        mini_batch_size=draw(BATCHES),
        delta=draw(st.floats(SCALE_MIN, 1, exclude_max=True)),
        sigma=draw(POSITIVE),
        alpha=draw(st.floats(0, 0.5, exclude_max=True)),
        environment_options=draw(OPTIONS),
        baseline=draw(st.sampled_from(BASELINES)),
        wrappers=draw(WRAPPERS),
        reward=Reward(**draw(REWARD_FIELDS)),
        **fields,
    )


SETTINGS = st.dictionaries(
    st.from_regex(SETTING, fullmatch=True).filter(lambda name: name != "name"), SCALARS, max_size=2
)


def choices(kind: Choices[Any]) -> st.SearchStrategy[Choice]:
    """Any choice of a kind, anybody's own among them; whether it can be built is another matter."""
    names = st.sampled_from([*kind.shipped, "my_module:Part", "a.b:C"])
    return st.builds(Choice, names, SETTINGS)


@st.composite
def federations(draw: st.DrawFn) -> Federation:
    """Any federation that is allowed, of a handful of agents."""
    agents = draw(st.integers(1, 12))
    return Federation(
        task=draw(tasks()),
        agents=agents,
        algorithm=draw(choices(ALGORITHMS)),
        aggregator=draw(st.none() | choices(AGGREGATORS)),
        seed=draw(st.integers(0, SEED_MAX)),
        byzantine=draw(st.dictionaries(st.integers(1, agents), choices(ATTACKS))),
        round_timeout_s=draw(st.floats(1e-3, 1e6)),
        environments=draw(st.dictionaries(st.integers(1, agents), WORLDS, max_size=2)),
        heterogeneity=draw(st.none() | HETEROGENEITY),
        worlds_every=draw(st.integers(0, 1000)),
    )

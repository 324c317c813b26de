"""What an attack of one's own returns in place of a vector of numbers is one sentence that names attack and hook."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from fedpg_client.attacks import Attack
from fedpg_client.attacks.reporting import reported
from fedpg_common.errors import UsageError


class Answering(Attack):
    """Returns what it is told to."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def tamper_gradient(self, gradient: Any, context: Any) -> Any:
        return self._answer

    def collude(self, pooled: Any, context: Any) -> Any:
        return self._answer


@pytest.mark.parametrize("answer", [None, 1.0, "x", [1.0], np.array(["x"]), np.array([None])])
def test_what_is_not_a_vector_is_named(answer: object) -> None:
    attack = reported(Answering(answer), "mine:Answering")
    context = cast(Any, None)
    with pytest.raises(UsageError, match=r"attack mine:Answering failed in tamper_gradient: .*a vector of numbers"):
        attack.tamper_gradient(np.ones(1, np.float32), context)
    with pytest.raises(UsageError, match=r"attack mine:Answering failed in collude: .*a vector of numbers"):
        attack.collude({}, context)

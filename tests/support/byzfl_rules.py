"""The rules of ByzFL (EPFL), for comparison, without what else its package imports: data sets, models and figures."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def byzfl_rules() -> tuple[Any, Any]:
    """Its modules of aggregators and of pre-aggregators."""
    if "byzfl" not in sys.modules:
        found = importlib.util.find_spec("byzfl")
        assert found is not None
        assert found.submodule_search_locations is not None
        package = ModuleType("byzfl")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["byzfl"] = package
    aggregators = importlib.import_module("byzfl.aggregators.aggregators")
    return aggregators, importlib.import_module("byzfl.aggregators.preaggregators")

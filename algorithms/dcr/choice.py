"""Which solution is chosen: its parameters say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Tag, TypeAdapter

from skyloom.algorithms.dcr.iterative.parameters import IterativeParameters
from skyloom.algorithms.dcr.parameters import LinearParameters

__all__ = ["SolverParameters", "solver_parameters"]


def _solver(values: Any) -> str:
    """Return the solver that parameters are of; the linear one if they don't say."""
    named = values.get("solver", "linear") if isinstance(values, Mapping) else None
    return str(named if named is not None else getattr(values, "solver", "linear"))


SolverParameters: TypeAlias = Annotated[
    Annotated[LinearParameters, Tag("linear")] | Annotated[IterativeParameters, Tag("iterative")],
    Discriminator(
        _solver,
        custom_error_type="solver",
        custom_error_message="solver must be 'linear' or 'iterative'",
    ),
]
"""Parameters of either solution, told apart by ``solver``; linear if it is not given."""

_adapter: TypeAdapter[LinearParameters | IterativeParameters] = TypeAdapter(SolverParameters)


def solver_parameters(values: Mapping[str, Any] | str) -> LinearParameters | IterativeParameters:
    """Return the parameters that a mapping or its JSON holds, of the solution that it names.

    Raises
    ------
    ValueError
        If a parameter is unknown or wrong.

    Examples
    --------
    >>> solver_parameters({"solver": "iterative", "subfilters": 2}).accelerate
    3.0
    >>> solver_parameters('{"subfilters": 2}').solver
    'linear'
    """
    if isinstance(values, str):
        return _adapter.validate_json(values)
    return _adapter.validate_python(values)

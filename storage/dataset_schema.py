"""What a schema is, and how a dataset is held against one.

A product spans `ProductSchema.dims`. A *block* is what one task writes: one label along each of
`ProductSchema.block`; a block dataset has the remaining dimensions. Along `growable` dimensions
that are not block dimensions (the pairs of a ``ptc``) a block holds many labels and more may
come later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SchemaError

__all__ = ["ProductSchema", "Variable", "schema_problems", "validate"]


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a product.

    Parameters
    ----------
    name : str
        Name in the dataset.
    dims : tuple of str
        All dimensions, block dimensions included.
    dtype : str
        numpy dtype.
    unit : str
        astropy-readable unit; "" for a pure number or an identifier.
    fill : float, int or bool
        Value that means "no data".
    description : str
        One line for the documentation and the ``long_name`` attribute.
    optional : bool
        A block may come without it; it is then stored as fill.
    codec : {"table", "image"}
        How chunks are compressed: numbers of a table, or pixels.
    flags : mapping
        CF attributes that explain codes or bits.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str = "float64"
    unit: str = v.DIMENSIONLESS
    fill: float | int | bool = float("nan")
    description: str = ""
    optional: bool = False
    codec: Literal["table", "image"] = "table"
    flags: Mapping[str, Any] = field(default_factory=dict)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the array: units, meaning, legend of codes.

        Examples
        --------
        >>> Variable("gain", ("amp",), unit="electron/adu", description="gain").attributes()
        {'units': 'electron/adu', 'long_name': 'gain'}
        """
        meaning = {"long_name": self.description} if self.description else {}
        return {"units": self.unit, **meaning, **self.flags}


@dataclass(frozen=True, slots=True)
class ProductSchema:
    """Everything the store has to know about one product.

    Parameters
    ----------
    name : str
        Name of the product in the store.
    dims : tuple of str
        All dimensions of the product.
    block : tuple of str
        Dimensions of which a task writes one label; their chunks have length 1.
    variables : tuple of Variable
        The arrays; the dims of each start with the block dimensions.
    version : int
        Raised when the meaning or layout changes.
    growable : tuple of str
        Dimensions beside the block's that later runs may extend.
    step : str
        Step whose records say which blocks are done; "" for the product's own name.
    scalar_coords : bool
        Keep the scalar coordinates of every block (exposure time, observation type, ...).
    tile : mapping of str to int
        Chunk length along dimensions of which parts are read; whole blocks along the others.
    part : mapping of str to int
        Length along tiled dimensions of what can be read without the rest of its chunk: a chunk
        then holds several parts with an index, so that readers of many blocks at a time take
        little of each and there are no more files. Divides the tile.
    description : str
        One line for the documentation.
    """

    name: str
    dims: tuple[str, ...]
    block: tuple[str, ...]
    variables: tuple[Variable, ...]
    version: int = 1
    growable: tuple[str, ...] = ()
    step: str = ""
    scalar_coords: bool = False
    description: str = ""
    tile: Mapping[str, int] = field(default_factory=dict)
    part: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a schema that contradicts itself."""
        problems = [
            f"{what} {dims} is not among the dims {self.dims}"
            for what, dims in (
                ("block", self.block),
                ("growable", self.growable),
                ("tile", tuple(self.tile)),
            )
            if not set(dims) <= set(self.dims)
        ]
        problems += [
            f"part of {dim}, {length}, does not divide its tile, {self.tile.get(dim)}"
            for dim, length in self.part.items()
            if length < 1 or dim not in self.tile or self.tile[dim] % length
        ]
        depth = len(self.block)
        problems += [
            f"{variable.name}: dims {variable.dims} must start with {self.block} and be among "
            f"{self.dims}"
            for variable in self.variables
            if variable.dims[:depth] != self.block or not set(variable.dims) <= set(self.dims)
        ]
        names = [variable.name for variable in self.variables]
        problems += [f"{name} is defined twice" for name in {*names} if names.count(name) > 1]
        if problems:
            raise ValueError(f"schema {self.name}: " + "; ".join(problems))

    def variable(self, name: str) -> Variable:
        """Return one variable.

        Raises
        ------
        KeyError
            If the schema does not have it; the message lists those it has.

        Examples
        --------
        >>> from skyloom.storage.schemas import PTC
        >>> PTC.variable("gain").unit
        'electron/adu'
        """
        for variable in self.variables:
            if variable.name == name:
                return variable
        names = ", ".join(variable.name for variable in self.variables)
        raise KeyError(f"{self.name} has no variable {name!r}; it has {names}")

    def describe(self) -> list[tuple[str, str, str, str, str]]:
        """Return ``(name, dims, dtype, unit, description)`` of every variable, for tables.

        Examples
        --------
        >>> from skyloom.storage.schemas import DARK_PAIRS
        >>> DARK_PAIRS.describe()[0]
        ('exposure_1', 'pair, detector', 'int64', '', 'id of the first exposure')
        """
        return [
            (var.name, ", ".join(var.dims), var.dtype, var.unit, var.description)
            for var in self.variables
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON knows it, `from_json` reads it back."""
        return {
            "name": self.name,
            "dims": list(self.dims),
            "block": list(self.block),
            "version": self.version,
            "growable": list(self.growable),
            "step": self.step,
            "scalar_coords": self.scalar_coords,
            "description": self.description,
            **({"tile": dict(self.tile)} if self.tile else {}),
            **({"part": dict(self.part)} if self.part else {}),
            "variables": [
                {
                    "name": var.name,
                    "dims": list(var.dims),
                    "dtype": var.dtype,
                    "unit": var.unit,
                    "fill": "NaN" if _is_nan(var.fill) else var.fill,
                    "description": var.description,
                    "optional": var.optional,
                    "codec": var.codec,
                    "flags": dict(var.flags),
                }
                for var in self.variables
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ProductSchema:
        """Return the schema that `to_json` described.

        Examples
        --------
        >>> from skyloom.storage.schemas import PTC
        >>> ProductSchema.from_json(PTC.to_json()).to_json() == PTC.to_json()
        True
        """
        variables = []
        for item in content["variables"]:
            fill = float("nan") if item["fill"] == "NaN" else item["fill"]
            variables.append(Variable(**{**item, "dims": tuple(item["dims"]), "fill": fill}))
        rest = {name: content[name] for name in ("name", "version", "step", "scalar_coords")}
        return cls(
            dims=tuple(content["dims"]),
            block=tuple(content["block"]),
            growable=tuple(content["growable"]),
            description=content["description"],
            tile=dict(content.get("tile", {})),
            part=dict(content.get("part", {})),
            variables=tuple(variables),
            **rest,
        )


def _is_nan(value: float | int | bool) -> bool:
    return isinstance(value, float) and math.isnan(value)


def validate(dataset: xr.Dataset, schema: ProductSchema) -> None:
    """Check that a dataset is a block of a product; name every problem at once.

    Parameters
    ----------
    dataset : Dataset
        Block with the dimensions of the product that are not block dimensions.
    schema : ProductSchema
        What the product asks for.

    Raises
    ------
    SchemaError
        With one line per problem.

    Examples
    --------
    >>> import xarray as xr
    >>> from skyloom.storage.schemas import raw_schema
    >>> image = xr.DataArray([[1.5, 2.5]], dims=("y", "column"), attrs={"units": "electron"})
    >>> validate(xr.Dataset({"image": image}), raw_schema("uint16"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.SchemaError: a block of 'raw' has 3 problems:
      image: dims are (y, column), must be (y, x)
      image: dtype is float64, which cannot become uint16 without loss
      image: units are 'electron', must be 'adu'
    """
    problems = schema_problems(dataset, schema)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise SchemaError(f"a block of {schema.name!r} has {count}:{lines}")


def schema_problems(dataset: xr.Dataset, schema: ProductSchema) -> list[str]:
    """Return what keeps a dataset from being a block of a product, one line per problem.

    Examples
    --------
    >>> import xarray as xr
    >>> from skyloom.storage.schemas import raw_schema
    >>> schema_problems(xr.Dataset({"imgae": ("y", [1.0])}), raw_schema("uint16"))
    ['image: missing', 'imgae: not a variable of this product']
    """
    problems: list[str] = []
    known = {variable.name for variable in schema.variables}
    for variable in schema.variables:
        # A scalar may come as a coordinate as well as a variable.
        if variable.name in dataset.variables:
            problems += _variable_problems(dataset[variable.name], variable, schema)
        elif not variable.optional:
            problems.append(f"{variable.name}: missing")
    problems += [
        f"{name}: not a variable of this product"
        for name in map(str, dataset.data_vars)
        if name not in known
    ]
    return problems


def _variable_problems(array: xr.DataArray, variable: Variable, schema: ProductSchema) -> list[str]:
    problems = []
    name = variable.name
    want = tuple(dim for dim in variable.dims if dim not in schema.block)
    have = tuple(map(str, array.dims))
    if set(have) != set(want):
        problems.append(f"{name}: dims are ({', '.join(have)}), must be ({', '.join(want)})")
    if not np.can_cast(array.dtype, np.dtype(variable.dtype), "safe"):
        problems.append(
            f"{name}: dtype is {array.dtype}, which cannot become {variable.dtype} without loss"
        )
    units = array.attrs.get("units")
    if units is None and variable.unit:
        problems.append(f"{name}: units are not given, must be {variable.unit!r}")
    elif units is not None and units != variable.unit:
        problems.append(f"{name}: units are {units!r}, must be {variable.unit!r}")
    return problems

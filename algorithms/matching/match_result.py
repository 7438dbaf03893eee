"""What matching found as a Dataset, with measures of its quality."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.matching.fields import FieldBasis, PolynomialBasis, SplineBasis
from skyloom.algorithms.matching.match_inputs import MatchInput
from skyloom.algorithms.matching.match_joint import JointSolution, robust_share
from skyloom.algorithms.matching.match_kernels import center_bins
from skyloom.algorithms.matching.match_parameters import MatchParameters
from skyloom.algorithms.matching.match_quality import match_quality
from skyloom.algorithms.matching.tract_grid import TractGrid
from skyloom.algorithms.units import inverse_units, squared_units

__all__ = ["match_basis", "match_dataset"]

Floats = NDArray[np.float64]
BINS = (v.TRACT_Y, v.TRACT_X)


def match_dataset(
    background: xr.Dataset,
    given: MatchInput,
    grid: TractGrid,
    basis: FieldBasis,
    functions: Floats,
    parameters: MatchParameters,
    fields: Floats,
    covariance: Floats,
    factor: Floats,
    status: NDArray[np.uint8],
    groups: NDArray[np.int64],
    used: NDArray[np.int64],
    solution: JointSolution | None,
    reference: int | None,
) -> xr.Dataset:
    """Return the Dataset that `match_backgrounds` describes, visits in the order given."""
    units = str(background["level"].attrs.get("units", v.DIMENSIONLESS))
    square = squared_units(units)
    weight = given.weight * factor
    known = np.nan_to_num(fields)
    sky = np.empty(len(weight))
    total = np.empty_like(sky)
    rest = functions @ known.T  # fields, which the kernel writes over
    center_bins(given.level, weight, rest, rest, sky, total)
    before = np.zeros_like(rest)
    center_bins(given.level, weight, before, before, np.empty_like(sky), np.empty_like(sky))
    if solution is not None and parameters.rescale_errors and solution.dof > 0:
        covariance = covariance * max(1.0, solution.chi2 / solution.dof)
    seen = weight > 0
    count = seen.sum(axis=1)
    component = np.full(len(sky), -1, np.int32)
    for visit in np.flatnonzero(seen.any(axis=0)):
        component[seen[:, visit]] = groups[visit]
    error = np.full(len(fields), np.nan)
    for visit in np.flatnonzero(seen.any(axis=0)):
        at = functions[seen[:, visit]]
        error[visit] = np.sqrt(max(0.0, np.vdot(at.T @ at, covariance[visit]) / len(at)))
    place = np.argsort(given.order)  # back to the order given
    shape = grid.bins

    def by_visit(values: NDArray[Any], units: str = "") -> tuple[Any, ...]:
        dims = (v.VISIT, v.COEFFICIENT, f"{v.COEFFICIENT}_2")[: values.ndim]
        return dims, values[place], {"units": units}

    def by_bin(values: NDArray[Any], units: str = "") -> tuple[Any, ...]:
        return BINS, values.reshape(shape), {"units": units}

    factors = np.ascontiguousarray(factor.T[place], np.float32).reshape(-1, *shape)
    coordinates = {name: background.coords[name] for name in BINS if name in background.coords}
    measures, visits = match_quality(
        before,
        rest,
        weight,
        sky,
        total,
        shape,
        0.0 if solution is None else solution.effective,
        1.0 if solution is None else robust_share(parameters),
    )
    return xr.Dataset(
        {
            "coefficients": by_visit(fields, units),
            "coefficient_covariance": by_visit(covariance, square),
            "offset_error": by_visit(error, units),
            "status": (v.VISIT, status[place], v.flag_attributes(v.OffsetStatus)),
            "component": by_visit(groups.astype(np.int32)),
            "terms_used": by_visit(used.astype(np.int32)),
            "bins_used": by_visit(seen.sum(axis=0).astype(np.int32)),
            "sky": by_bin(sky, units),
            "sky_weight": by_bin(total, inverse_units(square)),
            "sky_component": by_bin(component),
            "visit_count": by_bin(count.astype(np.int32)),
            "robust_factor": ((v.VISIT, *BINS), factors, {"units": ""}),
            **{name: by_visit(values) for name, values in visits.items()},
            **{
                name: ((), value, {"units": units if has_unit else ""})
                for name, (value, has_unit) in measures.items()
            },
        },
        {v.VISIT: given.visits[place], **coordinates},
        _attributes(basis, parameters, background, reference, solution) | {"units": units},
    )


def match_basis(match: xr.Dataset) -> FieldBasis:
    """Return the basis of the fields of a match.

    Examples
    --------
    >>> match_basis(xr.Dataset(attrs={"basis": "polynomial", "order": 1, "tract_shape": [4, 8]}))
    PolynomialBasis(shape=(4, 8), order=1)
    """
    height, width = (int(size) for size in match.attrs["tract_shape"])
    if match.attrs["basis"] == "spline":
        rows, columns = (int(count) for count in match.attrs["knots"])
        return SplineBasis((height, width), (rows, columns))
    return PolynomialBasis((height, width), int(match.attrs["order"]))


def _attributes(
    basis: FieldBasis,
    parameters: MatchParameters,
    background: xr.Dataset,
    reference: int | None,
    solution: JointSolution | None,
) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        name: list(background.attrs[name]) for name in ("tract_shape", "bin_size")
    }
    attributes |= {"mode": parameters.mode, "gauge": parameters.gauge}
    if isinstance(basis, SplineBasis):
        attributes |= {"basis": "spline", "knots": list(basis.knots)}
    elif isinstance(basis, PolynomialBasis):
        attributes |= {"basis": "polynomial", "order": basis.order}
    if reference is not None:
        attributes["reference_visit"] = reference
    if solution is not None:
        attributes |= {
            "solver": "dense" if solution.joint is not None else "conjugate_gradients",
            "sweeps": solution.sweeps,
            "iterations": solution.iterations,
            "condition": float(solution.condition),
            "effective_parameters": float(solution.effective),
            "chi2": float(solution.chi2),
            "dof": float(solution.dof),
            "smoothing": float(solution.smoothing),
        }
        if np.isfinite(solution.slope_sigma):
            attributes["slope_sigma"] = float(solution.slope_sigma)
    return attributes

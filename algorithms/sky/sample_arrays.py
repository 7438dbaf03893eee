"""The samples of a focal plane as arrays, put together from the datasets of its detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend.calibrations import told
from skyloom.algorithms.sky.focal_basis import FocalBox

__all__ = ["OTHER", "Samples", "collect_samples"]

Floats = NDArray[np.float64]

OTHER = "other"
"""Dimension of the templates of samples after the first."""


class Samples(NamedTuple):
    """The samples of a focal plane as arrays, (sample); without a sky frame, no template.

    ``others`` and ``others_variance`` are further templates, (sample, template), if there are any.
    """

    level: Floats
    level_variance: Floats
    template: Floats | None
    template_variance: Floats
    x: Floats
    y: Floats
    detector: NDArray[Any]
    detectors: NDArray[Any]  # also those without samples
    box: FocalBox
    units: str
    position_units: str
    others: Floats | None = None
    others_variance: Floats | None = None

    def where(self, good: NDArray[np.bool_]) -> Samples:
        """Return some of the samples."""
        return self._replace(
            level=self.level[good],
            level_variance=self.level_variance[good],
            template=None if self.template is None else self.template[good],
            template_variance=self.template_variance[good],
            x=self.x[good],
            y=self.y[good],
            detector=self.detector[good],
            others=None if self.others is None else self.others[good],
            others_variance=None if self.others_variance is None else self.others_variance[good],
        )


def collect_samples(
    parts: Sequence[xr.Dataset], focal_box: Sequence[float] | None = None
) -> Samples:
    """Return the samples of all datasets as arrays, in the order given.

    Raises
    ------
    ValueError
        If a variable is missing, or units or numbers of templates differ, or the samples say that
        they are of several exposures, filters or cameras.
    """
    flat = [piece for part in parts for piece in _by_detector(part)]
    for name in (v.EXPOSURE, v.FILTER, "camera"):
        said = sorted({told(piece, name) for piece in flat} - {""})
        if len(said) > 1:
            raise ValueError(f"samples of one {name} are needed, they are of {', '.join(said)}")
    units = {str(piece["level"].attrs.get("units", "")) for piece in flat}
    if len(units) > 1:
        raise ValueError(f"samples must share one unit, got {sorted(units)}")
    focal = {v.FOCAL_X in piece.coords for piece in flat}
    if len(focal) > 1:
        raise ValueError("either all samples or none must have positions in the focal plane")
    on_focal_plane = focal.pop()
    names = (v.FOCAL_X, v.FOCAL_Y) if on_focal_plane else (v.X, v.Y)
    x, y = (_joined(flat, name) for name in names)
    with_template = {"template" in piece for piece in flat}
    if len(with_template) > 1:
        raise ValueError("either all samples or none must have a template")
    if with_template.pop():
        template, noise = _joined(flat, "template"), _joined(flat, "template_variance")
    else:
        template, noise = None, np.zeros(len(x))
    numbers = {piece.sizes.get(OTHER, 0) for piece in flat}
    if len(numbers) > 1:
        raise ValueError(f"all samples must have as many templates, got {sorted(numbers)} others")
    several = numbers.pop() > 0
    labels = [np.full(piece.sizes[v.SAMPLE], _label(piece)) for piece in flat]
    return Samples(
        level=_joined(flat, "level"),
        level_variance=_joined(flat, "level_variance"),
        template=template,
        template_variance=noise,
        x=x,
        y=y,
        detector=np.concatenate(labels),
        detectors=np.unique(np.array([_label(piece) for piece in flat])),
        box=FocalBox(*(float(value) for value in focal_box))
        if focal_box is not None
        else _common_box(flat, x, y),
        units=units.pop(),
        position_units=v.MILLIMETRE if on_focal_plane else v.PIXEL,
        others=_tables(flat, "other_templates") if several else None,
        others_variance=_tables(flat, "other_variances") if several else None,
    )


def _tables(parts: Sequence[xr.Dataset], name: str) -> Floats:
    return np.concatenate([part[name].transpose(v.SAMPLE, OTHER).to_numpy() for part in parts])


def _by_detector(part: xr.Dataset) -> list[xr.Dataset]:
    if v.DETECTOR in part.dims:
        return [part.isel({v.DETECTOR: index}) for index in range(part.sizes[v.DETECTOR])]
    return [part]


def _label(piece: xr.Dataset) -> Any:
    return piece[v.DETECTOR].item() if v.DETECTOR in piece.coords else ""


def _joined(parts: Sequence[xr.Dataset], name: str) -> Floats:
    missing = [index for index, part in enumerate(parts) if name not in part.variables]
    if missing:
        raise ValueError(f"samples {missing} have no {name!r}; measure_scale writes it")
    return np.concatenate([np.asarray(part[name].values, np.float64).ravel() for part in parts])


def _common_box(parts: Sequence[xr.Dataset], x: Floats, y: Floats) -> FocalBox:
    """Return the box around all detectors; around the samples if these do not tell."""
    boxes = np.array([part.attrs["focal_box"] for part in parts if "focal_box" in part.attrs])
    if len(boxes):
        low, high = boxes.min(axis=0), boxes.max(axis=0)
        return FocalBox(float(low[0]), float(high[1]), float(low[2]), float(high[3]))
    limits = []
    for positions in (x, y):
        finite = positions[np.isfinite(positions)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        margin = 0.0 if high > low else 0.5
        limits += [float(low) - margin, float(high) + margin]
    return FocalBox(*limits)

"""Tables of the guide that are read from the code, so that they cannot rot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.vocabulary import MASK_PLANES, AmplifierFlag, PairStatus
from skyloom.flows.photon_transfer_flow import PhotonTransferConfiguration
from skyloom.storage.schemas import SCHEMAS

__all__ = ["write_tables"]

PAIR_REMEDIES = {
    "OK": "used, unless the solve says otherwise",
    "UNPAIRED": "one exposure of its level: take another, or widen `pairs.atol`",
    "NONFINITE_KEY": "its exposure time or flux is missing: check the header map of the camera",
    "EXTRA": "a third or later exposure of its level: `pairs.use_extra_pairs` uses them",
    "ILLEGAL_MEAN": "no finite positive mean: saturated, masked altogether, or offset too large",
    "TOO_FEW_PIXELS": "too few good pixels in both flats: saturation, mask, `extract.min_pixels`",
    "EMPTY_LAG": "some lag has no pair of good pixels: region too small or masked in stripes",
    "NONFINITE_STAT": "variance zero or not finite: identical images, or a test pattern",
    "NON_GAUSSIAN": "the difference is skewed or has tails: light leaks, steps, sources",
    "MEAN_MISMATCH": "the lamp changed, or (mode id) an exposure is missing before this one",
    "MEAN_OUT_OF_RANGE": "outside `solve.minimum_mean` … `solve.maximum_mean`",
    "OUTLIER": "far from the curve, or from the photodiode if linearity is checked",
    "ABOVE_TURNOFF": "beyond the signal where the variance leaves the model",
    "AMP_BAD": "its amplifier could not be solved; the warning of the block says why",
    "NOT_MEASURED": "no finished block: run the flow, or see `skyloom status`",
}
FLAG_REMEDIES = {
    "NO_DATA": "nothing was measured",
    "TOO_FEW_PAIRS": "take more levels below the turn-off",
    "NOT_CONVERGED": "the fit did not settle: look at the curve; try `solve.model: exp00`",
    "NEGATIVE_NOISE": "the fitted noise variance is negative, noise is NaN: add low levels",
    "ROLLOFF_FAILED": "no roll-off was found: the turn-off stands",
    "NOISE_MISMATCH": "fitted noise and measured read noise differ: offset, pattern, or few low "
    "levels",
    "BAD": "no solution: all numbers are NaN",
}


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _products() -> str:
    parts = []
    for schema in SCHEMAS.values():
        rows = [
            (f"`{name}`", dims, dtype, unit, text)
            for name, dims, dtype, unit, text in schema.describe()
        ]
        block = ", ".join(schema.block)
        parts.append(
            f"## `{schema.name}`\n\n{schema.description.capitalize()}. "
            f"One block per {block}; schema version {schema.version}.\n\n"
            + _table(("variable", "dimensions", "type", "unit", "meaning"), rows)
        )
    return "\n".join(parts)


def _codes() -> str:
    status = [(f"{c.value}", f"`{c.name}`", PAIR_REMEDIES[c.name]) for c in PairStatus]
    flags = [
        (f"{c.value}", f"`{c.name}`", FLAG_REMEDIES[str(c.name)]) for c in AmplifierFlag if c.value
    ]
    planes = [(bit, f"`{name}`") for name, bit in MASK_PLANES.items()]
    return (
        "## Pairs and exposures: `pair_status`, `exposure_status`\n\n"
        + _table(("code", "name", "what it means, what to do"), status)
        + "\n## Amplifiers: `amp_flag` (bits)\n\n"
        + _table(("bit", "name", "what it means, what to do"), flags)
        + "\n## Pixels: mask planes (bits)\n\n"
        + _table(("bit", "name"), planes)
    )


def _parameter_rows(parameters: Parameters, prefix: str) -> Iterable[tuple[str, str, str]]:
    for name, default, text in parameters.describe():
        if isinstance(default, Parameters):
            yield from _parameter_rows(default, f"{prefix}{name}.")
        else:
            yield f"`{prefix}{name}`", f"`{default}`", text


def _parameters() -> str:
    rows = _parameter_rows(PhotonTransferConfiguration(), "")
    return _table(("parameter", "default", "meaning"), rows)


def write_tables(folder: Path) -> None:
    """Write every generated table into a folder."""
    folder.mkdir(exist_ok=True)
    for name, text in (
        ("products", _products()),
        ("codes", _codes()),
        ("parameters", _parameters()),
    ):
        (folder / f"{name}.md").write_text(text)

"""Tables of the guide that are read from the code, so that they cannot rot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.vocabulary import MASK_PLANES, PairStatus
from skyloom.flows.catalogue import CATALOGUE, configuration_model
from skyloom.flows.report.codes import AMPLIFIER_FLAGS, PAIR_STATUSES
from skyloom.storage.camera_model import (
    Amplifier,
    Detector,
    FileLayout,
    HeaderKey,
    HeaderMap,
    Observatory,
)
from skyloom.storage.schemas import SCHEMAS

__all__ = ["write_tables"]


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
    status = [(c.value, f"`{c.name}`", *PAIR_STATUSES[c]) for c in PairStatus]
    flags = [(c.value, f"`{c.name}`", *AMPLIFIER_FLAGS[c]) for c in AMPLIFIER_FLAGS]
    planes = [(bit, f"`{name}`") for name, bit in MASK_PLANES.items()]
    return (
        "## Pairs and exposures: `pair_status`, `exposure_status`\n\n"
        + _table(("code", "name", "meaning", "what to do"), status)
        + "\n## Amplifiers: `amp_flag` (bits)\n\n"
        + _table(("bit", "name", "meaning", "what to do"), flags)
        + "\n## Pixels: mask planes (bits)\n\n"
        + _table(("bit", "name"), planes)
    )


def _parameter_rows(parameters: Parameters, prefix: str) -> Iterable[tuple[str, str, str]]:
    for name, default, text in parameters.describe():
        if isinstance(default, Parameters):
            yield from _parameter_rows(default, f"{prefix}{name}.")
        else:
            yield f"`{prefix}{name}`", f"`{default}`", text


def _parameters(flow: str) -> str:
    rows = _parameter_rows(configuration_model(flow)(), "")
    return _table(("parameter", "default", "meaning"), rows)


def _camera() -> str:
    parts = []
    for title, model in (
        ("layout", FileLayout),
        ("header: each entry", HeaderKey),
        ("header: what can be mapped", HeaderMap),
        ("observatory", Observatory),
        ("detectors: each entry", Detector),
        ("amplifiers: each entry", Amplifier),
    ):
        rows = [
            (f"`{name}`", "required" if field.is_required() else "", field.description or "")
            for name, field in model.model_fields.items()
        ]
        parts.append(f"### {title}\n\n" + _table(("key", "", "meaning"), rows))
    return "\n".join(parts)


def write_tables(folder: Path) -> None:
    """Write every generated table into a folder."""
    folder.mkdir(exist_ok=True)
    for name, text in (
        ("products", _products()),
        ("codes", _codes()),
        *((f"parameters_{flow}", _parameters(flow)) for flow in CATALOGUE),
        ("camera", _camera()),
    ):
        (folder / f"{name}.md").write_text(text)

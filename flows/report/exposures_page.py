"""The page of a flow over exposures: tiles, sections of figures and tables, provenance."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from skyloom.flows.report import record_tables
from skyloom.flows.report.page import render_template
from skyloom.flows.report.sections import Image

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["Section", "Table", "write_page"]

MOST_ROWS = 200


@dataclass(frozen=True)
class Table:
    """A table; ``numeric`` are the columns of numbers, ``empty`` is said without rows."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric: tuple[int, ...] = ()
    empty: str = "None."


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    anchor: str
    title: str
    text: str = ""
    images: Sequence[Image] = ()
    tables: Sequence[Table] = ()


@dataclass
class ExposuresPage:
    """Everything the template shows."""

    kind: str
    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str, str]]
    sections: Sequence[Section]
    problems: Sequence[tuple[str, ...]] = ()
    more_problems: int = 0
    steps: Sequence[tuple[str, ...]] = ()
    versions: Sequence[tuple[str, str]] = ()
    warnings: Sequence[tuple[str, str, int]] = field(default_factory=list)
    configuration: str = ""
    footer: str = ""

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Anchor and name of every section, the fixed ones among them."""
        own = [(section.anchor, section.title) for section in self.sections]
        return [("attention", "Attention"), *own, ("provenance", "Provenance")]


def write_page(
    store: Store,
    path: Path,
    *,
    kind: str,
    steps: Sequence[str],
    tiles: Sequence[tuple[str, str, str]],
    sections: Sequence[Section],
    product: str = "",
) -> Path:
    """Write the page of a flow: what was found, and where it comes from by its records.

    Parameters
    ----------
    store : Store
        Whose records tell what failed, how long it took, with which versions.
    path : Path
        The HTML file.
    kind : str
        What the page is about.
    steps : sequence of str
        Steps of the flow, in order.
    tiles : sequence of (name, value, note)
        The figures that stand first.
    sections : sequence of Section
        The rest.
    product : str, optional
        Whose configuration is shown; by default that of the first step there is.
    """
    records = [record for step in steps for record in store.records(step).values()]
    problems = record_tables.problem_rows(records)
    configuration = next(
        (
            found
            for s in (product, *steps)
            if s in store and (found := store.attrs(s).get("configuration"))
        ),
        None,
    )
    page = ExposuresPage(
        kind,
        f"{kind} of {store.camera.name}",
        store.camera.description,
        tiles,
        sections,
        problems[:MOST_ROWS],
        max(0, len(problems) - MOST_ROWS),
        record_tables.step_rows(records),
        record_tables.version_rows(records),
        record_tables.warning_rows(records)[:MOST_ROWS],
        "" if configuration is None else yaml.safe_dump(configuration, sort_keys=False),
        f"Written by skyloom {version('skyloom')} on "
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d at %H:%M} UTC.",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_template("exposures.html", page), encoding="utf-8")
    return path

"""The base of every parameter model: frozen, strict about names, hashable by content."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Parameters"]


class Parameters(BaseModel):
    """Parameters of one algorithm.

    Frozen, so a model can be shared between threads; unknown names are errors, so a typing
    mistake never passes silently; hashed by content, so equal parameters give equal results
    in a cache and in a Dask graph.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    def __dask_tokenize__(self) -> tuple[str, str]:
        """Return the content that identifies these parameters in a Dask graph."""
        return (type(self).__qualname__, self.model_dump_json())

    def describe(self) -> list[tuple[str, Any, str]]:
        """Return ``(name, default, meaning)`` of every parameter, for tables and help."""
        return [
            (name, field.get_default(call_default_factory=True), field.description or "")
            for name, field in type(self).model_fields.items()
        ]

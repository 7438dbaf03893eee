"""Fingerprints: what a block was made from, as 32 hexadecimal digits.

Two blocks with the same fingerprint hold the same numbers: it covers the step's name, revision,
parameters and schema, and the fingerprints of everything that was read. The version of the
package is not part of it (it is provenance, kept in the record): a new version that changes no
number redoes nothing, and a step whose numbers do change raises its ``revision``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Gathered", "dataset_fingerprint", "digest", "gathered_token", "item_digest"]

_BYTES: Final = 16
_MODULUS: Final = 1 << (8 * _BYTES)


class Gathered(NamedTuple):
    """Blocks that a reduction found: a digest of them all, and which ones (bit i = label i)."""

    digest: int = 0
    present: int = 0

    def plus(self, position: int, item: int) -> Gathered:
        """Return this with one more block; the order of additions does not matter."""
        return Gathered((self.digest + item) % _MODULUS, self.present | (1 << position))

    @property
    def size(self) -> int:
        """How many blocks there are."""
        return self.present.bit_count()

    def labels(self, labels: Iterable[Any]) -> list[Any]:
        """Return those labels whose blocks are there.

        Examples
        --------
        >>> Gathered().plus(0, 11).plus(2, 13).labels("abc")
        ['a', 'c']
        """
        return [label for i, label in enumerate(labels) if self.present >> i & 1]


def digest(*parts: str) -> str:
    """Return the fingerprint of texts in order.

    Examples
    --------
    >>> digest("a", "b") == digest("a", "b")
    True
    >>> digest("a", "b") == digest("ab", "")
    False
    """
    found = hashlib.blake2b(digest_size=_BYTES)
    for part in parts:
        data = part.encode()
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()


def item_digest(label: str | int, fingerprint: str) -> int:
    """Return what one block adds to the digest of a reduction.

    Sums of these do not depend on the order in which blocks finish.
    """
    data = f"{type(label).__name__}:{label}|{fingerprint}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=_BYTES).digest(), "little")


def gathered_token(gathered: Gathered) -> str:
    """Return the fingerprint of the blocks of a reduction.

    Examples
    --------
    >>> one = Gathered().plus(0, item_digest("a", "00")).plus(1, item_digest("b", "01"))
    >>> other = Gathered().plus(1, item_digest("b", "01")).plus(0, item_digest("a", "00"))
    >>> gathered_token(one) == gathered_token(other)
    True
    """
    return f"{gathered.size}:{gathered.digest:032x}"


def dataset_fingerprint(dataset: xr.Dataset) -> str:
    """Return the fingerprint of a small dataset: names, dims, values, attributes.

    Parameters
    ----------
    dataset : Dataset
        In memory; meant for constants such as a detector's amplifier table.

    Examples
    --------
    >>> import xarray as xr
    >>> table = xr.Dataset({"gain": ("amp", [1.5])}, coords={"amp": ["A"]})
    >>> dataset_fingerprint(table) == dataset_fingerprint(table.copy(deep=True))
    True
    >>> dataset_fingerprint(table) == dataset_fingerprint(table * 2)
    False
    """
    found = hashlib.blake2b(digest_size=_BYTES)
    found.update(_text(dataset.attrs))
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        values = np.ascontiguousarray(variable.values)
        header = [name, list(map(str, variable.dims)), values.shape, str(variable.attrs)]
        found.update(_text({"variable": header}))
        if values.dtype.kind in "OUST":
            found.update(_text({"values": [str(value) for value in values.ravel().tolist()]}))
        else:
            found.update(values.dtype.str.encode() + values.tobytes())
    return found.hexdigest()


def _text(value: Mapping[Any, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode() + b"\0"

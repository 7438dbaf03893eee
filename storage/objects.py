"""Bytes by key under one URL: the few operations a store needs besides Zarr's own.

A key is a relative path with forward slashes. A write is atomic: a reader sees the old bytes,
the new bytes or nothing, never half of them. On local disks that is a temporary file renamed
into place; object stores give it by themselves. Failures of the medium (no room, no permission)
become `StoreError` with what to do about them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import fsspec
import zarr.storage

from skyloom.algorithms.errors import StoreError

__all__ = ["Objects", "medium_errors", "normalise_url", "open_objects"]

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_REMEDIES = {
    errno.ENOSPC: "no room is left: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "the file would be larger than this medium allows: free some space",
    errno.EROFS: "the file system is read-only: make it writable or copy the store",
    errno.EACCES: "permission is denied: make the store readable and writable for this user",
    errno.EPERM: "permission is denied: make the store readable and writable for this user",
}


class Objects(Protocol):
    """What a store asks of the place it lives in."""

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a key, None where there are none."""

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of those keys that exist."""

    def write(self, key: str, data: bytes) -> None:
        """Replace the bytes of a key at once."""

    def exists(self, key: str) -> bool:
        """Return whether a key has bytes."""

    def names(self, prefix: str) -> list[str]:
        """Return the names directly below a prefix, sorted; none where it does not exist."""

    def delete(self, keys: Iterable[str]) -> None:
        """Forget keys; those already gone are no error."""

    def delete_tree(self, prefix: str) -> None:
        """Forget everything below a prefix."""

    def location(self, key: str = "") -> str:
        """Return where a key is, for messages."""

    def zarr_store(self) -> Any:
        """Return the same place as a Zarr store."""


def normalise_url(url: str | os.PathLike[str]) -> str:
    """Return an absolute path for a local directory, any other URL unchanged.

    Workers run in directories of their own, so a relative path must not travel.

    Parameters
    ----------
    url : str or path
        A local directory, ``file://...`` or any URL that fsspec knows.

    Returns
    -------
    str

    Examples
    --------
    >>> normalise_url("memory://night/")
    'memory://night'
    >>> normalise_url("file:///data/night")
    '/data/night'
    """
    text = os.fspath(url)
    match = _SCHEME.match(text)
    if match and match.group(1).lower() in {"file", "local"}:
        text, match = text[match.end() :], None
    if match:
        return text.rstrip("/")
    return str(Path(text).expanduser().absolute())


def open_objects(url: str, storage_options: Mapping[str, Any] | None = None) -> Objects:
    """Return the objects under a URL, which need not exist yet.

    Parameters
    ----------
    url : str
        As `normalise_url` returns it.
    storage_options : mapping, optional
        Passed to the file system of a remote URL.

    Raises
    ------
    StoreError
        If no file system is known for the URL, or its package is not installed.

    Examples
    --------
    >>> objects = open_objects("memory://doctest-objects")
    >>> objects.write("a/b", b"1")
    >>> objects.names("a"), objects.read("a/b"), objects.read("a/c")
    (['b'], b'1', None)
    """
    if not _SCHEME.match(url):
        return _LocalObjects(Path(url))
    try:
        return _RemoteObjects(url, dict(storage_options or {}))
    except (ValueError, ImportError) as error:
        raise StoreError(
            f"cannot open {url}: {error}; use a local directory or install the file system's "
            "package (S3: pip install 'skyloom[s3]')"
        ) from error


@contextlib.contextmanager
def medium_errors(doing: str) -> Iterator[None]:
    """Turn an error of the medium into a `StoreError` that says what to do.

    Examples
    --------
    >>> with medium_errors("write block a"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: cannot write block a: no room is left: free some \
space, then run again; nothing half-written counts as done (No space left on device)
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "see the cause")
        detail = error.strerror or str(error) or type(error).__name__
        where = f"{detail}: {error.filename}" if error.filename else detail
        raise StoreError(
            f"cannot {doing}: {remedy}, then run again; nothing half-written counts as done "
            f"({where})"
        ) from error


class _LocalObjects:
    """Objects in a local directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        found = ((key, self.read(key)) for key in keys)
        return {key: data for key, data in found if data is not None}

    def write(self, key: str, data: bytes) -> None:
        path = self._root / key
        with medium_errors(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name[:200]}.{secrets.token_hex(6)}.partial")
            try:
                partial.write_bytes(data)
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    def exists(self, key: str) -> bool:
        return (self._root / key).is_file()

    def names(self, prefix: str) -> list[str]:
        try:
            return sorted(
                name for name in os.listdir(self._root / prefix) if not name.endswith(".partial")
            )
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            (self._root / key).unlink(missing_ok=True)

    def delete_tree(self, prefix: str) -> None:
        shutil.rmtree(self._root / prefix, ignore_errors=True)

    def location(self, key: str = "") -> str:
        return str(self._root / key)

    def zarr_store(self) -> Any:
        return zarr.storage.LocalStore(self._root)


class _RemoteObjects:
    """Objects on any file system of fsspec."""

    def __init__(self, url: str, storage_options: dict[str, Any]) -> None:
        self._url = url
        self._options = storage_options
        self._fs, self._root = fsspec.url_to_fs(url, **storage_options)

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}" if key else self._root

    def read(self, key: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(self._path(key)))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        paths = {self._path(key): key for key in keys}
        if not paths:
            return {}
        found = self._fs.cat(list(paths), on_error="omit")
        return {paths[path]: bytes(data) for path, data in found.items() if path in paths}

    def write(self, key: str, data: bytes) -> None:
        with medium_errors(f"write {self.location(key)}"):
            self._fs.pipe_file(self._path(key), data)

    def exists(self, key: str) -> bool:
        return bool(self._fs.isfile(self._path(key)))

    def names(self, prefix: str) -> list[str]:
        # A listing remembered from before another worker wrote would hide that worker's records.
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._path(prefix), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in found})

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(key))

    def delete_tree(self, prefix: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._path(prefix), recursive=True)

    def location(self, key: str = "") -> str:
        return f"{self._url}/{key}" if key else self._url

    def zarr_store(self) -> Any:
        return zarr.storage.FsspecStore.from_url(self._url, storage_options=self._options)

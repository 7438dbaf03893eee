"""Damage is an error that names product and chunk, never a wrong number."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings

from skyloom.algorithms.errors import ChecksumError, StoreError
from skyloom.storage import create_store, load_camera, open_store
from skyloom.storage.camera import Camera
from skyloom.storage.dataset_schema import ProductSchema
from skyloom.storage.exports import write_raw_fits
from skyloom.storage.ingest import ingest_fits
from skyloom.storage.objects import medium_errors
from skyloom.storage.records import Record
from skyloom.storage.store import Store

MakeCurve = Callable[..., xr.Dataset]
PAIRS = [f"p{number}" for number in range(300)]  # more than one chunk


@pytest.fixture
def filled(
    store: Store,
    camera: Camera,
    curve_schema: ProductSchema,
    make_curve: MakeCurve,
    make_raws: Callable[..., dict[str, xr.Dataset]],
    tmp_path: Path,
) -> Store:
    """A store with raw exposures and a product with several chunks a block."""
    write_raw_fits(tmp_path / "7.fits", camera, make_raws(7))
    ingest_fits(store, tmp_path / "7.fits")
    labels = {"detector": ["left", "right"], "pair": PAIRS}
    store.prepare(curve_schema, labels, sizes={"lag_y": 3})
    data = make_curve(PAIRS)
    data["mean"][0] = np.nan
    store.write_block("curve", {"detector": "left"}, data)
    store.write_record(Record("solve", {"detector": "left"}, "done"))
    return store


def chunk_files(store: Store) -> list[Path]:
    found = sorted(path for path in Path(store.url).rglob("c/**/*") if path.is_file())
    assert len(found) == 4 + 7
    return found


def read_everything(store: Store) -> None:
    for product in store.products():
        store[product].load(scheduler="sync")
        for record in store.records(store.chunks(product).layout.step).values():
            store.read_block(product, record.block)


def parts(store: Store, path: Path) -> tuple[str, str, str]:
    product, variable, chunk = path.relative_to(store.url).as_posix().split("/", 2)
    return product, variable, chunk


def test_intact_chunks_can_all_be_read(filled: Store) -> None:
    read_everything(filled)


def test_a_flipped_byte_anywhere_in_any_chunk_is_an_error_that_names_it(filled: Store) -> None:
    rng = np.random.default_rng(1)
    for path in chunk_files(filled):
        intact = path.read_bytes()
        product, variable, chunk = parts(filled, path)
        positions = {0, len(intact) // 2, len(intact) - 5, len(intact) - 1}
        for position in positions | set(rng.integers(0, len(intact), 6).tolist()):
            damaged = bytearray(intact)
            damaged[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            with pytest.raises(ChecksumError) as caught:
                read_everything(filled)
            message = str(caught.value)
            for part in (repr(product), repr(variable), f"chunk {chunk} is damaged", str(path)):
                assert part in message
        path.write_bytes(intact)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_damage_to_any_chunk_is_noticed(filled: Store, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(chunk_files(filled)))
    intact = path.read_bytes()
    damage = data.draw(st.sampled_from(["flip", "cut", "append", "empty", "swap"]))
    position = data.draw(st.integers(0, len(intact) - 1))
    if damage == "flip":
        changed = bytearray(intact)
        changed[position] ^= data.draw(st.integers(1, 255))
    elif damage == "cut":
        changed = bytearray(intact[:position])
    elif damage == "append":
        changed = bytearray(intact + b"\0" * (position + 1))
    elif damage == "empty":
        changed = bytearray()
    else:
        changed = bytearray(intact[position:] + intact[:position])
    path.write_bytes(changed)
    try:
        if bytes(changed) == intact:
            read_everything(filled)
        else:
            with pytest.raises(ChecksumError, match="is damaged"):
                read_everything(filled)
    finally:
        path.write_bytes(intact)


def test_doing_a_damaged_block_again_repairs_it(filled: Store, make_curve: MakeCurve) -> None:
    for path in chunk_files(filled):
        if path.relative_to(filled.url).parts[0] == "curve":
            path.write_bytes(b"garbage")
    filled.write_block("curve", {"detector": "left"}, make_curve(PAIRS, seed=5))
    filled.write_record(Record("solve", {"detector": "left"}, "done"))
    read_everything(filled)
    found = filled.read_block("curve", {"detector": "left"})
    np.testing.assert_array_equal(found["mean"], make_curve(PAIRS, seed=5)["mean"])


def test_a_missing_chunk_of_a_done_block_is_an_error_that_names_it(filled: Store) -> None:
    for path in chunk_files(filled):
        product, variable, chunk = parts(filled, path)
        moved = path.with_suffix(".away")
        path.rename(moved)
        with pytest.raises(ChecksumError, match=f"{product}.*{variable}.*{chunk} is missing"):
            read_everything(filled)
        moved.rename(path)


def test_damaged_chunks_of_blocks_that_are_not_done_do_no_harm(
    filled: Store, make_curve: MakeCurve
) -> None:
    filled.write_block("curve", {"detector": "right"}, make_curve(PAIRS, seed=1))
    for path in Path(filled.url, "curve").rglob("c/1/**/*"):
        if path.is_file():
            path.write_bytes(b"garbage")
    found = filled["curve"].load()
    assert np.isfinite(found["mean"].sel(detector="left").isel(pair=1)).all()
    assert np.isnan(found["mean"].sel(detector="right")).all()


def test_a_block_that_was_never_written_cannot_be_read(filled: Store) -> None:
    with pytest.raises(ChecksumError, match="detector=right: chunk c/1/0 is missing"):
        filled.read_block("curve", {"detector": "right"})


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_damaged_array_metadata_is_an_error_that_names_the_file(filled: Store, damage: str) -> None:
    path = Path(filled.url, "curve", "mean", "zarr.json")
    intact = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flip":
        path.write_bytes(intact.replace(b"float64", b"float32"))
    else:
        path.write_bytes(intact[:100] if damage == "cut" else b"")
    with pytest.raises(StoreError, match=str(path)):
        open_store(filled.url)["curve"].load()


def test_any_change_to_a_product_document_is_noticed(filled: Store) -> None:
    path = Path(filled.url, "curve", "zarr.json")
    intact = path.read_bytes()
    sealed = intact.index(b'"skyloom"')
    rng = np.random.default_rng(2)
    for position in rng.integers(sealed, len(intact) - 10, 40):
        damaged = bytearray(intact)
        damaged[position] ^= 0x04
        try:
            same = json.loads(damaged) == json.loads(intact)
        except ValueError:
            same = False
        path.write_bytes(damaged)
        if same:
            continue
        with pytest.raises(StoreError, match=str(path)):
            open_store(filled.url).chunks("curve")


def test_a_damaged_root_document_is_an_error_that_names_the_file(filled: Store) -> None:
    path = Path(filled.url, "zarr.json")
    path.write_bytes(path.read_bytes().replace(b"name: tiny", b"name: tony"))
    with pytest.raises(StoreError, match="does not match its checksum"):
        open_store(filled.url)
    path.write_text("{}")
    with pytest.raises(StoreError, match=r"zarr.json is damaged or not a skyloom document"):
        open_store(filled.url)
    path.unlink()
    with pytest.raises(StoreError, match="is not a store"):
        open_store(filled.url)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space, then run again; nothing half-written counts as done"),
        (errno.EROFS, "read-only: make it writable"),
        (errno.EACCES, "permission is denied"),
    ],
)
def test_what_the_medium_refuses_is_told_with_a_remedy(number: int, remedy: str) -> None:
    with pytest.raises(StoreError, match=remedy), medium_errors("write block a"):
        raise OSError(number, os.strerror(number), "/data/c/0")


FULL_DISK = """
import resource, signal, sys
from skyloom.algorithms.errors import StoreError
from skyloom.storage import create_store, load_camera, open_store
from skyloom.storage.ingest import ingest_fits
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    ingest_fits(open_store(sys.argv[1]), sys.argv[2])
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a Unix matter")
@pytest.mark.parametrize(
    ("limit", "refused"), [(700, "create raw/image"), (100_000, "write a block of .*raw/image")]
)
def test_a_medium_that_runs_full_leaves_nothing_that_counts_as_done(
    tmp_path: Path, limit: int, refused: str
) -> None:
    """A file size limit makes the kernel itself refuse to write on, in a process of its own."""
    camera = load_camera("simulated-mosaic")
    store = create_store(tmp_path / "store", camera)
    image = np.random.default_rng(1).integers(0, 60000, (512, 576)).astype("uint16")
    coords = {"exposure": 7, "exposure_time": 1.0, "observation_type": "flat"}
    raws = {"S00": xr.Dataset({"image": (("y", "x"), image)}, coords=coords)}
    path = write_raw_fits(tmp_path / "7.fits", camera, raws)
    out = subprocess.run(
        [sys.executable, "-c", FULL_DISK, store.url, str(path), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(refused, out)
    assert "free some space, then run again" in out
    assert not any(record.done for record in store.records("ingest").values())
    # With room again the rest is done.
    (outcome,) = ingest_fits(open_store(store.url), path)
    assert outcome.status == "ingested"
    assert open_store(store.url).done("raw").sum() == 1


KILLED = """
import sys
from skyloom.storage import create_store, load_camera, open_store
from skyloom.storage.ingest import ingest_fits
ingest_fits(open_store(sys.argv[1]), sys.argv[2])
"""


def test_an_ingest_killed_at_a_random_moment_is_finished_by_the_next(
    store: Store,
    camera: Camera,
    make_raws: Callable[..., dict[str, xr.Dataset]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "night"
    folder.mkdir()
    for exposure in range(30):
        write_raw_fits(folder / f"{exposure}.fits", camera, make_raws(exposure))
    rng = np.random.default_rng(3)
    for delay in rng.uniform(0.8, 2.0, 3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, store.url, str(folder)])
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        opened = open_store(store.url)
        if "raw" in opened:
            opened["raw"].load()  # whatever is done can be read
    ingest_fits(open_store(store.url), folder)
    assert open_store(store.url).done("raw").all()
    for exposure in range(30):
        for name, raw in make_raws(exposure).items():
            found = open_store(store.url).read_block(
                "raw", {"exposure": exposure, "detector": name}
            )
            np.testing.assert_array_equal(found["image"], raw["image"])


def test_a_chunk_that_cannot_be_opened_is_told_apart_from_a_damaged_one(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zarr.storage

    async def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "c/0/0")

    filled.chunks("curve")._array("mean")
    monkeypatch.setattr(zarr.storage.LocalStore, "get", refuse)
    monkeypatch.setattr(zarr.storage.LocalStore, "get_sync", refuse, raising=False)
    with pytest.raises(StoreError, match="permission is denied") as caught:
        filled.chunks("curve").read("mean", [np.array([0])])
    assert not isinstance(caught.value, ChecksumError)


def test_a_store_that_was_copied_elsewhere_works_there(filled: Store, tmp_path: Path) -> None:
    shutil.copytree(filled.url, tmp_path / "copy")
    xr.testing.assert_identical(
        open_store(tmp_path / "copy")["curve"].load(), filled["curve"].load()
    )

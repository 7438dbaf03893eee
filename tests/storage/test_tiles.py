"""Tiles of blocks: reading a part reads only the chunks it touches, eagerly and lazily."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skyloom.algorithms.errors import ChecksumError
from skyloom.algorithms.tiles import tiles
from skyloom.storage.dataset_schema import ProductSchema, Variable
from skyloom.storage.lazy import windowed
from skyloom.storage.records import Record
from skyloom.storage.store import Store, create_store

FRAMES = ProductSchema(
    "frames",
    ("exposure", "detector", "y", "x"),
    ("exposure", "detector"),
    (Variable("image", ("exposure", "detector", "y", "x"), "float32", "adu", codec="image"),),
    scalar_coords=True,
    tile={"y": 4},
)
IN_PARTS = replace(FRAMES, part={"y": 2})
EXPOSURES = (3, 5, 8)
SHAPE = (10, 6)


def frame(exposure: int) -> xr.Dataset:
    pixels = np.random.default_rng(exposure).normal(size=SHAPE).astype("float32")
    image = xr.DataArray(pixels, dims=("y", "x"), attrs={"units": "adu"})
    return xr.Dataset({"image": image}, coords={"exposure_time": ((), 10.0 * exposure)})


@pytest.fixture(scope="module", params=[FRAMES, IN_PARTS], ids=["tiles", "tiles of parts"])
def frames(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(tmp_path_factory.mktemp("tiles") / "store", request.param)


def filled(place: Path, schema: ProductSchema = FRAMES) -> Store:
    store = create_store(place, "generic")
    store.prepare(schema, {"exposure": EXPOSURES, "detector": ["a"]}, sizes={"y": 12, "x": 6})
    for exposure in EXPOSURES:
        block = {"exposure": exposure, "detector": "a"}
        store.write_block("frames", block, frame(exposure))
        store.write_record(Record("frames", block, "done", fingerprint=str(exposure)))
    return store


def chunks_on_disk(store: Store) -> list[Path]:
    return sorted(Path(store.url).glob("frames/image/c/0/0/*/*"))


def test_a_block_lies_in_as_many_chunks_as_it_has_tiles(frames: Store) -> None:
    assert [path.parent.name for path in chunks_on_disk(frames)] == ["0", "1", "2"]


def test_lazy_blocks_are_the_eager_ones_cut_to_their_size(frames: Store) -> None:
    wanted = {"exposure": list(EXPOSURES), "detector": "a"}
    lazy = frames.read_block("frames", wanted, lazy=True)
    assert not isinstance(lazy["image"].variable._data, np.ndarray)
    assert lazy["image"].shape == (3, *SHAPE)
    assert lazy["image"].chunks is None
    xr.testing.assert_identical(lazy.load(), frames.read_block("frames", wanted))


def test_readers_of_lazy_blocks_go_from_chunk_to_chunk(frames: Store) -> None:
    lazy = frames.read_block("frames", {"exposure": list(EXPOSURES), "detector": "a"}, lazy=True)
    for image in (lazy["image"], lazy.isel(exposure=[0, 2])["image"]):
        rows = [place["y"] for place in tiles(image, ("y", "x"))]
        step = 2 if frames.schema("frames").part else 4
        assert rows == [slice(start, min(start + step, 10)) for start in range(0, 10, step)]


def test_scalar_coordinates_of_several_blocks_lie_along_their_dimension(frames: Store) -> None:
    both = frames.read_block("frames", {"exposure": [5, 3], "detector": "a"}, lazy=True)
    assert both["exposure_time"].dims == ("exposure",)
    assert both["exposure_time"].values.tolist() == [50.0, 30.0]


@given(
    rows=st.slices(SHAPE[0]),
    columns=st.slices(SHAPE[1]),
    exposures=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
)
@settings(deadline=None, max_examples=60)
def test_any_part_of_lazy_blocks_is_that_part_of_the_eager_ones(
    frames: Store, rows: slice, columns: slice, exposures: list[int]
) -> None:
    for chosen, size in ((rows, SHAPE[0]), (columns, SHAPE[1])):
        assume(len(range(size)[chosen]))  # xarray fails on empty slices that run backwards
    wanted = {"exposure": list(EXPOSURES), "detector": "a"}
    part = {"exposure": exposures, "y": rows, "x": columns}
    lazy = frames.read_block("frames", wanted, lazy=True)["image"].isel(part)
    eager = frames.read_block("frames", wanted)["image"].isel(part)
    np.testing.assert_array_equal(lazy.values, eager.values)
    cut = {"y": slice(0, SHAPE[0])}  # an opened product shows the padding, as its blocks may differ
    opened = frames["frames"]["image"].isel(detector=0).isel(cut).isel(part)
    np.testing.assert_array_equal(opened.values, eager.values)


@given(key=st.slices(9) | st.integers(-9, 8) | st.lists(st.integers(-9, 8), max_size=4))
def test_a_window_holds_exactly_what_its_key_chooses(key: object) -> None:
    numbers = np.arange(9)
    key = np.array(key, int) if isinstance(key, list) else key
    (window,), (inside,) = windowed((key,), (9,))
    np.testing.assert_array_equal(numbers[window][inside], numbers[key])


def test_a_damaged_tile_spoils_no_other(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    place = chunks_on_disk(store)[1]
    damaged = bytearray(place.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    place.write_bytes(bytes(damaged))
    image = store.read_block("frames", {"exposure": [3], "detector": "a"}, lazy=True)["image"]
    np.testing.assert_array_equal(image[0, :4].values, frame(3)["image"][:4].values)
    with pytest.raises(ChecksumError, match=r"'frames', variable 'image', .*chunk c/0/0/1/0"):
        image[0, 3:5].load()
    place.unlink()
    with pytest.raises(ChecksumError, match="is missing"):
        image[0, 5:6].load()


def test_a_damaged_part_of_a_tile_spoils_no_other_and_a_damaged_index_all(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", IN_PARTS)
    assert len(chunks_on_disk(store)) == len(chunks_on_disk(filled(tmp_path / "other")))
    place = chunks_on_disk(store)[1]
    intact = place.read_bytes()
    image = store.read_block("frames", {"exposure": [3], "detector": "a"}, lazy=True)["image"]
    for where, spoilt in ((5, slice(4, 6)), (-5, slice(4, 5)), (-5, slice(7, 8))):
        damaged = bytearray(intact)
        damaged[where] ^= 1
        place.write_bytes(bytes(damaged))
        with pytest.raises(ChecksumError, match=r"'frames', variable 'image', .*chunk c/0/0/1/0"):
            image[0, spoilt].load()
        if where == 5:
            np.testing.assert_array_equal(image[0, 6:8].values, frame(3)["image"][6:8].values)
    place.unlink()
    with pytest.raises(ChecksumError, match="is missing"):
        image[0, 5:6].load()


def test_parts_that_do_not_divide_a_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="part of y, 3, does not divide its tile, 4"):
        replace(FRAMES, part={"y": 3})
    with pytest.raises(ValueError, match="part of y, 2, does not divide its tile, None"):
        replace(FRAMES, tile={}, part={"y": 2})

"""The store: what is written comes back, what is not done reads as nothing, labels only grow."""

from __future__ import annotations

import itertools
import json
import pickle
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dask
import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings

from skyloom.algorithms.errors import SchemaError, StoreError
from skyloom.storage import create_store, open_store
from skyloom.storage.camera import Camera
from skyloom.storage.dataset_schema import ProductSchema, Variable
from skyloom.storage.lazy import gathered_chunks
from skyloom.storage.records import Record
from skyloom.storage.schemas import (
    BRIGHTER_FATTER,
    DARK_PAIRS,
    SCHEMAS,
    flat_pairs_schema,
    ptc_schema,
    raw_schema,
)
from skyloom.storage.store import FORMAT_VERSION, Store

PAIRS = ("1-2", "3/4", "5-6")
MakeCurve = Callable[..., xr.Dataset]


def done(store: Store, step: str, **block: str | int) -> None:
    store.write_record(Record(step, block, "done"))


def bare(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset without what the store adds: attributes and block labels."""
    return dataset.drop_attrs()


@pytest.fixture(params=["directory", "memory"])
def either(request: pytest.FixtureRequest, tmp_path: Path, camera: Camera) -> Store:
    """A store on a local directory, and one on an object store."""
    local = request.param == "directory"
    return create_store(tmp_path / "s" if local else f"memory://{uuid.uuid4().hex}", camera)


@pytest.fixture
def curves(store: Store, curve_schema: ProductSchema) -> Store:
    store.prepare(curve_schema, {"detector": ["left", "right"], "pair": PAIRS}, sizes={"lag_y": 3})
    return store


def test_a_new_store_can_be_opened_again(either: Store) -> None:
    assert open_store(either.url).camera == either.camera
    assert open_store(either.url).products() == []
    assert "raw" not in either


def test_the_camera_text_is_kept_word_by_word(store: Store, camera: Camera) -> None:
    assert open_store(store.url).camera.text == camera.text


def test_a_store_is_never_created_over_another(store: Store, camera: Camera) -> None:
    with pytest.raises(StoreError, match="is a store already: open it"):
        create_store(store.url, camera)


def test_a_store_is_never_created_among_other_files(tmp_path: Path, camera: Camera) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not empty"):
        create_store(tmp_path, camera)


def test_a_relative_path_does_not_depend_on_the_working_directory(
    tmp_path: Path, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = create_store("night", camera)
    assert store.url == str(tmp_path / "night")


def test_an_unknown_scheme_is_an_error_with_a_remedy() -> None:
    with pytest.raises(StoreError, match="use a local directory"):
        open_store("gopher://nowhere")


def test_a_store_of_a_newer_version_is_refused(store: Store) -> None:
    from skyloom.storage.layout import group_document

    content = {"format_version": FORMAT_VERSION + 1, "created_by": "skyloom 9", "camera": ""}
    Path(store.url, "zarr.json").write_bytes(group_document(content, {}))
    with pytest.raises(StoreError, match=r"format version 2.*made by skyloom 9: install"):
        open_store(store.url)


def test_a_block_comes_back_as_it_was_written(
    either: Store, curve_schema: ProductSchema, make_curve: MakeCurve
) -> None:
    either.prepare(
        curve_schema,
        {"detector": ["left", "right"], "pair": PAIRS},
        sizes={"lag_y": 3},
        attrs={"model": "exact"},
    )
    data = make_curve(PAIRS, remark=((), 7))
    written = either.write_block("curve", {"detector": "left"}, data)
    assert written > data.nbytes
    found = either.read_block("curve", {"detector": "left"})
    assert found.attrs == {"model": "exact"}
    assert found["mean"].attrs["units"] == "adu"
    assert str(found["detector"].values) == "left"
    xr.testing.assert_identical(
        bare(found.drop_vars(["detector", "lag_y"]))[list(data)], bare(data)
    )


def test_rows_are_placed_by_their_labels(curves: Store, make_curve: MakeCurve) -> None:
    data = make_curve(["5-6", "1-2"], amps=["B"])
    curves.write_block("curve", {"detector": "left"}, data)
    done(curves, "solve", detector="left")
    found = curves["curve"].sel(detector="left").load()
    xr.testing.assert_identical(
        bare(found["mean"].sel(pair=["5-6", "1-2"], amp=["B"]).drop_vars(["detector", "done"])),
        bare(data["mean"]),
    )
    assert np.isnan(found["mean"].sel(amp="A")).all()
    assert (found["status"].sel(pair="3/4") == 255).all()
    # A block knows which amplifiers it has; pairs it does not have stay as "no data".
    block = curves.read_block("curve", {"detector": "left"})
    assert block["amp"].values.tolist() == ["B"]
    assert block["pair"].values.tolist() == list(PAIRS)


def test_only_blocks_with_a_done_record_are_shown(curves: Store, make_curve: MakeCurve) -> None:
    for number, name in enumerate(("left", "right")):
        data = make_curve(PAIRS, seed=number, remark=((), 7))
        curves.write_block("curve", {"detector": name}, data)
    done(curves, "solve", detector="left")
    curves.write_record(Record("solve", {"detector": "right"}, "failed"))
    found = curves["curve"]
    assert found["done"].values.tolist() == [True, False]
    assert np.isfinite(found["mean"].sel(detector="left")).all()
    assert np.isnan(found["mean"].sel(detector="right")).all()
    assert found["remark"].values.tolist() == [7, -1]
    assert curves.done("curve").tolist() == [True, False]


def test_rewriting_a_block_takes_its_record_back_before_the_first_chunk(
    curves: Store, make_curve: MakeCurve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skyloom.storage.chunks import Chunks

    curves.write_block("curve", {"detector": "left"}, make_curve(PAIRS))
    done(curves, "solve", detector="left")

    def die(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Chunks, "write", die)
    with pytest.raises(KeyboardInterrupt):
        curves.write_block("curve", {"detector": "left"}, make_curve(PAIRS, seed=1))
    record = curves.read_record("solve", {"detector": "left"})
    assert record is not None
    assert record.status == "started"
    assert not curves.done("curve").any()


def test_a_dataset_that_does_not_fit_is_refused_with_all_its_problems(
    curves: Store, make_curve: MakeCurve
) -> None:
    data = make_curve(PAIRS).drop_vars("status").assign(extra=1.0)
    data["mean"] = data["mean"].assign_attrs(units="electron")
    data["matrix"] = data["matrix"].rename(lag_y="lag_x")
    with pytest.raises(SchemaError) as caught:
        curves.write_block("curve", {"detector": "left"}, data)
    assert str(caught.value).splitlines() == [
        "a block of 'curve' has 4 problems:",
        "  mean: units are 'electron', must be 'adu'",
        "  status: missing",
        "  matrix: dims are (amp, lag_x), must be (amp, lag_y)",
        "  extra: not a variable of this product",
    ]
    assert curves.records("solve") == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.assign_coords(pair=["1-2", "3/4", "7-8"]), "pair: .'7-8'. are not among"),
        (lambda d: d.assign_coords(pair=["1-2", "1-2", "3/4"]), "pair: labels occur twice"),
        (lambda d: d.drop_vars("pair"), "pair: needs labels"),
        (lambda d: d.isel(lag_y=slice(2)), "lag_y: has 2, the product has 3"),
        (lambda d: d.assign_coords(lag_y=[1, 2, 3]), "lag_y: .3. are not among"),
    ],
)
def test_a_block_that_is_not_aligned_is_refused(
    curves: Store,
    make_curve: MakeCurve,
    change: Callable[[xr.Dataset], xr.Dataset],
    message: str,
) -> None:
    with pytest.raises(SchemaError, match=message):
        curves.write_block("curve", {"detector": "left"}, change(make_curve(PAIRS)))


def test_unknown_blocks_and_products_are_named_with_what_there_is(
    curves: Store, make_curve: MakeCurve
) -> None:
    with pytest.raises(StoreError, match=r"no detector 'middle'; it has 2: 'left', 'right'"):
        curves.write_block("curve", {"detector": "middle"}, make_curve(PAIRS))
    with pytest.raises(StoreError, match="has the dimensions detector, not pair"):
        curves.read_block("curve", {"pair": "1-2"})
    with pytest.raises(KeyError, match="no product 'curves'; it has curve"):
        curves["curves"]


def test_labels_are_appended_and_never_moved(
    curves: Store, curve_schema: ProductSchema, make_curve: MakeCurve
) -> None:
    data = make_curve(PAIRS)
    curves.write_block("curve", {"detector": "left"}, data)
    done(curves, "solve", detector="left")
    curves.prepare(
        curve_schema,
        {"detector": ["right", "middle"], "pair": ["9-10", *PAIRS]},
        sizes={"lag_y": 3},
        attrs={"model": "new"},
    )
    assert curves.labels("curve")["detector"] == ["left", "right", "middle"]
    assert curves.labels("curve")["pair"] == [*PAIRS, "9-10"]
    assert curves.attrs("curve") == {"model": "new"}
    found = curves["curve"].sel(detector="left").load()
    assert np.isnan(found["mean"].sel(pair="9-10")).all()
    np.testing.assert_array_equal(found["mean"].isel(pair=slice(3)), data["mean"])
    # The block still has the pairs it was written with.
    block = curves.read_block("curve", {"detector": "left"})
    assert block["pair"].values.tolist() == list(PAIRS)


def test_a_product_may_outgrow_the_chunk_of_an_older_block(
    store: Store, curve_schema: ProductSchema, make_curve: MakeCurve
) -> None:
    first = [f"p{number}" for number in range(200)]
    more = [f"p{number}" for number in range(700)]
    labels = {"detector": ["left", "right"], "pair": first}
    store.prepare(curve_schema, labels, sizes={"lag_y": 3})
    store.write_block("curve", {"detector": "left"}, make_curve(first))
    done(store, "solve", detector="left")
    store.prepare(curve_schema, {**labels, "pair": more}, sizes={"lag_y": 3})
    store.write_block("curve", {"detector": "right"}, make_curve(more, seed=1))
    done(store, "solve", detector="right")
    found = store["curve"].load()
    np.testing.assert_array_equal(
        found["mean"].sel(detector="left", pair=first), make_curve(first)["mean"]
    )
    np.testing.assert_array_equal(
        found["mean"].sel(detector="right"), make_curve(more, seed=1)["mean"]
    )
    assert store.read_block("curve", {"detector": "left"}).sizes["pair"] == 200


def test_other_sizes_start_the_product_anew(
    curves: Store, curve_schema: ProductSchema, make_curve: MakeCurve
) -> None:
    curves.write_block("curve", {"detector": "left"}, make_curve(PAIRS))
    done(curves, "solve", detector="left")
    labels = {"detector": ["left"], "pair": PAIRS}
    with pytest.raises(StoreError, match="another layout"):
        curves.prepare(curve_schema, labels, sizes={"lag_y": 4}, replace=False)
    assert curves.done("curve").any()
    curves.prepare(curve_schema, labels, sizes={"lag_y": 4})
    assert not curves.done("curve").any()
    assert curves.records("solve") == {}
    assert curves["curve"].sizes["lag_y"] == 4


def test_prepare_may_die_at_any_moment(
    tmp_path: Path, camera: Camera, curve_schema: ProductSchema, make_curve: MakeCurve
) -> None:
    """Count the operations of an extension, then die before each of them in turn."""
    from unittest import mock

    from skyloom.storage import store as module

    for fatal in itertools.count():
        store = create_store(tmp_path / str(fatal), camera)
        labels = {"detector": ["left"], "pair": PAIRS}
        store.prepare(curve_schema, labels, sizes={"lag_y": 3})
        store.write_block("curve", {"detector": "left"}, make_curve(PAIRS))
        done(store, "solve", detector="left")
        more = {"detector": ["left", "right"], "pair": [*PAIRS, "7-8"]}
        calls = itertools.count()

        def dying(function: Callable[..., None]) -> Callable[..., None]:
            def call(*args: object) -> None:
                if next(calls) == fatal:  # noqa: B023
                    raise KeyboardInterrupt
                function(*args)

            return call

        write = type(store._objects).write
        with (
            mock.patch.object(module, "resize_array", dying(module.resize_array)),
            mock.patch.object(type(store._objects), "write", dying(write)),
        ):
            try:
                store.prepare(curve_schema, more, sizes={"lag_y": 3})
                finished = True
            except KeyboardInterrupt:
                finished = False
        again = open_store(store.url)
        np.testing.assert_array_equal(
            again["curve"]["mean"].sel(detector="left", pair=list(PAIRS)),
            make_curve(PAIRS)["mean"],
        )
        again.prepare(curve_schema, more, sizes={"lag_y": 3})
        assert again.labels("curve")["pair"] == [*PAIRS, "7-8"]
        again.write_block("curve", {"detector": "right"}, make_curve(more["pair"]))
        if finished:
            break
    assert fatal == 6  # five arrays and one document


def test_the_first_prepare_may_die_at_any_moment_too(
    tmp_path: Path, camera: Camera, curve_schema: ProductSchema, make_curve: MakeCurve
) -> None:
    from unittest import mock

    from skyloom.storage import store as module

    create = module.create_array
    for fatal in range(5):
        store = create_store(tmp_path / str(fatal), camera)
        calls = itertools.count()

        def dying(*args: object) -> None:
            if next(calls) == fatal:  # noqa: B023
                raise KeyboardInterrupt
            create(*args)  # type: ignore[arg-type]

        labels = {"detector": ["left"], "pair": PAIRS}
        with mock.patch.object(module, "create_array", dying), pytest.raises(KeyboardInterrupt):
            store.prepare(curve_schema, labels, sizes={"lag_y": 3})
        again = open_store(store.url)
        assert again.products() == []
        again.prepare(curve_schema, labels, sizes={"lag_y": 3})
        again.write_block("curve", {"detector": "left"}, make_curve(PAIRS))
        assert again.products() == ["curve"]


def test_contradictory_preparations_name_every_problem(
    store: Store, curve_schema: ProductSchema
) -> None:
    with pytest.raises(SchemaError) as caught:
        store.prepare(curve_schema, {"detector": ["a", "a"], "lag_z": [1]})
    message = str(caught.value)
    for part in ("detector: labels occur twice", "pair: needs labels", "lag_y: needs", "lag_z"):
        assert part in message
    with pytest.raises(SchemaError, match="both numbers and text"):
        store.prepare(curve_schema, {"detector": ["a", 1], "pair": []}, sizes={"lag_y": 1})
    with pytest.raises(TypeError, match=r"text or a whole number, not 1\.5"):
        store.prepare(curve_schema, {"detector": [1.5], "pair": []}, sizes={"lag_y": 1})  # type: ignore[list-item]


def test_several_blocks_are_read_into_one_dataset_in_the_order_asked(
    curves: Store, make_curve: MakeCurve
) -> None:
    for number, name in enumerate(("left", "right")):
        curves.write_block("curve", {"detector": name}, make_curve(PAIRS, seed=number))
    both = curves.read_block("curve", {"detector": ["right", "left"]})
    assert both["mean"].dims == ("detector", "pair", "amp")
    np.testing.assert_array_equal(both["mean"].isel(detector=0), make_curve(PAIRS, seed=1)["mean"])


def test_a_store_travels_to_other_processes_by_its_url(
    curves: Store, make_curve: MakeCurve
) -> None:
    curves.write_block("curve", {"detector": "left"}, make_curve(PAIRS))
    done(curves, "solve", detector="left")
    text = pickle.dumps(curves)
    assert len(text) < 500
    assert pickle.loads(text) is pickle.loads(text)
    lazily = pickle.loads(pickle.dumps(curves["curve"]))
    xr.testing.assert_identical(lazily.load(), curves["curve"].load())


def test_dask_names_follow_the_content(curves: Store, make_curve: MakeCurve) -> None:
    curves.write_block("curve", {"detector": "left"}, make_curve(PAIRS))
    done(curves, "solve", detector="left")
    first, again = curves["curve"]["mean"].data.name, curves["curve"]["mean"].data.name
    assert first == again
    curves.write_block("curve", {"detector": "left"}, make_curve(PAIRS, seed=1))
    done(curves, "solve", detector="left")
    assert curves["curve"]["mean"].data.name != first


def test_opening_computes_nothing(curves: Store) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        opened = curves["curve"]
        opened["mean"].sel(pair="1-2").mean()


def test_a_product_of_sixty_thousand_blocks_opens_as_few_tasks(
    store: Store, curve_schema: ProductSchema
) -> None:
    schema = flat_pairs_schema()
    labels = {"pair": [f"p{n}" for n in range(300)], "detector": [f"d{n}" for n in range(189)]}
    sizes = {"lag_y": 10, "lag_x": 10}
    store.prepare(schema, {**labels, "amp": [f"C{n:02d}" for n in range(16)]}, sizes=sizes)
    opened = store["flat_pairs"]
    assert len(opened.__dask_graph__()) < 300
    assert np.isnan(opened["covariance"].isel(pair=7, detector=100).values).all()


@given(
    shape=st.lists(st.integers(1, 400), min_size=1, max_size=4).map(tuple),
    block_dims=st.integers(1, 3),
)
def test_gathered_chunks_never_exceed_their_limit(shape: tuple[int, ...], block_dims: int) -> None:
    block_dims = min(block_dims, len(shape))
    chunks = gathered_chunks(shape, block_dims, 8)
    assert all(1 <= chunk <= size for chunk, size in zip(chunks, shape, strict=True))
    one = 8 * int(np.prod(shape[block_dims:]))
    assert 8 * int(np.prod(chunks)) <= max(64 * 2**20, one)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_lazy_product_slices_like_the_numbers_it_holds(
    data: st.DataObject, curves: Store, make_curve: MakeCurve
) -> None:
    curves.write_block("curve", {"detector": "right"}, make_curve(PAIRS))
    done(curves, "solve", detector="right")
    opened = curves["curve"]["mean"]
    loaded = opened.load(scheduler="sync")
    key = {
        str(dim): data.draw(
            st.one_of(
                st.integers(0, size - 1),
                st.slices(size),
                st.lists(st.integers(0, size - 1), max_size=3),
            )
        )
        for dim, size in opened.sizes.items()
    }
    xr.testing.assert_identical(curves["curve"]["mean"].isel(key).load(), loaded.isel(key))


def test_plain_zarr_and_xarray_can_read_the_arrays(curves: Store, make_curve: MakeCurve) -> None:
    data = make_curve(PAIRS)
    curves.write_block("curve", {"detector": "left"}, data)
    group = zarr.open_group(curves.url, path="curve", mode="r")
    np.testing.assert_array_equal(group["mean"][0], data["mean"])
    assert group["mean"].metadata.dimension_names == ("detector", "pair", "amp")
    opened = xr.open_zarr(curves.url, group="curve", consolidated=False)
    assert opened["mean"].attrs["units"] == "adu"


def test_the_store_shows_what_it_holds(curves: Store) -> None:
    assert repr(curves).splitlines()[1:] == [
        "  camera: tiny",
        "  curve (detector: 2, pair: 3, amp: 2, lag_y: 3)",
    ]


def test_records_of_a_step_become_a_table(curves: Store) -> None:
    done(curves, "solve", detector="left")
    assert curves.table("solve")["status"].tolist() == ["done"]
    assert curves.compact("solve") == 1
    assert curves.steps() == ["solve"]
    curves.forget("solve")
    assert curves.records("solve") == {}


def test_a_record_left_from_another_layout_marks_nothing(curves: Store) -> None:
    done(curves, "solve", detector="gone")
    done(curves, "solve", pair="1-2")
    assert not curves.done("curve").any()


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)
def test_every_product_survives_as_json_and_documents_itself(schema: ProductSchema) -> None:
    text = json.dumps(schema.to_json(), allow_nan=False)
    assert ProductSchema.from_json(json.loads(text)).to_json() == schema.to_json()
    for name, _, _, _, description in schema.describe():
        assert description, name


def full_block(schema: ProductSchema, sizes: dict[str, int]) -> xr.Dataset:
    variables = {}
    for var in schema.variables:
        dims = [dim for dim in var.dims if dim not in schema.block]
        values = np.ones([sizes[dim] for dim in dims], var.dtype)
        variables[var.name] = (dims, values, {"units": var.unit})
    return xr.Dataset(variables, coords={"amp": ["A", "B"]})


@pytest.mark.parametrize(
    "schema",
    [DARK_PAIRS, flat_pairs_schema(["TEMP"]), ptc_schema(["TEMP"]), BRIGHTER_FATTER],
    ids=lambda schema: schema.name,
)
def test_every_product_can_be_written_and_read(store: Store, schema: ProductSchema) -> None:
    sizes = {"amp": 2, "pair": 3, "lag_y": 4, "lag_x": 4, "kernel_y": 7, "kernel_x": 7}
    sizes |= {"parameter": 6, "parameter_2": 6}
    labels = {"pair": PAIRS, "detector": ["left", "right"]}
    store.prepare(
        schema,
        {dim: found for dim, found in labels.items() if dim in schema.dims},
        sizes={dim: sizes[dim] for dim in schema.dims if dim not in {*labels, "amp"}},
    )
    data = full_block(schema, sizes)
    if "pair" in data.dims:
        data = data.assign_coords(pair=list(PAIRS))
    block = {dim: labels[dim][1] for dim in schema.block}
    store.write_block(schema.name, block, data)
    found = store.read_block(schema.name, block)
    for name, variable in data.data_vars.items():
        np.testing.assert_array_equal(found[name], variable)
        assert found[name].dtype == variable.dtype
    done(store, schema.name, **block)
    assert store[schema.name]["done"].sum() == 1


def test_raw_blocks_keep_their_scalar_coordinates(store: Store) -> None:
    store.prepare(
        raw_schema("uint16"),
        {"exposure": [1, 2], "detector": ["left", "right"]},
        sizes={"y": 6, "x": 20},
    )
    raw = xr.Dataset(
        {"image": (("y", "x"), np.arange(60, dtype="uint16").reshape(5, 12), {"units": "adu"})},
        coords={
            "exposure_time": ((), 1.5, {"units": "s"}),
            "mjd_start": np.nan,
            "observation_type": "flat",
            "amp": ["A", "B"],
            "header_read_noise": ("amp", [1.0, np.nan]),
        },
    )
    store.write_block("raw", {"exposure": 2, "detector": "left"}, raw)
    found = store.read_block("raw", {"exposure": 2, "detector": "left"})
    xr.testing.assert_identical(
        found.drop_vars(["exposure", "detector"])["image"].drop_attrs(), raw["image"].drop_attrs()
    )
    assert found["exposure_time"].attrs == {"units": "s"}
    np.testing.assert_array_equal(found["header_read_noise"], [1.0, np.nan])
    # The detector is smaller than the product: what is beyond it must not look dark.
    assert (
        store.chunks("raw").read("image", [np.array([1]), np.array([0])])[0, 0, 5] == 65535
    ).all()


def test_coordinates_that_take_too_much_room_are_refused(store: Store) -> None:
    store.prepare(
        raw_schema("uint16"), {"exposure": [1], "detector": ["left"]}, sizes={"y": 1, "x": 1}
    )
    raw = xr.Dataset(
        {"image": (("y", "x"), np.ones((1, 1), "uint16"), {"units": "adu"})},
        coords={"remark": "x" * 9000},
    )
    with pytest.raises(SchemaError, match="keep fewer"):
        store.write_block("raw", {"exposure": 1, "detector": "left"}, raw)


def test_a_schema_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="must start with") as caught:
        ProductSchema("bad", ("a", "b"), ("a",), (Variable("x", ("b",)), Variable("x", ("a",))))
    assert "x is defined twice" in str(caught.value)
    with pytest.raises(KeyError, match="has no variable 'gian'"):
        ptc_schema().variable("gian")
    with pytest.raises(ValueError, match="dtype must be one of"):
        raw_schema("float64")


def test_a_changed_schema_is_another_layout(curves: Store, curve_schema: ProductSchema) -> None:
    changed = replace(curve_schema, version=2)
    curves.prepare(changed, {"detector": ["left"], "pair": PAIRS}, sizes={"lag_y": 3})
    assert curves.schema("curve").version == 2


def test_two_writers_of_different_blocks_never_meet(curves: Store, make_curve: MakeCurve) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def write(name: str, seed: int) -> None:
        opened = pickle.loads(pickle.dumps(curves))
        for _ in range(10):
            opened.write_block("curve", {"detector": name}, make_curve(PAIRS, seed=seed))
        done(opened, "solve", detector=name)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ("left", "right"), (1, 2)))
    found = curves["curve"].load()
    for seed, name in ((1, "left"), (2, "right")):
        np.testing.assert_array_equal(
            found["mean"].sel(detector=name), make_curve(PAIRS, seed=seed)["mean"]
        )


def test_interrupted_writes_leave_no_partial_files_in_listings(store: Store) -> None:
    objects = store._objects
    Path(store.url, "records").mkdir()
    Path(store.url, "records", "x.0123.partial").write_text("half")
    assert objects.names("records") == []

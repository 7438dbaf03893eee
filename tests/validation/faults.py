"""Bad input and damage: what is promised of each, and the tests that hold it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from skyloom.algorithms.errors import ChecksumError
from skyloom.storage.store import Store
from tests.validation.by_test import rows_of_tests
from tests.validation.rows import Row
from tests.validation.stores import ingested_night, small_flow

FLIPS = 200
PAIRS = "tests/algorithms/photon_transfer/test_pair_failures.py::test_"
PAIRING = "tests/algorithms/photon_transfer/test_pairing.py::test_"
VALUES = "tests/algorithms/photon_transfer/test_pair_values.py::test_"
SOLVE = "tests/algorithms/photon_transfer/test_solve.py::test_"
TURNOFF = "tests/algorithms/photon_transfer/test_turnoff.py::test_"
INGEST = "tests/storage/test_ingest.py::test_"
STORE = "tests/storage/test_store.py::test_"
CAMERA = "tests/storage/test_camera.py::test_"
MEDIA = "tests/flows/test_media.py::test_"
FLOW = "tests/flows/test_photon_transfer_flow.py::test_"
INTEGRITY = "tests/storage/test_integrity.py::test_"

PROMISES: tuple[tuple[str, str, str], ...] = (
    ("one exposure at a time", "warning, UNPAIRED, no pair row",
     PAIRING + "one_exposure_at_a_time_is_unpaired_with_a_warning_and_no_row"),
    ("three at one time", "pair of the first two, third EXTRA, warning with ids",
     PAIRING + "of_three_exposures_at_one_time_the_third_is_extra"),
    ("NaN or missing flux of 3 exposures", "three NONFINITE_KEY, one warning listing all",
     PAIRING + "every_missing_flux_is_reported_in_one_warning"),
    ("pairs by id, the 5th exposure lost", "MEAN_MISMATCH on later pairs, warning names the id",
     PAIRING + "a_lost_fifth_exposure_is_named_where_the_mismatch_starts"),
    ("saturated pixels in one flat only", "OK, fewer pixels",
     PAIRS + "pixels_saturated_in_one_flat_only_are_left_out_of_the_pair"),
    ("lags beyond half the region", "ValueError before any compute",
     PAIRS + "lags_beyond_half_the_region_are_refused_before_any_compute"),
    ("amplifier fully masked", "ILLEGAL_MEAN, others unaffected, one warning a pair",
     PAIRS + "an_amplifier_fully_masked_leaves_the_others_alone_and_warns_once"),
    ("identical flats", "NONFINITE_STAT, weight 0",
     PAIRS + "identical_flats_have_no_variance_and_no_weight"),
    ("rows 0-189 of 204 NaN", "TOO_FEW_PIXELS, warning with the counts",
     VALUES + "too_few_pixels_keep_the_mean_and_warn_with_the_counts"),
    ("a corner of 9 x 5 valid pixels", "EMPTY_LAG",
     VALUES + "a_corner_smaller_than_the_lags_has_empty_lags"),
    ("all NaN", "ILLEGAL_MEAN, everything NaN",
     VALUES + "nothing_but_nan_is_an_illegal_mean"),
    ("gain method unknown", "ValueError listing the choices",
     "tests/algorithms/photon_transfer/test_pair_gain.py::"
     "test_unknown_methods_and_missing_ratios_are_errors"),
    ("units that contradict", "ValueError naming them",
     PAIRS + "shapes_units_and_methods_that_do_not_fit_are_named"),
    ("all points above the first-fit limit", "AMP_BAD, message with limit and least mean",
     SOLVE + "points_above_the_limit_of_the_first_legacy_fit_make_an_amplifier_bad"),
    ("no iterations of the legacy fit", "one fit, no exception",
     SOLVE + "legacy_without_iterations_is_a_single_fit"),
    ("fewer than 5 usable pairs", "AMP_BAD with the counts",
     SOLVE + "too_few_pairs_make_an_amplifier_bad_with_the_counts_in_the_warning"),
    ("more lags fitted than measured, and other misuse of the solve", "ValueError",
     SOLVE + "misuse_is_refused_before_any_fit"),
    ("variance of the last pair but one x 0.9, last pair NaN", "turn-off at the third from last",
     TURNOFF + "a_low_variance_and_a_missing_point_end_the_curve_before_them"),
    ("truncated FITS", "rejected by name, the others go on",
     INGEST + "a_truncated_file_is_rejected"),
    ("damaged FITS", "never more than rejected", INGEST + "a_damaged_file_is_never_more_than"
     "_rejected"),
    ("FITS with NaN", "pixels kept as NaN", INGEST + "nan_pixels_are_kept"),
    ("FITS of nothing but NaN", "costs that detector",
     INGEST + "an_image_of_nothing_but_nan_costs_one_detector"),
    ("wrong shape", "costs that detector, named", INGEST + "a_wrong_shape_costs_one_detector"),
    ("missing EXPTIME, wrong or missing keys", "rejected with file, key and remedy",
     INGEST + "a_bad_header_is_rejected_by_file_key_and_remedy_and_the_rest_goes_on"),
    ("duplicate exposure", "rejected by name",
     INGEST + "another_exposure_with_the_same_id_is_rejected_by_name"),
    ("unreadable file", "rejected by name", INGEST + "an_unreadable_file_is_rejected"),
    ("files that are not FITS", "rejected by name", INGEST + "files_that_are_not_fits_are"
     "_rejected"),
    ("camera file with overlapping amplifiers, unknown keys", "every mistake with its line",
     CAMERA + "every_mistake_is_told_at_once_with_its_line"),
    ("unknown configuration key", "file, line, key and what was probably meant",
     "tests/flows/test_configuration.py::"
     "test_all_problems_are_told_at_once_with_file_line_path_and_suggestion"),
    ("store of a newer version", "refused, naming both versions and the remedy",
     STORE + "a_store_of_a_newer_version_is_refused"),
    ("read-only store", "read as ever; a run refuses before it computes",
     MEDIA + "a_read_only_store_is_read_and_refuses_to_be_written"),
    ("full disk", "blocks fail by name; done when there is room",
     MEDIA + "a_full_disk_fails_blocks_by_name_and_the_rest_is_done_when_there_is_room"),
    ("medium that runs full at any write", "nothing half-written counts as done",
     INTEGRITY + "a_medium_that_runs_full_leaves_nothing_that_counts_as_done"),
    ("a damaged raw chunk", "costs its pair, the rest is made",
     FLOW + "a_damaged_exposure_costs_its_pair_and_nothing_else"),
    ("an exposure without one detector", "named as what blocks its pair",
     FLOW + "an_exposure_that_lacks_a_detector_is_named_as_what_blocks_its_pair"),
    ("flipped bytes in every chunk of a small store", "error naming product and chunk",
     INTEGRITY + "a_flipped_byte_anywhere_in_any_chunk_is_an_error_that_names_it"),
    ("any other damage to a chunk", "noticed", INTEGRITY + "any_damage_to_any_chunk_is_noticed"),
    ("a missing chunk", "error naming it",
     INTEGRITY + "a_missing_chunk_of_a_done_block_is_an_error_that_names_it"),
)  # fmt: skip
"""What goes wrong, what must happen, and the test that makes it happen."""


def _flipped_bytes(store: Store) -> Row:
    """Flip a random bit of random chunks, one at a time, and read their arrays."""
    chunks = sorted(path for path in Path(store.url).rglob("c/**/*") if path.is_file())
    rng = np.random.default_rng(1)
    named = 0
    for index in rng.choice(len(chunks), min(FLIPS, len(chunks)), replace=False):
        path = chunks[index]
        product, _, chunk = path.relative_to(store.url).as_posix().split("/", 2)
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[rng.integers(len(intact))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            _read(store, product)
        except ChecksumError as error:
            named += repr(product) in str(error) and f"chunk {chunk} is damaged" in str(error)
        finally:
            path.write_bytes(intact)
    tried = min(FLIPS, len(chunks))
    return Row(
        f"one flipped bit in a random byte of {tried} of the {len(chunks)} chunks of a whole run",
        "each an error naming product and chunk", f"{named} of {tried}", named == tried,
    )  # fmt: skip


def _read(store: Store, product: str) -> None:
    """Read every block that is done, as the next task would."""
    for record in store.records(store.chunks(product).layout.step).values():
        if record.done:
            store.read_block(product, record.block)


def measure() -> list[Row]:
    """Return the rows of this topic."""
    tests = list(dict.fromkeys(test for _, _, test in PROMISES))
    found = rows_of_tests(*tests)
    rows = []
    for what, target, test in PROMISES:
        file, name = test.split("::")
        sentence = f"{Path(file).stem}: {name.removeprefix('test_').replace('_', ' ')}"
        mine = [r for r in found if r.what == sentence or r.what.startswith(sentence + "[")]
        good = sum(row.met for row in mine)
        rows.append(
            Row(what, target, f"{good} of {len(mine)} cases", bool(mine) and good == len(mine))
        )
    with tempfile.TemporaryDirectory() as name:
        raw = ingested_night(Path(name))
        flow = small_flow(raw)
        flow.run(progress=False)
        rows.append(_flipped_bytes(flow.store))
    return rows

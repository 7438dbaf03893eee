"""The command ``skyloom``.

Nothing heavy is imported before a command runs, so that help is there at once. Exit codes: 0 all
is well, 1 some blocks or files failed (each is named), 2 the command could not be carried out.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from skyloom.algorithms.errors import ConfigurationError, SkyloomError, StoreError
from skyloom.flows.environment import set_environment

if TYPE_CHECKING:
    from pydantic import BaseModel

    from skyloom.flows.flow import Flow
    from skyloom.storage.store import Store

__all__ = ["app", "main"]

INTERRUPTED = 130


class Commands(TyperGroup):
    """Commands whose failures are one clean message instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; turn errors raised on purpose into exit code 2."""
        try:
            return super().invoke(ctx)
        except SkyloomError as error:
            typer.secho(f"error: {error}", err=True, fg="red")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo(
                "interrupted: what is finished stays finished; run again to do the rest", err=True
            )
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=Commands,
    name="skyloom",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Survey-grade CCD calibration over xarray, Dask and Zarr.",
)
camera_app = typer.Typer(no_args_is_help=True, help="Describe cameras and check them on files.")
config_app = typer.Typer(no_args_is_help=True, help="Show and check configurations.")
app.add_typer(camera_app, name="camera")
app.add_typer(config_app, name="config")


class FlowName(StrEnum):
    """The flows there are."""

    photon_transfer = "photon_transfer"
    biases_darks = "biases_darks"
    flat_normalization = "flat_normalization"
    detrend = "detrend"
    sky_frames = "sky_frames"
    warps = "warps"
    match_backgrounds = "match_backgrounds"
    coadds = "coadds"
    dcr_coadds = "dcr_coadds"


class Configurable(StrEnum):
    """What has a configuration file."""

    photon_transfer = "photon_transfer"
    biases_darks = "biases_darks"
    flat_normalization = "flat_normalization"
    detrend = "detrend"
    sky_frames = "sky_frames"
    warps = "warps"
    match_backgrounds = "match_backgrounds"
    coadds = "coadds"
    dcr_coadds = "dcr_coadds"
    scheduler = "scheduler"


StoreUrl = Annotated[str, typer.Argument(help="directory or URL of the store", metavar="STORE")]
Name = Annotated[FlowName, typer.Argument(help="name of the flow", metavar="FLOW")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file with what differs from the defaults")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="one value, e.g. extract.lags=8; may be repeated", metavar="A.B=C"),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", help="threads, processes, a scheduler file, or an address"),
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="tasks at a time")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
LogFile = Annotated[
    Path | None, typer.Option("--log", help="append one JSON line per block to this file")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for machines")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"skyloom {version('skyloom')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Take the options that belong to no command."""


def _open(url: str) -> Store:
    from skyloom.storage import open_store

    return open_store(url)


def _configuration_model(name: str) -> type[BaseModel]:
    if name == Configurable.scheduler:
        from skyloom.flows.scheduler import SchedulerConfiguration

        return SchedulerConfiguration
    from skyloom.flows.catalogue import configuration_model

    return configuration_model(name)


def _flow(url: str, name: FlowName, config: Path | None, overrides: list[str] | None) -> Flow:
    """Return a flow; the configuration is checked before the store is opened."""
    from skyloom.flows.catalogue import configuration_model, flow_maker
    from skyloom.flows.configuration import load_configuration

    configuration = load_configuration(configuration_model(name), config, overrides or ())
    flow = flow_maker(name)(_open(url), configuration)
    for note in flow.notes:
        typer.echo(f"note: {note}", err=True)
    return flow


def _log(path: Path | None) -> None:
    if path is not None:
        from skyloom.flows.progress import log_to

        log_to(path)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="a new directory for files and products")],
    sky: Annotated[
        bool, typer.Option("--sky", help="a night of sky instead of flats, in DIRECTORY/sky")
    ] = False,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Simulate flats with known truth, measure them, compare, write a report."""
    progress = False if quiet else None
    if sky:
        from skyloom.flows.sky_demo import run_sky_demo

        night = run_sky_demo(directory / "sky", workers=workers, progress=progress)
        raise typer.Exit(night.exit_code)
    from skyloom.flows.demo import run_demo

    result = run_demo(directory, workers=workers, progress=progress)
    raise typer.Exit(result.exit_code)


@camera_app.command("list")
def camera_list() -> None:
    """List the cameras that come along."""
    from skyloom.storage.camera import camera_names, load_camera

    for name in camera_names():
        typer.echo(f"{name}: {load_camera(name).description}")


@camera_app.command("show")
def camera_show(name: Annotated[str, typer.Argument(help="name or file of a camera")]) -> None:
    """Print the description of a camera, to start your own from."""
    from skyloom.storage.camera import load_camera

    typer.echo(load_camera(name).text, nl=False)


@camera_app.command("check")
def camera_check(
    camera: Annotated[str, typer.Argument(help="name or file of a camera")],
    files: Annotated[list[Path] | None, typer.Argument(help="FITS files or directories")] = None,
) -> None:
    """Check a camera, alone and against FITS files of it."""
    from skyloom.storage.camera import load_camera
    from skyloom.storage.camera_check import check_camera

    found = load_camera(camera)
    problems = check_camera(found, files) if files else []
    for problem in _each_once(problems):
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    amps = sum(len(detector.amplifiers) for detector in found.detectors)
    typer.echo(f"{found.name}: {len(found.detectors)} detectors, {amps} amplifiers: all is well")


def _each_once(problems: list[str]) -> list[str]:
    """Return the problems of files, each with the first file that has it: nights have hundreds."""
    first: dict[str, str] = {}
    count: dict[str, int] = {}
    for problem in problems:
        what = problem.partition(": ")[2]
        first.setdefault(what, problem)
        count[what] = count.get(what, 0) + 1
    return [
        line if count[what] == 1 else f"{line} (and so in {count[what] - 1} more)"
        for what, line in first.items()
    ]


@app.command()
def ingest(
    store: StoreUrl,
    files: Annotated[list[Path], typer.Argument(help="FITS files or directories")],
    camera: Annotated[
        str | None, typer.Option("--camera", help="name or file; needed for a new store")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="let files replace exposures of other content")
    ] = False,
    scheduler: SchedulerOption = None,
    workers: Workers = None,
    quiet: Quiet = False,
    log: LogFile = None,
) -> None:
    """Copy FITS files into a store, which is created if need be."""
    from skyloom.flows.ingest_flow import ingest as ingest_files

    _log(log)
    opened = _open_or_create(store, camera)
    summary = ingest_files(
        opened,
        files,
        scheduler=scheduler,
        workers=workers,
        progress=False if quiet else None,
        replace_existing=replace,
    )
    typer.echo(str(summary))
    raise typer.Exit(summary.exit_code)


def _open_or_create(url: str, camera: str | None) -> Store:
    from skyloom.storage.camera import load_camera
    from skyloom.storage.store import create_store, open_store

    wanted = load_camera(camera) if camera else None
    try:
        store = open_store(url)
    except StoreError as error:
        if wanted is None:
            raise StoreError(f"{error} with --camera") from error
        return create_store(url, wanted)
    if wanted and wanted.text != store.camera.text:
        raise ConfigurationError(
            f"{store.url} was made for the camera {store.camera.name!r} as it was then, and "
            f"{camera} is another: use a new store, or leave --camera out"
        )
    return store


@app.command()
def plan(
    store: StoreUrl,
    flow: Name,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do and why, without doing it."""
    from skyloom.flows.plan import plan_text

    found = _flow(store, flow, config, overrides).plan()
    typer.echo(plan_text(found) if as_json else str(found), nl=as_json)


@app.command()
def run(
    store: StoreUrl,
    flow: Name,
    config: ConfigFile = None,
    overrides: Overrides = None,
    redo: Annotated[
        list[str] | None,
        typer.Option(
            "--redo", help="make this step again though it is done; may be repeated", metavar="STEP"
        ),
    ] = None,
    scheduler: SchedulerOption = None,
    workers: Workers = None,
    quiet: Quiet = False,
    log: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Make everything that is not there or not up to date."""
    _log(log)
    summary = _flow(store, flow, config, overrides).run(
        scheduler=scheduler,
        workers=workers,
        progress=False if quiet else None,
        redo=redo or (),
    )
    typer.echo(json.dumps(summary.to_json(), indent=1) if as_json else str(summary))
    raise typer.Exit(summary.exit_code)


@app.command()
def status(store: StoreUrl, as_json: AsJson = False) -> None:
    """Say what a store holds and what failed; reads records only."""
    from skyloom.flows.summary import store_status

    found = store_status(_open(store))
    typer.echo(json.dumps(found.to_json(), indent=1) if as_json else str(found))
    raise typer.Exit(found.exit_code)


@app.command()
def report(
    store: StoreUrl,
    flow: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write")] = Path(
        "report.html"
    ),
) -> None:
    """Write the report of a flow, one HTML page that needs nothing else."""
    from skyloom.flows.flow import write_report

    typer.echo(str(write_report(flow.value, _open(store), output)))


@app.command()
def export(
    store: StoreUrl,
    product: Annotated[str, typer.Argument(help="name of the product")],
    path: Annotated[Path, typer.Argument(help="file to write")],
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="ecsv, csv, parquet, fits or reference; by the file's ending if not given",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace files that exist")
    ] = False,
) -> None:
    """Write a product in a format that others read."""
    from skyloom.storage.exports import export as export_product

    opened = _open(store)
    try:
        written = export_product(opened, product, path, file_format, overwrite=overwrite)
    except (KeyError, ValueError) as error:
        # Arguments of the function, but here words of the user.
        raise ConfigurationError(error.args[0]) from error
    for each in written:
        typer.echo(str(each))


@app.command()
def template(
    store: StoreUrl,
    path: Annotated[Path, typer.Argument(help="FITS file to write", metavar="OUT.fits")],
    altitude: Annotated[float, typer.Option(help="altitude of the patch's centre, degree")],
    parallactic_angle: Annotated[
        float,
        typer.Option(help="position angle of the zenith there, degree, north through east"),
    ],
    tract: Annotated[int | None, typer.Option(help="tract, where there are several")] = None,
    patch: Annotated[int | None, typer.Option(help="patch, where there are several")] = None,
    band: Annotated[str | None, typer.Option(help="filter, where there are several")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="of the air, Celsius; the median of visits if not given")
    ] = None,
    pressure: Annotated[float | None, typer.Option(help="of the air, Pa; likewise")] = None,
    humidity: Annotated[float | None, typer.Option(help="of the air, %; likewise")] = None,
    seeing: Annotated[
        float | None,
        typer.Option(help="FWHM of stars, arcsec; that of the sharpest visit if not given"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a file")] = False,
) -> None:
    """Predict a patch at an altitude and parallactic angle, from its chromatic coadd."""
    from skyloom.flows.captured_warnings import captured_warnings
    from skyloom.flows.templates import write_template

    with captured_warnings() as caught:
        written = write_template(
            _open(store),
            path,
            altitude=altitude,
            parallactic_angle=parallactic_angle,
            tract=tract,
            patch=patch,
            band=band,
            temperature=temperature,
            pressure=pressure,
            humidity=humidity,
            seeing=seeing,
            overwrite=overwrite,
        )
    for text in caught:
        typer.echo(f"warning: {text.partition(': ')[2]}", err=True)
    typer.echo(str(written))


@config_app.command("default")
def config_default(
    what: Annotated[Configurable, typer.Argument(help="flow, or scheduler")],
) -> None:
    """Print a file with every default and what it means."""
    from skyloom.flows.configuration import default_text

    if what is Configurable.scheduler:
        from skyloom.flows.scheduler import Threads

        typer.echo(default_text(Threads), nl=False)
        return
    typer.echo(default_text(_configuration_model(what)), nl=False)


@config_app.command("show")
def config_show(
    what: Annotated[Configurable, typer.Argument(help="flow, or scheduler")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Print the configuration that a run would use."""
    from skyloom.flows.configuration import load_configuration, model_text

    found = load_configuration(_configuration_model(what), config, overrides or ())
    typer.echo(model_text(found), nl=False)


@config_app.command("check")
def config_check(
    what: Annotated[Configurable, typer.Argument(help="flow, or scheduler")],
    file: Annotated[Path, typer.Argument(help="YAML file")],
    overrides: Overrides = None,
) -> None:
    """Check a file; list everything that is wrong with its line."""
    from skyloom.flows.configuration import load_configuration

    load_configuration(_configuration_model(what), file, overrides or ())
    typer.echo(f"{file}: all is well")


def main() -> None:
    """Run the command line."""
    set_environment()
    app()

"""Commands on other places: asking them, and what of them is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foundation.printable import printable
from pipeline.command_line.options import AsJson, Quiet
from pipeline.console import error_console, observer_of, print_result


def verify(
    source: Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="a run folder, or an ONNX file of ours")],
    on: Annotated[str, typer.Option("--on", help="places, with commas between: see `edgeproof places`")],
    variant: Annotated[list[str] | None, typer.Option(help="of a run: only this file; may be repeated")] = None,
    images: Annotated[Path | None, typer.Option(help="of a model: a folder of images, without labels")] = None,
    limit: Annotated[int, typer.Option(min=1, help="images to ask about, at most")] = 200,
    maps: Annotated[int, typer.Option(min=0, help="of them, those that each saliency twin explains")] = 16,
    stall: Annotated[float, typer.Option(min=1, help="seconds without a sign of life: the place has hung")] = 300,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ask the same files on other processors and runtimes, and hold what they answer against here."""
    from foundation.errors import UsageError
    from foundation.run_folder import RunFolder
    from pipeline.places.of_run import known_places, verify_file, verify_run
    from pipeline.places.text import exit_code_of_places, notes_of, places_json, places_table
    from stages.validate.places.settings import PlacesSettings

    settings = PlacesSettings(at=known_places(on), images=limit, maps=maps, stall_s=stall)
    observer, of_run = observer_of(quiet), None
    if not source.exists():
        raise UsageError(f"{source}: expected a run folder or an ONNX file, found nothing. Check the path.")
    if source.is_dir():
        if images is not None:
            raise UsageError("--images: expected none with a run, which has its own. Leave it out.")
        record, found = verify_run(RunFolder(source), settings, tuple(variant or ()), observer)
        of_run = record.exit_code
    elif images is None:
        raise UsageError(f"{source}: expected --images, a folder to ask the file about, found none. Add it.")
    else:
        found = verify_file(source, images, settings, observer)
    exit_code = exit_code_of_places(found, of_run)
    if as_json:
        print_result(places_json(found, exit_code))
    else:
        print_result(places_table(found))
        for line in notes_of(found):
            error_console().print(line, highlight=False, markup=False)
    raise typer.Exit(exit_code)


def places(
    install: Annotated[
        list[str] | None, typer.Option(help="install this place into the user's cache folder; `all` for each")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show where files can be verified, what is installed, and how to install the rest."""
    from pipeline.places.installed import install_places, installed, places_overview

    failed = install_places(install, observer_of(False)) if install else False
    found = installed()
    if as_json:
        print_result([one.as_json() for one in found])
    else:
        print_result(places_overview(found))
        for one in found:
            if one.why_not is not None:
                error_console().print(printable(f"✗ {one.why_not}"), highlight=False, markup=False)
    raise typer.Exit(3 if failed else 0)

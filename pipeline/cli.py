"""The command line: its commands in their order, its way to end; whatever computes is imported when it is needed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated

import typer

from foundation.errors import EdgeproofError, ExitCode, UsageError
from pipeline.command_line import configured, exports, finished, places, tools
from pipeline.console import error_console, fail
from pipeline.endings import InterruptedBySignal, end_now, end_on_signals

app = typer.Typer(
    help="Compile an image classifier for an edge device, and prove what the compilation did to it.",
    epilog="Exit codes: 0 all gates passed · 1 a gate failed · 2 wrong usage or input · 3 evidence incomplete.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from foundation.versions import installed_version

        print(f"edgeproof {installed_version('edgeproof') or '(not installed)'}")
        raise typer.Exit(0)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="print the version and end", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    if debug:
        os.environ["EDGEPROOF_DEBUG"] = "1"


for _command in (
    configured.demo,
    configured.init,
    configured.run,
    configured.plan,
    configured.train,
    configured.export,
    configured.quantize,
    configured.validate,
    tools.twin,
    finished.report,
    finished.check,
    finished.sign,
    finished.nightly,
    finished.accept,
    finished.compare,
    finished.bundle,
    places.verify,
    places.places,
    exports.export_mlflow,
    exports.export_dicom,
    tools.doctor,
):
    app.command()(_command)
app.command("import")(finished.import_device)  # a word of Python's


def _say(line: str) -> None:
    with suppress(OSError):  # a terminal that hung up
        error_console().print(line, highlight=False)


def _refuse_empty_arguments(arguments: list[str]) -> None:
    """An empty path would be the working directory."""
    for argument, before in zip(arguments, ("", *arguments), strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            raise UsageError(
                f"{argument or before or 'edgeproof'}: expected a value, found nothing. "
                "Is a variable of the shell empty?"
            )


def main() -> None:
    """Run the command line; every expected error is one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks "≥" gets its escape, not a traceback
            stream.reconfigure(errors="backslashreplace")
    end_on_signals(_say)
    try:
        _refuse_empty_arguments(sys.argv[1:])
        app()
    except InterruptedBySignal as interrupted:
        end_now(interrupted, _say)
    except EdgeproofError as error:
        fail(error, str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}the operating system refused ({error.strerror or error}). Mend that and run again."
        fail(error, message, ExitCode.INCOMPLETE)
    except Exception as error:
        message = (
            f"an unexpected {type(error).__name__}: {error}. Run it again with `edgeproof --debug` and report it."
        )
        fail(error, message, ExitCode.INCOMPLETE)

"""The command line: the only place that catches errors, and turns them into exit codes.

0 done, 2 bad input, 3 a gate failed, 130 interrupted (what was finished stays).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import typer

from compress.cli.inspection import app as inspection
from compress.cli.searching import app as searching
from compress.cli.stages import app as stages
from models.errors import CompressError, GateFailed

EXIT_BAD_INPUT = 2
EXIT_GATE_FAILED = 3
EXIT_INTERRUPTED = 130
# Typer carries its own copy of click; the ancestor of BadParameter and UsageError is the one it raises.
USAGE_ERRORS: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="compress",
    help=(
        "Make a trained Transformer small and fast, and prove that it is still right: distil, prune, quantize and "
        "export to ONNX Runtime, with accuracy and speed gates between."
    ),
    epilog="Start with `compress init`, or see it work on built-in data: `compress run demo`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for group in (stages, searching, inspection):
    app.registered_commands += group.registered_commands


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),  # noqa: FBT001, FBT003
) -> None:
    if version:
        from compress import __version__

        typer.echo(f"compress {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(EXIT_BAD_INPUT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(words, standalone_mode=False)
    except USAGE_ERRORS as error:
        error.show()  # type: ignore[attr-defined]
        sys.exit(EXIT_BAD_INPUT)
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except CompressError as error:
        _complain(error, words)
        sys.exit(EXIT_GATE_FAILED if isinstance(error, GateFailed) else EXIT_BAD_INPUT)
    except OSError as error:
        # A full disk, a missing permission: the system's own words say what and where.
        _complain(CompressError(error.strerror or str(error), where=error.filename and str(error.filename)), words)
        sys.exit(EXIT_BAD_INPUT)
    if code == EXIT_INTERRUPTED:  # which some releases of typer return for an interrupt, and others raise
        _say("Interrupted. What was finished is kept; run the same command again to go on.", words)
    sys.exit(code if isinstance(code, int) else 0)


def _say(text: str, words: list[str]) -> None:
    typer.echo(json.dumps({"error": {"what": text}}) if "--json" in words else text, err=True)


def _complain(error: CompressError, words: list[str]) -> None:
    if "--json" in words:
        kind = type(error).__name__
        told = {"kind": kind, "what": error.what, "where": error.where, "fix": error.fix}
        typer.echo(json.dumps({"error": told}), err=True)  # a failed run's report is on stdout
        return
    from compress.cli.render import print_error

    print_error(error)

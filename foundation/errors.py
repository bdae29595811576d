"""The ways a run ends other than well, each with its exit code."""

from __future__ import annotations

from enum import IntEnum

from foundation.printable import printable_lines, shortened

LONGEST_MESSAGE = 3000
"""Characters; what a message quotes out of a damaged file may be as long as the file."""


class ExitCode(IntEnum):
    """What the process tells its caller."""

    PASSED = 0
    """Every gate passed."""
    GATE_FAILED = 1
    """The evidence is complete and at least one gate failed."""
    USAGE = 2
    """Wrong usage, configuration or input; nothing was started or nothing could be finished."""
    INCOMPLETE = 3
    """A stage failed, or a measurement that a gate needs is missing."""


class EdgeproofError(Exception):
    """An error that a user can mend; its message says what was expected, what was found and what to do."""

    exit_code = ExitCode.USAGE

    def __str__(self) -> str:
        """Return the message; what it quotes from a file's name or content commands no terminal, and floods none."""
        return shortened(printable_lines(super().__str__()), LONGEST_MESSAGE)


class UsageError(EdgeproofError):
    """A wrong command, configuration, path or input file."""


class DiskError(UsageError):
    """The file system refused a write: no fault of a stage, and no other stage would fare better."""


class StageError(EdgeproofError):
    """A stage could not do its work on inputs that were accepted."""

    exit_code = ExitCode.INCOMPLETE


class NotMeasuredError(StageError):
    """Something that the evidence needs is not installed or not supported on this machine."""

"""The ways a run ends other than well, each with its exit code."""

from __future__ import annotations

import re
from enum import IntEnum


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
        """Return the message; a control character from a file's name or content cannot command the terminal."""
        return re.sub(
            r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", lambda found: ascii(found[0])[1:-1], super().__str__()
        )


class UsageError(EdgeproofError):
    """A wrong command, configuration, path or input file."""


class DiskError(UsageError):
    """The file system refused a write: no fault of a stage, and no other stage would fare better."""


class StageError(EdgeproofError):
    """A stage could not do its work on inputs that were accepted."""

    exit_code = ExitCode.INCOMPLETE


class NotMeasuredError(StageError):
    """Something that the evidence needs is not installed or not supported on this machine."""

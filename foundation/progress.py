"""What a person sees while a run is under way: one bar per long stage, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from foundation.printable import printable, printable_lines

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.progress import Progress as Bars

Progress = Callable[[int, int], None]
"""Called with what is done and the total."""


def no_progress(done: int, total: int) -> None:
    """Tell nobody."""


class Observer(Protocol):
    """Whoever watches a run."""

    def stage(self, title: str) -> AbstractContextManager[Progress]:
        """Announce a stage; what is yielded takes its progress."""

    def say(self, text: str) -> None:
        """Tell something worth a line."""


class Silent:
    """Watches nothing."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Progress]:
        """Yield a function that ignores its arguments."""
        yield no_progress

    def say(self, text: str) -> None:
        """Say nothing."""


class Terminal:
    """Bars and lines on a rich console; without a terminal, one line per finished stage."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, title: str) -> Iterator[Progress]:
        """Show a bar while the block runs, on a terminal, and a line with its seconds when it ends well."""
        title = printable(title)
        started = time.perf_counter()
        if self._console.is_terminal:
            with self._bars() as bars:
                task = bars.add_task(title, total=None)
                yield lambda done, total: bars.update(task, completed=done, total=total)
        else:
            yield no_progress
        seconds = time.perf_counter() - started
        self._console.print(f"[green]✓[/] {title} [dim]{seconds:.1f} s[/]", highlight=False)

    def _bars(self) -> Bars:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        return Bars(*columns, console=self._console, transient=True)

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(printable_lines(text), highlight=False, markup=False)

"""What a person sees while a run is under way: one bar per long stage, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.progress import Progress

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


class Observer(Protocol):
    """Whoever watches a run."""

    def stage(self, title: str) -> AbstractContextManager[Advance]:
        """Announce a stage; what is yielded takes its progress."""

    def say(self, text: str) -> None:
        """Tell something worth a line."""


class Silent:
    """Watches nothing."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """Yield a function that ignores its arguments."""
        yield lambda done, total: None

    def say(self, text: str) -> None:
        """Say nothing."""


class Terminal:
    """Bars and lines on a rich console; without a terminal, one line per finished stage."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """Show a bar while the block runs, on a terminal, and a line with its seconds when it ends well."""
        started = time.perf_counter()
        if self._console.is_terminal:
            with self._bars() as bars:
                task = bars.add_task(title, total=None)
                yield lambda done, total: bars.update(task, completed=done, total=total)
        else:
            yield lambda done, total: None
        seconds = time.perf_counter() - started
        self._console.print(f"[green]✓[/] {title} [dim]{seconds:.1f} s[/]", highlight=False)

    def _bars(self) -> Progress:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self._console, transient=True)

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False)

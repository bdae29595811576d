"""What `edgeproof quantize` shows of a file, read in 80 columns."""

import io

from rich.console import Console

from pipeline.one_file.result import CompiledFile
from pipeline.one_file.text import compiled_table


def shown(found: CompiledFile) -> str:
    """Return the table's words in one line."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(compiled_table(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.replace("│", " ").split())

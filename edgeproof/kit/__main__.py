"""What is started here is in every kit too: `python KIT.zip serve` does the same without edgeproof installed."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.device.kit import measure, serve
from pipeline.device.kit.files import Kit


def main(arguments: list[str]) -> int:
    """Show a kit's page (`serve [KIT]`), or check, answer and time a kit here (`measure KIT`)."""
    word, *rest = arguments or [""]
    if word == "serve":
        return serve.main(rest, Kit(Path()))
    if word == "measure" and rest and not rest[0].startswith("-"):
        return measure.main(rest[1:], Kit(Path(rest[0]).resolve()))
    print("expected `serve [KIT]` or `measure KIT`, found neither.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

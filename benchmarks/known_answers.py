"""Add this processor and this version of ONNX Runtime to the answers that `edgeproof doctor --deep` knows.

`python benchmarks/known_answers.py x86-vnni x86-avx2` writes `pipeline/machine/known_answers.json` anew. A version
that answers as another one of the same target stands in its row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from foundation.files import write_text
from foundation.processor import INTEGER_TYPES
from pipeline.machine import reference

KNOWN = Path(reference.__file__).with_name("known_answers.json")


def main() -> None:
    """Ask the reference model for each target, and write what is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", choices=sorted(INTEGER_TYPES), help="whose integer types are used")
    rows: list[dict[str, Any]] = json.loads(KNOWN.read_text(encoding="utf-8"))["known"]
    for target in parser.parse_args().targets:
        with tempfile.TemporaryDirectory(prefix="edgeproof-") as folder:
            here = reference.row_here(Path(folder), target)
        alike = next((row for row in rows if (row["target"], row["answers"]) == (target, here["answers"])), None)
        if alike is None:
            rows.append(here)
        else:
            alike["onnxruntime"] = sorted({*alike["onnxruntime"], *here["onnxruntime"]})
        print(f"{target}: onnxruntime {here['onnxruntime'][0]} {'is new' if alike is None else 'answers as known'}")
    write_text(KNOWN, json.dumps({"format_version": 1, "known": rows}) + "\n")


if __name__ == "__main__":
    main()

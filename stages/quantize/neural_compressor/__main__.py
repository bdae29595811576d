"""`python -m stages.quantize.neural_compressor` makes the worker's environment and says what it does."""

from __future__ import annotations

import sys

from foundation.errors import EdgeproofError
from stages.quantize.neural_compressor.environment import create_environment

try:
    create_environment(lambda line: print(f"neural-compressor environment: {line}"))
except EdgeproofError as error:
    print(f"neural-compressor environment: {error}", file=sys.stderr)
    sys.exit(int(error.exit_code))

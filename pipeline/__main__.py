"""`python -m pipeline` is `edgeproof`."""

from pipeline.cli import main

main()

"""The face for Python and notebooks: run a configuration, quantize a file, write its twin, open and check a run.

import edgeproof

run = edgeproof.run("mine.yaml")
run.frame().query("metric == 'saliency_spearman'")
"""

from __future__ import annotations

from edgeproof._face import OpenedRun, check, open_run, quantize, run, twin

__all__ = ["OpenedRun", "check", "open_run", "quantize", "run", "twin"]

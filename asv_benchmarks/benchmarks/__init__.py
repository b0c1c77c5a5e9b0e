"""Benchmarks of fastbp, run by airspeed velocity: `cd asv_benchmarks && asv run --quick HEAD^!`.

A commit's compiled kernels are kept apart from those of every other commit, so that no benchmark is timed with machine
code that another version wrote.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.pop("OPENBLAS_CORETYPE", None)  # NumPy at its best: with the instructions of this machine

if "ASV_ENV_DIR" in os.environ:  # absent where asv runs in an existing environment: fastbp's own cache is used there
    os.environ["FASTBP_CACHE_DIR"] = str(
        Path(os.environ["ASV_ENV_DIR"], "fastbp-cache", os.environ.get("ASV_COMMIT", "unknown"))
    )

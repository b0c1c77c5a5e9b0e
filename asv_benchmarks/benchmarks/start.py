"""Start: what a fresh Python process pays before anything is computed."""

from __future__ import annotations

import numpy as np

from fastbp import Network

PROGRAMS = {
    "fastbp": """
        import numpy as np
        from fastbp import Network
        Network([4, 3, 2]).fit(np.zeros((8, 4), np.float32), np.arange(8) % 2, verbose=False)
        """,
    "numpy": """
        import numpy as np
        np.zeros((8, 4), np.float32) @ np.zeros((4, 3), np.float32)
        """,
}
WITHOUT_CACHE = """
        import os, tempfile
        folder = tempfile.TemporaryDirectory()
        os.environ["FASTBP_CACHE_DIR"] = folder.name
        """


class Start:
    """Time of the import, and of the import with a first fit: from the cache (warm), and compiled (cold)."""

    params = (tuple(PROGRAMS),)
    param_names = ("implementation",)
    timeout = 600

    def setup(self, implementation: str) -> None:
        Network([4, 3, 2]).fit(np.zeros((8, 4), np.float32), np.arange(8) % 2, verbose=False)  # fills the cache

    def timeraw_import(self, implementation: str) -> str:
        return f"import {implementation}"

    def timeraw_warm(self, implementation: str) -> str:
        return PROGRAMS[implementation]


class ColdStart:
    """Time of the import with a first fit on a machine that never ran it: all kernels are compiled."""

    params = (("fastbp",),)
    param_names = ("implementation",)
    timeout = 600
    repeat, number, rounds, warmup_time = 2, 1, 1, 0.0

    def timeraw_cold(self, implementation: str) -> str:
        return WITHOUT_CACHE + PROGRAMS[implementation]

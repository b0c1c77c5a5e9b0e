"""Start: what a fresh Python process pays before anything is computed."""

from __future__ import annotations

import numpy as np

from fastbp import Network


class Start:
    """Time of the import, and of the import with a first fit whose machine code comes from the cache."""

    def setup(self) -> None:
        Network([4, 3, 2]).fit(np.zeros((8, 4), np.float32), np.arange(8) % 2, verbose=False)  # fills the cache

    def timeraw_import(self) -> str:
        return "import fastbp"

    def timeraw_first_fit(self) -> str:
        return """
        import numpy as np
        from fastbp import Network
        Network([4, 3, 2]).fit(np.zeros((8, 4), np.float32), np.arange(8) % 2, verbose=False)
        """

"""Teams: which of their threads are left."""

from __future__ import annotations

import sys
from types import FrameType

from fastbp.engine import team

_CODE = team._Worker._run.__code__


def team_threads() -> list[int]:
    """Return the idents of the threads that do what a team's do; `threading` does not know them."""
    return [ident for ident, frame in sys._current_frames().items() if _is_in_team(frame)]


def _is_in_team(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not _CODE:
        frame = frame.f_back
    return frame is not None

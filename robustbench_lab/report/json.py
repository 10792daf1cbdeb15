"""The leaderboard as one JSON document."""

from __future__ import annotations

import json

from robustbench_lab.ranking.leaderboard import Leaderboard
from robustbench_lab.report.json_documents import leaderboard_document


def render(leaderboard: Leaderboard) -> str:
    """The document of docs/schemas/leaderboard.schema.json."""
    return json.dumps(leaderboard_document(leaderboard), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

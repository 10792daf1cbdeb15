"""The cells of a run that other runs on the same database have claimed."""

from __future__ import annotations

from collections.abc import Callable, Set

from robustbench_lab.result_store.claims import Claim

ASK_SECONDS = 2.0
"""Between two questions whether others are still at their cells."""


class SharedCells:
    """Asks for each cell once, and then now and then for those that others have."""

    def __init__(self, claim: Callable[[str], Claim], clock: Callable[[], float]) -> None:
        """claim: what `ResultStore.claiming` gives. clock: seconds."""
        self._claim = claim
        self._clock = clock
        self._ask_at = clock() + ASK_SECONDS
        self._others: set[str] = set()
        self._changed: dict[str, Claim] = {}

    def is_ours(self, cell_id: str) -> bool:
        """Whether a cell may be begun. It may not be, either, while `changes` has something to say of it."""
        if cell_id not in self._others:
            self._ask(cell_id)
        return cell_id not in self._others

    def ask_again(self) -> None:
        """For what others have, unless that was just done."""
        if self._others and self._clock() >= self._ask_at:
            for cell_id in list(self._others):
                self._ask(cell_id)
            self._ask_at = self._clock() + ASK_SECONDS

    def changes(self) -> dict[str, Claim]:
        """The cells that others have stored, or have left to this run, since the last call."""
        changed, self._changed = self._changed, {}
        self._others -= changed.keys()
        return changed

    def forget(self, cell_id: str) -> None:
        """A cell is not wanted any more."""
        self._others.discard(cell_id)
        self._changed.pop(cell_id, None)

    def hold(self, cell_ids: Set[str]) -> bool:
        """Whether others have all of these."""
        return cell_ids <= self._others

    def _ask(self, cell_id: str) -> None:
        answer = self._claim(cell_id)
        if answer is Claim.OURS:
            self._others.discard(cell_id)
            return
        self._others.add(cell_id)
        if answer is not Claim.ELSEWHERE:
            self._changed[cell_id] = answer

"""Which changes of a twin leave its program what it is; each candidate is captured, which takes seconds."""

import re
from collections.abc import Callable, Collection
from typing import Any

from transformers import PreTrainedConfig

from hf2khc.capture.twin_search import Search

# Of a config, and of the lists of layers that its model does not let be cut.
Alike = Callable[[PreTrainedConfig, Collection[str]], bool]
Change = dict[str, Any]
# A count and not a time: the twin must not depend on how busy the machine is.
MOST_PROGRAMS = 12
ANOTHER_PROGRAM = "the structure of the program depends on it"
# What often changes more than sizes: how images are cut, what is padded, what is rotated.
_SUSPECT = re.compile(r"patch|window|kernel|stride|image|conv|chunk|block|rotary|partial")


def keep_what_is_alike(search: Search, groups: list[list[Change]], alike: Alike) -> None:
    """Take back what changes the program, and put another alternative in its place where one does not.

    Args:
        search: with the changes that leave the structure of the model.
        groups: alternatives for fields that change together, the best first.
        alike: whether a config gives a program like that of the model.
    """
    found = _Alike(search, alike)
    changes = [{path: search.accepted[path] for path in change} for change in search.changes]
    search.tries, search.accepted = 0, {}
    found.settle(sorted(changes, key=_suspicion))
    delicate = {path for change in found.delicate for path in change}
    search.delicate = frozenset(delicate)
    for group in groups:
        if group[0].keys() <= delicate and not group[0].keys() <= search.accepted.keys():
            # The nearest and the farthest.
            next(filter(found.accept, group[1:2] + group[2:][-2:]), None)
    search.unchanged |= dict.fromkeys(delicate, ANOTHER_PROGRAM)


def _suspicion(change: Change) -> tuple[bool, bool]:
    """What likely changes the program comes last: what is known to be at fault behind what passes need not be asked."""
    names = (path.rpartition(".")[2] for path in change)
    return len(change) > 1, any(map(_SUSPECT.search, names))


class _Alike:
    """Accepts changes of a search that `alike` has nothing against; `delicate` are the others."""

    def __init__(self, search: Search, alike: Alike):
        self.search, self.alike, self.programs = search, alike, 0
        self.delicate: list[Change] = []

    def settle(self, changes: list[Change], refused: bool = False) -> None:
        """Accept changes, all at once if possible, else in halves.

        Args:
            refused: whether it is known that they cannot all be accepted.
        """
        if not changes or not refused and self.accept({path: new for one in changes for path, new in one.items()}):
            return
        if len(changes) == 1:
            self.delicate += changes
            return
        middle, before = len(changes) // 2, len(self.delicate)
        self.settle(changes[:middle])
        self.settle(changes[middle:], refused=len(self.delicate) == before)

    def accept(self, change: Change) -> bool:
        """Whether the program stays; then it is accepted."""
        return self.search.accept(change, self._asked)

    def _asked(self, config: PreTrainedConfig) -> bool:
        self.programs += 1
        return self.programs <= MOST_PROGRAMS and self.alike(config, self.search.whole)

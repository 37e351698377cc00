"""How a check of the contract ends other than by holding."""

from collections.abc import Iterable


class Broken(Exception):
    """The package breaks the contract.

    Args:
        detail: one clause that says what is wrong.
        faults: one line per layer or variable it is about, its path first.
    """

    def __init__(self, detail: str, faults: Iterable[str] = ()):
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)


class Skipped(Exception):
    """The check has nothing to look at, or the backend cannot do it; the message says which."""


def require(faults: Iterable[str], detail: str) -> None:
    """Ends the check when there are faults.

    Raises:
        Broken: with the detail.
    """
    found = tuple(faults)
    if found:
        raise Broken(detail, found)

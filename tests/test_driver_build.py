"""A cached step that cannot be written does not keep a package from being right without one."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from hf2khc.diagnostics import ConversionError, fail
from hf2khc.driver import build
from hf2khc.driver.compile import Compiled
from hf2khc.write.plan import Decoding, Plan

PLAN = Plan("model", "Model", cast(Any, None), (), {}, ())
CACHED = replace(PLAN, decoding=Decoding(frozenset(), frozenset(), ()))


def compiled(plan: Plan) -> Compiled:
    return Compiled(plan, {}, {}, cast(Any, None), uncached=PLAN)


def test_what_cannot_be_written_with_a_cache_is_written_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def lay_out(plan: Plan, signature: object, directory: Path) -> dict[str, str]:
        if plan.decoding is not None:
            raise fail("unknown-size", "nothing shows the size keys")
        return {"model.py": ""}

    monkeypatch.setattr(build, "lay_out", lay_out)
    found, sources = build._written(compiled(CACHED), Path())
    assert found.plan is PLAN and sources == {"model.py": ""}
    assert found.cacheless == "the cached step cannot be written: nothing shows the size keys"


def test_what_cannot_be_written_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def lay_out(plan: Plan, signature: object, directory: Path) -> dict[str, str]:
        raise fail("unnamed-layer", "no name")

    monkeypatch.setattr(build, "lay_out", lay_out)
    for plan in (PLAN, CACHED):
        with pytest.raises(ConversionError, match="no name"):
            build._written(compiled(plan), Path())

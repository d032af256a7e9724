"""Of which time steps the noise enters a likelihood-ratio gradient, as a card says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

LastSteps = Annotated[int, Field(ge=1)] | Literal["all"]
"""So many last ones, or all."""


def steps_of(last: LastSteps) -> int | None:
    """As the estimator takes it; None: all."""
    return None if last == "all" else last

"""The templates of pages, with the filters that all of them know."""

from __future__ import annotations

from functools import cache

import jinja2

from robench.show.report.text import (
    breakable,
    coded,
    linked,
    percent,
    portable,
    radius,
    seconds,
    shorten,
    signed,
)


@cache
def templates() -> jinja2.Environment:
    """Compiled once."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robench.show.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    made = (breakable, coded, linked, percent, portable, radius, seconds, shorten, signed)
    environment.filters.update({one.__name__: one for one in made})
    return environment

"""The templates of pages, with the filters that all of them know."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from robench.show.report.text import (
    breakable,
    cell,
    coded,
    interval,
    linked,
    percent,
    portable,
    radius,
    seconds,
    sha256,
    shorten,
    signed,
)


def page_of(template: str, scripts: Sequence[str], styles: Sequence[str], **values: Any) -> str:
    """A page with its own script, named by its digest, and its own style."""
    assets = files("robench.show.report") / "assets"
    script = "\n".join((assets / name).read_text("utf-8") for name in scripts)
    style = "".join((assets / name).read_text("utf-8") for name in styles)
    return rendered(template, script=script, script_hash=sha256(script), style=style, **values)


def rendered(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> jinja2.Environment:
    """Compiled once."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robench.show.report", "templates"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    filters = (
        breakable,
        cell,
        coded,
        interval,
        linked,
        percent,
        portable,
        radius,
        seconds,
        shorten,
    )
    environment.filters.update({one.__name__: one for one in (*filters, signed)})
    return environment

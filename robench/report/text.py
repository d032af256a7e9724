"""Numbers, times and names as people read them: the filters of the templates."""

from __future__ import annotations

import re

from markupsafe import Markup, escape


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def signed(value: float) -> str:
    """A difference in percentage points, with a true minus sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def seconds(value: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if value < 10:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def shorten(text: str, length: int = 80) -> str:
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def breakable(text: str) -> Markup:
    """Escaped, with places where a narrow column may break the line."""
    return Markup(re.sub(r"([/_-])", r"\1<wbr>", str(escape(text))))

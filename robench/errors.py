"""The one error type for what a user can cause and mend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that some systems keep for devices, with or without a suffix."""


LINES, LONGEST = 2, 1000
"""What an error may say: so many lines of so many characters."""


class RobenchError(Exception):
    """Bad input, said in one or two lines: file, key, value, and what to do.

    Whatever names and messages of libraries the text quotes, it can be printed: further lines are
    left out, and so is the middle of a line that is too long.
    """

    def __init__(self, text: object) -> None:
        said = conceal(cut(str(text), 100 * LONGEST))
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        super().__init__("\n".join(cut(printable(line), LONGEST) for line in lines[:LINES]))


SECRET = r"token|secret|passw|pwd|signature|sig|key|credential"
"""What names of settings have in them whose values nobody else may read."""
_IN_URLS = re.compile(r"(://)[^\s'\"]{1,2000}@")
_IN_QUERIES = re.compile(rf"([?&][\w-]{{0,60}}(?:{SECRET})[\w-]{{0,60}}=)[^&\s'\"]+", re.IGNORECASE)
_secrets: set[str] = set()


def keep_secret(secret: str) -> None:
    """From now on `conceal` takes it out of every text. Three letters are too few to be told from
    other words; a URL hides those."""
    if len(secret) > 3:
        _secrets.add(secret)


def secrets_of(url: str) -> Iterator[str]:
    """Passwords and tokens in a URL, as they stand there and as they are meant."""
    for scheme, said in re.findall(r"(\w*)://([^\s]*)@", url):
        user, colon, password = said.partition(":")
        if secret := password if colon else user if scheme.startswith("http") else "":
            yield from {secret, unquote(secret)}
    for key, value in re.findall(r"[?&]([\w-]+)=([^&\s]+)", url):
        if re.search(SECRET, key, re.IGNORECASE):
            yield from {value, unquote(value)}


def conceal(text: str) -> str:
    """`text` without passwords and tokens: those of URLs, and all that were to be kept secret."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _IN_QUERIES.sub(r"\1***", _IN_URLS.sub(r"\1***@", text))


def cut(text: str, length: int) -> str:
    """Without its middle where it is too long."""
    if len(text) <= length:
        return text
    return f"{text[: length // 2]} ... {text[-length // 2 + 5 :]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the names near it, else all there are."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not names:
        return "there are none"
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {listed}"


def check_name(name: str, what: str) -> str:
    """`name`, when it can be a file's inside its folder: parts joined by `/`, none of them empty,
    hidden, `..`, a device's or with characters that cannot be printed.

    Raises RobenchError, which calls it `what`.
    """
    for part in name.split("/"):
        if not part or part.startswith(".") or part != part.strip() or "\\" in part:
            wrong = "an empty, hidden or relative part"
        elif not part.isprintable():
            wrong = "characters that cannot be printed"
        elif DEVICES.fullmatch(part):
            wrong = f"{part!r}, which some systems keep for a device"
        elif len(part.encode()) > 200:
            wrong = "a part of more than 200 bytes"
        else:
            continue
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise RobenchError(f"{what} {shown!r}: not a name: it has {wrong}; rename it")
    return name


def resolved(path: Path, what: str) -> Path:
    """`path` as a whole path, `~` and links followed; there may be nothing there.

    Raises RobenchError, which calls it `what`, for what no file can be called: a NUL in it, too
    long, links in a circle, the home of nobody.
    """
    try:
        whole = path.expanduser().resolve()
        whole.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise RobenchError(f"{what}: not the name of a file: {system_words(error)}") from None
    return whole


def cause(error: BaseException) -> str:
    """What to quote of an exception that anything may have raised: an error of the project's own as
    it is, another one with its type."""
    return str(error) if isinstance(error, RobenchError) else f"{type(error).__name__}: {error}"


def system_words(error: Exception) -> str:
    """What to quote where a file cannot be used: the system's words, without number and path."""
    return str(getattr(error, "strerror", None) or error)


def printable(text: object) -> str:
    """`text` on one line: characters that cannot be printed are written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


FINDINGS = 6
"""How many things that are wrong with a card an error names."""


PLAIN = {
    "must be a list, as in [1, 2]": ("tuple_type", "list_type"),
    "must be a text": ("string_type", "is_instance_of"),
    "must be a whole number": ("int_type", "int_parsing", "int_from_float"),
    "must be a number": ("float_type", "float_parsing"),
    "must be true or false": ("bool_type", "bool_parsing"),
    "must be a table, as in {{ name = ... }}": ("model_type", "dict_type", "model_attributes_type"),
    "must be at least {ge}": ("greater_than_equal",),
    "must be more than {gt}": ("greater_than",),
    "must be at most {le}": ("less_than_equal",),
    "must be less than {lt}": ("less_than",),
    "must be one of {expected}": ("literal_error", "enum"),
    "must be a finite number": ("finite_number",),
    "must have at least {min_length} items": ("too_short",),
    "must not be empty": ("string_too_short",),
}
"""What pydantic finds wrong, in words of cards -> its names for it."""


def explain(error: ValidationError, allowed: set[str]) -> str:
    """All findings of a pydantic error in plain words: `key = value: what is wrong; ...`."""
    findings = error.errors(include_url=False)
    unknown = [_key(one) for one in findings if one["type"] == "extra_forbidden"]
    meant = {name for key in unknown for name in get_close_matches(key, allowed, n=1, cutoff=0.6)}
    said: list[str] = []
    for one in findings:
        key = _key(one)
        if one["type"] == "extra_forbidden":
            said.append(f"{key}: unknown key; {nearest(key, allowed)}")
        elif one["type"] == "missing":
            if key not in meant:  # it is there under another name
                said.append(f"{key}: this key is required")
        else:
            value = _shown(one["input"])
            value = value if len(value) <= 80 else value[:77] + "..."
            said.append(f"{key} = {value}: {_plain_words(one)}")
    shown = list(dict.fromkeys(said))
    more = f"; and {len(shown) - FINDINGS} more" if len(shown) > FINDINGS else ""
    return "; ".join(shown[:FINDINGS]) + more


def _key(finding: ErrorDetails) -> str:
    return printable(".".join(str(part) for part in finding["loc"])) or "card"


def _plain_words(finding: ErrorDetails) -> str:
    """What is wrong with a value, in words of cards and not of Python."""
    kind, context = finding["type"], finding.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return printable(str(context.get("error", finding["msg"])))
    for words, kinds in PLAIN.items():
        if kind in kinds:
            return words.format(**{key: printable(value) for key, value in context.items()})
    return printable(finding["msg"])


def _shown(value: Any) -> str:
    try:
        return printable(repr(value))
    except ValueError:  # an integer of more digits than Python converts
        return "(a number of too many digits)"

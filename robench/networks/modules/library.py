"""What networks of libraries share: where their factory is, and what is said where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robench.errors import RobenchError
from robench.workspace import plugins
from robench.workspace.cards import Card


def factory_of(network: str, own: str, settings: Mapping[str, Any], card: Card) -> tuple[Any, str]:
    """What a library makes its networks with, and a text that says by what code.

    Args:
        network: the name of robench's network, and of the extra that brings the library.
        own: "package.module:name" of the library's factory.

    Raises RobenchError where the card names another factory, or the library cannot be imported.
    """
    said = settings.get("factory", own)
    if said != own:
        raise RobenchError(
            f"{card.file}: factory = {said!r}: network {network!r} has its own; say network = "
            '{ name = "module", factory = ... }'
        )
    try:
        make, code = plugins.locate(own, card)
    except RobenchError as error:
        why = error.__cause__ or error
        remedy = f"pip install 'robench[{network}]'"
        if "torchvision::" in str(why):  # "operator torchvision::nms does not exist"
            remedy = "torchvision is built for another torch: install the two from one place"
        raise RobenchError(f"{card.file}: network {network!r}: {why}; {remedy}") from error
    return make, f"{own}@{code.digest}"

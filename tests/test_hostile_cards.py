"""Cards from strangers, damaged, changed or of any content: what they ask for is planned, or one
error names the card.
"""

from __future__ import annotations

import hostile
from damaged_files import HOW, damage
from hostile import (
    A_CARD,
    CARDS,
    ODDLY_WRITTEN,
    TEXTS,
    TOML,
    card_text,
    changed,
    looked_at,
    works_or_says,
    write_cards,
)
from hypothesis import given
from hypothesis import strategies as st

from robench.workspace import plugins
from robench.workspace.folders import Workspace

alone, workspace = hostile.alone, hostile.workspace  # fixtures

CARD_VALUES = st.one_of(
    TOML,
    ODDLY_WRITTEN,
    st.sampled_from([name for card in CARDS for name in (card, card.split("/")[1], "../" + card)]),
    st.sampled_from([name for kind in plugins.KINDS for name in plugins.BUILT_IN[kind]]),
    st.sampled_from(["./net.py:make", "./net.py:number", "builtins:int", "sys:exit", "math:pi"]),
)


def test_the_cards_as_they_are_can_be_planned(workspace: Workspace) -> None:
    assert len(looked_at(workspace).plan.cells) > 20


A_FILE = st.sampled_from(sorted(CARDS))


@given(name=A_FILE, how=HOW, where=st.integers(0, 2**20), value=st.integers(0, 255))
def test_a_damaged_card_is_read_or_named(
    workspace: Workspace, name: str, how: str, where: int, value: int
) -> None:
    write_cards(workspace.root)
    file = workspace.root / f"{name}.toml"
    file.write_bytes(damage(file.read_bytes(), how, where, value))
    works_or_says(lambda: looked_at(workspace), A_CARD)


@given(data=st.data(), name=A_FILE)
def test_a_card_with_other_keys_and_values_is_read_or_named(
    workspace: Workspace, data: st.DataObject, name: str
) -> None:
    write_cards(workspace.root)
    card = data.draw(changed(CARDS[name], CARD_VALUES))
    (workspace.root / f"{name}.toml").write_text(card_text(card), encoding="utf-8")
    works_or_says(lambda: looked_at(workspace), A_CARD)


@given(name=A_FILE, content=st.one_of(st.binary(max_size=50), st.text(max_size=50)))
def test_any_content_of_a_card_is_read_or_named(
    workspace: Workspace, name: str, content: bytes | str
) -> None:
    write_cards(workspace.root)
    written = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    (workspace.root / f"{name}.toml").write_bytes(written)
    works_or_says(lambda: looked_at(workspace), A_CARD)


@given(data=st.data())
def test_any_setting_of_any_plugin_is_taken_or_named(
    workspace: Workspace, data: st.DataObject
) -> None:
    write_cards(workspace.root)
    kind = data.draw(st.sampled_from(plugins.KINDS))
    plugin = data.draw(st.sampled_from(sorted(plugins.BUILT_IN[kind])))
    fields = sorted(plugins.load(kind, plugin).fields().model_fields)
    keys = st.one_of(st.sampled_from(fields), TEXTS) if fields else TEXTS
    spec = {"name": plugin, **data.draw(st.dictionaries(keys, CARD_VALUES, max_size=3))}
    name = {"attacks": "attacks/near", "corruptions": "corruptions/noisy"}.get(kind, "models/small")
    card = {**CARDS[name], kind[:-1]: spec}
    (workspace.root / f"{name}.toml").write_text(card_text(card), encoding="utf-8")
    works_or_says(lambda: looked_at(workspace), A_CARD)

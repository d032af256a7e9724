"""The README of every folder says every field and every built-in, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import safetensors.torch
from small_runs import reported

from robench.checks.cards import check
from robench.store.store import Store
from robench.workspace import plugins
from robench.workspace.cards import ClaimCard
from robench.workspace.folders import CARD_TYPES, FOLDERS, Folder, open_workspace, reference_root
from robench.workspace.new import new_workspace

KINDS: dict[Folder, tuple[plugins.Kind, ...]] = {
    "models": ("datasets", "networks", "trainers"),
    "attacks": ("attacks",),
    "corruptions": ("corruptions",),
    "reports": (),
}
BLOCK = re.compile(r"^```(?:python|toml)\n# (\S+\.(?:py|toml))[^\n]*\n(.*?)^```", re.M | re.S)
REPORTS = {
    "models": 'models = ["mine", "pretrained", "digits/snn-nit"]',
    "attacks": 'models = ["digits/mlp-bp"]\nattacks = ["pgd", "lucky-signs"]',
    "corruptions": 'models = ["digits/mlp-bp"]\ncorruptions = ["stripes"]',
    "README": 'models = ["mine"]\nattacks = ["fgsm"]',
}
"""What the examples of each README are run by; those of reports/ are reports themselves."""


def readme(folder: str) -> str:
    path = reference_root() / ("" if folder == "README" else folder) / "README.md"
    return path.read_text("utf-8")


def code(text: str) -> set[str]:
    """The words in backquotes."""
    return {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.split(r"[\s,]+", span)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_field_of_a_card_is_explained(folder: Folder) -> None:
    fields = {*CARD_TYPES[folder].model_fields} - {"name", "root"}
    fields |= {*ClaimCard.model_fields} if folder == "reports" else set()
    assert fields - code(readme(folder)) == set()


@pytest.mark.parametrize("folder", ["models", "attacks", "corruptions"])
def test_every_built_in_and_each_of_its_fields_is_explained(folder: Folder) -> None:
    known = code(readme(folder))
    for kind in KINDS[folder]:
        for name in plugins.BUILT_IN[kind]:
            assert name in known, f"{kind}: {name}"
            fields = {*plugins.load(kind, name).fields().model_fields}
            assert fields - known == set(), f"{kind}: {name}"


@pytest.mark.rows(1)
@pytest.mark.parametrize("folder", ["README", *FOLDERS])
def test_the_examples_pass_the_check_and_run(tmp_path: Path, folder: str) -> None:
    new_workspace(tmp_path)
    (tmp_path / "reports/first.toml").unlink()
    blocks = dict(BLOCK.findall(readme(folder)))
    assert blocks, "a README has at least one worked example"
    for name in ("mlp-bp", "snn-stbp", "snn-nit"):  # short ones in their place
        blocks.setdefault(
            f"models/digits/{name}.toml",
            (reference_root() / f"models/digits/{name}.toml").read_text(),
        )
    for name, text in blocks.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = re.sub(r"epochs = \d+", "epochs = 1", text)
        text = re.sub(r"copies = \d+", "copies = 8", text)
        text = re.sub(r"(?m)^seeds = .*", "seeds = [0]", text)
        path.write_text(re.sub(r"(?m)^images = .*", "images = 10\ndiagnostics = false", text))
    if "models/net.py" in blocks:
        made: dict[str, object] = {}
        exec(blocks["models/net.py"], made)
        safetensors.torch.save_file(
            made["make"]().state_dict(), tmp_path / "models/net.safetensors"
        )  # type: ignore[operator]
    if folder in REPORTS:
        text = f'title = "Examples"\nimages = 10\ndiagnostics = false\n{REPORTS[folder]}\n'
        (tmp_path / "reports/examples.toml").write_text(text)
    workspace = open_workspace(tmp_path)
    assert [found for found in check(workspace) if not found.passed] == []
    for report in workspace.names("reports"):
        done = reported(workspace, report, store=Store(tmp_path / ".robench"))
        assert done.incomplete == 0, report

"""Controls: a model that has another one's noise and not its learning rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_runs import carry_out
from torch import Tensor

from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.make.describe import describe
from robench.make.run_state import Run, open_run
from robench.networks.mlp import MLP
from robench.networks.noise import noisy_layers
from robench.show.report.final_noise import final_noise
from robench.show.report.folder import write_report
from robench.show.results import load_results
from robench.store.belongs import misnamed
from robench.store.store import Store
from robench.trainers.bp_n import BPN
from robench.workspace.cards import ModelCard
from robench.workspace.folders import Workspace, open_workspace, reference_root
from robench.workspace.plan import Cell, make_plan

Write = Callable[[str, str], Path]

ROW = """
dataset = "digits"
network = { name = "snn", hidden = [12], steps = 2 }
trainer = { name = "nit", copies = 8, epochs = 2, sigma_lr = 0.1, sigma_range = [0.3, 5.0] }
seeds = [0, 1]
inference_noise = true
"""
CONTROL = """
dataset = "digits"
network = { name = "snn", hidden = [12], steps = 2, learned_sigma = false }
trainer = { name = "stbp-n", epochs = 1 }
sigma_of = "row"
seeds = [0, 1]
inference_noise = true
"""
REPORT = (
    'title = "R"\nmodels = ["control", "row"]\nattacks = []\nimages = 20\ndiagnostics = false\n'
)


@pytest.fixture
def controlled(write: Write, tmp_path: Path) -> Workspace:
    write("models/row.toml", ROW)
    write("models/control.toml", CONTROL)
    write("reports/small.toml", REPORT)
    return open_workspace(tmp_path)


def sigmas(run: Run, model: str, seed: int) -> dict[str, Tensor]:
    (training,) = [t for t in run.plan.trainings if (t.card.name, t.seed) == (model, seed)]
    payload, _ = run.store.read_model(run.model_digest(training))
    state = safetensors.torch.load(payload)
    return {name: value for name, value in state.items() if name.endswith("sigma")}


def test_a_control_s_sigmas_are_its_row_s_within_five_per_cent(controlled: Workspace) -> None:
    run, ears = carry_out(controlled)
    assert not ears.failed
    trained = [label for label in ears.done if label.startswith("train")]
    for seed in (0, 1):
        row, control = sigmas(run, "row", seed), sigmas(run, "control", seed)
        assert len(row) == 2
        for name, sigma in row.items():
            assert not torch.allclose(sigma, torch.ones(()), rtol=0.05)  # where both begin
            torch.testing.assert_close(control[name], sigma, rtol=0.05, atol=0)
        places = [trained.index(f"train {model} seed {seed}") for model in ("row", "control")]
        assert places == sorted(places)  # although the report names the control first
    first, second = (sigmas(run, "control", seed) for seed in (0, 1))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_row_that_is_in_no_report_is_trained_for_its_control(
    controlled: Workspace, write: Write
) -> None:
    write("reports/small.toml", REPORT.replace(', "row"', ""))
    run, ears = carry_out(controlled, jobs=2)
    assert not ears.failed
    assert sum(label.startswith("train row") for label in ears.done) == 2
    assert {cell.training.card.name for cell in run.plan.cells} == {"control"}
    assert carry_out(controlled)[1].done == []


def test_a_control_of_a_row_that_cannot_be_trained_says_so(
    controlled: Workspace, write: Write
) -> None:
    write("models/row.toml", ROW.replace("copies = 8", "copies = 7"))
    run, _ = carry_out(controlled)
    why = {t.label: text for t, text in run.lost.items()}
    assert "in groups of 4" in why["row seed 0"]
    assert "row seed 0, whose noise it has, could not be trained" in why["control seed 0"]
    cells = {cell.training.card.name for cell in run.lost if isinstance(cell, Cell)}
    assert cells == {"row", "control"}, "they could not be evaluated"


def test_another_row_makes_another_control(controlled: Workspace, write: Write) -> None:
    def digests() -> dict[str, str]:
        run = open_run(make_plan(controlled, "small"), Store(controlled.root / "s"), "cpu")
        return {t.label: run.model_digest(t) for t in run.plan.trainings}

    before = digests()
    write("models/row.toml", ROW.replace("sigma_lr = 0.1", "sigma_lr = 0.05"))
    assert not set(digests().values()) & set(before.values())


def test_a_manifest_says_what_a_control_s_digest_is_made_of(controlled: Workspace) -> None:
    run, _ = carry_out(controlled)
    manifest = describe(run, "robench run small")
    assert list(misnamed(manifest)) == []
    control = next(model for model in manifest["models"] if model["name"] == "control")
    assert control["fields"]["sigma_of"]["trainer"]["plugin"] == "nit"
    control["fields"]["sigma_of"]["trainer"]["epochs"] = 3
    assert list(misnamed(manifest)) == ["model control seed 0", "model control seed 1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("learned_sigma = false", "learned_sigma = true"), "put learned_sigma = false"),
        (("hidden = [12], s", "hidden = [12, 12], s"), "has other noisy layers"),
        (("hidden = [12], s", "hidden = [11], s"), r"sigmas of shape \(12,\) there and of \(11,\)"),
    ],
)
def test_a_control_with_other_noisy_layers_is_refused(
    controlled: Workspace, write: Write, change: tuple[str, str], said: str
) -> None:
    write("models/control.toml", CONTROL.replace(*change))
    _, ears = carry_out(controlled)
    assert ears.failed["train control seed 0"].message
    with pytest.raises(RobenchError, match=said):
        raise RobenchError(ears.failed["train control seed 0"].message)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"row"', '"rwo"'), "sigma_of: .*did you mean row"),
        (("seeds = [0, 1]", "seeds = [0, 5]"), "is not trained with seed 5"),
        (('sigma_of = "row"', 'sigma_of = "control"'), "has its noise of 'control'"),
    ],
)
def test_a_control_names_a_row_with_its_seeds(
    controlled: Workspace, write: Write, change: tuple[str, str], said: str
) -> None:
    write("models/control.toml", CONTROL.replace(*change))
    with pytest.raises(RobenchError, match=said):
        make_plan(controlled, "small")


def test_every_row_of_nit_in_a_report_has_a_control_that_its_claims_name() -> None:
    """In the reference workspace."""
    here = open_workspace(reference_root())
    for report, folder in (("nit-mnist", "nit/mnist"), ("nit-fashion-mnist", "nit/fashion")):
        card = here.card("reports", report)
        rows = [name for name in card.models if f"{name}-control" in card.models]
        assert rows == [f"{folder}/{n}" for n in ("nit-pure", "nit", "nit-s", "nit-s-plus")]
        for row in rows:
            control: ModelCard = here.card("models", f"{row}-control")
            assert control.sigma_of == row
        assert all(claim.control == f"{claim.model}-control" for claim in card.claims)


# -- backpropagation with noise in one layer at a time ---------------------------------------------


def test_layer_wise_noise_gives_each_layer_the_gradient_of_its_own_noise() -> None:
    network = MLP((1, 8, 8), 10, hidden=(6,), activation="sigmoid", sigma=0.7)
    data = Digits().load().train
    x, y = torch.from_numpy(data.images[:40]), torch.from_numpy(data.labels[:40])
    trainer = BPN(layer_wise=True, copies=400)
    trainer.gradient(network, x, y, torch.Generator().manual_seed(0))
    found = {name: weight.grad.clone() for name, weight in network.named_parameters()}  # type: ignore[union-attr]
    for index, layer in enumerate(noisy_layers(network)):
        network.zero_grad()
        alone = BPN(copies=400)
        others = [other for other in noisy_layers(network) if other is not layer]
        kept = [other.sigma.clone() for other in others]
        for other in others:
            other.sigma.zero_()
        alone.gradient(network, x, y, torch.Generator().manual_seed(1))
        for other, sigma in zip(others, kept, strict=True):
            other.sigma.copy_(sigma)
        for name, weight in network.named_parameters():
            if name.startswith(f"layers.{index}."):
                cosine = torch.cosine_similarity(found[name].flatten(), weight.grad.flatten(), 0)  # type: ignore[union-attr]
                assert cosine > 0.99, name


# -- what the page says of the noise ---------------------------------------------------------------


def test_a_page_says_how_strong_the_noise_is_and_where_it_is_from(
    controlled: Workspace, write: Write
) -> None:
    write(
        "models/clamped.toml",
        ROW.replace("[0.3, 5.0]", "[1.5, 5.0]").replace("sigma_lr = 0.1", "sigma_lr = 0.0"),
    )
    write("reports/small.toml", REPORT.replace('"row"', '"row", "clamped"'))
    run, _ = carry_out(controlled)
    results = load_results(run.store, "small", run.outcomes, describe(run, "robench run small"))
    said = {one.model: one for one in final_noise(results)}
    for layer, value in enumerate(said["row"].sigmas.split(", "), start=1):
        found = [sigmas(run, "row", seed)[f"layers.{layer - 1}.sigma"].mean() for seed in (0, 1)]
        assert float(value.split(" ")[0]) == pytest.approx(float(sum(found)) / 2, rel=0.01)
    assert said["row"].sigmas == said["control"].sigmas
    assert said["row"].origin.startswith("layer 1 learned")
    assert said["control"].origin == "those of row, fixed"
    assert said["clamped"].origin == "layer 1 at its clamp, layer 2 at its clamp"
    assert said["clamped"].sigmas == "1.5, 1.5"
    page = write_report(results, controlled.root / "page").read_text()
    assert "How strong the noise is" in page
    assert "those of row, fixed" in page

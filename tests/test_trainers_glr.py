"""The trainers glr and bp-n, the units that jump, and the cards of the GLR papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robench.data.base import Splits
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.linear import Linear
from robench.networks.mlp import MLP, activation
from robench.networks.noise import noisy_layers
from robench.networks.surrogate import surrogate
from robench.trainers.base import Trainer
from robench.trainers.bp import BP
from robench.trainers.bp_n import BPN
from robench.trainers.glr import GLR
from robench.workspace import plugins
from robench.workspace.cards import ModelCard
from robench.workspace.folders import open_workspace

ROOT = Path(__file__).parents[1]
CARDS = [name for name in open_workspace(ROOT).names("models") if name.startswith("glr/")]
SIDE = {"mnist14": 14, "mnist28": 28, "fashion": 28, "tiny": 48}


class Quiet(Network):
    """A network without noisy layers."""

    def build(self) -> None:
        self.layer = nn.Linear(64, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


@pytest.fixture(scope="module")
def digits() -> Splits:
    return Digits().load()


def fresh(**settings: Any) -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP((1, 8, 8), 10, **{"hidden": (20,), "activation": "sigmoid", **settings})


def fit(trainer: Trainer, network: Network, data: Splits) -> list[dict[str, float]]:
    return trainer.fit(network, data, torch.Generator().manual_seed(0), lambda done, text: None)


def gradient(trainer: Trainer, network: Network, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    x, y = torch.rand(4, *network.input_shape, generator=rng), torch.arange(4)
    trainer.start_epoch(network, 0)
    network.zero_grad(set_to_none=True)
    trainer.gradient(network, x, y, torch.Generator().manual_seed(seed))
    grads = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return torch.cat(grads)


# -- glr -----------------------------------------------------------------------------------------


def test_the_zero_one_loss_takes_over_after_the_warm_up(digits: Splits) -> None:
    trainer = GLR(epochs=3, copies=20, criterion="zero-one", warmup_epochs=2)
    losses = [row["loss"] for row in fit(trainer, fresh(), digits)]
    assert losses[1] > 1 > losses[2]  # 1 is the most that the 0-1 loss can be
    by_cross_entropy = fit(GLR(epochs=3, copies=20), fresh(), digits)
    assert losses[:2] == [row["loss"] for row in by_cross_entropy][:2]
    assert by_cross_entropy[2]["loss"] > 1


def test_glr_leaves_sigma_as_the_card_sets_it(digits: Splits) -> None:
    network = fresh(sigma=1.5)
    fit(GLR(epochs=1, copies=8), network, digits)
    assert all(torch.equal(n.sigma, torch.full_like(n.sigma, 1.5)) for n in noisy_layers(network))


@pytest.mark.parametrize("trainer", [GLR(), BPN()], ids=["glr", "bp-n"])
def test_a_network_without_noise_is_refused(digits: Splits, trainer: Trainer) -> None:
    with pytest.raises(RobenchError, match="network Quiet has no noisy layers"):
        fit(trainer, Quiet((1, 8, 8), 10), digits)


def test_copies_that_do_not_fit_the_pairing_are_named_as_the_card_names_them(
    digits: Splits,
) -> None:
    with pytest.raises(RobenchError, match=r"trainer\.copies = 50: .*'factorial'.* use 48 or 52"):
        fit(GLR(copies=50), fresh(), digits)


# -- bp-n ----------------------------------------------------------------------------------------


def test_bp_n_and_glr_follow_the_gradient_of_the_same_loss() -> None:
    network = fresh(sigma=2.0)
    with torch.no_grad():
        for layer in network.layers:
            layer.op.weight.mul_(8)  # large enough that the noise changes the gradient
    by_noise = gradient(BPN(copies=20_000), network)
    by_likelihood_ratio = gradient(GLR(copies=100_000), network)
    without = gradient(BP(), network)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(by_noise, by_likelihood_ratio, dim=0) > 0.99
    assert cosine(by_noise, without, dim=0) < 0.99


def test_bp_n_without_noise_is_bp() -> None:
    network = fresh(sigma=0.0)
    torch.testing.assert_close(gradient(BPN(copies=3), network), gradient(BP(), network))


def test_more_copies_make_bp_ns_gradient_less_noisy_and_no_other() -> None:
    network = fresh()
    spread = {}
    for copies in (1, 16):
        runs = torch.stack([gradient(BPN(copies=copies), network, seed) for seed in range(40)])
        spread[copies] = runs.var(0).sum()
    assert spread[1] / spread[16] == pytest.approx(16, rel=0.3)


def test_bp_n_trains_threshold_units_by_their_surrogate_and_switches_its_noise_off(
    digits: Splits,
) -> None:
    network = fresh(activation="threshold", sigma=0.5)
    history = fit(BPN(epochs=15, lr=1e-2), network, digits)
    assert history[-1]["validation_accuracy"] > 0.85
    assert all(layer.source is None for layer in noisy_layers(network))


# -- units that jump -----------------------------------------------------------------------------


def test_the_activations_are_what_they_say() -> None:
    v = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.5])
    assert activation("abs", "sigmoid")(v).tolist() == [3, 1, 0, 0.5, 1, 2.5]
    assert activation("threshold", "sigmoid")(v).tolist() == [0, 0, 0, 1, 1, 1]
    assert activation("sign", "sigmoid")(v).tolist() == [-1, -1, -1, 1, 1, 1]
    levels = activation("staircase", "sigmoid")(v)
    torch.testing.assert_close(levels, torch.tensor([0, 1, 1, 2, 2, 3]) / 3)


def test_units_that_jump_are_differentiated_by_the_chosen_surrogate() -> None:
    v = torch.tensor([-2.2, -0.2, 0.1, 1.0], requires_grad=True)
    for name, expected in (("sign", [0.0, 2, 2, 0]), ("staircase", [1 / 3, 1 / 3, 1 / 3, 0])):
        (grad,) = torch.autograd.grad(activation(name, "rectangle:0.5")(v).sum(), v)  # type: ignore[arg-type]
        torch.testing.assert_close(grad, torch.tensor(expected))


@pytest.mark.parametrize("name", ["sign", "staircase"])
def test_an_attack_may_choose_the_surrogate_of_units_that_jump(name: str) -> None:
    network = fresh(activation=name)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for text in ("rectangle:0.5", "arctan:2"):
        with surrogate(network, text):
            (grad,) = torch.autograd.grad(network(x).square().sum(), x)
        found.append(grad)
    assert not torch.allclose(found[0], found[1])


def test_linear_is_torchs_linear_whose_rows_lie_next_to_each_other() -> None:
    for bias in (True, False):
        ours, torchs = Linear(7, 3, bias=bias), nn.Linear(7, 3, bias=bias)
        torchs.load_state_dict(ours.state_dict())
        x = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours(x), torchs(x))
        assert ours(x).stride() == (1, 5)
        for layer in (ours, torchs):
            layer(x).square().sum().backward()
        torch.testing.assert_close(ours.weight.grad, torchs.weight.grad)


# -- the cards -----------------------------------------------------------------------------------


def card(name: str) -> ModelCard:
    return open_workspace(ROOT).card("models", name)


@pytest.mark.parametrize("name", CARDS)
def test_every_card_of_the_glr_papers_makes_a_step(name: str) -> None:
    chosen = card(name)
    plugins.resolve("datasets", chosen.dataset, chosen)
    shape = (1, SIDE[name.split("/")[1]], SIDE[name.split("/")[1]])
    network = plugins.build("networks", chosen.network, chosen, input_shape=shape, classes=10)
    trainer = plugins.build("trainers", chosen.trainer, chosen)
    grad = gradient(trainer, network)
    assert grad.isfinite().all()
    assert grad.abs().max() > 0
    assert not chosen.inference_noise


def test_the_cards_hold_every_row_of_the_papers_table() -> None:
    kinds = {f"glr-mnist/{kind}" for kind in ("gaussian", "impulse", "glass", "contrast")}
    threats = {"clean", "glr/lbfgs", "glr/fgsm", *kinds}
    for row in ("bp", "lrs", "lrt", "abs", "lrsz", "lrtz"):
        chosen = card(f"glr/mnist14/{row}")
        assert chosen.published.keys() == threats
        assert len(chosen.seeds) == 3


def test_the_control_shares_the_noise_of_the_model_it_controls() -> None:
    for folder in SIDE:
        network = card(f"glr/{folder}/lrs").network
        assert card(f"glr/{folder}/bp-n").network == network


@pytest.mark.rows(0)
@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "least"), [pytest.param(12, 0.94, marks=pytest.mark.release), (3, 0.925)]
)
def test_lrs_reaches_the_papers_accuracy_on_mnist(epochs: int, least: float) -> None:
    """As its card trains it; by default a quarter of that, which comes near."""
    from robench.data.mnist import MNIST

    data = MNIST(resize=14, split="6:4").load()
    chosen = card("glr/mnist14/lrs")
    trainer = chosen.trainer.model_copy(update={"epochs": epochs})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = plugins.build(
            "networks", chosen.network, chosen, input_shape=data.input_shape, classes=10
        )
    fit(plugins.build("trainers", trainer, chosen), network, data)
    with torch.no_grad():
        hits = network(torch.from_numpy(data.test.images)).argmax(1).numpy() == data.test.labels
    assert hits.mean() >= least

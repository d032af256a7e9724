"""The cards that say how LR's authors trained: they build, and their settings take a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robench.data.base import Part, Splits
from robench.workspace import plugins
from robench.workspace.folders import open_workspace, reference_root


@pytest.mark.parametrize("name", ["resnet5-lr-authors", "vgg8-lr-authors"])
def test_an_authors_card_takes_a_few_steps(name: str) -> None:
    card = open_workspace(reference_root()).card("models", f"lr/cifar10/{name}")
    settings = {**card.trainer.settings, "epochs": 2, "batch_size": 2, "block_rows": 256}
    copies = settings["copies"]
    settings["copies"] = 16 if isinstance(copies, int) else [count // 50 for count in copies]
    trainer = plugins.load("trainers", "lr")(**settings)
    network = plugins.load("networks", "cnn")((3, 32, 32), 10, **card.network.settings)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    rng = np.random.default_rng(0)
    part = Part(rng.random((4, 3, 32, 32), np.float32), np.arange(4))
    data = Splits(part, part, part, tuple(map(str, range(10))))
    history = trainer.fit(network, data, torch.Generator().manual_seed(0), lambda done, text: None)
    assert all(np.isfinite(row["loss"]) for row in history)
    after = network.state_dict()
    moved = [not torch.equal(before[key], after[key]) for key in before if "sigma" not in key]
    assert all(moved)
    assert history[-1]["sigma/1"] == pytest.approx(0.001)


def test_stairs_multiply_the_learning_rate_every_few_epochs() -> None:
    trainer = plugins.load("trainers", "bp")(schedule="stairs:0.8:10")
    shares = [trainer._share_of_rate(epoch, 0.0) for epoch in (0, 9, 10, 25)]
    assert shares == pytest.approx([1, 1, 0.8, 0.64])
    for wrong in ("stairs", "stairs:2:10", "stairs:0.8:0"):
        with pytest.raises(Exception, match="schedule"):
            plugins.load("trainers", "bp")(schedule=wrong)

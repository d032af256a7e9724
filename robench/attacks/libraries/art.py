"""Any evasion attack of the Adversarial Robustness Toolbox by name (Nicolae et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from robench.attacks.libraries.adapter import LibraryAttack, attacks_in, parameters_of
from robench.attacks.target import DecisionTarget, ScoreTarget, WhiteBoxTarget
from robench.errors import RobenchError, nearest

GRADIENT_FREE = {
    "BoundaryAttack": "decision",
    "HopSkipJump": "decision",
    "PixelAttack": "score",
    "SignOPTAttack": "decision",
    "SimBA": "score",
    "SpatialTransformation": "decision",
    "SquareAttack": "score",
    "ThresholdAttack": "score",
    "ZooAttack": "score",
}
"""What the attacks ask for that ask for no gradient."""
NORMS = {
    "BasicIterativeMethod": ("linf",),
    "BoundaryAttack": ("l2",),
    "CarliniL0Method": ("l0",),
    "CarliniL2Method": ("l2",),
    "CarliniLInfMethod": ("linf",),
    "DeepFool": ("l2",),
    "ElasticNet": ("l1", "l2"),
    "NewtonFool": ("l2",),
    "PixelAttack": ("l0",),
    "SaliencyMapMethod": ("l0",),
    "SignOPTAttack": ("l2",),
    "SimBA": ("l2",),
    "SpatialTransformation": ("none",),
    "ThresholdAttack": ("linf",),
    "VirtualAdversarialMethod": ("l2",),
    "ZooAttack": ("l2",),
}
"""Norms of the attacks that do not take one as a parameter; others take linf, l2 and l1."""
NOT_OFFERED = (
    "Adversarial", "CarliniWagnerASR", "Composite", "DPatch", "DecisionTree", "FeatureAdv", "Frame",
    "GRAPHITE", "GeoDA", "HighConf", "Imperceptible", "Laser", "LowProFool", "Malware",
    "OverTheAir", "Overload", "RobustDPatch", "SNAL", "ShadowAttack", "TargetedUniversal",
    "UniversalPerturbation", "Wasserstein",
)  # fmt: skip
"""Beginnings of names: patches, speech, detection, tables, own balls, what needs more than a
classifier, and GeoDA, which calls what numpy 2 has not and writes files into the current folder."""
PROBABILITIES = {"SimBA", "VirtualAdversarialMethod"}
"""Attacks that take the outputs for probabilities."""
TOWARDS = {"SaliencyMapMethod"}
"""Attacks that go towards the class they are given, whatever `targeted` says: they get the
likeliest wrong one."""
NEEDS_START = {"SignOPTAttack"}
"""Attacks that go towards a class only from an image of it."""
HIDDEN = {
    "self", "estimator", "classifier", "estimator_orig", "norm", "eps", "batch_size", "targeted",
    "verbose", "summary_writer", "attacks", "adv_criterion", "loss", "mask", "parallel_pool_size",
}  # fmt: skip
ORDER: dict[str, float] = {"linf": np.inf, "l2": 2, "l1": 1}


@lru_cache(maxsize=1)
def _attacks() -> dict[str, type]:
    return attacks_in(
        "art.attacks.evasion",
        "art.attacks.attack:EvasionAttack",
        lambda name: name.startswith(NOT_OFFERED) or "TensorFlow" in name,
    )


def _offered(name: str) -> str:
    if name not in _attacks():
        raise ValueError(f"ART has no such attack for images; {nearest(name, _attacks())}")
    return name


class ART(LibraryAttack):
    """An evasion attack of ART: `attack` names it, the other keys are its own parameters.

    eps, norm, goal and batch size are the card's and the report's.
    """

    attack: Annotated[str, AfterValidator(_offered)]
    """Name in art.attacks.evasion, for example SquareAttack."""
    needs: ClassVar[str] = "decision"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "l0", "none")
    paper: ClassVar[str] = "Nicolae et al. 2018, arXiv 1807.01069"
    library: ClassVar[str] = "art"
    hidden: ClassVar[set[str]] = HIDDEN
    version: ClassVar[int] = 2

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        vars(self)["needs"] = GRADIENT_FREE.get(self.attack, "white-box")
        vars(self)["norms"] = NORMS.get(self.attack, tuple(ORDER))
        parameters = parameters_of(_attacks()[self.attack])
        takes = "targeted" in parameters and self.attack not in NEEDS_START
        vars(self)["targeted"] = takes or self.attack in TOWARDS

    @classmethod
    def offered(cls) -> Mapping[str, type]:
        return _attacks()

    def attacked(self, target: DecisionTarget, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        attack = self._build(target, x, rows)
        if self.attack in TOWARDS and target.aim is None and isinstance(target, ScoreTarget):
            y = target.logits(x, rows).scatter(1, y[:, None], -torch.inf).argmax(1)
        one_hot = np.eye(target.classes, dtype=np.float32)[y.cpu().numpy()]
        x_adv = attack.generate(x.cpu().numpy(), y=one_hot)
        return torch.as_tensor(x_adv, device=x.device)

    def _build(self, target: DecisionTarget, x: Tensor, rows: Tensor) -> Any:
        """ART's object with the card's settings, around the target."""
        cls = _attacks()[self.attack]
        taken = parameters_of(cls)
        settings = self.parameters()
        given = {
            "norm": ORDER.get(target.norm, np.inf),
            "eps": target.eps,
            "batch_size": 1 if self.attack == "SimBA" else len(x),  # the one that knows no batches
            "targeted": target.aim is not None,
            "verbose": False,
        }
        if "eps" in taken and not np.isfinite(target.eps):
            raise RobenchError(f"attack art: {self.attack} needs a finite eps")
        settings.update({key: value for key, value in given.items() if key in taken})
        return cls(self._classifier(target, x, rows), **settings)

    def _classifier(self, target: DecisionTarget, x: Tensor, rows: Tensor) -> Any:
        """The target as ART's classifier: one that has gradients only where the access has."""
        estimators: Any = import_module("art.estimators.classification")
        module = target.module(rows)
        if self.attack in PROBABILITIES:
            module = nn.Sequential(module, nn.Softmax(dim=1))
        shape = tuple(x.shape[1:])
        if isinstance(target, WhiteBoxTarget):
            return estimators.PyTorchClassifier(
                model=module,
                loss=nn.CrossEntropyLoss(),
                input_shape=shape,
                nb_classes=target.classes,
                clip_values=(0.0, 1.0),
                device_type="gpu" if x.is_cuda else "cpu",
            )

        def predict(images: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                answers: Tensor = module(torch.as_tensor(images, device=x.device))
            return answers.cpu().numpy()

        return estimators.BlackBoxClassifierNeuralNetwork(
            predict, input_shape=shape, nb_classes=target.classes, clip_values=(0.0, 1.0)
        )

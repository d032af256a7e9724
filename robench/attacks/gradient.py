"""The gradient family: FGSM, BIM, PGD, MIM, DIM, TIM and APGD are settings of one loop (loop.py).

FGSM: Goodfellow et al. 2015 (arXiv 1412.6572). BIM: Kurakin et al. 2017 (1607.02533). PGD: Madry et
al. 2018 (1706.06083). MIM: Dong et al. 2018 (1710.06081). DIM: Xie et al. 2019 (1803.06978). TIM:
Dong et al. 2019 (1904.02884). APGD: Croce & Hein 2020 (2003.01690), in l1 2021 (2103.01208). EOT:
Athalye et al. 2018 (1707.07397). SA-PGD and adaptive derivatives: ASSG, 2512.22522.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from robench.attacks.loop import GradientAttack, _odd


class FGSM(GradientAttack):
    """One step of size eps along the gradient's sign."""

    steps: int = Field(default=1, ge=1, le=1)
    keep: Literal["best", "last"] = "last"
    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Goodfellow et al. 2015, arXiv 1412.6572"


class BIM(GradientAttack):
    """FGSM repeated in small steps from the clean image."""

    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Kurakin et al. 2017, arXiv 1607.02533"


class PGD(GradientAttack):
    """BIM from a uniform random start."""

    random_start: bool = True
    paper: ClassVar[str] = "Madry et al. 2018, arXiv 1706.06083"


class PGDOnRelatives(PGD):
    """PGD that the framework also runs on relatives of the test images (data/fresh.py), to see
    whether the network knows these."""

    version: ClassVar[int] = 3
    steps: int = Field(default=20, ge=1)
    on_relatives: ClassVar[bool] = True


class MIM(GradientAttack):
    """BIM along a running sum of normalised gradients."""

    momentum: float = Field(default=1.0, ge=0)
    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Dong et al. 2018, arXiv 1710.06081"


class DIM(GradientAttack):
    """MIM whose gradients are taken at randomly resized and padded images."""

    momentum: float = Field(default=1.0, ge=0)
    diversity: float = Field(default=0.5, ge=0, le=1)
    paper: ClassVar[str] = "Xie et al. 2019, arXiv 1803.06978"


class TIM(GradientAttack):
    """MIM whose gradients are smoothed by a Gaussian kernel."""

    momentum: float = Field(default=1.0, ge=0)
    smoothing: Annotated[int, Field(ge=0), AfterValidator(_odd)] = 15
    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Dong et al. 2019, arXiv 1904.02884"


class APGD(GradientAttack):
    """PGD that sets its own step sizes; in l1 also how many pixels it moves (sparse.py)."""

    schedule: Literal["fixed", "apgd"] = "apgd"
    steps: int = Field(default=100, ge=1)
    random_start: bool = True
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    paper: ClassVar[str] = "Croce & Hein 2020, arXiv 2003.01690; l1: 2021, arXiv 2103.01208"

"""The card types: what a TOML file in models/, attacks/, corruptions/ or reports/ may say."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from robench.errors import RobenchError, explain, printable

Access = Literal["weights", "white-box", "score", "decision", "transfer"]
Norm = Literal["linf", "l2", "l1", "l0", "none"]
Accuracy = Annotated[float, Field(ge=0, le=1)]
FRACTION = re.compile(r"\s*(\d+\.?\d*)\s*/\s*(\d+\.?\d*)\s*")


def as_number(value: Any) -> Any:
    """ "8/255" as a number; everything else as it is."""
    fraction = FRACTION.fullmatch(value) if isinstance(value, str) else None
    if fraction is None or not float(fraction[2]):
        return value
    return float(fraction[1]) / float(fraction[2])


def _as_aim(value: Any) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not number and value not in AIMS:
        raise ValueError(f"say a class by its number (from 0), or one of {', '.join(AIMS)}")
    return value


AIMS = ("likeliest", "least-likely", "each")
Aim = Annotated[int | str, BeforeValidator(_as_aim)]
Radius = Annotated[float, BeforeValidator(as_number), Field(ge=0)]


class Spec(BaseModel):
    """A plugin by name, with the settings a card gives it: `{ name = "snn", hidden = [50] }`.

    The settings are checked against the class's declared fields when the class is loaded.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(min_length=1)

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _spec(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


SpecField = Annotated[Spec, BeforeValidator(_spec)]


class Card(BaseModel):
    """What every card has. `name` and `root` come from where the file lies, not from what it
    says."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(exclude=True)
    root: Path = Field(exclude=True)
    """The workspace that holds the card; its plugin files must lie inside."""
    folder: ClassVar[str]
    description: str = ""
    paper: str = ""

    def __hash__(self) -> int:
        return hash(self.name)  # asked for very often; equality looks at all there is

    @property
    def home(self) -> Path:
        """The folder the card lies in; `./file.py:Class` is relative to it."""
        return (self.root / self.folder / self.name).parent

    @property
    def file(self) -> str:
        """What errors call the card: `models/digits/mlp-bp.toml`."""
        return f"{self.folder}/{self.name}.toml"

    def says(self) -> dict[str, Any]:
        """The card as plain JSON values, for provenance and pages."""
        return self.model_dump(mode="json", exclude_defaults=True)


class ModelCard(Card):
    """models/*.toml: data set + network + trainer + settings + seeds."""

    folder = "models"
    dataset: SpecField
    network: SpecField
    trainer: SpecField
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(default=(0,), min_length=1)
    inference_noise: bool | Literal["laplace"] = False
    """Whether the noise of the noisy layers stays on when the model is used and attacked; laplace:
    as Laplace noise, for networks that were trained with it."""
    sigma_of: str | None = None
    """Another model card, from whose trained networks, seed by seed, the levels of the noise are
    taken and held fixed: the control that has a model's noise and not its learning rule."""
    time_limit: float | None = Field(default=None, gt=0)
    """Seconds that the training may take, and the scoring of a cell; None: a week, and a day."""
    published: dict[str, Accuracy] = Field(default_factory=dict)
    """Accuracies that the paper prints, by threat name ('clean' included), in [0, 1]."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed is listed twice")
        return seeds


class Nearest(BaseModel):
    """How the nearest wrong image is looked for: `{ halvings = 6, images = 12 }`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    halvings: int = Field(default=6, ge=0, le=20)
    """How often the ball is halved: radii are found to within eps / 2^halvings. 0: not at all, for
    attacks that look for the nearest themselves."""
    images: int = Field(default=12, ge=1)
    """Of how many images; the others are attacked in the whole ball only."""


class AttackCard(Card):
    """attacks/*.toml: an attack, what it may see of the model, and its budget."""

    folder = "attacks"
    attack: SpecField
    access: Access
    norm: Norm = "linf"
    eps: Radius | tuple[Radius, ...]
    """Radius of the norm ball, pixels in [0, 1], also as "8/255"; a list makes one threat of each
    value: a curve, unless the role says that they are proofs."""
    part: Literal["features", "edges"] = "features"
    """Which part of an item may change. Images are features throughout; where items are nodes of a
    graph, features are their words and edges what they are linked to."""
    surrogate: str | None = None
    """With access = "transfer": the model card that the examples are crafted on."""
    max_queries: int | None = Field(default=None, ge=1)
    """Forward passes per image that the attack may ask for; None: no limit."""
    time_limit: float | None = Field(default=None, gt=0)
    """Seconds that one cell of this attack may take, and as many its scoring; None: a day."""
    role: Literal["attack", "diagnostic", "floor", "curve", "proof", "nearest"] = "attack"
    """attack: counts in the worst case and in the average; diagnostic: counts in the worst case
    only; floor: noise that every attack must beat, shown beside them; curve: accuracy against eps
    (every list of eps is one, unless it says another role), shown as a plot; proof: says of each
    image what holds for every point of the ball, and what it finds broken counts as a diagnostic's
    would; nearest (every card with `nearest`): how far an attack, or a proof, has to go. Proofs,
    and they alone, have access = "weights"."""
    nearest: Nearest | None = None
    """Look for the nearest wrong image: the attack is asked in smaller and smaller balls, by
    halves, for the smallest radius at which it succeeds; a proof for the largest at which there is
    nothing."""

    goal: Literal["untargeted", "targeted"] = "untargeted"
    """untargeted: any class but the label; targeted: the class that `aim` says, whose success is
    counted beside the accuracy. A targeted attack counts in the worst case, not in the average."""
    aim: Aim | None = None
    """With goal = "targeted": a class by its number, or of each image the `likeliest` wrong class,
    the `least-likely`, or `each` wrong class in turn; likeliest unless the card says otherwise. An
    image whose label is the class aimed at stays as it is, and counts in no success."""
    meets: Literal["all", "noisy"] = "all"
    """noisy: only models whose answers differ from draw to draw, the others have no use for it."""

    @model_validator(mode="before")
    @classmethod
    def _several_radii_are_a_curve(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("nearest") is not None:
            values = {"role": "nearest", **values}
        if isinstance(values.get("eps"), (list, tuple)):
            values = {"role": "curve", **values}
        if values.get("goal") == "targeted" and values.get("aim") is None:
            values = {**values, "aim": AIMS[0]}
        return values

    @model_validator(mode="after")
    def _all_goes_together(self) -> AttackCard:
        for complaint in self._complaints():
            raise ValueError(complaint)
        return self

    def _complaints(self) -> Iterator[str]:
        """What of the card does not go together, in words."""
        several = isinstance(self.eps, tuple)
        for eps in self.eps if isinstance(self.eps, tuple) else (self.eps,):
            if self.norm == "linf" and 1 < eps < math.inf:
                yield (
                    f"eps = {eps:g} in linf: pixels are in [0, 1], so that all images are within "
                    f"1 of each other; {eps:g}/255 = {eps / 255:.4g} is probably meant"
                )
        if (self.role == "nearest") != (self.nearest is not None):
            yield 'role = "nearest" goes with nearest = { halvings = 6, images = 12 }, and no other'
        if self.nearest is not None:
            if isinstance(self.eps, tuple) or not 0 < self.eps < math.inf:
                yield "nearest is looked for within one finite eps above 0"
            if self.access == "transfer" or self.goal == "targeted":
                yield "nearest is of attacks on the model itself, towards any wrong class"
        if (self.access == "transfer") != (self.surrogate is not None):
            yield 'access = "transfer" and surrogate = "<model>" go together'
        if several and not self.eps:
            yield "eps is an empty list"
        if several and self.role not in ("curve", "proof"):
            yield 'several eps make a curve: drop role or say role = "curve" or "proof"'
        if self.aim is not None and self.goal != "targeted":
            yield 'aim goes with goal = "targeted"'
        if self.goal == "targeted" and self.role == "proof":
            yield 'a proof is about every class: drop goal = "targeted"'
        if self.aim == "each" and self.access == "transfer":
            yield (
                'aim = "each" needs the model itself: with access = "transfer" name a class, or '
                "say likeliest or least-likely"
            )
        proves = self.role == "proof" or (self.role == "nearest" and self.access == "weights")
        if proves != (self.access == "weights"):
            yield 'role = "proof" and access = "weights" go together'


class CorruptionCard(Card):
    """corruptions/*.toml: a corruption, its kinds and severities."""

    folder = "corruptions"
    corruption: SpecField
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 2, 3, 4, 5)
    keep: bool = True
    """Whether corrupted images are made once and kept in the store; false: they are made batch by
    batch whenever they are used, with the same bits, and need no disk."""


class ClaimCard(BaseModel):
    """[[claims]] of a report card: one published comparison, to be judged against our numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    """The claim, as its paper makes it."""
    model: str
    """Model card that the claim speaks for."""
    than: str
    """Model card that it is compared with."""
    threat: str
    """Threat under which the paper compares them."""
    published: tuple[Accuracy, Accuracy] | None = None
    """The paper's accuracies of `model` and `than`, in [0, 1]; None: it has none that could stand
    beside ours, on other networks or data. Then what the strong evaluation leaves of the
    difference is held against what is measured under `threat`."""
    control: str | None = None
    """Model card that shares the suspected cause but not the method, such as BP with the same
    noise."""
    strong: str = "worst case"
    """Threat of the strong evaluation; "worst case": the per-image worst over all attacks."""


class ReportCard(Card):
    """reports/*.toml: which models meet which threats."""

    folder = "reports"
    title: str
    subject: str = ""
    """What the index of a site files it under; empty: the names of its data sets."""
    models: tuple[str, ...] = Field(min_length=1)
    attacks: tuple[str, ...] = ()
    transfer: tuple[str, ...] = ()
    """White-box attacks whose examples are made on each of the models and scored on all of them:
    the transfer matrix. They count in the worst case, not in the average."""
    corruptions: tuple[str, ...] = ()
    images: int = Field(default=500, ge=1)
    """Test images per cell: a sample of the test split, drawn by class (data/sample.py)."""
    draws: int = Field(default=8, ge=1, le=10_000)
    """Fresh draws by which a noisy model is scored; a deterministic one is asked once."""
    top_k: int = Field(default=1, ge=1)
    """A label counts as answered where it is among so many likeliest classes; attacks are after
    that, too."""
    labels: Literal["true", "predicted"] = "true"
    """predicted: what a network itself answers to the clean image counts as right, so that what is
    missing to an accuracy of 1 is how often it is fooled; true labels are not asked for."""
    vote: int | None = Field(default=None, ge=1)
    """Draws of a noisy model in a majority vote; at most half of the draws, for the others choose
    the attack; None: half of them."""
    batch_size: int = Field(default=500, ge=1)
    seed: int = Field(default=0, ge=0)
    diagnostics: bool = True
    """Whether the cards in attacks/diagnostics/ are met too, at the radii of the report's attacks:
    what tells whether gradients are masked."""
    baselines: tuple[str, ...] = ()
    """Models whose corruption errors normalise mCE, one for each data set; empty: no mCE."""
    claims: tuple[ClaimCard, ...] = ()
    """Published claims to be judged against the measured numbers."""

    @model_validator(mode="after")
    def _other_draws_choose(self) -> ReportCard:
        if self.vote is not None and 2 * self.vote > self.draws:
            raise ValueError(
                f"vote = {self.vote} is more than half of draws = {self.draws}: the attack is "
                "chosen by draws that do not vote"
            )
        return self


AnyCard = TypeVar("AnyCard", bound=Card)


def read_card(card_type: type[AnyCard], path: Path, root: Path, name: str) -> AnyCard:
    """The card in the TOML file `path`.

    Raises RobenchError naming file, key, value and what to do.
    """
    try:
        shown = path.relative_to(root)
    except ValueError:
        shown = path
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # which editors may mark
    except RecursionError:
        raise RobenchError(f"{shown}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # also numbers of too many digits, and bytes that are no text
        raise RobenchError(f"{shown}: not valid TOML: {printable(error)}") from None
    except OSError as error:
        raise RobenchError(f"{shown}: cannot be read: {error.strerror}") from None
    for key, value in values.items():
        if _too_large(value):
            raise RobenchError(f"{shown}: {key}: not valid TOML: an integer has more than 64 bits")
    for reserved in ("name", "root"):
        if reserved in values:
            raise RobenchError(f"{shown}: {reserved}: a card is named by its file; drop this key")
    try:
        return card_type(**values, name=name, root=root)
    except ValidationError as error:
        allowed = set(card_type.model_fields) - {"name", "root"}
        raise RobenchError(f"{shown}: {explain(error, allowed)}") from None


def _too_large(value: Any) -> bool:
    """Whether an integer in `value` is larger than TOML's, which have 64 bits."""
    if isinstance(value, (dict, list)):
        return any(map(_too_large, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63

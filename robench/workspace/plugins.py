"""A name -> the class that implements it, and the fields that a card may set on it.

A name is a built-in (`"nit"`), an installed plugin (entry-point groups `robench.networks`, ...) or
a file in the workspace (`"./my_defense.py:MyDefense"`). Listing names imports no plugin.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, cast, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainValidator,
    ValidationError,
    create_model,
    model_serializer,
)
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from robench.digest import digest_bytes
from robench.errors import RobenchError, cause, explain, nearest, resolved
from robench.plugin_code.loading import refresh, watch
from robench.plugin_code.reach import Code, built, code_of, installed
from robench.plugin_code.time_limit import STOPS
from robench.workspace.cards import Card, Spec

Kind = Literal["networks", "trainers", "attacks", "corruptions", "datasets"]
KINDS: tuple[Kind, ...] = ("networks", "trainers", "attacks", "corruptions", "datasets")
KIND_OF: dict[str, Kind] = {kind[:-1]: kind for kind in KINDS}
"""Which kind of plugin a key of a card names."""
PRIVATE_PACKAGE = "robench_workspace"
BASES: dict[Kind, str] = {
    "networks": "robench.networks.base:Network",
    "trainers": "robench.trainers.base:Trainer",
    "attacks": "robench.attacks.base:Attack",
    "corruptions": "robench.corruptions.base:Corruption",
    "datasets": "robench.data.base:Dataset",
}

BUILT_IN: dict[Kind, dict[str, str]] = {
    "networks": {
        "cnn": "robench.networks.cnn:CNN",
        "gat": "robench.networks.gat:GAT",
        "gcn": "robench.networks.gcn:GCN",
        "fc": "robench.networks.fc:FC",
        "huggingface": "robench.networks.modules.huggingface:HuggingFace",
        "mlp": "robench.networks.mlp:MLP",
        "module": "robench.networks.modules.module:Module",
        "rnn": "robench.networks.rnn:RNN",
        "robustbench": "robench.networks.modules.robustbench:RobustBench",
        "snn": "robench.networks.snn:SNN",
        "timm": "robench.networks.modules.timm:Timm",
    },
    "trainers": {
        "adversarial": "robench.trainers.adversarial:Adversarial",
        "bfunction": "robench.trainers.bfunction:BFunctionTrainer",
        "bp": "robench.trainers.bp:BP",
        "bp-n": "robench.trainers.bp_n:BPN",
        "stbp": "robench.trainers.stbp:STBP",
        "stbp-n": "robench.trainers.stbp:STBPN",
        "feedback-alignment": "robench.trainers.feedback_alignment:FeedbackAlignment",
        "glr": "robench.trainers.glr:GLR",
        "hire-snn": "robench.trainers.hire_snn:HireSNN",
        "learned-bfunction": "robench.trainers.learned_bfunction:LearnedBFunction",
        "lr": "robench.trainers.lr:LR",
        "nit": "robench.trainers.nit:NIT",
        "nit-s": "robench.trainers.nit:NITS",
        "nit-s+": "robench.trainers.nit:NITSPlus",
        "s-ibp": "robench.trainers.s_ibp:SIBP",
        "snn-rat": "robench.trainers.snn_rat:SNNRAT",
        "trades": "robench.trainers.trades:Trades",
        "given": "robench.trainers.given:GivenWeights",
    },
    "attacks": {
        "fgsm": "robench.attacks.gradient:FGSM",
        "bim": "robench.attacks.gradient:BIM",
        "pgd": "robench.attacks.gradient:PGD",
        "pgd-relatives": "robench.attacks.gradient:PGDOnRelatives",
        "mim": "robench.attacks.gradient:MIM",
        "dim": "robench.attacks.gradient:DIM",
        "tim": "robench.attacks.gradient:TIM",
        "apgd": "robench.attacks.gradient:APGD",
        "fab": "robench.attacks.fab:FAB",
        "nattack": "robench.attacks.nattack:NAttack",
        "lbfgs": "robench.attacks.lbfgs:LBFGS",
        "spikes": "robench.attacks.spikes:Spikes",
        "square": "robench.attacks.square:Square",
        "without-gradients": "robench.attacks.without_gradients:WithoutGradients",
        "standard": "robench.attacks.standard:Standard",
        "exact": "robench.proofs.exact:Exact",
        "noise-certificate": "robench.proofs.certificate:NoiseCertificate",
        "autoattack": "robench.attacks.libraries.autoattack:AutoAttack",
        "event-flips": "robench.attacks.event_flips:EventFlips",
        "flips": "robench.attacks.flips:Flips",
        "noise": "robench.attacks.noise:Noise",
        "random-flips": "robench.attacks.flips:RandomFlips",
        "foolbox": "robench.attacks.libraries.foolbox:Foolbox",
        "art": "robench.attacks.libraries.art:ART",
    },
    "corruptions": {
        "imagenet-c": "robench.corruptions.imagenet_c.corruption:ImageNetC",
        "bag-of-words": "robench.corruptions.bag_of_words:BagOfWords",
        "glr-mnist": "robench.corruptions.glr_mnist:GLRMnist",
        "given": "robench.corruptions.given:GivenImages",
    },
    "datasets": {
        "arrays": "robench.data.arrays:Arrays",
        "cifar10": "robench.data.cifar:CIFAR10",
        "cifar100": "robench.data.cifar:CIFAR100",
        "citeseer": "robench.data.planetoid:CiteSeer",
        "cora": "robench.data.planetoid:Cora",
        "digits": "robench.data.digits:Digits",
        "digits-events": "robench.data.digits_events:DigitsEvents",
        "imagefolder": "robench.data.image_folder:ImageFolder",
        "imagenet": "robench.data.imagenet:ImageNet",
        "mnist": "robench.data.mnist:MNIST",
        "fashion-mnist": "robench.data.mnist:FashionMNIST",
        "svhn": "robench.data.svhn:SVHN",
        "two-gaussians": "robench.data.two_gaussians:TwoGaussians",
        "tiny-imagenet": "robench.data.tiny_imagenet:TinyImageNet",
    },
}


HELD: dict[str, type[Plugin]] = {}
"""Classes that Python code handed over, by the name that their cards have for them."""


@dataclass(frozen=True)
class Located:
    """What a setting stands for (a module, weights, images), and a way to make it."""

    text: str
    """What determines it: identities hold it in the setting's place."""
    make: Callable[..., Any] = field(compare=False)

    @model_serializer
    def _in_identities(self) -> str:
        return self.text


def _text_or_located(value: Any) -> Any:
    if not isinstance(value, (str, Located)):
        raise ValueError("must be a text")
    return value


Setting = Annotated[str | Located, PlainValidator(_text_or_located)]
"""A field whose text names something beside the card: see Plugin.located."""


class Plugin:
    """A class whose annotated attributes are the keys that a card may set.

    `version` is raised when the class's results change; it is part of every identity that uses it.
    """

    version: ClassVar[int] = 1
    files: ClassVar[tuple[str, ...]] = ()
    """Data files that it reads, beside the file of its class: they count in its identity. Reading
    another file of its workspace makes a plugin fail."""
    later: ClassVar[tuple[str, ...]] = ()
    """Fields that came after results had been stored. With its default such a field is left out of
    what identities hold, so that what was computed before it came keeps its digest."""
    _fields: ClassVar[type[BaseModel] | None] = None

    def __init__(self, **settings: Any) -> None:
        for key, value in self.validate(settings).items():
            setattr(self, key, value)

    @classmethod
    def fields(cls) -> type[BaseModel]:
        """The declared fields as a pydantic model; made once per class."""
        if "_fields" not in cls.__dict__ or cls._fields is None:
            declared: dict[str, Any] = {}
            for base in reversed([base for base in cls.__mro__ if issubclass(base, Plugin)]):
                for name, hint in inspect.get_annotations(base, eval_str=True).items():
                    if not (name.startswith("_") or ClassVar in (hint, get_origin(hint))):
                        declared[name] = (hint, getattr(cls, name, ...))
            cls._fields = create_model(
                cls.__name__, __config__=ConfigDict(extra="forbid", frozen=True), **declared
            )
        return cls._fields

    @classmethod
    def fields_for(cls, settings: Mapping[str, Any]) -> type[BaseModel]:
        """The fields that go with `settings`; a wrapper of a library asks the library for more."""
        return cls.fields()

    @classmethod
    def located(cls, settings: Mapping[str, Any], card: Card) -> dict[str, Any]:
        """The settings as the constructor takes them: what they name beside `card` (a file of
        weights, a function) is found. Raises RobenchError where it is not there."""
        return dict(settings)

    @classmethod
    def validate(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """All fields with their values, defaults filled in. Raises pydantic.ValidationError."""
        model = cls.fields_for(settings)(**settings)
        return {name: getattr(model, name) for name in type(model).model_fields}

    @classmethod
    def resolved(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The fields as plain JSON values: what identities and pages hold."""
        model = cls.fields_for(settings)
        fields = model(**settings).model_dump(mode="json")
        for key in {key for base in cls.__mro__ for key in vars(base).get("later", ())}:
            if fields[key] == to_jsonable_python(model.model_fields[key].get_default()):
                del fields[key]
        return fields


@lru_cache(maxsize=1)
def _installed() -> dict[Kind, dict[str, EntryPoint]]:
    entries: dict[Kind, dict[str, EntryPoint]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for entry in entry_points(group=f"robench.{kind}"):
            rival = entries[kind].get(entry.name) or _built_in(kind, entry.name)
            if rival and (rival.value, _package(rival)) != (entry.value, _package(entry)):
                raise RobenchError(
                    f"{kind}: two plugins are named {entry.name!r}: {_shown(rival)} and "
                    f"{_shown(entry)}; uninstall one or rename its entry point"
                )
            entries[kind][entry.name] = entry
    return entries


def _built_in(kind: Kind, name: str) -> EntryPoint | None:
    value = BUILT_IN[kind].get(name)
    return EntryPoint(name, value, f"robench.{kind}") if value else None


def _package(entry: EntryPoint) -> str:
    """The installed package that publishes an entry point."""
    return entry.dist.name if entry.dist else "robench"


def _shown(entry: EntryPoint) -> str:
    return f"{entry.value} (package {_package(entry)})"


def names(kind: Kind) -> list[str]:
    """Built-in and installed names of a kind, sorted. Imports no plugin."""
    return sorted({*BUILT_IN[kind], *_installed()[kind]})


def location(kind: Kind, name: str) -> str:
    """`module:Class` behind a name, without importing it."""
    if name in BUILT_IN[kind]:
        return BUILT_IN[kind][name]
    if name in _installed()[kind]:
        return _installed()[kind][name].value
    raise RobenchError(f"{kind[:-1]} {name!r} is not known; {nearest(name, names(kind))}")


def summary(kind: Kind, name: str) -> str:
    """The first line of the class's docstring, read from its source without importing it."""
    module, _, class_name = location(kind, name).partition(":")
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # of the top only: a parent would be imported
        origin = Path(spec.origin if spec and spec.origin else "")
        path = origin.parent.joinpath(*inner) if inner else origin
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(path.read_text())
    except (ImportError, OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""


def specs(card: Card) -> list[tuple[Kind, Spec]]:
    """The plugins that a card names."""
    values = [(key, getattr(card, key)) for key in type(card).model_fields]
    return [(KIND_OF[key], value) for key, value in values if isinstance(value, Spec)]


def load(kind: Kind, name: str, card: Card | None = None) -> type[Plugin]:
    """The class behind `name`; `./file.py:Class` is relative to the folder of `card`.

    Raises RobenchError for an unknown name, a file outside the workspace, a missing class.
    """
    where = f"{card.file}: " if card else ""
    if name in HELD:
        plugin = HELD[name]
    elif _is_file(name):
        plugin = _from_file(name, card)
    else:
        try:
            place = location(kind, name)
        except RobenchError as error:
            raise RobenchError(f"{where}{error}") from None
        try:
            plugin = _imported(place)
        except RobenchError as error:
            raise RobenchError(f"{where}{kind[:-1]} {name!r}: {error}") from error
    base = base_of(kind)
    if not (inspect.isclass(plugin) and issubclass(plugin, base)):
        raise RobenchError(f"{where}{kind[:-1]} {name!r}: {plugin!r} is not a subclass of {base}")
    return plugin


def base_of(kind: Kind) -> type[Any]:
    """The class that plugins of a kind are subclasses of."""
    module, _, attribute = BASES[kind].partition(":")
    return cast("type[Any]", getattr(importlib.import_module(module), attribute))


def beside(name: str, card: Card, where: str) -> Path:
    """The file that a setting names beside a card, or by its whole path; there may be none.

    Raises RobenchError, which begins with `where`, for one that a relative name leads out of the
    workspace to.
    """
    path = resolved(card.home / name, where)
    if not (Path(name).is_absolute() or path.is_relative_to(card.root.resolve())):
        raise RobenchError(
            f"{where}: lies outside the workspace; move it inside, or say its whole path"
        )
    return path


def held(kind: Kind, plugin: type[Plugin]) -> str:
    """The name by which a card may use a class that Python code hands over: a built-in's own, else
    one that says what its code is. Code whose source cannot be read (a notebook's) counts as
    new."""
    place = f"{plugin.__module__}:{plugin.__qualname__}"
    for name, built_in in BUILT_IN[kind].items():
        if built_in == place:
            return name
    try:
        file = Path(inspect.getfile(plugin))
        code = code_of(file, file.parent, (plugin,)).digest
    except (TypeError, OSError):
        code = f"session-{id(plugin):x}-{uuid.uuid4().hex}"
    known = next((name for name, one in HELD.items() if one is plugin), None)
    name = known or f"{plugin.__name__}@{code}"
    HELD[name] = plugin
    return name


def locate(name: str, card: Card) -> tuple[Any, Code]:
    """What `"./file.py:name"` (relative to the folder of `card`) or `"package.module:name"` stands
    for, and the code behind it.

    Raises RobenchError for a file outside the workspace, or where there is no such thing.
    """
    if _is_file(name):
        named = _from_file(name, card)
        return named, _code_in(name, card, (named,) if inspect.isclass(named) else ())
    try:
        if ":" not in name:
            raise RobenchError("say 'package.module:name' or './file.py:name'")
        named = _imported(name)
    except RobenchError as error:
        raise RobenchError(f"{card.file}: {name!r}: {error}") from error
    file = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    if file is None:
        raise RobenchError(f"{card.file}: {name!r}: its module has no file to count by")
    return named, code_of(Path(file), Path(file).parent)


def classes_in(path: Path, root: Path) -> list[tuple[Kind, type[Plugin]]]:
    """The plugin classes that a file of the workspace `root` defines."""
    module, classes = _import_file(path, root), list[tuple[Kind, type[Plugin]]]()
    for item in filter(inspect.isclass, vars(module).values()):
        if issubclass(item, Plugin) and item.__module__ == module.__name__:
            named = {base.__name__ for base in item.__mro__}
            classes += [(kind, item) for kind in KINDS if BASES[kind].partition(":")[2] in named]
    return classes


def _is_file(name: str) -> bool:
    return ".py:" in name or name.endswith(".py")


def _imported(name: str) -> Any:
    """`package.module:name` of what is installed."""
    module, _, attribute = name.partition(":")
    try:
        known = module in sys.modules or module.partition(".")[0] == "robench"
        with nullcontext() if known else _guarded(f"{module}, when it is imported,"):
            return getattr(importlib.import_module(module), attribute)
    except STOPS:
        raise
    except BaseException as error:  # whatever a stranger's module raises
        raise RobenchError(
            f"{module} cannot be imported: {type(error).__name__}: {error}"
            if module not in sys.modules
            else str(error)
        ) from error


def _guarded(
    who: str, files: frozenset[Path] | None = None, seed: int | None = 0
) -> AbstractContextManager[None]:
    from robench.plugin_code.guard import AtWork, guarded  # when it is needed: it imports torch

    return guarded(AtWork(who, files=files), seed)


def _from_file(name: str, card: Card | None) -> Any:
    if card is None:
        raise RobenchError(f"{name!r}: a plugin file is named by a card in the same workspace")
    file, _, wanted = name.partition(":")
    if not wanted:
        raise RobenchError(f"{card.file}: {name!r}: say which class, as in '{name}:MyClass'")
    path, root = resolved(card.home / file, f"{card.file}: {name!r}"), card.root.resolve()
    if not path.is_relative_to(root):
        raise RobenchError(f"{card.file}: {name!r}: lies outside the workspace; move it inside")
    if not path.is_file():
        raise RobenchError(f"{card.file}: {name!r}: no such file: {path}")
    module = _import_file(path, root)
    if not hasattr(module, wanted):
        own = [key for key, item in vars(module).items() if callable(item)]
        raise RobenchError(
            f"{card.file}: {path.name} has no class or function {wanted!r}; {nearest(wanted, own)}"
        )
    return getattr(module, wanted)


def _import_file(path: Path, root: Path) -> ModuleType:
    """The file as a module of one private package, so that its classes pickle."""
    package = f"{PRIVATE_PACKAGE}.w{digest_bytes(str(root).encode())[:12]}"
    for name, search in ((PRIVATE_PACKAGE, []), (package, [str(root)])):
        if name not in sys.modules:
            sys.modules[name] = ModuleType(name, "Plugin files of the workspaces in use.")
            sys.modules[name].__path__ = search
    dotted = ".".join(path.relative_to(root).with_suffix("").parts)
    name = f"{package}.{dotted}"
    watch(root)
    refresh()
    if name in sys.modules:
        return sys.modules[name]
    try:
        with _guarded(f"{path}, when it is imported,"):
            return importlib.import_module(name)
    except BaseException as error:
        sys.modules.pop(name, None)  # where it came in, it was put out again
        if isinstance(error, (RobenchError, *STOPS)):
            raise
        raise RobenchError(
            f"{path}: cannot be imported: {type(error).__name__}: {error}"
        ) from error


def resolve(kind: Kind, spec: Spec, card: Card) -> dict[str, Any]:
    """What a card's spec comes to: the plugin, its version, every field with its value.

    Raises RobenchError naming card, key, value and the keys allowed.
    """
    plugin = load(kind, spec.name, card)
    settings = plugin.located(spec.settings, card)
    try:
        fields = plugin.resolved(settings)
    except ValidationError as error:
        finding = explain(error, set(plugin.fields_for(spec.settings).model_fields))
        raise RobenchError(f"{card.file}: {kind[:-1]} {spec.name!r}: {finding}") from None
    return {"plugin": _code(kind, plugin, spec.name, card), "version": plugin.version, **fields}


def _code(kind: Kind, plugin: type[Plugin], name: str, card: Card) -> str:
    """A built-in counts by name and version, an installed plugin by its distribution and version
    too, all other code by what it reaches (reach.py)."""
    if name in HELD or name in BUILT_IN[kind]:
        return name
    if _is_file(name):
        return f"{plugin.__name__}@{_code_in(name, card, (plugin,)).digest}"
    entry = _installed()[kind].get(name)
    package = built(entry.dist) if entry and entry.dist else "robench"
    file = Path(inspect.getfile(plugin))
    if installed(file):
        return f"{package}:{name}"
    return f"{package}:{name}@{code_of(file, file.parent, (plugin,)).digest}"


def _code_in(name: str, card: Card, classes: Sequence[type]) -> Code:
    """What the code in a file of the workspace reaches. Raises RobenchError where importing it
    reads files that nobody has named."""
    code = code_of(card.home / name.partition(":")[0], card.root, classes)
    if code.undeclared:
        raise RobenchError(
            f"{card.file}: {name!r} reads {', '.join(code.undeclared)} when it is imported, which "
            "no identity covers: name it on the class, as in files = ['table.npy']"
        )
    return code


def own(kind: Kind, spec: Spec) -> bool:
    """Whether a plugin is robench's own, and so is all that it calls."""
    return spec.name in BUILT_IN[kind] and spec.name != "module"


def called(kind: Kind, spec: Spec, card: Card) -> str:
    """A plugin as errors name it."""
    return f"{kind[:-1]} {spec.name!r} ({card.file})"


def files(kind: Kind, spec: Spec, card: Card) -> frozenset[Path]:
    """The files that the identity of a plugin covers: code that it reaches, and data it names."""
    covered = frozenset[Path]()
    if _is_file(spec.name):
        covered |= _code_in(spec.name, card, (load(kind, spec.name, card),)).files
    factory = spec.settings.get("factory")
    if kind == "networks" and isinstance(factory, str) and _is_file(factory):
        covered |= locate(factory, card)[1].files
    return covered


def build(kind: Kind, spec: Spec, card: Card, **arguments: Any) -> Any:
    """An instance with the card's settings; `arguments` are what the framework adds.

    Raises RobenchError naming card, plugin and what is wrong: with the settings, or in the class.
    """
    resolve(kind, spec, card)
    plugin = load(kind, spec.name, card)
    settings = plugin.located(spec.settings, card)
    try:
        if own(kind, spec):
            return plugin(**arguments, **settings)
        covered = None if kind == "datasets" else files(kind, spec, card)
        with _guarded(f"{called(kind, spec, card)}, while it is built,", covered, seed=None):
            return plugin(**arguments, **settings)
    except STOPS:
        raise
    except BaseException as error:  # too large settings, whatever a stranger's class raises
        raise RobenchError(f"{card.file}: {kind[:-1]} {spec.name!r}: {cause(error)}") from error

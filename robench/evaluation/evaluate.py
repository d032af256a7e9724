"""`robench.evaluate`: a torch module that robench did not train, through the plan, the run and the
page that every report goes through."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.console import Console
from torch import nn

from robench.data.base import Splits
from robench.data.handed import data_handed_over
from robench.data.loading import load_splits
from robench.errors import RobenchError
from robench.evaluation.binarization import binarization_test
from robench.evaluation.threats import Wanted, held_card, threats_asked
from robench.make.identity import make_network
from robench.networks.modules.answers import named_by_answers, questions
from robench.networks.modules.handed import handed_over
from robench.networks.modules.module import Outputs
from robench.networks.modules.over_time import Encoding, Readout
from robench.networks.torch_state import own_state
from robench.plugin_code.freed_memory import give_back
from robench.run import RunOptions, make_results
from robench.store.store import Store
from robench.workspace.cards import ModelCard
from robench.workspace.folders import open_workspace

if TYPE_CHECKING:
    from robench.evaluation.notebook import Evaluation

NAME = re.compile(r"[\w.+/-]+")


@own_state()
def evaluate(
    module: nn.Module,
    dataset: Any,
    report: str = "strong",
    *,
    norm: Literal["linf", "l2", "l1", "l0"] | None = None,
    eps: float | Sequence[float] | None = None,
    goal: Literal["untargeted", "targeted"] | None = None,
    aim: int | Literal["likeliest", "least-likely", "each"] | None = None,
    attacks: Sequence[Wanted] | None = None,
    corruptions: Sequence[str] | None = None,
    images: int | None = None,
    batch_size: int | None = None,
    top_k: int | None = None,
    labels: Literal["true", "predicted"] | None = None,
    classes: Sequence[str] = (),
    beside: Sequence[str] = (),
    name: str | None = None,
    outputs: Outputs = "logits",
    output: int | str | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    stochastic: bool = False,
    steps: int | None = None,
    encoding: Encoding = "direct",
    readout: Readout = "rate",
    workspace: str | Path | None = None,
    store: str | Path | None = None,
    device: str | None = None,
    jobs: int = 1,
    keep_images: bool = False,
    planted: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Attack, corrupt and diagnose a trained module as a report does its models.

    What was evaluated before is read from the store. The module itself is left as it is; its
    weights are used where they lie, so that nobody else may change them meanwhile.

    Args:
        module: images (n, c, h, w), float32 in [0, 1] -> (n, classes).
        dataset: a data set by name, or {"name": ..., "split": ...} as in a model card; (x, y),
            tensors or arrays, x (n, c, h, w) in [0, 1]; a torch Dataset or DataLoader, or a Dataset
            of Hugging Face, whose items are (image, label) or dictionaries of both, images of PIL
            too; a robench.Dataset, or "./file.py:Class", relative to the current folder.
        report: a report card, whose threats the module meets (its models are left out), or a set of
            attacks: a folder of attack cards ("strong") or one card ("pgd").
        norm, eps: the threat: pixels of images in [0, 1], so that eps = 8/255 is eight steps of a
            byte. Several eps: the first is the headline's, the others are a curve. None: those of a
            report card; where robench's own attack cards are meant, 8/255 for colour and 0.1 for
            grey images, which is said.
        goal, aim: "targeted" makes the attacks go towards a class: one by its number, or of each
            image the "likeliest" wrong one, the "least-likely" or "each"; how often they get there
            is `result.success("pgd")`. Attacks that cannot are left out.
        attacks: instead of those of `report`: names or patterns of cards, {"name": "pgd", "steps":
            50}, instances of robench.Attack. corruptions: names or patterns of cards.
        images: test images per cell; None: as the report says, at most as many as there are.
        top_k: a label counts as answered where it is among so many likeliest classes. labels:
            "predicted": what the module itself answers to clean images counts as right, so that
            `dataset` may be images alone, and what is missing to 1 is how often it is fooled. None:
            as the report says.
        classes: names of the classes of (x, y), in the order of the labels.
        beside: model cards to be trained and measured beside the module.
        name: what the module is called; None: its class.
        outputs: what the module answers ("logit", "probability": one number for each image, of
            class 1 against 0). output: which part, where it answers a tuple or a dictionary.
            mean, std: of each channel, where the module wants normalised images. stochastic:
            whether two answers to one image may differ.
        steps, encoding, readout: of a spiking module: how many time steps it is shown (None: it
            keeps the time itself), what it sees at each of them (the image: "direct"; spikes with
            the pixels as rates: "poisson"; channels that are time x 2 polarities: "events"), and
            how its outputs (steps, n, classes) are read ("rate", "last" or "membrane").
        workspace: folder whose cards are meant; None: the one at hand, as in the command line.
        store: folder or fsspec URL of results; None: .robench in the workspace.
        device: None: CUDA where there is one.
        jobs: processes; more than one needs a module that pickles and whose class is in a file.
        keep_images: whether all adversarial images are kept in the store, for `result.images`.
        planted: around so many test images adversarial examples are planted, and an attack looks
            for them (`result.binarization`; robench/evaluation/binarization.py): one that cannot
            find what is surely there says nothing of the module. In linf, at the largest eps of the
            attacks.
        progress: whether bars are drawn.

    Raises RobenchError for bad input, and where the module does not answer as it should.
    """
    if not isinstance(module, nn.Module):
        raise RobenchError(f"evaluate: {type(module).__name__} is not a torch.nn.Module")
    name = name or type(module).__name__
    command = _call(name, locals())
    if not NAME.fullmatch(name):
        raise RobenchError(f"evaluate: name = {name!r}: letters, digits and . _ + / - only")
    here = open_workspace(Path(workspace) if workspace is not None else None)
    console = _console(progress)
    factory, weights = handed_over(module)
    handed: Any = factory.make
    settings: dict[str, Any] = {
        "outputs": outputs,
        "output": output,
        "mean": tuple(mean),
        "std": tuple(std),
    }
    over_time = {"steps": steps, "encoding": encoding, "readout": readout}
    usual = {"steps": None, "encoding": "direct", "readout": "rate"}
    settings |= {key: value for key, value in over_time.items() if value != usual[key]}
    if labels not in (None, "true", "predicted"):
        raise RobenchError(f"evaluate: labels = {labels!r}: 'true' or 'predicted'")
    data = data_handed_over(dataset, classes, labelled=labels != "predicted")
    card = held_card(
        ModelCard,
        here,
        name,
        description=f"{type(module).__name__}, handed over in Python",
        dataset=dataset if data is None else {"name": "arrays", "file": data},
        network={"name": "module", "factory": factory, "stochastic": stochastic, **settings},
        trainer={"name": "given", "weights": weights},
    )
    splits = load_splits(card)
    factory = named_by_answers(factory, questions(splits, mean, std))
    card = card.model_copy(update={"network": card.network.model_copy(update={"factory": factory})})
    give_back()
    if data is not None:
        card = _with_all_classes(card, splits)
    asked = threats_asked(
        here,
        report,
        attacks,
        corruptions,
        norm=norm,
        eps=eps,
        channels=splits.input_shape[0],
        goal=goal,
        aim=aim,
    )
    if asked.said:
        console.print(f"threat: {asked.said}", highlight=False)
    wanted = asked.report.images if images is None else images
    if wanted < 1:
        raise RobenchError(f"evaluate: images = {images!r}: at least 1")
    if planted < 0:
        raise RobenchError(f"evaluate: planted = {planted!r}: 0 or more")
    update: dict[str, Any] = {"name": f"evaluate/{name}", "models": (name, *beside)}
    if batch_size is not None:
        update["batch_size"] = _at_least_one("batch_size", batch_size)
    if top_k is not None:
        update["top_k"] = _at_least_one("top_k", top_k)
    if labels is not None:
        update["labels"] = labels
    whole = asked.report.model_copy(
        update={**update, "images": min(wanted, len(splits.test)) if images is None else wanted}
    )
    threads, steady = torch.get_num_threads(), torch.backends.cudnn.deterministic
    kept = Store(store if store is not None else here.output / ".robench")
    try:
        results = make_results(
            here.holding(card, whole, *asked.cards),
            whole.name,
            RunOptions(device, jobs, keep_images=keep_images),
            store=kept,
            console=console,
            command=command,
        )
    finally:
        # A run computes on one thread, with steady convolutions; the caller's own work need not.
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = steady
        handed.put_back()
    if results.table(name, 0, "clean") is None:
        why = next(failed["error"] for failed in results.failures() if failed["model"] == name)
        raise RobenchError(f"evaluate: {name}: {why}")
    # What shows results is heavy, and not wanted in the memory of who makes them.
    from robench.evaluation.notebook import Evaluation

    if not planted:
        return Evaluation(results, name, kept)
    radii = [float(t["eps"]) for t in results.attacks if t["norm"] == "linf" and t["eps"]]
    if not radii:
        raise RobenchError("evaluate: planted: the test is in linf, where no attack is asked for")
    binarization = binarization_test(
        module,
        splits.test.at(slice(planted)),
        eps=max(radii),
        stochastic=stochastic,
        settings=settings,
    )
    return Evaluation(results, name, kept, binarization)


def _at_least_one(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RobenchError(f"evaluate: {key} = {value!r}: a whole number, at least 1")
    return value


def _with_all_classes(card: ModelCard, splits: Splits) -> ModelCard:
    """The card with as many classes as the module answers: labels at hand may lack the last
    ones."""
    with torch.no_grad():
        answer = make_network(card, splits).eval()(torch.full((2, *splits.input_shape), 0.5))
    answers = answer.shape[1] if getattr(answer, "ndim", 0) == 2 else 0
    if answers <= len(splits.classes):
        return card
    return card.model_copy(update={"dataset": card.dataset.model_copy(update={"classes": answers})})


def _console(progress: bool) -> Console:
    """Where progress is shown: bars in a terminal, lines in a notebook or a log."""
    return Console(
        stderr=True,
        quiet=not progress,
        emoji=False,
        force_jupyter=False,
        force_terminal=sys.stderr.isatty(),
    )


NOT_SAID = (
    "module", "name", "workspace", "store", "device", "jobs", "keep_images", "planted", "progress",
)  # fmt: skip
"""Arguments that change no number on a page."""


def _call(name: str, given: Mapping[str, Any]) -> str:
    """The call that makes a page again: the data, the report, and what was set otherwise than by
    default."""
    parts = [name]
    for key, parameter in inspect.signature(evaluate).parameters.items():
        always = key in ("dataset", "report")
        if always or (key not in NOT_SAID and given[key] != parameter.default):
            parts.append(f"{key}={_said(given[key], short=key == 'dataset')}")
    return f"robench.evaluate({', '.join(parts)})"


def _said(value: Any, short: bool = False) -> str:
    """An argument as it is written, or what kind of thing it is. short: not of many parts."""
    if isinstance(value, (list, tuple)) and not short:
        return f"[{', '.join(_said(part) for part in value)}]"
    if value is None or isinstance(value, (str, int, float, Mapping)):
        return repr(value)
    return repr(str(value)) if isinstance(value, Path) else f"<{type(value).__name__}>"

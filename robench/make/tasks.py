"""The three pieces of work a run is made of: train a model, make shared inputs, evaluate a cell.

A task is plain data that pickles; `digest` names its result in the store. `run` does the work in
whatever process it finds itself in and writes the result straight into the store. What else all
tasks have is said at Train.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
import safetensors.numpy
import safetensors.torch
import torch

from robench.corruptions.base import Corruption
from robench.corruptions.make import corrupt_images
from robench.corruptions.streamed import Streamed
from robench.data.base import Part, Sliced
from robench.data.loading import forget_splits, load_sample, load_splits
from robench.digest import Identity, derived_seed
from robench.errors import RobenchError
from robench.make.batches import forget_batches, read_batches
from robench.make.cell_network import CellNetwork, at_work, check_code, time_limit
from robench.make.goals import Towards, with_columns
from robench.make.probes.cell import Probes
from robench.make.provenance import provenance
from robench.make.scoring import Perturbed, check_proof, with_costs
from robench.make.trained import Copies, fresh_network, take_sigmas, there, trained_network
from robench.networks.base import Network
from robench.networks.torch_state import own_state
from robench.networks.weights import TORCH, written_state
from robench.plugin_code.freed_memory import give_back
from robench.plugin_code.guard import guarded, watched
from robench.plugin_code.time_limit import WEEK, within
from robench.store.adversarial import images_file
from robench.store.files import Content
from robench.store.seal import sealed_tensors
from robench.store.store import Outcome, Store
from robench.trainers.base import History, Trainer, added_memory, memory_now
from robench.workspace import plugins
from robench.workspace.cards import AttackCard, ModelCard, ReportCard
from robench.workspace.plan import Cell, Threat, Training

Tell = Callable[[float, str], None]
Kind = Literal["train", "make inputs", "evaluate"]
SHARED = ("images", "distance", "queries", "gradients")
"""What is kept of examples that several models are shown (see scoring.Perturbed)."""


@dataclass(frozen=True)
class Train:
    """Train one seed of a model. Returns the digest of the weights."""

    training: Training
    digest: str
    identity: Identity
    store: str
    device: str
    kind: ClassVar[Kind] = "train"
    sigma_of: str | None = None
    """Digest of the stored model whose noise levels this one has."""

    @property
    def label(self) -> str:
        return f"train {self.training.label}"

    @property
    def trains(self) -> bool:
        """Whether anything is trained: weights that were made elsewhere are only read."""
        name = self.training.card.trainer.name
        trainer = plugins.load("trainers", name, self.training.card)
        return cast("type[Trainer]", trainer).trains

    @property
    def makes(self) -> Sequence[str]:
        """What is there more once it is done: models, given, inputs, cells, images."""
        return ["models" if self.trains else "given"]

    @property
    def group(self) -> str:
        """Tasks of one kind and group take about the same time."""
        return self.training.card.name

    @property
    def reads(self) -> list[str]:
        """Names of the files of the store that it reads: written once, and shared by many tasks."""
        return Store.needed({"models": [self.sigma_of] if self.sigma_of else []})

    @property
    def time_limit(self) -> float:
        """Seconds that it may take: the least that a card of its says, else what anything gets. An
        attack and the scoring of what it made have as much each."""
        return self.training.card.time_limit or WEEK

    @own_state()
    def run(self, tell: Tell) -> str:
        store = Store(self.store)
        scratch = store.scratch(self.digest)
        weights, payload = self.train(tell, scratch)
        store.write_model(self.digest, payload)
        give_back()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        store.clear_failure(self.digest)
        return weights

    def train(self, tell: Tell, scratch: Path | None = None) -> tuple[str, Content]:
        """The digest of the weights and the file of the model, without writing it.

        Args:
            scratch: where the training may leave what it needs to go on.
        """
        card, seed = self.training.card, self.training.seed
        started = time.perf_counter()
        for kind, spec in plugins.specs(card):
            check_code(kind, spec, card, self.identity[kind[:-1]])
        splits = load_splits(card)
        device = torch.device(self.device)
        network = fresh_network(card, seed).to(device)
        trainer: Trainer = plugins.build("trainers", card.trainer, card)
        if trainer.trains and not len(splits.train):
            raise RobenchError(
                f"{card.file}: dataset {card.dataset.name!r} has no training images: say split = "
                "'8:2' there, or give it some (x_train and y_train in a file of arrays)"
            )
        trainer.scratch, trainer.noise_in_use = scratch, card.inference_noise
        if trainer.trains:
            network.learn_input(Sliced(splits.train))
        if self.sigma_of is not None:
            take_sigmas(network, Store(self.store), self.sigma_of, card)
        rng = torch.Generator(device).manual_seed(derived_seed("train", seed))
        work = at_work(("trainers", card.trainer, card), ("networks", card.network, card))
        looks = trainer.trains or not plugins.own("trainers", card.trainer)  # at the data
        before = splits.seal() if looks else b""
        memory = memory_now(device)
        began = time.perf_counter()
        guard = guarded(replace(work, aside=trainer.scratch), derived_seed("train", "global", seed))
        with within(self.time_limit, work.who), guard:
            curves = trainer.fit(network, splits, rng, tell)
        cost = {"seconds": time.perf_counter() - began, **added_memory(device, memory)}
        if looks and splits.seal() != before:
            forget_splits()
            raise RobenchError(f"{work.who} writes into the data set: copy what is to be changed")
        history = checked_history(curves, card)
        if trainer.trains:
            history = with_cost(history, cost)
        state = written_state(network, trainer.trains)
        del network
        about = {
            "identity": self.identity,
            "history": history,
            "provenance": provenance(device, time.perf_counter() - started),
        }
        return sealed_tensors(state, about, TORCH)


@dataclass(frozen=True)
class MakeInputs:
    """Perturb a slice of test data independently of the model under test."""

    cell: Cell
    report: ReportCard
    digest: str
    identity: Identity
    store: str
    device: str
    kind: ClassVar[Kind] = "make inputs"
    makes: ClassVar[Sequence[str]] = ["inputs"]
    surrogate: str | None = None
    """Digest of the surrogate model in the store, for transfer attacks."""

    @property
    def label(self) -> str:
        return f"make {self.cell.threat.name}"

    @property
    def group(self) -> str:
        return _family(self.cell.threat)

    @property
    def reads(self) -> list[str]:
        return Store.needed({"models": [self.surrogate] if self.surrogate else []})

    @property
    def time_limit(self) -> float:
        return time_limit(self.cell.threat)

    @own_state()
    def run(self, tell: Tell) -> None:
        started = time.perf_counter()
        store, device = Store(self.store), torch.device(self.device)
        threat = self.cell.threat
        trace: dict[str, list[Any]] = {"loss_trace": [], "loss_runs": []}
        if self.cell.surrogate is None:
            card = threat.corruption_card
            who = plugins.called("corruptions", card.corruption, card)
            with within(self.time_limit, who):
                made = self.streamed().whole(self.report.batch_size)
            tensors = {"images": made}
        else:
            assert self.surrogate is not None
            wanted, crafts = self.identity["surrogate"]["network"], threat.attack
            surrogate = self.cell.surrogate.card
            check_code("networks", surrogate.network, surrogate, wanted)
            check_code("attacks", crafts.attack, crafts, self.identity["threat"]["attack"])
            weights = self.identity["surrogate"]["weights"]
            network = trained_network(
                self.cell.surrogate, self.surrogate, weights, self.store, self.device
            )
            asked = CellNetwork(network, surrogate, self.cell, self.report, device)
            towards = asked.attack(*asked.truth(load_sample(self.cell)))
            perturbed = towards.runs[0]
            trace = {"loss_trace": perturbed.loss_trace, "loss_runs": perturbed.loss_runs}
            tensors = {
                name: np.ascontiguousarray(getattr(perturbed, name), np.float32) for name in SHARED
            }
            if towards.wanted:
                tensors["aims"] = towards.wanted[0].astype(np.int16)
        about = {
            "identity": self.identity,
            **trace,
            "provenance": provenance(device, time.perf_counter() - started),
        }
        store.write_inputs(self.digest, sealed_tensors(tensors, about)[1])
        store.clear_failure(self.digest)

    def streamed(self) -> Streamed:
        """Corrupted images, made when they are sliced."""
        threat, seed = self.cell.threat, self.report.seed
        card, part = threat.corruption_card, load_sample(self.cell)
        check_code("corruptions", card.corruption, card, self.identity["threat"]["corruption"])
        corruption: Corruption = plugins.build("corruptions", card.corruption, card)
        # Nature touches what an item is like, not what it is linked to.
        features = load_splits(self.cell.training.card).pixels("features")
        work = at_work(("corruptions", card.corruption, card))

        def make(asked: Part, first: int) -> np.ndarray:
            clean = asked.images if features is None else asked.images[..., features]
            with guarded(work, derived_seed("corruption", "global", seed)):
                made = corrupt_images(
                    corruption,
                    np.ascontiguousarray(clean),
                    first,
                    threat.corruption,
                    threat.severity,
                    seed,
                    asked.labels,
                    asked.numbers,
                )
            if features is None:
                return made
            images = np.array(asked.images)
            images[..., features] = made
            return images

        return Streamed(part, self.cell.start, make)


@dataclass(frozen=True)
class Evaluate:
    """Evaluate one cell."""

    cell: Cell
    report: ReportCard
    digest: str
    identity: Identity
    store: str
    device: str
    kind: ClassVar[Kind] = "evaluate"
    model: str
    """Digest of the model in the store."""
    inputs: str | None = None
    """Digest of the shared inputs in the store."""
    source: MakeInputs | None = None
    """What makes these inputs while they are used, where they are not kept."""
    broken: Mapping[int, str] | None = None
    """Of a proof: images that are broken already -> the threat that did."""
    keep: bool = False
    """Whether what an attack makes of the images is kept, too."""

    @property
    def label(self) -> str:
        return self.cell.label

    @property
    def group(self) -> str:
        return f"{self.cell.training.card.name} x {_family(self.cell.threat)}"

    @property
    def reads(self) -> list[str]:
        shared = [self.inputs] if self.inputs and self.source is None else []
        return Store.needed({"models": [self.model], "inputs": shared})

    @property
    def time_limit(self) -> float:
        return time_limit(self.cell.threat, self.cell.training.card)

    @property
    def attacks(self) -> bool:
        """Whether it makes images of its own, which nothing else holds."""
        return self.cell.threat.kind == "attack" and self.inputs is None

    @property
    def keeps(self) -> bool:
        """Whether images are kept: shared inputs always are, under their own name."""
        return self.keep and self.attacks

    @property
    def makes(self) -> Sequence[str]:
        return ["cells", "images"] if self.keeps else ["cells"]

    @property
    def batches(self) -> range:
        """The first images of the batches that its attack may be asked about apart, in whatever
        process: nothing that it leaves behind in robench's own networks and attacks counts. What a
        stranger's network or attack is left with is looked at, so that these are asked about one
        batch after the other by the same process, as are searches and goals that look at the whole
        slice. Fewer than two: there is nothing to be parted."""
        card, attacks, size = self.cell.threat.card, self.attacks, self.report.batch_size
        if not (attacks and isinstance(card, AttackCard) and self.report.labels == "true"):
            return range(0)
        own = plugins.own("attacks", card.attack) and plugins.own(
            "networks", self.cell.training.card.network
        )
        if not own or card.nearest is not None or card.goal != "untargeted":
            return range(0)
        return range(0, self.cell.stop - self.cell.start, size)

    @own_state()
    def attack_batch(self, start: int) -> Perturbed:
        """What the attack makes of one of the batches."""
        weights = self.identity["model"]["weights"]
        training, device = self.cell.training, torch.device(self.device)
        network = trained_network(training, self.model, weights, self.store, self.device)
        asked = CellNetwork(network, training.card, self.cell, self.report, device)
        return asked.attack(load_sample(self.cell), None, self.broken, only=start).runs[0]

    def run(self, tell: Tell) -> None:
        store = Store(self.store)
        made = read_batches(store, self.digest, self.batches)
        outcome, images = self.carry_out(made)
        if not self.keeps or images is None:
            store.write_cell(self.digest, outcome)
        else:
            outcome.provenance["images"], payload = images_file(outcome, images)
            store.write_cell(self.digest, outcome)
            store.write_images(self.digest, payload, outcome.digest)
        forget_batches(store, self.digest, made)

    def evaluate(self) -> Outcome:
        """The outcome, without writing it."""
        return self.carry_out()[0]

    @own_state()
    def carry_out(
        self, made: Mapping[int, Perturbed] | None = None
    ) -> tuple[Outcome, np.ndarray | None]:
        """The outcome, and what an attack made of the images; writes nothing.

        Args:
            made: batches that the attack has been asked about already, by their first image.
        """
        started = time.perf_counter()
        store, device = Store(self.store), torch.device(self.device)
        card, report = self.cell.training.card, self.report
        threat = self.cell.threat
        check_code("networks", card.network, card, self.identity["model"]["network"])
        if threat.kind == "attack" and self.inputs is None:
            crafts, wanted = threat.attack, self.identity["threat"]["attack"]
            check_code("attacks", crafts.attack, crafts, wanted)
        weights = self.identity["model"]["weights"]
        fresh = Copies(self.cell.training, self.model, weights, self.store, self.device)
        asked = attacked = CellNetwork(fresh(), card, self.cell, report, device)
        work, draws = asked.work, self.identity["draws"]
        with within(self.time_limit, work.who):
            part, answers = asked.truth(load_sample(self.cell))
        towards = Towards()
        if self.source is not None and not store.has("inputs", self.source.digest):
            images = cast("np.ndarray", self.source.streamed())  # slices as one does
        elif self.inputs is not None:
            images, towards = _shared(store, self.inputs)
        elif self.attacks:
            towards = attacked.attack(part, answers, self.broken, made=made)
        else:
            images = part.images
        outside = self.attacks and not plugins.own("attacks", threat.attack.attack)
        stranger = not work.own

        def again() -> Network:
            network = fresh()
            network.rows_at_once = attacked.network.rows_at_once
            return network

        def score(
            images: np.ndarray, labels: np.ndarray, seed: int
        ) -> tuple[pa.Table, dict[str, Any]]:
            of = Part(images, labels, part.numbers)
            return asked.score(images, of, draws, seed=seed, perturbed=bool(towards.runs))

        def scored(
            network: Network, images: np.ndarray, part: Part, **other: Any
        ) -> tuple[pa.Table, dict[str, Any]]:
            settings = {"perturbed": bool(towards.runs), **other}
            return replace(asked, network=network).score(images, part, draws, **settings)

        def crafted(network: Network, other: Part) -> np.ndarray:
            """What the attack makes of other images."""
            (made,) = replace(asked, network=network).attack(other, None).runs
            return made.images

        with within(self.time_limit, work.who), self._watch(asked):
            if outside or (stranger and (self.attacks or answers is not None)):
                asked = replace(asked, network=again())  # what strangers had is not what is scored
            perturbed, reached = towards.scored(score, part.labels, report.seed)
            if self.attacks:
                assert perturbed is not None
                images = perturbed.images
            rows, observations = score(images, part.labels, report.seed)
            probes = Probes(again, scored, crafted, work, self.time_limit, card, report, device)
            if self.attacks and stranger:
                observations |= probes.after(attacked.network, images, part, rows)
            attacked = asked  # what was attacked is not kept beside what is scored
        if "probed" in self.identity:
            with within(self.time_limit, work.who):
                observations |= probes.before(asked.network, part)
        give_back()
        if self.attacks and _on_relatives(threat.attack) and report.labels == "true":
            with self._watch(asked):
                observations |= probes.of_relatives(part, float(threat.eps or 0.0), weights)
        observations |= self._check_proof(rows, perturbed)
        outcome = Outcome(
            rows=with_columns(with_costs(rows, perturbed), reached),
            identity=self.identity,
            provenance={
                **provenance(device, time.perf_counter() - started),
                "input_shape": list(part.shape[1:]),
                "loss_trace": perturbed.loss_trace if perturbed else [],
                "loss_runs": perturbed.loss_runs if perturbed else [],
                **(_had_no_gradient(perturbed) if perturbed else {}),
                **observations,
            },
        )
        return outcome, images if self.attacks else None

    def _watch(self, asked: CellNetwork) -> AbstractContextManager[None]:
        """Around all that is asked of a network from outside once the attack is done: each question
        has a watch of its own, which costs little within another."""
        return watched(replace(asked.work, files=None), seed=None, network=asked.network)

    def _check_proof(self, rows: pa.Table, perturbed: Perturbed | None) -> dict[str, Any]:
        """What is noted of a proof that contradicts nothing; of anything else, nothing."""
        if perturbed is None or perturbed.proved is None:
            return {}
        noisy, broken = self.identity["draws"] > 1, self.broken or {}
        check_proof(rows, perturbed, broken, noisy, f"{self.cell.threat.name} ({self.label})")
        spent = np.array(perturbed.proof_seconds or [0.0])
        return {
            "proof": {
                "images": len(perturbed.proof_seconds),
                "seconds": {
                    "median": round(float(np.median(spent)), 4),
                    "p95": round(float(np.quantile(spent, 0.95)), 4),
                    "max": round(float(spent.max()), 4),
                },
                "handed": dict(Counter(broken.values())),
                "open": {str(image): text for image, text in perturbed.notes.items()},
            }
        }


def checked_history(history: Any, card: ModelCard) -> History:
    """The training curves as pages draw them: what is not finite becomes a gap.

    Raises RobenchError naming the trainer when they are not what `Trainer.fit` promises.
    """
    who = f"{card.file}: trainer {card.trainer.name!r}: fit returned"
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        raise RobenchError(f"{who} {type(history).__name__}, not a list with a dict for each epoch")
    for key, value in ((key, value) for row in history for key, value in row.items()):
        if not isinstance(value, (int, float)) or key == "model":
            raise RobenchError(f"{who} curves with {key} = {value!r}: not a number with a name")
    return [
        {"epoch": epoch, **{str(key): row[key] for key in row if math.isfinite(row[key])}}
        for epoch, row in enumerate(history, start=1)
    ]


def with_cost(history: History, cost: dict[str, float]) -> History:
    """The curves of a `fit` that measures nothing itself, with what it cost: seconds spread over
    its epochs (one, where it says nothing at all)."""
    if any("seconds" in row for row in history):
        return history
    rows = history or [{"epoch": 1}]
    each = cost | {"seconds": cost["seconds"] / len(rows)}
    return [{**row, **each} for row in rows]


def _on_relatives(card: AttackCard) -> bool:
    plugin = plugins.load("attacks", card.attack.name, card)
    return bool(getattr(plugin, "on_relatives", False))


def _had_no_gradient(perturbed: Perturbed) -> dict[str, str]:
    why = perturbed.without_gradients
    return {"without_gradients": why[:200]} if why else {}


def _family(threat: Threat) -> str:
    return threat.kind if threat.kind == "clean" else f"{threat.kind} {threat.card.name}"  # type: ignore[union-attr]


def _shared(store: Store, name: str) -> tuple[np.ndarray, Towards]:
    payload, metadata = there(store.read_inputs, name)
    tensors: dict[str, Any] = safetensors.numpy.load(payload)
    if "distance" not in tensors:
        return tensors["images"], Towards()
    made = Perturbed(
        **{name: tensors[name] for name in SHARED},
        zero_gradient=None,
        fooled_on_the_way=None,
        loss_trace=metadata["loss_trace"],
        loss_runs=metadata["loss_runs"],
    )
    return made.images, Towards([made], [tensors["aims"]] if "aims" in tensors else [])

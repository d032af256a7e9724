"""Exact answers: for each image of a network small enough, broken, proved or open."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.gradient import APGD, PGD
from robench.attacks.spikes import Spikes
from robench.attacks.target import WeightsTarget
from robench.proofs.bounds import intervals, lead, tie
from robench.proofs.boxes import convolutional, right
from robench.proofs.branch import search
from robench.proofs.leaf import CLOSE
from robench.proofs.program import TOLERANCE, Program
from robench.proofs.reading import Reading, Unreadable, read
from robench.proofs.region import region
from robench.proofs.shallow import Shallow, shallow
from robench.proofs.solver import Goal, Solver, settle
from robench.proofs.units import Floats

MARGINS = (4.0, 1.5)
"""Units of rounding that a witness keeps from every jump: tried one after the other."""


class Exact(Attack):
    """Searches the whole ball after a quick attack: bounds, branch and bound with Lagrangian bounds
    for one hidden layer, a mixed-integer program (Tjeng et al. 2019, arXiv 1711.07356) for more,
    interval and linear bounds alone for convolutions; what it cannot settle in time stays open. In
    linf, l1 and l2 (region.py)."""

    needs: ClassVar[str] = "weights"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    version: ClassVar[int] = 4
    paper: ClassVar[str] = "Tjeng et al. 2019, arXiv 1711.07356"

    seconds: float = Field(default=20.0, gt=0)
    """Most seconds for one image, of processor time; by the clock where a program is asked about a
    network of several hidden layers."""
    nodes: int = Field(default=100_000, ge=1)
    """Most nodes of branch and bound for one image: a limit that does not depend on the machine."""
    units: int = Field(default=1000, ge=1)
    """Images with more units than this that the ball leaves open are not searched: for reports that
    have no time for what is hopeless. Behind convolutions: layers with more keep the intervals that
    they have."""
    steps: int = Field(default=20, ge=0)
    """Of the attack that comes first, PGD on the margin; where the network jumps it is the ensemble
    `spikes`, with a budget of its own. 0: none."""

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        assert isinstance(target, WeightsTarget)
        images = self._quick(target, x, y, rng)
        standing = torch.nonzero(target.labels(images) == y)[:, 0].tolist()
        try:
            reading = None if convolutional(target.network) else read(target.network)
        except Unreadable as why:
            for image in standing:
                target.left_open(image, str(why))
            return images
        for image in standing:
            if target.broken[image]:
                continue
            started = time.thread_time()
            one, label = x[image : image + 1], int(y[image])
            if reading is None:
                self._bounded(target, one, label, image)
            elif (witness := self._searched(target, reading, one, label, image)) is not None:
                images[image] = witness[0]
            target.seconds.append(time.thread_time() - started)
        return images

    def _searched(
        self, target: WeightsTarget, reading: Reading, x: Tensor, label: int, image: int
    ) -> Tensor | None:
        """A wrong point, or None; what was found is told to the target."""
        try:
            return Search(self, target, reading, x, label, image).run(self.seconds)
        except Exception as error:  # a solver that dies proves nothing
            target.left_open(image, f"the solver died: {type(error).__name__}: {error}")
            return None

    def _bounded(self, target: WeightsTarget, x: Tensor, label: int, image: int) -> None:
        """An image of a network with convolutions: proved by the bounds, or left open."""
        try:
            where = region(target.ball, x)
            if right(target.network, x, label, where, self.units, self.seconds):
                target.proved(image)
            else:
                target.left_open(image, "bounds alone do not prove it")
        except Unreadable as why:
            target.left_open(image, str(why))

    def _quick(self, target: WeightsTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if not self.steps or self.finite_eps(target) == 0:
            return x.clone()
        attack: Attack = PGD(steps=self.steps, loss="margin", targets=3)
        if target.norm == "l1":
            own = "one-sided" if target.jumps else None
            attack = APGD(steps=5 * self.steps, loss="margin", targets=3, surrogate=own)
        elif target.jumps:
            attack = Spikes()
        return attack.perturb(target, x, y, rng)


class Search:
    """The search for one image."""

    def __init__(
        self, attack: Exact, target: WeightsTarget, reading: Reading, x: Tensor, y: int, image: int
    ) -> None:
        self.attack, self.target, self.reading = attack, target, reading
        self.x, self.label, self.image = x, y, image
        self.keep: set[int] | None = None
        self.region = region(target.ball, x)

    def run(self, seconds: float) -> Tensor | None:
        """A witness, or None after what was found has been told to the target."""
        self.bounds = intervals(self.reading, self.region)
        most = lead(self.reading, self.bounds, self.label, self.region)
        slack = tie(self.reading, self.bounds, self.label)
        ahead = self._most_votes()
        classes = [
            c
            for c in np.argsort(most, kind="stable").tolist()
            if c != self.label and (ahead[c] > 0.5 or (ahead[c] > -0.5 and most[c] >= -slack[c]))
        ]
        if not classes:
            self.target.proved(self.image)
            return None
        if shallow(self.reading):
            witness, why = self._branch(classes, seconds)
        else:
            witness, why = self._program(classes[::-1], slack, time.monotonic() + seconds)
        if witness is None and why:
            self.target.left_open(self.image, why)
        elif witness is None:
            self.target.proved(self.image)
        return witness

    def _branch(self, classes: list[int], seconds: float) -> tuple[Tensor | None, str]:
        """One hidden layer: a witness, or why there may be one; neither: there is none."""
        image = Shallow(self.reading, self.bounds, self.label, self.region)
        if not len(image.units):
            return None, ""  # the answer is the same everywhere, and right where the ball begins
        if image.undecided > self.attack.units:
            return None, f"more than {self.attack.units} units are open"
        witnesses: list[Tensor] = []

        def attempt(point: Floats) -> bool:
            witness = self._wrong(point)
            witnesses.extend([] if witness is None else [witness])
            return witness is not None

        tree = search(image, classes, self.attack.nodes, seconds, attempt)
        return (witnesses[-1] if tree.found else None), tree.left

    def _program(
        self, classes: list[int], slack: Floats, until: float
    ) -> tuple[Tensor | None, str]:
        """Any network: the same, by one mixed-integer program for each class."""
        left = ""
        for target in classes:
            self.keep = {self.label, target}
            program = Program(self.reading, self.bounds, self.region, 0.0, self.keep)
            solver = Solver(program, self.attack.nodes, until)
            for goal in self._goals(program, target, float(slack[target]) + TOLERANCE):
                answer = solver.ask(goal)
                if answer.point is not None:
                    witness = self._witness(answer.point, target, until)
                    if witness is not None:
                        return witness, ""
                    left = left or CLOSE
                left = left or answer.why
                if answer.why == "out of time":
                    return None, left
        return None, left

    def _most_votes(self) -> Floats:
        """The most counted outputs that each class can be ahead, (classes,); 0 without any."""
        ahead = np.zeros(self.reading.stages[-1].size)
        for stage, output in self.reading.votes:
            bound = self.bounds[stage]
            ahead += bound.out_high[:, output] - bound.out_low[self.label, output]
        return ahead

    def _goals(self, program: Program, target: int, slack: float) -> list[Goal]:
        """What a wrong answer needs, in one way or another."""
        coefficients, constant = program.lead(target, self.label)
        close = (coefficients, -slack - constant)
        if not self.reading.votes:
            return [[close]]
        votes, equal = program.votes(target, self.label)
        return [[(votes, 0.5 - equal)], [(votes, -0.5 - equal), close]]

    def _witness(self, point: Floats, target: int, until: float) -> Tensor | None:
        """A wrong point near `point`, as the network itself says."""
        if (wrong := self._wrong(point)) is not None:
            return wrong
        for margin in MARGINS:
            program = Program(self.reading, self.bounds, self.region, margin, self.keep)
            settled = settle(program, point, program.lead(target, self.label))
            if settled is not None and (wrong := self._wrong(settled)) is not None:
                return wrong
        for margin in MARGINS[1:]:
            program = Program(self.reading, self.bounds, self.region, margin, self.keep)
            solver = Solver(program, self.attack.nodes, until)
            for goal in self._goals(program, target, -TOLERANCE):
                answer = solver.ask(goal)
                if answer.point is not None and (wrong := self._wrong(answer.point)) is not None:
                    return wrong
        return None

    def _wrong(self, point: Floats) -> Tensor | None:
        pixels = torch.from_numpy(point[: len(self.region.low)].astype(np.float32)).to(self.x)
        candidate = self.target.project(pixels.view_as(self.x), self.x)
        if not self.region.box:  # until scaling it back, as the framework will, changes nothing
            for _ in range(3):
                candidate = self.target.project(candidate, self.x)
        index = torch.tensor([self.image], device=self.x.device)
        wrong = int(self.target.labels(candidate, index)[0]) != self.label
        return candidate if wrong else None

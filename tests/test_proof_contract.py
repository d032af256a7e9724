"""Proofs in a run: they come after the attacks, are handed what broke, and contradict nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest

from robench.make.run_state import Run
from robench.make.verify import verify
from robench.workspace.cards import AttackCard
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.plan import make_plan
from tests.test_execute import carry_out

Write = Callable[[str, str], Path]
EXACT = 'attack = { name = "exact" }\naccess = "weights"\nrole = "proof"\neps = [0.05, 0.1]\n'
FGSM = 'attack = "fgsm"\naccess = "white-box"\neps = 0.1\n'
REPORT = """
title = "Two ends"
models = ["small"]
attacks = ["proof", "fgsm"]
images = 40
diagnostics = false
"""


@pytest.fixture
def two_sided(small: Workspace, write: Write) -> Workspace:
    write("attacks/proof.toml", EXACT)
    write("attacks/fgsm.toml", FGSM)
    write("reports/ends.toml", REPORT)
    return open_workspace(small.root)


def rows(run: Run, threat: str):
    name = next(name for cell, name in run.digests.items() if cell.threat.name == threat)
    return run.outcomes.rows[name]


def test_proofs_come_last_and_every_image_ends_broken_or_proved(two_sided: Workspace) -> None:
    run, ears = carry_out(two_sided, "ends")
    order = [label.rpartition(" x ")[2] for label in ears.done[1:]]
    assert order == ["clean", "fgsm", "proof@0.05", "proof@0.1"]
    for eps, attacks in (("0.05", ["clean"]), ("0.1", ["clean", "fgsm", "proof@0.05"])):
        table = rows(run, f"proof@{eps}")
        broken = pc.less(table["correct"], 1).to_numpy(zero_copy_only=False)
        for attack in attacks:
            broken |= pc.less(rows(run, attack)["correct"], 1).to_numpy(zero_copy_only=False)
        proved = table["proved"].to_numpy() == 1
        assert (broken ^ proved).all()
        assert 0 < proved.sum() < 40
    assert "proved" not in rows(run, "fgsm").column_names


def test_a_second_run_does_nothing_and_bits_are_the_same(two_sided: Workspace) -> None:
    run, _ = carry_out(two_sided, "ends")
    again, ears = carry_out(two_sided, "ends")
    assert ears.done == []
    assert again.digests == run.digests
    assert all(cell.same for cell in verify(two_sided, "ends", run.store, 4))


def test_another_attack_changes_a_proof_only_if_it_breaks_another_image(
    two_sided: Workspace, write: Write
) -> None:
    run, _ = carry_out(two_sided, "ends")
    write("attacks/weak.toml", FGSM.replace("0.1", "0.001"))
    write("reports/ends.toml", REPORT.replace('"fgsm"', '"fgsm", "weak"'))
    more, ears = carry_out(open_workspace(two_sided.root), "ends")
    assert ears.done == ["small seed 0 x weak"]
    write("reports/ends.toml", REPORT.replace('"proof", "fgsm"', '"proof"'))
    _, ears = carry_out(open_workspace(two_sided.root), "ends")
    assert ears.done == ["small seed 0 x proof@0.1"]  # it was handed less
    assert more.digests.items() >= run.digests.items()


def test_a_proof_alone_is_handed_what_the_store_knows(two_sided: Workspace) -> None:
    carry_out(two_sided, "ends")
    _, ears = carry_out(two_sided, "ends", only=("proof@*",))
    assert ears.done == []


def test_a_proof_goes_on_without_an_attack_that_fails(two_sided: Workspace, write: Write) -> None:
    write("attacks/fails.py", "from robench import Attack\n\nclass Fails(Attack):\n    pass\n")
    write("attacks/fgsm.toml", 'attack = "./fails.py:Fails"\naccess = "white-box"\neps = 0.1\n')
    _, ears = carry_out(open_workspace(two_sided.root), "ends")
    assert list(ears.failed) == ["small seed 0 x fgsm"]
    assert "small seed 0 x proof@0.1" in ears.done


CLAIMS = """
import torch
from robench import Attack

class Claims(Attack):
    needs = "weights"
    bound: float = 1.0
    moves: bool = False

    def perturb(self, target, x, y, rng):
        for image in range(len(x)):
            target.proved(image, self.bound)
        return (1 - x) * target.eps + x * (1 - target.eps) if self.moves else x
"""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "image .*claims.*proves at least 1 everywhere in the ball, but .* breaks it"),
        (", moves = true", "claims.* but (.*|its own image, right in 0% of 1 answers) breaks it"),
        (", bound = 1.5", "a bound that is no probability"),
    ],
)
def test_a_false_proof_fails_and_both_are_named(
    two_sided: Workspace, write: Write, settings: str, said: str
) -> None:
    write("attacks/claims.py", CLAIMS)
    spec = f'attack = {{ name = "./claims.py:Claims"{settings} }}\n'
    write("attacks/claims.toml", spec + 'access = "weights"\nrole = "proof"\neps = 0.1\n')
    write("reports/ends.toml", REPORT.replace('"proof"', '"claims"'))
    _, ears = carry_out(open_workspace(two_sided.root), "ends")
    (failure,) = ears.failed.values()
    assert re.search(said, failure.short), failure.short


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"access": "white-box"}, 'role = "proof" and access = "weights" go together'),
        ({"role": "attack"}, "several eps make a curve"),
        ({"role": "attack", "eps": 0.1}, 'role = "proof" and access = "weights" go together'),
    ],
)
def test_cards_of_proofs_say_so(changed: dict[str, object], said: str) -> None:
    says = {"attack": "exact", "access": "weights", "role": "proof", "eps": (0.1, 0.2)} | changed
    with pytest.raises(ValueError, match=said):
        AttackCard(**says, name="proof", root=Path())


def test_weights_are_for_proofs_alone(two_sided: Workspace, write: Write) -> None:
    write("attacks/fgsm.toml", 'attack = "fgsm"\naccess = "weights"\nrole = "proof"\neps = 0.1\n')
    _, ears = carry_out(open_workspace(two_sided.root), "ends")
    assert (
        "'fgsm' proves nothing, so that it gets no weights"
        in ears.failed["small seed 0 x fgsm"].short
    )


def test_diagnostics_are_met_at_the_radii_of_proofs(two_sided: Workspace, write: Write) -> None:
    write(
        "reports/ends.toml", REPORT.replace('"proof", "fgsm"', '"proof"').replace("false", "true")
    )
    names = [threat.name for threat in make_plan(open_workspace(two_sided.root), "ends").threats]
    assert {"diagnostics/one-step@0.05", "diagnostics/one-step@0.1"} <= {*names}

"""The command line as a stranger meets it: verbs, exit codes, one-line errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import robench, robench_here

from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]


def test_a_hand_made_workspace_with_a_ten_line_defense_runs(small: Workspace, write: Write) -> None:
    write(
        "models/my_defense.py",
        "import torch\n"
        "from torch.nn.functional import cross_entropy\n"
        "from robench import Trainer\n\n"
        "class MyDefense(Trainer):\n"
        '    """Cross-entropy on inputs with Gaussian noise."""\n'
        "    sigma: float = 0.1\n"
        "    def loss(self, network, x, y, rng):\n"
        "        noise = torch.randn(x.shape, generator=rng, device=x.device)\n"
        "        return cross_entropy(network(x + self.sigma * noise), y)\n",
    )
    write(
        "models/mine.toml",
        'dataset = "digits"\nnetwork = "mlp"\n'
        'trainer = { name = "./my_defense.py:MyDefense", sigma = 0.2, epochs = 3 }\n',
    )
    write(
        "reports/mine.toml",
        (small.root / "reports/small.toml").read_text().replace('"small"', '"*"'),
    )
    done = robench_here("run", "mine", "--workspace", str(small.root), "--jobs", "1")
    assert done.returncode == 0, done.stderr
    page = small.root / "reports" / "mine" / "index.html"
    assert str(page) in done.stdout
    assert "mine" in page.read_text()
    assert (small.root / ".robench" / "cells").is_dir()

    before = page.read_bytes()
    again = robench_here("run", "mine", "--workspace", str(small.root), "--jobs", "1")
    assert "0 trained" in again.stderr
    assert "0 evaluated" in again.stderr
    assert page.read_bytes() == before

    status = robench_here("status", "mine", cwd=small.root)
    assert status.returncode == 0
    assert "6 done, 0 missing, 0 failed" in status.stdout

    (small.root / ".robench").rename(small.root / "elsewhere")
    rebuilt = robench_here("report", "mine", "-w", str(small.root))
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert page.read_bytes() == before


def test_a_failing_cell_gives_exit_code_1_and_a_page_all_the_same(
    small: Workspace, write: Write
) -> None:
    write(
        "attacks/broken.py",
        "from robench import Attack\n\nclass Broken(Attack):\n"
        "    def perturb(self, target, x, y, rng):\n        return x + 1\n",
    )
    write("attacks/broken.toml", 'attack = "./broken.py:Broken"\naccess = "white-box"\neps = 0.1\n')
    write(
        "reports/small.toml",
        (small.root / "reports/small.toml").read_text().replace('"fgsm"', '"broken"'),
    )
    done = robench_here("run", "small", "-w", str(small.root), "-j", "1")
    assert done.returncode == 1
    assert "left the range [0, 1]" in done.stderr
    assert "Traceback" not in done.stderr
    assert (small.root / "reports/small/index.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "smal"], "no card named 'smal'; did you mean small?"),
        (["run", "--workspace", "nowhere"], "not a workspace, it lacks"),
        (["show", "attack/pgd"], "did you mean attacks"),
        (["show", "attacks/pgdd"], "did you mean pgd"),
        (["run", "small", "--only", "zzz"], "matches no model or threat"),
        (["report", "small"], "make them with: robench run small"),
        (["run", "small", "--device", "cuda:77"], "--device cuda:77"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    small: Workspace, words: list[str], said: str
) -> None:
    done = robench_here(*words, cwd=small.root)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_bad_input_ends_the_process_with_its_line_and_code(small: Workspace) -> None:
    done = robench("run", "smal", cwd=small.root)
    assert done.returncode == 2
    assert done.stderr.startswith("error ")
    assert done.stderr.endswith("no card named 'smal'; did you mean small?\n")


def test_plan_says_what_would_be_done_and_does_nothing(small: Workspace) -> None:
    done = robench_here("plan", "small", cwd=small.root)
    assert done.returncode == 0
    assert "cells: 3, of 40 images each" in done.stdout
    assert not (small.root / ".robench").exists()


def test_status_of_an_unfinished_report_gives_exit_code_1(small: Workspace) -> None:
    done = robench_here("status", "small", cwd=small.root)
    assert done.returncode == 1
    assert "0 done, 3 missing, 0 failed" in done.stdout


def test_show_names_the_implementing_file_and_every_default(small: Workspace) -> None:
    done = robench_here("show", "attacks/pgd", cwd=small.root)
    assert "PGD in" in done.stdout
    assert "attacks" in done.stdout
    assert "steps = 15\n" in done.stdout
    assert "restarts = 1  (default)" in done.stdout


@pytest.mark.parametrize(
    "what", ["models", "attacks", "corruptions", "reports", "trainers", "networks", "datasets"]
)
def test_everything_can_be_listed(small: Workspace, what: str) -> None:
    done = robench_here("list", what, cwd=small.root)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 1


def test_the_version_is_printed() -> None:
    assert robench("--version").stdout.strip()


def test_publish_writes_a_site_once(
    small: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert robench_here("run", "small", "-w", str(small.root), "-j", "1").returncode == 0
    site = tmp_path_factory.mktemp("site")
    stamps = []
    for _ in range(2):
        done = robench_here("publish", str(site), "-w", str(small.root))
        assert done.returncode == 0, done.stderr
        stamps.append({path: path.stat().st_mtime_ns for path in site.rglob("*") if path.is_file()})
    assert stamps[0] == stamps[1], "the second run writes nothing"
    assert 'href="small/index.html"' in (site / "index.html").read_text()
    assert (site / "small" / "index.html").is_file()

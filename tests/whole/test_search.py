"""One search on real images, left alone: what it leaves, and that all of it is true."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from optuna.trial import FrozenTrial, TrialState
from safetensors.torch import load_file

from hssl_search import cli, load_head
from hssl_search.backbones import Base
from hssl_search.engine.budget import parse_budget
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.run import Run
from hssl_search.heads.files import read_head

CHECKPOINT_FILES = {"about.json", "base.safetensors", "sha256.json", "state.safetensors"}


@dataclass(frozen=True)
class Demo:
    """A finished search."""

    place: Any
    run: Run
    out: str
    err: str
    found: Any

    @property
    def sentence(self) -> str:
        """Return the sentence of the verdict."""
        return str(self.found.attributes["verdict"]["sentence"])

    @property
    def winner(self) -> FrozenTrial:
        return self.found.trials[self.found.attributes["verdict"]["winner"]]


@pytest.fixture(scope="session")
def demo(new_place: Callable[[], Any], budgets: tuple[str, ...]) -> Demo:
    """Run the one search that all tests here look at; takes about as long as the budget that is
    large enough.
    """
    place = new_place()
    for budget in budgets:
        run, program = place.search(budget)
        ended = program.wait()
        if ended.did_all(found := place.snapshot(run)):
            assert found.attributes["verdict"]["winner"] is not None, found.attributes["verdict"]
            return Demo(place, run, ended.out, ended.err, found)
    pytest.fail(f"not even {budgets[-1]} was enough on this machine")


@pytest.fixture
def within(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """Return the finished search, from the folder in which it was started."""
    monkeypatch.chdir(demo.place.folder)
    monkeypatch.setenv("HSSL_SEARCH_CACHE", str(demo.place.folder / "cache"))
    return demo


def words(text: str) -> str:
    """Return the text without its line breaks."""
    return " ".join(text.split())


def test_it_tells_its_phases_and_its_verdict_and_nothing_else_speaks(demo: Demo) -> None:
    told = words(demo.out)
    for phase in ("measure", "screen", "proxy"):
        assert f" {phase}: started, " in told
    assert demo.sentence in told
    for row in ("raw pixels", "untrained base", "no head", "identity head", "noise head"):
        assert row in demo.out
    assert f"runs/{demo.run.name}/winner" in told
    assert demo.err == ""
    assert not re.search(r"\bray\b|Tune|WARNING|Traceback", demo.out)


def test_it_leaves_these_files_and_no_others(demo: Demo) -> None:
    assert {path.name for path in (demo.place.folder / "runs").iterdir()} >= {demo.run.name}
    assert {path.name for path in demo.run.folder.iterdir()} == {
        "search.yaml",
        "study.db",
        "ledger.jsonl",
        "lock",
        "screening",
        "trials",
        "artifacts",
        "winner",
        "report.html",
        "leaderboard.csv",
        "trials.parquet",
    }
    winner = {path.name for path in demo.run.winner.iterdir()}
    assert winner - {"checkpoint"} == {"head.yaml", "base.safetensors", "HOWTO.md"}
    assert ("checkpoint" in winner) == ("full" in demo.found.jobs)
    checkpoints = list(demo.run.folder.rglob("step-*"))
    assert checkpoints and all(
        {path.name for path in checkpoint.iterdir()} == CHECKPOINT_FILES
        for checkpoint in checkpoints
    )


def test_each_trial_has_its_head_its_metrics_and_its_checkpoints(demo: Demo) -> None:
    for number, trial in demo.found.trials.items():
        ran = [job for job in demo.found.jobs.values() if job["trial"] == number]
        expected = {"head.yaml"} if trial.user_attrs["head"] else set()
        expected |= {"metrics.jsonl"} if ran else set()
        expected |= {
            "checkpoint" if job["phase"] == "proxy" else f"checkpoint-seed{job['seed']}"
            for job in ran
        }
        folder = demo.run.trial_folder(number)
        assert ({path.name for path in folder.iterdir()} if folder.exists() else set()) == expected


def test_nothing_is_left_to_be_decided_in_what_was_resolved(demo: Demo) -> None:
    def leaves(value: Any) -> Iterator[Any]:
        for inner in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        ):
            yield from leaves(inner)
        if not isinstance(value, dict | list):
            yield value

    assert "auto" not in set(
        leaves({key: value for key, value in demo.run.config().items() if key != "asked"})
    )


def test_it_costs_no_more_than_its_budget(demo: Demo) -> None:
    assert 0 < demo.found.spent() <= parse_budget(demo.run.config()["budget"]).seconds
    assert {charge["phase"] for charge in demo.found.charges} >= {
        "overhead",
        "measure",
        "screen",
        "proxy",
    }
    ledger = Ledger(demo.run.ledger)
    assert ledger.total() == pytest.approx(demo.found.spent()) and ledger.damaged == 0


def test_the_states_of_its_trials_are_true(demo: Demo) -> None:
    full_fidelity = demo.found.attributes["plan"]["numbers"]["proxy_steps"]
    for trial in demo.found.trials.values():
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        assert trial.user_attrs["device_s"] >= 0
        if trial.state is TrialState.COMPLETE:
            steps = max(trial.intermediate_values)
            assert steps >= full_fidelity or trial.user_attrs.get("control") == "none_same_time"
            assert trial.value == trial.intermediate_values[steps]
            assert 0 < trial.value <= 100
        else:
            assert trial.user_attrs["cause"]
    promoted = {
        number for number, trial in demo.found.trials.items() if trial.user_attrs.get("promoted")
    }
    assert promoted == set(demo.found.attributes["promoted"])


def test_the_gate_rejects_the_noise_head_though_it_is_the_most_discrepant(demo: Demo) -> None:
    noise = demo.found.named("noise head")
    assert (noise.state, noise.user_attrs["gate"]) == (TrialState.PRUNED, "not learning")
    others = [
        trial.user_attrs
        for trial in demo.found.trials.values()
        if "gate" in trial.user_attrs and trial is not noise
    ]
    assert len(others) >= 2
    for attributes in others:
        assert attributes["gate"] == "healthy"
        assert attributes["discrepancy"] < noise.user_attrs["discrepancy"]
        assert attributes["head_loss"] < attributes["chance_loss"] == noise.user_attrs["head_loss"]


def test_the_identity_head_has_no_excess_discrepancy(demo: Demo) -> None:
    identity = demo.found.named("identity head").user_attrs
    assert identity["cka_excess"] == identity["overlap_excess"] == 0.0
    assert identity["gate"] == "healthy"
    assert 0 <= identity["overlap"] < demo.found.named("noise head").user_attrs["overlap"]


def test_the_verdict_names_references_controls_and_winner(demo: Demo) -> None:
    reference = demo.found.attributes["reference"]
    assert set(reference) == {"raw pixels", "untrained base", "chance"}
    assert reference["chance"] == pytest.approx(100 * 37 / 359), "of ten classes of digits"
    assert 90 < reference["raw pixels"] < 100 and 40 < reference["untrained base"] < 100
    rows = {row["name"]: row for row in demo.found.attributes["verdict"]["rows"]}
    assert {row["name"] for row in rows.values() if row["role"] == "reference"} == set(reference)
    assert {"no head", demo.winner.user_attrs["name"]} <= set(rows)
    assert (
        demo.winner.user_attrs["role"] == "candidate" and demo.winner.state is TrialState.COMPLETE
    )
    assert rows["no head"]["mean"] > 50


def test_the_winning_head_trains_behind_the_base(demo: Demo) -> None:
    head = load_head(demo.run.winner / "head.yaml")
    base = Base("test_resnet", 32, {"output_stride": 8})
    features = head(base(torch.rand(4, 3, 32, 32)).map)
    assert features.map.shape == (4, head.width, 4, 4)
    features.embedding.square().mean().backward()
    assert all(
        parameter.grad is not None
        for parameter in [*head.parameters(), *base.model.conv1.parameters()]
    )


def test_timm_loads_the_base_that_was_trained(demo: Demo) -> None:
    newest = (
        demo.run.folder
        / read_head(demo.run.winner / "head.yaml").context["provenance"]["weights"]["checkpoint"]
    )
    prefix = "pair.student.base.model."
    trained = {
        key.removeprefix(prefix): value
        for key, value in load_file(newest / "state.safetensors").items()
        if key.startswith(prefix)
    }
    expected = Base("test_resnet", 32, {"output_stride": 8}).eval()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    untrained = expected.model(images)
    expected.model.load_state_dict(trained)
    weights = str(demo.run.winner / "base.safetensors")
    loaded = timm.create_model(
        "test_resnet", num_classes=0, output_stride=8, checkpoint_path=weights
    ).eval()
    assert torch.equal(loaded(images), expected.model(images))
    assert not torch.allclose(loaded(images), untrained)


class Resources(HTMLParser):
    """Collects what a browser would fetch for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster") or (
                name == "href" and tag in ("link", "base", "image", "use")
            ):
                self.fetched.append(value or "")
            if name == "style":
                self._read_style(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self._read_style(data)

    def _read_style(self, text: str) -> None:
        self.fetched += re.findall(r"url\(\s*[\"']?([^)\"']*)|@import([^;]*)", text)


def test_the_report_needs_no_network(demo: Demo) -> None:
    page = demo.run.report_html.read_text()
    assert demo.sentence.split(":")[0] in page
    resources = Resources()
    resources.feed(page)
    assert [
        address
        for address in map("".join, resources.fetched)
        if not address.startswith(("data:", "#"))
    ] == []


def test_status_and_report_work_on_it(within: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["status", within.run.name])
    assert within.sentence in words(capsys.readouterr().out)
    files = [within.run.report_html, within.run.leaderboard_csv, within.run.trials_parquet]
    for file in files:
        file.unlink()
    cli.main(["report", f"runs/{within.run.name}"])
    assert capsys.readouterr().out.splitlines() == [str(file) for file in files]
    assert all(file.stat().st_size for file in files)


def test_its_winner_trains_again_to_the_same_numbers(
    within: Demo, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(within.run.folder)
    cli.main(["replay", within.run.name, str(within.winner.number)])
    assert re.search(r"replays: all \d+ numbers are equal\.", words(capsys.readouterr().out))
    assert contents(within.run.folder) == before


def test_resuming_it_changes_nothing(within: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    kept = contents(within.run.winner)
    cli.main(["resume", within.run.name])
    assert within.sentence in words(capsys.readouterr().out)
    again = within.place.snapshot(within.run)
    assert again.decided() == within.found.decided() and len(again.trials) == len(
        within.found.trials
    )
    assert (again.attributes, again.jobs, again.charges) == (
        within.found.attributes,
        within.found.jobs,
        within.found.charges,
    )
    assert contents(within.run.winner) == kept


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs

from hssl_search.engine.statistics.correlation import rank_correlation
from hssl_search.errors import UserError
from hssl_search.reporting.files import write_report
from hssl_search.reporting.page import build_page
from hssl_search.reporting.tables import parameter_values


class Reader(HTMLParser):
    """Keeps the texts that a reader sees, the scripts, and what the page would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.scripts: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self._inside.append(tag)
        if tag == "script":
            self.scripts.append("")
        self.loads += [
            value
            for name, value in attributes
            if name in ("src", "href", "srcset", "data") and value
        ]
        self.ids += [value for name, value in attributes if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside == ["script"]:
            self.scripts[-1] += data
        elif not self._inside:
            self.text += f" {data}"

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text)


def test_page_tells_verdict_cost_leaderboard_screening_and_failures_in_this_order(
    run: Any, tmp_path: Path
) -> None:
    (tmp_path / "winner").mkdir()
    (tmp_path / "winner" / "HOWTO.md").write_text("```\nload_head\n```\n")
    words = Reader(build_page(run.study, run.ledger, tmp_path)).words
    told = [
        "test_resnet output_stride=8",
        "12cpu-min",
        "about 20 cpu-min would settle it",
        "of a budget of 12 min 00 s",
        "raw pixels",
        "29.3",
        "its loss stayed at chance.",
        "CUDA out of memory in block 5",
        "load_head",
        "image_size: 32",
        "optuna",
    ]
    places = [words.find(text) for text in told]
    assert -1 not in places
    assert places == sorted(places)


def test_page_needs_no_network_and_holds_plotly_once(run: Any) -> None:
    page = build_page(run.study, run.ledger, Path("runs/photos"))
    assert page.count(get_plotlyjs()) == 1
    reader = Reader(page)
    assert reader.loads == ["data:,"]
    own = page.replace(get_plotlyjs(), "")
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", own)
    assert {
        "figure-accuracy",
        "figure-discrepancy",
        "figure-curves",
        "figure-full",
        "figure-timeline",
    } <= set(reader.ids)


def test_nothing_that_a_user_named_becomes_markup(
    builder: Callable[..., Any], tmp_path: Path
) -> None:
    evil = "\"></script><script>alert('x')</script><img src=x onerror=alert(1)>"
    run = builder()
    run.attribute(
        config={
            "name": evil,
            "base": evil,
            "data": evil,
            "space": evil,
            "base_args": {evil: evil},
            "versions": {evil: evil},
        },
        reference={evil: 40.0},
        plan={"phases": {evil: 3.0}},
        verdict={
            "winner": 0,
            "name": evil,
            "state": "undecided",
            "sentence": evil,
            "rows": [],
            "comparison": {"difference": 0.1, "against": evil, "seeds": 2},
        },
    )
    run.add(evil, "mlp", TrialState.COMPLETE, 40.0, discrepancy=0.1)
    run.add(f"{evil} 2", evil, TrialState.RUNNING, discrepancy=0.1, gate=evil, gate_reason=evil)
    run.add(f"{evil} 3", "mlp", TrialState.FAIL, cause=evil)
    run.charge(f"{evil}#1", evil, None, 3.0)
    (tmp_path / "winner").mkdir()
    (tmp_path / "winner" / "HOWTO.md").write_text(f"# {evil}\n\n{evil}\n\n```\n{evil}\n```\n")
    reader = Reader(build_page(run.study, run.ledger, tmp_path))
    assert reader.loads == ["data:,"]
    assert len(reader.scripts) == 6  # plotly itself, four figures, and the sorting of tables
    assert not any(evil in script for script in reader.scripts)
    assert reader.text.count(evil) >= 12


def test_howto_of_the_winner_is_shown_as_it_was_written(run: Any, tmp_path: Path) -> None:
    (tmp_path / "winner").mkdir()
    (tmp_path / "winner" / "HOWTO.md").write_text(
        "# Use it\n\nLoad the head:\n\n```python\nhead = load_head('x')\n```\n"
    )
    page = build_page(run.study, run.ledger, tmp_path)
    assert "<h3>Use it</h3>" in page
    assert "<pre><code>head = load_head(&#39;x&#39;)</code></pre>" in page
    assert f"hssl-search dashboard {tmp_path}" in page


def test_page_of_a_run_that_has_just_begun(tmp_path: Path) -> None:
    reader = Reader(build_page(optuna.create_study(), [], tmp_path / "fresh"))
    assert "No verdict yet: 0 heads, 0 screened" in reader.words
    assert "No winner has been written yet." in reader.words
    assert f"hssl-search resume {tmp_path / 'fresh'}" in reader.words
    assert "Nothing has been screened yet." in reader.words


def test_page_of_a_run_in_the_middle_names_the_leader(
    builder: Callable[..., Any], tmp_path: Path
) -> None:
    run = builder()
    run.add("first", "mlp", TrialState.COMPLETE, 40.0, discrepancy=0.1)
    run.add("second", "mlp", TrialState.RUNNING, discrepancy=0.2)
    words = Reader(build_page(run.study, run.ledger, tmp_path)).words
    assert (
        "2 heads, 2 screened, 1 at full proxy fidelity. The best so far is first with 40.0 %"
        in words
    )


def test_page_of_a_run_without_labels_speaks_of_discrepancy(
    builder: Callable[..., Any], tmp_path: Path
) -> None:
    run = builder(labelled=False)
    run.attribute(config={"rank_by": "discrepancy"})
    run.add("first", "mlp", TrialState.COMPLETE, 40.0, discrepancy=0.125)
    reader = Reader(build_page(run.study, run.ledger, tmp_path))
    assert "The most discrepant healthy head so far is first (discrepancy 0.125)" in reader.words
    assert "Ranked by score" in reader.words
    assert "no labelled images" in reader.words
    assert "figure-accuracy" not in reader.ids


def test_page_tells_what_each_parameter_went_with_and_claims_no_cause(
    varied: Any, tmp_path: Path
) -> None:
    words = Reader(build_page(varied.study, varied.ledger, tmp_path)).words
    row = (
        parameter_values(varied.study)
        .set_index(["parameter", "value"])
        .loc[("first_shortcut", "false")]
    )
    assert (
        f"first_shortcut false 3 12 {row.discrepancy:.3f} {row.discrepancy_without:.3f} 6 "
        f"{row.accuracy:.1f} {row.accuracy_without:.1f}"
    ) in words
    assert "nothing here says what caused what" in words


def test_page_tells_measures_that_agree_with_accuracy_and_other_discrepancies(
    varied: Any, tmp_path: Path
) -> None:
    reader = Reader(build_page(varied.study, varied.ledger, tmp_path))
    assert "RankMe high" in reader.words
    assert "discrepancy architecture gate" in reader.words
    assert "α-ReQ near 1 – 12 all alike" in reader.words
    assert "LiDAR" not in reader.words


def test_page_tells_what_predicted_the_scores_of_promoted_heads(run: Any, tmp_path: Path) -> None:
    assert "promotion" not in Reader(build_page(run.study, run.ledger, tmp_path)).ids
    found = {
        "forecast": rank_correlation([1, 2, 3, 5, 4, 6], [1, 2, 3, 4, 5, 6]),
        "discrepancy": rank_correlation([1, 2], [2, 1]),
    }
    run.attribute(
        promotion={"rule": "learned", **{name: asdict(one) for name, one in found.items()}}
    )
    words = Reader(build_page(run.study, run.ledger, tmp_path)).words
    assert "each proxy left out in turn +0.94 [" in words and "6 rises with the score" in words
    assert "discrepancy, the paper's rule – 2 too few" in words
    assert "promoted by the rule learned" in words


def test_page_tells_what_a_search_was_warm_started_from(run: Any, tmp_path: Path) -> None:
    assert "Warm start from" not in Reader(build_page(run.study, run.ledger, tmp_path)).words
    run.attribute(warm_start=[{"name": f"runs/{name}", "heads": []} for name in "ab"])
    words = Reader(build_page(run.study, run.ledger, tmp_path)).words
    assert "Warm start from runs/a, runs/b" in words


def test_page_of_heads_that_differ_in_no_parameter_says_so(
    builder: Callable[..., Any], tmp_path: Path
) -> None:
    run = builder()
    assert (
        "The healthy heads differ in no parameter"
        not in Reader(build_page(run.study, run.ledger, tmp_path)).words
    )
    run.add("head", "mlp", TrialState.PRUNED, head={"family": "mlp", "depth": 2}, discrepancy=0.1)
    assert (
        "The healthy heads differ in no parameter."
        in Reader(build_page(run.study, run.ledger, tmp_path)).words
    )


def test_an_overspent_budget_is_pointed_out(run: Any) -> None:
    run.attribute(plan={"budget_s": 60.0})
    assert '<p class="warning">' in build_page(run.study, run.ledger, Path("runs/photos"))


def test_the_users_own_template_comes_first(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "template.html").write_text("<p>{{ verdict }}</p>")
    monkeypatch.chdir(tmp_path)
    assert build_page(run.study, run.ledger, tmp_path).startswith("<p>Undecided: convnext depth 3")


def test_a_report_is_never_replaced_by_an_emptier_one(run: Any, tmp_path: Path) -> None:
    written = {path: path.read_bytes() for path in write_report(tmp_path, run.study, run.ledger)}
    with pytest.raises(
        UserError,
        match=(
            rf"^the report in {tmp_path} is of {len(run.study.trials)} trials and the study holds "
            r"0: "
        ),
    ):
        write_report(tmp_path, optuna.create_study(), [])
    assert {path: path.read_bytes() for path in written} == written
    write_report(tmp_path, run.study, run.ledger)
    (tmp_path / "trials.parquet").write_bytes(b"no table")
    write_report(tmp_path, run.study, run.ledger)


def test_report_writes_its_three_files(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_report(folder, run.study, run.ledger)
    assert sorted(path.name for path in folder.iterdir()) == [
        "leaderboard.csv",
        "report.html",
        "trials.parquet",
    ]

"""HeadBench: a table of measured heads, for judging how a search searches without training
anything. The format: docs/headbench.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hssl_search.engine.execution.jobs import Plain
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "hssl-headbench/1"
TABLE, ABOUT = "headbench.csv", "headbench.json"
WHERE = ("training", "group", "role", "head", "seed", "steps", "step")
COSTS = ("step_s", "core_s", "parameters", "macs")
OF_BASE = (
    "loss",
    "accuracy",
    "labelfree_rankme",
    "labelfree_alpha_req",
    "labelfree_lidar",
    "labelfree_alignment",
    "labelfree_uniformity",
)
OF_HEAD = (
    "cka",
    "overlap",
    "output",
    "head_loss",
    "excess_loss",
    "architecture",
    "gate",
    "gate_reason",
)
COLUMNS = (*WHERE, *OF_BASE, *OF_HEAD, *COSTS)
TEXT = ("training", "role", "head", "gate", "gate_reason")
WHOLE = ("seed", "steps", "step", "group", "parameters", "macs")
Head = HeadConfig | None
"""None is the base without a head."""


@dataclass(frozen=True)
class Rung:
    """What was measured at one step of one training."""

    step: int
    values: Plain
    """By column, those that are empty left out."""


class HeadBench:
    """Heads, alone with a base (`alone`) and in joint screenings (`joint`), x seed x step.

    A step that was not measured is answered by the nearest one below it: curves of accuracy bend,
    and what a straight line between two rungs would promise was never seen. A step below the first,
    a seed or a head that was not measured is a UserError.

    Args:
        rows: with the columns of `COLUMNS`; UserError for the first that cannot be read, with its
            number.
        about: what the sidecar says.
    """

    def __init__(
        self, rows: Iterable[Mapping[str, Any]], about: Plain, where: str = "HeadBench"
    ) -> None:
        self.rows = [_read(row, f"{where}, row {number}") for number, row in enumerate(rows, 1)]
        self.about, self.where = about, where
        self._roles: dict[Head, str] = {row["head"]: row["role"] for row in self.rows}
        self._rungs = _by_training(self.rows)

    @classmethod
    def read(cls, folder: str | Path) -> HeadBench:
        """Return the table in a folder. Raises UserError when a file is missing, or for the first
        thing that is wrong in it."""
        import pandas as pd

        table, sidecar = Path(folder) / TABLE, Path(folder) / ABOUT
        if not (table.is_file() and sidecar.is_file()):
            raise UserError(
                f"{folder} holds no HeadBench table, which is {TABLE} and {ABOUT}; name the folder "
                "of one."
            )
        about = json.loads(sidecar.read_text(encoding="utf-8"))
        if (found := about.pop("format", None)) != FORMAT:
            raise UserError(
                f"{sidecar} has the format {found!r} and this version reads {FORMAT!r}; use the "
                "version that wrote it."
            )
        frame = pd.read_csv(
            table, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""]
        )
        if missing := [name for name in COLUMNS if name not in frame]:
            raise UserError(
                f"{table} has no column {missing[0]!r}; it must have {', '.join(COLUMNS)}."
            )
        return cls(frame[list(COLUMNS)].to_dict("records"), about, str(table))

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.frame().to_csv(folder / TABLE, index=False, float_format="%.6g")
        (folder / ABOUT).write_text(
            json.dumps({"format": FORMAT, **self.about}, indent=1) + "\n", encoding="utf-8"
        )

    def frame(self) -> pd.DataFrame:
        """Return everything, for pandas."""
        import pandas as pd

        return pd.DataFrame(
            [{**row, "head": spelled(row["head"])} for row in self.rows], columns=list(COLUMNS)
        )

    @property
    def candidates(self) -> list[HeadConfig]:
        """Return the candidates in the order of the table."""
        return [
            head for head, role in self._roles.items() if role == "candidate" and head is not None
        ]

    def control(self, role: str) -> Head:
        """Return the head of a control that the table has."""
        return next(head for head, its in self._roles.items() if its == role)

    def seeds(self) -> list[int]:
        """Return those under which every candidate was measured alone."""
        of_head = [
            {seed for training, one, seed in self._rungs if training == "alone" and one == head}
            for head in self.candidates
        ]
        return sorted(set.intersection(*of_head)) if of_head else []

    def rungs(self, training: str = "alone") -> list[int]:
        """Return the steps that were measured, of any head."""
        return sorted(
            {
                rung.step
                for (kind, _, _), rungs in self._rungs.items()
                if kind == training
                for rung in rungs
            }
        )

    def at(self, training: str, head: Head, seed: int, step: int) -> Rung:
        """Return the rung at that step, or the nearest one below it."""
        rungs = self._rungs.get((training, head, seed), [])
        reached = [rung for rung in rungs if rung.step <= step]
        if not reached:
            name = "no head" if head is None else head.label()
            first = f"; its first rung is {rungs[0].step}" if rungs else ""
            raise UserError(
                f"{self.where} has nothing of {name} {training} under seed {seed} at step "
                f"{step}{first}."
            )
        return reached[-1]

    def trainings(self, training: str) -> Iterator[tuple[Head, int, list[Rung]]]:
        """Yield (head, seed, rungs) of every training of that kind."""
        yield from (
            (head, seed, rungs)
            for (kind, head, seed), rungs in self._rungs.items()
            if kind == training
        )

    def of(self, training: str) -> list[Plain]:
        """Return the rows of one kind of training."""
        return [row for row in self.rows if row["training"] == training]


def _by_training(rows: Iterable[Plain]) -> dict[tuple[str, Head, int], list[Rung]]:
    """Return (training, head, seed) -> its rungs by step."""
    groups: dict[tuple[str, Head, int, int], list[Plain]] = {}
    for row in rows:
        groups.setdefault((row["training"], row["head"], row["seed"], row["step"]), []).append(row)
    found: dict[tuple[str, Head, int], list[Rung]] = {}
    for (training, head, seed, step), its in sorted(groups.items(), key=lambda item: item[0][3]):
        found.setdefault((training, head, seed), []).append(Rung(step, merged(its)))
    return found


def merged(rows: Sequence[Plain]) -> Plain:
    """Return one row of several groups of the same head: means of numbers, the most frequent of
    texts."""
    if len(rows) == 1:
        return rows[0]
    found: Plain = {}
    for key in rows[0]:
        values = [row[key] for row in rows if key in row]
        numbers = isinstance(values[0], float)
        found[key] = sum(values) / len(values) if numbers else max(values, key=values.count)
    return found


def spelled(head: Head) -> str:
    """Return a head as the table has it: JSON, or nothing for no head."""
    return "" if head is None else json.dumps(head.model_dump(exclude_none=True))


def _read(row: Mapping[str, Any], where: str) -> Plain:
    """Return the row with its head and its numbers read and empty cells left out."""
    given = {key: value for key, value in row.items() if value is not None and value == value}
    head = given.pop("head", None) or None
    try:
        head = HeadConfig.model_validate_json(head) if isinstance(head, str) else head
        numbers = {key: _number(key, value) for key, value in given.items() if key not in TEXT}
    except ValueError as error:  # pydantic's is one too
        raise UserError(
            f"{where} cannot be read: {' '.join(str(error).split())[:200]}; measure the table "
            "again."
        ) from error
    return {**given, **numbers, "head": head}


def _number(key: str, value: Any) -> float | int:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{key} is {value}, and must be finite")
    return int(number) if key in WHOLE else number

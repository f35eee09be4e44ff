"""HeadBench: a table of measured heads, for judging how a search searches without training anything. The format: docs/headbench.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hssl_search.errors import UserError, advice
from hssl_search.heads.config import HeadConfig
from hssl_search.search.execution.jobs import Plain

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "hssl-headbench/1"
TABLE, ABOUT = "headbench.csv", "headbench.json"
ROLES = ("candidate", "none", "identity", "noise", "same_architecture")
"""What a head is in the table: a candidate, or one of the controls; `none` is the base without any head."""
WHERE = ("training", "group", "role", "head", "seed", "steps", "step")
COSTS = ("step_s", "core_s", "parameters", "macs")
OF_BASE = ("loss", "accuracy", "labelfree_rankme", "labelfree_alpha_req", "labelfree_lidar", "labelfree_alignment", "labelfree_uniformity")
OF_HEAD = ("cka", "overlap", "output", "head_loss", "excess_loss", "architecture", "gate", "gate_reason")
COLUMNS = (*WHERE, *OF_BASE, *OF_HEAD, *COSTS)
TEXT = ("training", "role", "head", "gate", "gate_reason")
SIDE = ("format", "command", "setting", "images", "space", "versions", "measured")
"""What the sidecar must say."""
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

    A step that was not measured is answered by the nearest one below it: curves of accuracy bend, and what a straight line between two
    rungs would promise was never seen. A step below the first, a seed or a head that was not measured is a UserError.

    Args:
        rows: with the columns of `COLUMNS`; UserError for the first that cannot be, with its number.
        about: what the sidecar says.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], about: Plain, where: str = "HeadBench") -> None:
        self.rows = [_checked(row, f"{where}, row {number}") for number, row in enumerate(rows, 1)]
        self.about, self.where = about, where
        self._rungs: dict[tuple[str, Head, int], list[Rung]] = {}
        self._roles: dict[Head, str] = {}
        self._index()

    @classmethod
    def read(cls, folder: str | Path) -> HeadBench:
        """The table in a folder. UserError when a file is missing, or for the first thing that is wrong in it."""
        import pandas as pd

        table, sidecar = Path(folder) / TABLE, Path(folder) / ABOUT
        for path in (table, sidecar):
            if not path.is_file():
                raise UserError(f"{path} does not exist; a HeadBench table is a folder with {TABLE} and {ABOUT}.")
        about = _read_about(sidecar)
        try:
            frame = pd.read_csv(table, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""])
        except (ValueError, UnicodeDecodeError) as error:
            raise UserError(f"{table} cannot be read as a table: {error}.") from error
        _check_columns(list(frame.columns), table)
        return cls(frame.to_dict("records"), about, str(table)) 

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.frame().to_csv(folder / TABLE, index=False, float_format="%.6g")
        (folder / ABOUT).write_text(json.dumps({"format": FORMAT, **self.about}, indent=1) + "\n", encoding="utf-8")

    def frame(self) -> pd.DataFrame:
        """Everything, for pandas."""
        import pandas as pd

        return pd.DataFrame([{**row, "head": spelled(row["head"])} for row in self.rows], columns=list(COLUMNS))

    @property
    def candidates(self) -> list[HeadConfig]:
        """In the order of the table."""
        return [head for head, role in self._roles.items() if role == "candidate" and head is not None]

    def control(self, role: str) -> Head:
        """The head of a control; UserError for one that the table has not."""
        found = [head for head, its in self._roles.items() if its == role]
        if not found:
            raise UserError(f"{self.where} has no control {role!r}; {advice(role, set(self._roles.values()) - {'candidate'})}")
        return found[0]

    def seeds(self) -> list[int]:
        """Those under which every candidate was measured alone."""
        of_head = [{seed for training, one, seed in self._rungs if training == "alone" and one == head} for head in self.candidates]
        return sorted(set.intersection(*of_head)) if of_head else []

    def rungs(self, training: str = "alone") -> list[int]:
        """The steps that were measured, of any head."""
        return sorted({rung.step for (kind, _, _), rungs in self._rungs.items() if kind == training for rung in rungs})

    def at(self, training: str, head: Head, seed: int, step: int) -> Rung:
        """The rung at that step, or the nearest one below it."""
        rungs = self._rungs.get((training, head, seed)) or self._unknown(training, head, seed)
        reached = [rung for rung in rungs if rung.step <= step]
        if not reached:
            raise UserError(f"{self.where} has nothing of {_name(head)} at step {step}; its first rung is {rungs[0].step}.")
        return reached[-1]

    def curve(self, training: str, head: Head, seed: int) -> list[Rung]:
        """By step."""
        return list(self._rungs.get((training, head, seed)) or self._unknown(training, head, seed))

    def trainings(self, training: str) -> Iterator[tuple[Head, int, list[Rung]]]:
        """(head, seed, rungs) of every training of that kind."""
        yield from ((head, seed, rungs) for (kind, head, seed), rungs in self._rungs.items() if kind == training)

    def of(self, training: str) -> list[Plain]:
        """The rows of one kind of training."""
        return [row for row in self.rows if row["training"] == training]

    def _unknown(self, training: str, head: Head, seed: int) -> list[Rung]:
        seeds = sorted({its for kind, one, its in self._rungs if (kind, one) == (training, head)})
        if seeds:
            raise UserError(f"{self.where} has no seed {seed} of {_name(head)} {training}; it has {', '.join(map(str, seeds))}.")
        raise UserError(f"{self.where} has not measured {_name(head)} {training}; it has {len(self._roles)} others.")

    def _index(self) -> None:
        groups: dict[tuple[str, Head, int, int], list[Plain]] = {}
        for row in self.rows:
            groups.setdefault((row["training"], row["head"], row["seed"], row["step"]), []).append(row)
            if self._roles.setdefault(row["head"], row["role"]) != row["role"]:
                raise UserError(f"{self.where}: {_name(row['head'])} is both {self._roles[row['head']]} and {row['role']}.")
        for (training, head, seed, step), rows in sorted(groups.items(), key=lambda item: item[0][3]):
            if len({row.get("group") for row in rows}) < len(rows):
                raise UserError(f"{self.where} holds {_name(head)} {training} under seed {seed} at step {step} twice.")
            self._rungs.setdefault((training, head, seed), []).append(Rung(step, merged(rows)))


def merged(rows: Sequence[Plain]) -> Plain:
    """One row of several groups of the same head: means of numbers, the most frequent of texts."""
    if len(rows) == 1:
        return rows[0]
    found: Plain = {}
    for key in rows[0]:
        values = [row[key] for row in rows if key in row]
        numbers = isinstance(values[0], float)
        found[key] = sum(values) / len(values) if numbers else max(values, key=values.count)
    return found


def spelled(head: Head) -> str:
    """As the table has it: JSON, or nothing for no head."""
    return "" if head is None else json.dumps(head.model_dump(exclude_none=True))


def _name(head: Head) -> str:
    return "no head" if head is None else head.label()


def _read_about(path: Path) -> Plain:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UserError(f"{path} does not say `\"format\": \"{FORMAT}\"`; this version reads no other.")
    if missing := [key for key in SIDE if key not in about]:
        raise UserError(f"{path} does not say {missing[0]!r}; it must have {', '.join(SIDE)}.")
    return {key: value for key, value in about.items() if key != "format"}


def _check_columns(found: Sequence[str], path: Path) -> None:
    if missing := [name for name in COLUMNS if name not in found]:
        raise UserError(f"{path} has no column {missing[0]!r}; it must have {', '.join(COLUMNS)}.")
    if unknown := [name for name in found if name not in COLUMNS]:
        raise UserError(f"{path} has the unknown column {unknown[0]!r}; {advice(unknown[0], COLUMNS)}")


def _checked(row: Mapping[str, Any], where: str) -> Plain:
    """The row with its head read and empty cells left out."""
    given = {key: value for key, value in row.items() if value is not None and value == value}
    head = _head(given.pop("head", ""), where)
    _choice(given, "training", ("alone", "joint"), where)
    _choice(given, "role", ROLES, where)
    if (head is None) != (given["role"] == "none"):
        raise UserError(f"{where}: the role is {given['role']!r} and the head {'missing' if head is None else 'given'}; "
                        "only `none` has no head.")
    numbers = {key: _number(key, value, where) for key, value in given.items() if key not in TEXT}
    if not 0 < numbers.get("step", 0) <= numbers.get("steps", 0):
        raise UserError(f"{where}: step {given.get('step')} of {given.get('steps')} steps; it must lie between 1 and them.")
    if "seed" not in numbers or (given["training"] == "joint") != ("group" in numbers):
        raise UserError(f"{where}: every row needs a seed, and a joint one, and no other, a group.")
    return {**given, **numbers, "head": head}


def _head(written: Any, where: str) -> Head:
    if written is None or isinstance(written, HeadConfig):
        return written
    try:
        return HeadConfig.model_validate(json.loads(written)) if written else None
    except (ValueError, ValidationError) as error:
        raise UserError(f"{where}: {written!r} is no head ({' '.join(str(error).split())[:200]}).") from error


def _choice(row: Mapping[str, Any], key: str, valid: Sequence[str], where: str) -> None:
    if row.get(key) not in valid:
        raise UserError(f"{where}: {key} is {row.get(key)!r}; {advice(str(row.get(key)), valid)}")


def _number(key: str, value: Any, where: str) -> float | int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {key} is {value!r}; it must be a number.") from None
    if key in ("seed", "steps", "step", "group", "parameters", "macs"):
        if number != int(number):
            raise UserError(f"{where}: {key} is {value!r}; it must be a whole number.")
        return int(number)
    if not abs(number) < float("inf"):
        raise UserError(f"{where}: {key} is {value!r}; it must be finite.")
    return number

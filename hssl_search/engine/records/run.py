"""The run folder: where all of a search lies, what its search.yaml holds, and its lock."""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, field_serializer

from hssl_search.configfile import read_yaml, validate, write_yaml
from hssl_search.engine.budget import Budget
from hssl_search.engine.config import PromotionRule, PrunerName, SamplerName, with_defaults
from hssl_search.engine.execution.jobs import Metrics, Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.policy import Policy
from hssl_search.engine.records.state import Summary
from hssl_search.engine.records.storage_url import database_url, sqlite_url
from hssl_search.engine.statistics.metrics import RANKINGS, Measure
from hssl_search.errors import UserError, disk_is_full, nearest
from hssl_search.heads.config import HeadConfig
from hssl_search.scratch import Scratch
from hssl_search.spaces.space import Space

FORMAT = "hssl-search/1"
RUNS = Path("runs")
SEARCH_YAML = "search.yaml"
REMOVED: Mapping[str, Callable[[Any], bool]] = {
    "objective": lambda objective: objective == "accuracy,cost",
    "sampler": lambda sampler: sampler in ("gp", "nsga2"),
    "pruner": lambda pruner: pruner == "hyperband",
}
"""Options that only earlier versions offer -> whether a value of search.yaml is one of those."""
LONGEST = 100
"""Characters that paths within a run folder have at most."""


class Written(dict[str, Any]):
    """What search.yaml holds. UserError for a key that is not there: someone has edited it away."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise UserError(
            f"{self._path} has no {key!r} any more, which every search writes there; put it back."
        )


class ResolvedSpace(BaseModel):
    """The space of a search, as search.yaml holds it."""

    model_config = ConfigDict(frozen=True)

    name: str
    hash: str
    size: int | None = None
    """Heads in it; None for endless."""
    description: str = ""
    parameters: dict[str, object]

    @classmethod
    def of(cls, space: Space) -> ResolvedSpace:
        """Return what search.yaml is to hold of a space."""
        return cls(name=space.name, hash=space.hash(), size=space.size(), **space.as_plain())

    def read(self) -> Space:
        """Return the space itself."""
        return Space.from_plain({"parameters": self.parameters}, self.name)


class ResolvedSearch(BaseModel):
    """A search with everything resolved that was asked for: what search.yaml holds.

    A default is what runs did that were begun before there was the key, unless `ADDED` in
    `hssl_search.engine.config` says it.
    """

    model_config = ConfigDict(frozen=True)

    format: str = FORMAT
    name: str
    budget: Budget
    """With all that it was extended by."""
    rank_by: str
    """Key of the measure that ranks heads, such as `accuracy` or `labelfree_rankme`."""
    sampler: SamplerName
    promote: PromotionRule
    pruner: PrunerName
    seed: int
    ray_address: str | None = None
    gpus_per_trial: float | None = None
    """GPUs that one training holds; None until measuring has settled it."""
    max_head_cost: float | None
    """Steps without a head that a step with a head may cost; None for no limit."""
    warm_start: list[str] = []
    """Folders of earlier runs that teach this one."""
    policy: Policy
    storage: str | None
    """The study's database, as it was asked for; None for SQLite in the run folder."""
    full_epochs: int | Literal["off"]
    machine: Machine
    """As the search found it when it began."""
    asked: dict[str, object] = {}
    """The options of `SearchConfig` that were given or have a default."""
    setting: Setting
    timm_args: dict[str, object]
    """Arguments for `timm.create_model` that make the base."""
    map_shapes: list[tuple[int, int, int]]
    """C x h x w of each of the base's maps that heads are fed from, the last stage's first."""
    same_architecture: HeadConfig
    """The head of the control that is built like the base's last stage."""
    space: ResolvedSpace
    images: dict[str, Any]
    """Counts of images by part of the data, the names of classes, and what a look at them told."""
    skipped: list[str] = []
    """`path: reason` of each image that could not be read."""
    versions: dict[str, str] = {}
    """Of this package, Python, and the libraries that results depend on."""

    @field_serializer("same_architecture")
    def _set_parameters(self, head: HeadConfig) -> dict[str, object]:
        return head.model_dump(exclude_none=True)

    @property
    def ranked_by(self) -> Measure:
        """Return the measure that ranks heads."""
        return RANKINGS[self.rank_by]

    def as_plain(self) -> dict[str, object]:
        """Return what search.yaml is to hold."""
        return self.model_dump(mode="json")

    def summary(self) -> Summary:
        """Return the search as reports show it."""
        summary = {
            "name": self.name,
            "base": self.setting.base,
            "base_args": self.timm_args,
            "image_size": self.setting.image_size,
            "data": self.setting.data,
            "probe_data": self.setting.probe_data,
            "trainer": self.asked.get("trainer", "simclr"),
            "space": self.space.name,
        }
        keys = {"budget", "rank_by", "seed", "full_epochs", "machine", "images", "versions"}
        return summary | self.model_dump(mode="json", include=keys)


class Run:
    """A run folder that exists: where things lie in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.search_yaml = folder / SEARCH_YAML
        self.study_db = folder / "study.db"
        self.ledger = folder / "ledger.jsonl"
        self.trials = folder / "trials"
        self.artifacts = folder / "artifacts"
        self.winner = folder / "winner"
        self.report_html = folder / "report.html"
        self.leaderboard_csv = folder / "leaderboard.csv"
        self.trials_parquet = folder / "trials.parquet"
        self._lock = folder / "lock"
        self._holder = folder / "lock.holder"

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, object]) -> Run:
        """Make the folder with `config` as its search.yaml, both or neither.

        Raises:
            UserError: when the name is taken.
        """
        folder = folder.resolve()
        require_free(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with Scratch("run", folder.parent) as scratch:
                made = scratch / folder.name
                made.mkdir()
                write_yaml(made / SEARCH_YAML, dict(config))
                made.rename(folder)
        except OSError:
            require_free(folder)  # another command may have taken the name since
            raise
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Return the run in `folder`.

        Raises:
            UserError: when there is none, with the nearest names of runs beside it.
        """
        run = cls(folder.resolve())
        if not run.search_yaml.is_file():
            raise UserError(f"{folder} is no run: it has no {SEARCH_YAML}; {_runs_beside(folder)}")
        return run

    @classmethod
    def find(cls, run: Path | str) -> Run:
        """Return the run of this path, or of this name under runs/.

        Raises:
            UserError: when there is none, or when another version wrote it.
        """
        path = Path(run)
        # One that lies right here goes before one of that name under runs/.
        by_name = len(path.parts) == 1 and not (path / SEARCH_YAML).exists()
        opened = cls.open(RUNS / path if by_name else path)
        if (found := opened.config().get("format")) != FORMAT:
            raise UserError(
                f"{opened.search_yaml} has the format {found!r} and this version reads {FORMAT!r}; "
                "use the version that wrote it."
            )
        return opened

    @property
    def name(self) -> str:
        """Return its name."""
        return self.folder.name

    @property
    def shown(self) -> str:
        """Return its folder as a person would type it."""
        return _shown(self.folder)

    def how_to_resume(self, more: str = "") -> str:
        """Return the command that resumes this run, as it can be pasted into a shell.

        Args:
            more: budget to add, such as `2cpu-min`.
        """
        return f"hssl-search resume {shlex.quote(self.shown)}" + (
            f" --budget +{more}" if more else ""
        )

    @property
    def storage_url(self) -> str:
        """Return where the study is unless the user named another database."""
        return sqlite_url(self.study_db)

    def study_url(self, storage: str | None) -> str:
        """Return the URL of the study's database, which may hold a password.

        Args:
            storage: what search.yaml holds under this key.
        """
        # It may come from `config`, which reads also what was edited into nonsense.
        if not isinstance(storage, str | None):
            raise UserError(
                f"{self.search_yaml}: storage is {storage!r}, but should be a text; correct it."
            )
        return database_url(storage) if storage else self.storage_url

    def config(self) -> Written:
        """Return what search.yaml holds, and what an earlier version did by options added since."""
        return Written(self.search_yaml, with_defaults(read_yaml(self.search_yaml)))

    def resolved(self) -> ResolvedSearch:
        """Return what search.yaml holds, read.

        Raises:
            UserError: for a key that was edited away or into nonsense, and for an option that this
                version no longer offers.
        """
        written = self.config()
        # Before all else: a check of the types would not say that another version takes these.
        for key, removed in REMOVED.items():
            if removed(written.get(key)):
                raise UserError(
                    f"{self.search_yaml} has {key}: {written[key]}, which this version no longer "
                    "offers; continue it with the version that wrote it, or begin another search "
                    f"with --warm-start {shlex.quote(self.shown)}."
                )
        for key, field in ResolvedSearch.model_fields.items():
            if field.is_required():
                _ = written[key]  # raises where it is not there
        search = validate(ResolvedSearch, written, str(self.search_yaml))
        if "gpus_per_trial" in search.model_fields_set:
            return search
        # Before it was settled by what is measured, it stood with the machine alone.
        return search.model_copy(update={"gpus_per_trial": search.machine.gpus_per_trial})

    def update_config(self, **values: Any) -> None:
        """Write these values into search.yaml, e.g. an extended budget; all else in it stays."""
        write_yaml(self.search_yaml, {**read_yaml(self.search_yaml), **values})

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.trials / f"{number:04d}"

    def checkpoint_folder(self, number: int) -> Path:
        """Return the folder of the checkpoints of a trial's proxy."""
        return self.trial_folder(number) / "checkpoint"

    def write_head(self, number: int, head: Mapping[str, object]) -> Path:
        """Write the trial's head.yaml, a copy of what the study holds; return its path."""
        path = self.trial_folder(number) / "head.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        # The disk is not waited for: what a power cut takes the study holds.
        write_yaml(path, dict(head), durable=False)
        return path

    def append_metrics(self, number: int, metrics: Mapping[str, object]) -> None:
        """Append a line to the trial's metrics.jsonl."""
        path = self.trial_folder(number) / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(metrics)) + "\n")

    def metrics(self, number: int) -> list[Metrics]:
        """Return the lines of the trial's metrics.jsonl but those that a kill cut off."""
        path = self.trial_folder(number) / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line for line in map(_whole_line, lines) if line is not None]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other controllers out of this run; a dead holder holds nothing.

        Raises:
            UserError: when another works in it, with its process id.
        """
        lock = FileLock(self._lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"the run {self.name!r} is being worked on by {self._held_by()}; wait for it, or "
                "stop it with Ctrl-C there."
            ) from None
        except OSError as error:
            if disk_is_full(error):
                raise
            raise UserError(
                f"the run folder {_shown(self.folder)} cannot be written ({error.strerror}); mend "
                "that, or work on a copy elsewhere."
            ) from error
        try:
            # The lock itself does not tell the others who holds it.
            self._holder.write_text(
                f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8"
            )
            yield
        finally:
            self._holder.unlink(missing_ok=True)  # first, or it would be the next holder's
            lock.release()

    def _held_by(self) -> str:
        try:
            return self._holder.read_text(encoding="utf-8")
        except FileNotFoundError:  # the lock was taken or given back just now
            return "another process"


def require_free(folder: Path) -> None:
    """Raise UserError when `folder` cannot become a run: it is taken, or cannot be made."""
    _require_nameable(folder)
    # An empty folder gives way to the run that is renamed to it.
    if folder.is_dir() and not (folder / SEARCH_YAML).exists() and not any(folder.iterdir()):
        return
    if (folder / SEARCH_YAML).exists():
        raise UserError(
            f"the run {folder.name!r} exists already; continue with "
            f"`{Run(folder).how_to_resume()}` or give another --name."
        )
    if folder.exists():
        raise UserError(f"{_shown(folder)} exists already and is no run; give another --name.")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = "may not be written" if above.is_dir() else "is a file"
        raise UserError(
            f"the run folder {_shown(folder)} cannot be made: {_shown(above)} {reason}; work in "
            "another folder."
        )


def _require_nameable(folder: Path) -> None:
    """Raise UserError where the file system or a database URL cannot hold the run's path."""
    # With a temporary file beside the run, and a path within it, whose names are longer.
    longest = folder.absolute().with_name(f".{folder.name}.{'x' * 8}") / ("x" * LONGEST)
    try:
        str(folder.resolve()).encode()
        longest.lstat()
    except (FileNotFoundError, NotADirectoryError):  # it is not there, and could be
        return
    except UnicodeEncodeError:
        raise UserError(
            f"the run folder {_shown(folder)} cannot be made: its path is not UTF-8; work in "
            "another folder."
        ) from None
    except OSError as error:
        raise UserError(
            f"the run folder {_shown(folder)} cannot be made ({error.strerror}); work in another "
            "folder, or give a shorter --name."
        ) from error


def _shown(folder: Path) -> str:
    """Return the path as the user would type it."""
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)


def _runs_beside(folder: Path) -> str:
    parent = folder.resolve().parent
    names = (
        sorted(path.parent.name for path in parent.glob(f"*/{SEARCH_YAML}"))
        if parent.is_dir()
        else []
    )
    if not names:
        return f"there are no runs in {parent}."
    if close := nearest(folder.name, names):
        return f"did you mean {' or '.join(repr(str(folder.parent / name)) for name in close)}?"
    return f"runs there: {', '.join(names)}."


def _whole_line(line: str) -> Metrics | None:
    """Return a line of metrics.jsonl; None for one that a kill cut off, with what follows it."""
    try:
        found: Metrics = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found

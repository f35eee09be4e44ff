"""What the Optuna study of a search holds beyond Optuna's own fields, field by field.

`SearchState` is the study's user attributes, `TrialState` those of one trial: a field's name is the
attribute's key, and its value the attribute's JSON. No other module names such a key.

Every field has a default, and keys that are not declared are ignored, so that the study of an
earlier version and that of a search which has just begun are read alike. A state that is made to
be written sets only the fields to write: `study.write(SearchState(ended="2cpu-h"))`.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
)

from hssl_search.engine.execution.jobs import Outcome, Report, State, TaskHead
from hssl_search.engine.statistics.correlation import RankCorrelation
from hssl_search.engine.statistics.metrics import ACCURACY
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

JOB_PREFIX = "job/"
"""How the keys of job records begin."""
LARGEST = 60_000
"""Bytes of JSON in one attribute: MySQL holds 65,535. Optuna writes JSON in ASCII, so that a
character is a byte."""
Summary = dict[str, Any]
"""What reports show of a search, by name: `ResolvedSearch.summary`, of any version."""
PlanNumbers = dict[str, Any]
"""A `Plan` by its fields, of any version."""
PART, IN_PARTS = "part/", "in parts"
"""How the keys of an attribute's parts begin, and the key of what refers to them."""
SAME_TIME = "none_same_time"
"""The control without head for the device-time of the proxy that led when confirming began."""
HEALTHY = "healthy"
"""What the health gate says of a head that may be promoted."""


class Attributes(BaseModel):
    """Fields that the study keeps as JSON."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    def attributes(self) -> dict[str, object]:
        """Return the fields that were set, as the study keeps them."""
        # A field that was set to None is written: it takes the place of an earlier value.
        return self.model_dump(mode="json", exclude_unset=True)

    def only(self, keys: Iterable[str]) -> Self:
        """Return these fields of the state; only they are set."""
        # Made anew, for in a copy all other fields would still count as set.
        return self.model_validate({key: getattr(self, key) for key in keys})

    def with_set(self, other: Self) -> Self:
        """Return this state with the fields that `other` sets."""
        # `model_copy` validates nothing: from a dump, what is nested would stay a dictionary.
        return self.model_copy(update={key: getattr(other, key) for key in other.model_fields_set})


class HeadMeasures(Attributes):
    """What a worker measured of one head beside its base."""

    cka: float | None = None
    """1 - debiased linear CKA of the embeddings of base and head, on held-out images."""
    overlap: float | None = None
    """1 - the share of nearest neighbours that base and head have in common."""
    output: float | None = None
    """How far what base and head assign to an image is apart."""
    architecture: float | None = None
    """How different the structures of base and head are; None for a head on an earlier stage."""
    head_loss: float | None = None
    """The loss of the head's student."""
    excess_loss: float | None = None
    """The base's loss above the head's."""
    gate: str | None = None
    """What the health gate says: `HEALTHY`, or which check the head did not pass."""
    gate_reason: str | None = None
    """Why, with numbers; empty for a healthy head."""
    step_ratio: float | None = None
    """Seconds of a step with this head alone, over those of a step without a head."""

    def ailment(self) -> str:
        """Return which gate the head did not pass, and why; empty where it passed, or had none."""
        return "" if self.gate in (None, HEALTHY) else f"{self.gate}: {self.gate_reason}"


class TrialState(HeadMeasures):
    """The user attributes of one trial: a head candidate or a control.

    What is inherited is of its joint screening, beside other heads.
    """

    # What it is
    role: Literal["candidate", "control"] | None = None
    """None for a trial that no search made."""
    control: str | None = None
    """Which control it is; None for a candidate."""
    name: str = ""
    """What people call it; unique within the study."""
    family: str = ""
    """The head's family; `none` without a head."""
    head: TaskHead | None = None
    """None for the controls without a head."""
    parameters: int | None = None
    """Weights of the head."""
    macs: int | None = None
    """Multiply-adds of the head for one image."""
    seed: int = 0
    """The seed of its proxy; later runs have their own in their job records."""
    retry_of: int | None = None
    """The trial that was decided before an extended budget gave its head another chance."""
    same_time_steps: int | None = None
    """Steps of a control that trains as long as a candidate, where they are not a proxy's."""

    # What its joint screening found
    group: int | None = None
    """The group that it was screened in."""
    cka_excess: float | None = None
    """`cka` above that of the identity head in the same group."""
    overlap_excess: float | None = None
    """`overlap` above that of the identity head in the same group."""
    discrepancy: float | None = None
    """By what heads are ranked after screening; the same as `overlap_excess`."""
    chance_loss: float | None = None
    """The loss of the noise head in the same group."""
    too_costly: float | None = None
    """How many times a step without a head one with it takes; None where that is not too many."""
    promoted: bool | None = None
    """Whether it was given a proxy; None while that is open."""

    # What its proxy found
    step_s: float | None = None
    """Seconds of a step of its proxy."""
    proxy_cka: float | None = None
    """`cka` at the end of its proxy."""
    proxy_overlap: float | None = None
    """`overlap` at the end of its proxy."""
    proxy_head_loss: float | None = None
    """`head_loss` at the end of its proxy."""
    labelfree_rankme: float | None = None
    """RankMe of the base at the end of its proxy (`statistics.metrics` has the sources)."""
    labelfree_alpha_req: float | None = None
    """α-ReQ, likewise."""
    labelfree_lidar: float | None = None
    """LiDAR, likewise."""
    labelfree_alignment: float | None = None
    """Alignment, likewise."""
    labelfree_uniformity: float | None = None
    """Uniformity, likewise."""

    # How it ended
    cause: str | None = None
    """Why it failed, was pruned or was stopped, in one sentence."""
    device_s: float | None = None
    """Device-seconds that it had cost when it was decided."""

    @property
    def is_control(self) -> bool:
        """Return whether the trial is a control."""
        return self.role == "control"

    @classmethod
    def of(cls, trial: FrozenTrial) -> TrialState:
        """Return what the study holds of a trial.

        Raises:
            UserError: where this version cannot read it, such as a head of a family that it lacks.
        """
        try:
            return cls.model_validate(trial.user_attrs)
        except ValidationError as error:
            raise _refused(f"trial {trial.number}", bad_keys(error)) from error

    def as_measured(self) -> TrialState:
        """Return what the surrogate reads of a screened head."""
        losses = {"head_loss", "chance_loss", "excess_loss"}
        differences = {"overlap_excess", "cka_excess", "output", "architecture"}
        return self.only({*losses, *differences, "parameters", "macs"})

    def as_screened(self) -> TrialState:
        """Return what was known before the trial was promoted or decided."""
        return self.only(self.model_fields_set - {"promoted", "cause", "device_s"})


@dataclass(frozen=True, eq=False)
class Contender:
    """A head candidate or a control.

    It is equal to itself alone, so that what is computed from it can be cached.
    """

    trial: int
    """The number of its trial."""
    state: TrialState = field(default_factory=TrialState)
    """What the study holds of it."""

    @property
    def name(self) -> str:
        """Return what people call it."""
        return self.state.name

    @property
    def head(self) -> HeadConfig | None:
        """Return its head; None for a control without a head."""
        return self.state.head

    @property
    def heads(self) -> list[HeadConfig]:
        """Return its head as the heads of a training."""
        return [] if self.head is None else [self.head]

    @property
    def family(self) -> str:
        """Return its head's family; `none` without a head."""
        return self.state.family

    @property
    def control(self) -> str | None:
        """Return which control it is; None for a candidate."""
        return self.state.control


def bad_keys(error: ValidationError) -> list[str]:
    """Return the keys whose values were refused."""
    return sorted({str(entry["loc"][0]) for entry in error.errors()})


def _refused(what: str, keys: Iterable[str]) -> UserError:
    return UserError(
        f"the study holds values for {', '.join(keys)} of {what} that this version cannot read; "
        "use the version that wrote them."
    )


class PlanState(Attributes):
    """The plan of a search, and how it came about."""

    numbers: PlanNumbers | None = None
    """The `Plan` as it is now."""
    jobs: dict[str, int] | None = None
    """Jobs of each phase."""
    phases: dict[str, object] | None = None
    """Device-seconds of each phase; in earlier versions mappings with `device_s`."""
    budget_s: float | None = None
    """The device-seconds that were planned for."""
    first: PlanNumbers | None = None
    """`numbers` before it was fitted to what screening had shown; None until then."""
    first_phases: dict[str, object] | None = None
    """`phases` before that."""
    head_s: float | None = None
    """What a promoted head is expected to add to a step, in device-seconds."""
    done: bool | None = None
    """Whether all of it is done."""


class PromotionState(Attributes):
    """How heads were promoted."""

    rule: str = ""
    """`discrepancy`, `learned` or `random`."""
    forecast: RankCorrelation | None = None
    """Of the proxies' scores with those that the surrogate predicts, each left out in turn."""
    discrepancy: RankCorrelation | None = None
    """Of the proxies' scores with discrepancy."""
    left: tuple[str, ...] = ()
    """Earlier searches that no longer taught, having given the wrong order."""


class ConfirmingState(Attributes):
    """Which confirming runs were chosen."""

    trials: tuple[int, ...] = ()
    """The trial of each run, in the order in which they were chosen."""
    jobs: int | None = None
    """How many the plan allowed."""
    at_once: int = 1
    """How many run at a time."""


class FullState(Attributes):
    """The full training."""

    number: int = 1
    """Which full training of the search it is, from 1 on."""
    winner: int | None = None
    """The trial that had won."""
    steps: int = 0
    """0 where none is affordable."""
    rungs: tuple[int, ...] = ()
    """Steps after which it is evaluated."""
    heads: tuple[TaskHead, ...] = ()
    """The winner's head; none where no head is better."""
    name: str = "full training"
    """What people call it."""


class PriorHead(Attributes):
    """A head of an earlier search that a search was warm-started from."""

    head: TaskHead
    gain: float | None = None
    """Its score; only differences within its run count. None of a head that fell ill."""
    measured: TrialState = TrialState()
    """What the surrogate reads of it."""


class PriorRun(Attributes):
    """An earlier search that a search was warm-started from."""

    name: str
    """Its folder, as a person types it."""
    heads: tuple[PriorHead, ...] = ()

    @field_validator("heads", mode="before")
    @classmethod
    def _those_that_can_be_read(cls, heads: Any) -> Any:
        """Leave out heads that this version cannot read, such as those of a family that it
        lacks."""
        if not isinstance(heads, list | tuple):
            return heads
        readable = []
        for head in heads:
            with suppress(ValidationError):
                readable.append(PriorHead.model_validate(head))
        return tuple(readable)

    @property
    def scored(self) -> list[tuple[PriorHead, float]]:
        """Return the heads that have a score, each with it."""
        # Of an earlier version, heads that fell ill are among them, without a score.
        return [(head, head.gain) for head in self.heads if head.gain is not None]

    @property
    def note(self) -> str:
        """Return what the search is told of it."""
        heads = len(self.scored)
        scored = "1 head" if heads == 1 else f"{heads} heads"
        return f"warm start from {self.name}: {scored} with a score."


class JobRecord(Attributes):
    """How one job ended: the study's attribute `job/KEY`."""

    key: str
    """See `Job`, also for what follows without a word."""
    phase: str = ""
    state: State
    cause: str = ""
    """Why it failed."""
    trial: int | None = None
    seed: int | None = None
    name: str = ""
    task: dict[str, Any] | None = None
    """What a worker is told, without the setting that all jobs share; None in earlier versions."""
    cpus: float = 1.0
    gpus: float = 0.0
    seconds: float = 0.0
    """Wall-clock seconds that it held its devices, all attempts together."""
    last_s: float | None = None
    """Those of the last attempt; None where there was one."""
    reports: list[Report] = []
    """By step; in the study, a number that JSON cannot hold is spelled out."""

    @property
    def steps(self) -> int:
        """Return the steps that it was to make; 0 where the record does not say."""
        return int((self.task or {}).get("steps", 0))

    def outcome(self) -> Outcome:
        """Return the outcome of which this is the record."""
        return Outcome(self.state, self.cause, self.reports, self.seconds, self.last_s)


class VerdictRow(Attributes):
    """A reference, a control or a candidate, and the mean of its scores."""

    name: str
    role: Literal["reference", "control", "candidate"]
    trial: int | None = None
    seeds: int
    mean: float
    interval: tuple[float, float] | None = None
    """At 95 %; None where nothing tells the noise."""
    best: float | None = None
    """Probability that no other row is better; None where nothing tells the noise."""


class Comparison(Attributes):
    """The winner minus a control, paired by seed."""

    against: str
    difference: float
    interval: tuple[float, float] | None = None
    """At 95 %, for whichever candidate was picked (`TwoWay.against`); None before both share two
    seeds. It reaches no further than a difference of the measure can be."""
    seeds: int
    """That both have."""
    more_seeds: int | None = None
    """Of both, that would settle an undecided difference; None where too many are needed."""
    more_s: float | None = None
    """Device-seconds of them."""


class Agreement(Attributes):
    """Spearman's rank correlation of what ranks with accuracy, over the trials that have both."""

    measure: str = Field(default=ACCURACY.key, alias="with")  # no field can be called `with`
    correlation: float | None
    interval: tuple[float, float] | None
    trials: int


class Level(Attributes):
    """How high the better one of winner and no head lies, in accuracy (per cent)."""

    name: str
    accuracy: float
    chance: float
    pixels: float | None
    """Of raw pixels; None where they were not judged."""
    queries: int
    above_chance: bool
    """Whether so many queries tell it from chance."""
    of_both: bool
    """False where only one of the two has a score."""


class NoWinner(Attributes):
    """Why a search has no winner."""

    reason: Literal["budget", "proxies", "gates", "unscreened", "screening"]
    """The budget ended before a healthy head came to the end of its proxy; all proxies came to
    nothing; the health gate let no head pass; the budget ended before a head was screened; no
    screening came to its end."""
    heads: int = 0
    """Promoted heads that came to nothing."""
    gates: dict[str, int] = {}
    """How many heads each gate judged so."""
    cause: str = ""
    """Why the first of them came to nothing."""
    images: str = ""
    """What is wrong with the images."""
    extend: str = ""
    """The command that continues, with a larger budget where that is what lacked."""
    late: bool = False
    """Whether it was not the budget: what took several times what was planned was cut."""


class Verdict(Attributes):
    """What a search found."""

    winner: int | None = None
    """Trial of the best candidate; None where no candidate has a score."""
    name: str | None = None
    rank_by: str = ACCURACY.key
    """Key of the measure that all numbers are in (`RANKINGS`)."""
    state: Literal["better", "no head", "undecided", "unranked"] = "unranked"
    """`better`, `no head`: the difference to the no-head control is decided at 95 %; `undecided`:
    it is not, or it is smaller than the measure resolves; `unranked`: nothing could be compared."""
    tied: bool = False
    """Whether the difference to no head is smaller than the measure resolves."""
    open: Literal["", "pairs", "chance", "tie", "noise"] = ""
    """Why an undecided difference is: fewer than two paired seeds; both lie at the level of chance;
    the whole interval is smaller than the measure resolves; the noise of few seeds."""
    # What it rests on
    comparison: Comparison | None = None
    """With no head."""
    others: list[Comparison] = []
    """With the other controls."""
    level: Level | None = None
    agreement: Agreement | None = None
    """None where accuracy ranks, and where nothing was labelled."""
    no_winner: NoWinner | None = None
    doubt: str = ""
    """What is wrong with the images, so that the verdict should not be relied on."""
    rows: list[VerdictRow] = []
    """The references, then controls and candidates, the best first."""
    sentence: str = ""
    """All of it in words, as reporting made them."""

    @property
    def results(self) -> list[tuple[str, int, float]]:
        """Return what the verdict rests on: means, which every machine computes alike."""
        return [(row.name, row.seeds, row.mean) for row in self.rows]


StoredVerdict = Annotated[
    Verdict, PlainSerializer(lambda verdict: verdict.model_dump(mode="json", by_alias=True))
]
"""A verdict with all its fields, whether they were set or not."""


class SearchState(Attributes):
    """The user attributes of the study, without the job records (`job/KEY`)."""

    # As it began
    config: Summary | None = None
    """The search as reports show it; with `rank_by` and `images`, which tell how to read scores."""
    fixed: dict[str, Any] | None = None
    """That part of search.yaml without which no result would be comparable."""
    reference: dict[str, float] = {}
    """Accuracy in per cent of raw pixels, the untrained base and chance, where there are labels."""
    reference_scores: dict[str, float] = {}
    """The same by what ranks."""
    warm_start: tuple[PriorRun, ...] = ()
    """What earlier searches teach it, so that their folders are needed once."""
    # How far it is
    plan: PlanState | None = None
    """None before measuring has ended."""
    promoted: tuple[int, ...] = ()
    """Trials in the order of their promotion."""
    promotion: PromotionState | None = None
    """None until the proxies have ended."""
    confirming: ConfirmingState | None = None
    """None until proxies are confirmed."""
    # What came of it
    verdict: StoredVerdict | None = None
    """What was found; None until then."""
    full: FullState | None = None
    """None where none was planned yet."""
    ended: str | None = None
    """The budget up to which the search has ended."""
    nothing_runs: str = ""
    """The part of the study's note that says that nothing runs; empty while the search runs."""

    @classmethod
    def of(cls, attributes: Mapping[str, object]) -> SearchState:
        """Return what the attributes of a study hold (`joined`).

        A value of `MADE_AGAIN` that this version cannot read counts as not there.

        Raises:
            UserError: for any other such value, by which the search would continue.
        """
        try:
            return cls.model_validate(attributes)
        except ValidationError as error:
            bad = bad_keys(error)
            if lost := [key for key in bad if key not in MADE_AGAIN]:
                raise _refused("the search", lost) from error
        return cls.model_validate({key: attributes[key] for key in attributes.keys() - set(bad)})


MADE_AGAIN = {"verdict", "promotion", "reference", "reference_scores", "warm_start", "nothing_runs"}
"""What a search makes anew where the study does not hold it."""


def ended_jobs(attributes: Mapping[str, object]) -> list[JobRecord]:
    """Return the job records among the user attributes of a study (`joined`).

    Raises:
        UserError: for one that this version cannot read.
    """
    records = []
    for key, value in attributes.items():
        if key.startswith(JOB_PREFIX):
            try:
                records.append(JobRecord.model_validate(_numbers(value)))
            except ValidationError as error:
                job = f"job {key.removeprefix(JOB_PREFIX)}"
                raise _refused(job, bad_keys(error)) from error
    return records


def without_non_finite(value: Any) -> Any:
    """Return `value` with None for every number that JSON cannot hold."""
    return _replaced(value, lambda number: None)


def spelled(value: Any) -> Any:
    """Return `value` with every number that JSON cannot hold spelled out."""
    return _replaced(value, lambda number: {"number": str(number)})


def _replaced(value: Any, replace: Callable[[float], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(item, replace) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, replace) for item in value]
    return replace(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(value: Any) -> Any:
    """Return `value` with the numbers that were spelled out."""
    if isinstance(value, dict) and value.keys() == {"number"}:
        return float(value["number"])
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    return [_numbers(item) for item in value] if isinstance(value, list) else value


def split(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes to set for one of any size, in this order: itself, or its parts and then
    what refers to them.

    Parts are named by their content, so that a reader between two writes finds the value from
    before, whole, and so that a write that is repeated changes nothing. Optuna deletes no
    attribute: the parts of an earlier value stay.
    """
    text = json.dumps(value)
    if len(text) <= LARGEST:
        yield key, value
        return
    size = LARGEST // 2  # a part is JSON again, in which every quote and backslash takes two bytes
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
    stem = f"{PART}{key}/{zlib.crc32(text.encode()):08x}"
    for number, piece in enumerate(pieces):
        yield f"{stem}/{number}", piece
    yield key, {IN_PARTS: [f"{stem}/{number}" for number in range(len(pieces))]}


def joined(attributes: Mapping[str, Any]) -> dict[str, object]:
    """Return a study's user attributes with each that was split whole again."""
    whole = {}
    for key, value in attributes.items():
        if isinstance(value, dict) and value.keys() == {IN_PARTS}:
            whole[key] = json.loads("".join(attributes[part] for part in value[IN_PARTS]))
        elif not key.startswith(PART):  # parts of earlier values are still there
            whole[key] = value
    return whole

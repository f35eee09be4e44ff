"""confirm: a second seed of leader and no head, the remaining controls, then more seeds where they
decide most, as results come in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hssl_search.engine.execution.jobs import Job, Outcome, State
from hssl_search.engine.phases.context import Context
from hssl_search.engine.phases.runner import Phase, Runner
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.records.state import SAME_TIME, ConfirmingState, Contender, SearchState
from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import PAIRED, Scores
from hssl_search.heads.config import HeadConfig


@dataclass(frozen=True)
class Field:
    """The trials that confirming is about, by their numbers."""

    candidates: tuple[int, ...]
    """Those that have a score; at least one."""
    no_head: int | None
    """The control to beat; None where it has no score by what ranks."""
    identity: int
    unseen: tuple[int, ...] = ()
    """Controls that had no proxy."""
    same_time: Callable[[int], int] | None = None
    """Return the control without head that trains for the device-time of a proxy: of the leader's
    when it is first asked for. None where it has no score by what ranks."""

    def contests(self, trial: int | None) -> bool:
        """Return whether a further seed of the trial is one run more of a turn."""
        return trial in (*self.candidates, self.no_head, self.identity)


def choose(
    field: Field,
    scores: Scores,
    tried: Mapping[int, int],
    turn: int,
    resolution: float = 0.0,
    running: Mapping[int, Collection[int]] | None = None,
    policy: Policy = DEFAULT,
) -> int | None:
    """Return the trial that gets a further seed; None when the verdict is settled.

    First a second seed of leader and no head, without which their difference has no interval; again
    whenever another leads. Then the controls that had no proxy, the one of the same device-time
    too. Then leader and no head, the challenger (of the other candidates that which is most likely
    better than the leader) and the identity head, each as long as it may be better than the leader:
    of the leader and whom it is compared with in this turn, the one that had fewer runs.

    Args:
        tried: runs of each trial, those that are going on and those that came to nothing included.
        turn: runs chosen before of those that `contests`.
        running: seeds of runs that are going on, by trial.
    """
    posterior = Posterior(scores, resolution)
    leader = posterior.leader(field.candidates)
    assert leader is not None
    lacking = _lacking(field, leader, scores, tried, running or {}, policy.most_tries)
    if lacking is not None:
        return lacking
    for control in field.unseen:
        if not tried.get(control):  # once, whatever came of it
            return control
    if field.same_time is not None and not tried.get(control := field.same_time(leader)):
        return control
    rivals = _rivals(posterior, leader, policy.contention)
    challenger = next((trial for trial in rivals if trial in field.candidates), None)
    if _settled(field, posterior, leader, challenger, policy.contention):
        return None
    compared = {
        "challenger": challenger,
        "identity": field.identity if field.identity in rivals else None,
    }
    partner = compared.get(policy.turns[turn % len(policy.turns)])
    if partner is None:
        partner = leader if field.no_head is None else field.no_head
    # Who had fewer runs; where both had as many the leader goes before no head, and after others.
    pair = (leader, partner) if partner == field.no_head else (partner, leader)
    return min(pair, key=lambda trial: tried.get(trial, 0))


def _lacking(
    field: Field,
    leader: int,
    scores: Scores,
    tried: Mapping[int, int],
    running: Mapping[int, Collection[int]],
    most_tries: int,
) -> int | None:
    """Return which of leader and no head needs a run for them to share two seeds; None where they
    do, or will when what runs has ended."""
    if field.no_head is None:
        return None
    pair = (leader, field.no_head)
    first, second = ({*scores.get(trial, ()), *running.get(trial, ())} for trial in pair)
    behind = min(pair, key=lambda trial: tried.get(trial, 0))
    lacks = len(first & second) < PAIRED and tried.get(behind, 0) < most_tries
    return behind if lacks else None


def _rivals(posterior: Posterior, leader: int, contention: float) -> list[int]:
    """Return the trials that may be better, the likeliest first."""
    chances = {
        trial: chance
        for trial, chance in posterior.above(leader).items()
        if ties.at_least(chance, contention, ties.RELATIVE)
    }
    return ties.rank(chances, ties.RELATIVE)


def _settled(
    field: Field, posterior: Posterior, leader: int, challenger: int | None, contention: float
) -> bool:
    """Return whether neither who leads nor how that compares with no head is open any more."""
    if field.no_head is None:
        # Before any trial has a second run nothing is known of the noise, and so of chances.
        return bool(posterior.fit.dof) and challenger is None
    sign = posterior.fit.sign_beyond_doubt(leader, field.no_head)
    if sign < 0:
        return not set(_rivals(posterior, field.no_head, contention)) & set(field.candidates)
    return sign > 0 and challenger is None


class Confirm(Phase):
    """Runs chosen one after the other, `at_once` of them at a time, up to `most`.

    Each is chosen by the results of all runs that were chosen at least `at_once` before it,
    whatever the order in which they end. What was chosen is kept, so that a search which was
    stopped, or extended by further candidates, continues after it.

    Args:
        scores: trial -> seed -> score before the first run.
        tried: trial -> runs before the first.
        make: the job of a trial and the number of its seed, 0 for the first.
        score: what a run came to; None for nothing that counts.
        chosen: trials in the order in which they were chosen.
        keep: told of each further one, before it is handed out.
    """

    def __init__(
        self,
        field: Field,
        scores: Scores,
        tried: Mapping[int, int],
        make: Callable[[int, int], Job],
        score: Callable[[Job, Outcome], float | None],
        most: int,
        at_once: int,
        resolution: float,
        ended: Mapping[str, Outcome],
        chosen: Iterable[int],
        keep: Callable[[int], None],
        policy: Policy = DEFAULT,
    ) -> None:
        super().__init__((), ended)
        self.policy = policy
        self.field, self.most, self.at_once, self.resolution = field, most, at_once, resolution
        self._before, self._make, self._score, self._keep = scores, make, score, keep
        self._tried = Counter(tried)
        for trial in chosen:
            self._run(trial)
        self._choose()

    def waiting(self) -> int:
        """Return how many runs may still be handed out, at most; 0 when there is none."""
        self._choose()
        # Nothing waits where the verdict is settled, however many more there might be.
        return len(self._waiting) and len(self._waiting) + self.most - len(self.jobs)

    def next_job(self) -> Job | None:
        self._choose()
        return super().next_job()

    def _choose(self) -> None:
        """Choose runs as far as the results that count for them are in; those that ended in an
        earlier run of the search are taken up."""
        while len(self.jobs) < self.most:
            counted = self.jobs[: max(0, len(self.jobs) + 1 - self.at_once)]
            if any(job.key not in self.outcomes for job in counted):
                return
            turn = sum(self.field.contests(job.trial) for job in self.jobs)
            running: dict[int, list[int]] = defaultdict(list)
            for job in self.jobs[len(counted) :]:
                assert job.trial is not None
                running[job.trial].append(job.task.seed)
            trial = choose(
                self.field,
                self._scores(counted),
                self._tried,
                turn,
                self.resolution,
                running,
                self.policy,
            )
            if trial is None:
                return
            self._keep(trial)  # first: a search that is killed while it runs takes it up
            self._run(trial)

    def _run(self, trial: int) -> None:
        job = self._make(trial, self._tried[trial])
        self._tried[trial] += 1
        self.add(job)

    def _scores(self, jobs: Sequence[Job]) -> Scores:
        """Return what was known before, and what came of these jobs."""
        scores = {trial: dict(by_seed) for trial, by_seed in self._before.items()}
        for job in jobs:
            found = self._score(job, self.outcomes[job.key])
            if found is not None and job.trial is not None:
                scores.setdefault(job.trial, {})[job.task.seed] = found
        return scores


def confirm(
    context: Context, same_architecture: HeadConfig, plan: Plan, promoted: Sequence[Contender]
) -> None:
    """Confirm as far as the plan goes what is known of those that were promoted; nothing where no
    proxy has a score.

    Args:
        same_architecture: the head of the control of that name.
    """
    trials, board, seed = context.trials, context.board, context.seed
    table = board.results.table()
    # Of the proxies alone: runs that confirmed before are taken up in the order of their choice.
    proxied = {
        trial: {seed: by_seed[seed]} for trial, by_seed in table.scores.items() if seed in by_seed
    }
    ranked = [candidate.trial for candidate in promoted if candidate.trial in proxied]
    if not ranked:
        return
    no_head, identity = trials.control("none"), trials.control("identity")
    unseen = trials.control("same_architecture", same_architecture)
    kept, jobs = context.study.state.confirming or ConfirmingState(), plan.confirm_jobs
    # How many run at once stays as it was when the plan was made, wherever it is resumed.
    at_once = kept.at_once if kept.jobs == jobs else context.machine.concurrency(jobs)
    kept = ConfirmingState(trials=kept.trials, jobs=jobs, at_once=at_once)
    expected: dict[str, float] = {}  # grows with the runs that are chosen

    def same_time(leader: int) -> int:
        """Return the control that trains while the leader's proxy does."""
        pair = [trials.contender(leader), no_head]
        # Both as timed or both as predicted: a difference between the two ways would count.
        timed = all(contender.trial in board.step_s for contender in pair)
        leader_s, control_s = (
            board.step_s[contender.trial] if timed else context.cost_model.step([contender])
            for contender in pair
        )
        steps = max(1, ties.nearest(plan.proxy_steps * leader_s / control_s))
        return trials.control(SAME_TIME, own_steps=steps).trial

    def make(trial: int, offset: int) -> Job:
        contender = trials.contender(trial)
        steps = contender.state.same_time_steps or plan.proxy_steps
        job = context.jobs.training(
            "confirm",
            contender,
            seed + offset,
            steps,
            [steps],
            context.cost_model.reserve(),
            kept.at_once,
        )
        expected[job.key] = context.cost_model.training(job, contender)
        return job

    def keep(trial: int) -> None:
        nonlocal kept
        kept = kept.with_set(ConfirmingState(trials=(*kept.trials, trial)))
        context.study.write(SearchState(confirming=kept))

    def ended(job: Job, outcome: Outcome) -> None:
        if outcome.state is not State.CUT:
            board.take(job, outcome)

    field = Field(tuple(ranked), no_head.trial, identity.trial, (unseen.trial,), same_time)
    if table.measure.of_head:  # which no control without head has
        field = replace(field, no_head=None, same_time=None)
    controls = [no_head.trial, identity.trial]
    phase = Confirm(
        field,
        {trial: proxied[trial] for trial in (*ranked, *controls) if trial in proxied},
        dict.fromkeys((*(candidate.trial for candidate in promoted), *controls), 1),
        make,
        board.score,
        jobs,
        kept.at_once,
        table.resolution,
        context.ended,
        kept.trials,
        keep,
        context.policy,
    )
    Runner(context, "confirm", phase, expected, ended).run()

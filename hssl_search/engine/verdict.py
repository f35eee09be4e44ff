"""The verdict: which head won, by how much, and how sure that is.

It is data; `hssl_search.reporting.text` puts it into sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import mean
from typing import Any

from hssl_search.data.look import Look
from hssl_search.engine.records.results import ScoreTable
from hssl_search.engine.records.state import (
    HEALTHY,
    SAME_TIME,
    Agreement,
    Comparison,
    Contender,
    Level,
    NoWinner,
    Verdict,
    VerdictRow,
)
from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.correlation import rank_correlation
from hssl_search.engine.statistics.metrics import ACCURACY, Chance, Measure
from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import PAIRED, Difference, Scores

PIXELS = "raw pixels"
"""The reference whose accuracy a base should exceed."""
OTHERS = ("identity", "same_architecture", SAME_TIME)
"""Controls that a head should beat too before its structure is what helped."""


def judge(
    contenders: Sequence[Contender],
    table: ScoreTable,
    accuracies: Scores,
    reference: Mapping[str, float],
    seed_s: Mapping[int, float] | None = None,
    chance: Chance | None = None,
    no_winner: NoWinner | None = None,
    doubt: str = "",
) -> Verdict:
    """Return the verdict on these scores, in what ranks.

    Args:
        table: the scores by what ranks.
        accuracies: per cent; of the trials that were judged by labels too.
        reference: the score of each reference that has one.
        seed_s: trial -> device-seconds of one more seed.
        chance: where accuracies rank, and it is known.
        no_winner: why no candidate has a score, told where none has.
        doubt: see `Verdict`.
    """
    ranked_by, scores, posterior = table.measure, table.scores, table.posterior
    candidates = [contender for contender in contenders if contender.control is None]
    best = posterior.leader([candidate.trial for candidate in candidates])
    winner = next((candidate for candidate in candidates if candidate.trial == best), None)
    references = [
        VerdictRow(name=name, role="reference", seeds=1, mean=value)
        for name, value in reference.items()
    ]
    verdict = Verdict(
        winner=winner and winner.trial,
        name=winner and winner.name,
        rank_by=ranked_by.key,
        state="unranked",
        rows=[*references, *_rows(contenders, table)],
    )
    if winner is None:
        return verdict.model_copy(update={"no_winner": no_winner})
    controls = {contender.control: contender for contender in contenders if contender.control}
    level = None
    if chance and ranked_by == ACCURACY:
        level = _level([winner, controls.get("none")], scores, reference, chance)
    agreement = None if ranked_by == ACCURACY else _agreement(scores, accuracies)
    verdict = verdict.model_copy(update={"level": level, "agreement": agreement, "doubt": doubt})
    if ranked_by.of_head:  # a control without a head has no such score
        return verdict
    gaps = {
        kind: (control.name, gap)
        for kind, control in controls.items()
        if (gap := posterior.fit.against(control.trial).get(winner.trial)) is not None
    }
    others = [_comparison(*gaps[kind], ranked_by) for kind in OTHERS if kind in gaps]
    verdict = verdict.model_copy(update={"others": others})
    if "none" not in gaps:
        return verdict
    costs = [(seed_s or {}).get(each.trial) for each in (winner, controls["none"])]
    return _decided(verdict, *gaps["none"], posterior, ranked_by, costs)


def _decided(
    verdict: Verdict,
    against: str,
    gap: Difference,
    posterior: Posterior,
    ranked_by: Measure,
    seed_s: Sequence[float | None],
) -> Verdict:
    """Return the verdict with the winner's difference to no head, and what would settle it.

    Args:
        against: name of the no-head control.
        gap: to that.
        seed_s: device-seconds of one more seed of the winner, and of no head.
    """
    comparison, gap = _comparison(against, gap, ranked_by), gap.paired
    # A difference below half of the last digit told reads as none, so that it is called a tie too.
    resolved = max(posterior.fit.resolution, 0.5 * 10.0**-ranked_by.digits)
    tied = ties.tie(gap.mean, 0.0, resolved)
    if gap.decided and not tied:
        state = "better" if gap.mean > 0 else "no head"
        return verdict.model_copy(update={"state": state, "comparison": comparison})
    more: int | None = None
    if gap.half is None:
        why, more = "pairs", PAIRED - min(gap.seeds, PAIRED - 1)
    # Before noise: further seeds are judged by the same queries, so that they settle nothing there.
    elif verdict.level is not None and not verdict.level.above_chance:
        why = "chance"
    elif tied and abs(gap.mean) + gap.half <= resolved:
        why = "tie"
    else:
        # A tie is settled by an interval that holds nothing which the measure resolves, any other
        # difference by one that leaves out zero.
        why = "noise"
        within = resolved - abs(gap.mean) if tied else abs(gap.mean)
        more = posterior.fit.seeds_to_settle(gap, within)
    costs = [seconds for seconds in seed_s if seconds is not None]
    # What one of the two alone would cost is too little.
    more_s = more * sum(costs) if more and len(costs) == len(seed_s) else None
    comparison = comparison.model_copy(update={"more_seeds": more, "more_s": more_s})
    return verdict.model_copy(
        update={"state": "undecided", "tied": tied, "open": why, "comparison": comparison}
    )


def _comparison(against: str, gap: Difference, ranked_by: Measure) -> Comparison:
    between = gap.paired.interval
    return Comparison(
        against=against,
        difference=gap.mean,
        interval=between and ranked_by.apart(*between),
        seeds=gap.seeds,
    )


def _level(
    both: Sequence[Contender | None], scores: Scores, reference: Mapping[str, float], chance: Chance
) -> Level:
    means = {
        contender.name: mean(scores[contender.trial].values())
        for contender in both
        if contender is not None and scores.get(contender.trial)
    }
    name = max(means, key=means.__getitem__)
    return Level(
        name=name,
        accuracy=means[name],
        chance=chance.level,
        pixels=reference.get(PIXELS),
        queries=chance.queries,
        above_chance=chance.exceeded_by(means[name]),
        of_both=len(means) > 1,
    )


def _agreement(scores: Scores, accuracies: Scores) -> Agreement | None:
    """Return that of the means over seeds of all trials that have both; None where no trial has."""
    both = [trial for trial in scores if trial in accuracies]
    if not both:
        return None
    ranks = rank_correlation(
        *([mean(of[trial].values()) for trial in both] for of in (scores, accuracies))
    )
    between = None if ranks.low is None or ranks.high is None else (ranks.low, ranks.high)
    return Agreement(correlation=ranks.value, interval=between, trials=ranks.n)


def _rows(contenders: Sequence[Contender], table: ScoreTable) -> list[VerdictRow]:
    """Return a row for each contender that has a score, the best mean first."""
    by_trial = {contender.trial: contender for contender in contenders}
    return [
        VerdictRow(
            name=by_trial[row.trial].name,
            role="control" if by_trial[row.trial].control else "candidate",
            **row._asdict(),
        )
        for row in table.rows
    ]


def why_no_winner(
    contenders: Sequence[Contender],
    causes: Mapping[int, str],
    short: Collection[str],
    images: str,
    extend: str,
    late: Collection[str] = (),
) -> NoWinner:
    """Return why no candidate has a score.

    Args:
        causes: trial -> why it failed or was stopped, of the trials that are decided.
        short: phases that the budget did not last for.
        images: see `NoWinner`.
        extend: the command that continues.
        late: phases of which jobs were cut because they took several times what was expected.
    """
    cut = bool(late) and not short
    short = {*short, *late}
    candidates = [contender for contender in contenders if contender.control is None]
    gates = Counter(each.state.gate for each in candidates if each.state.gate)
    promoted = [each for each in candidates if each.state.gate == HEALTHY and each.state.promoted]
    ended = [causes[each.trial] for each in promoted if each.trial in causes]
    first = ended[0] if ended else ""
    # Before all heads had their chance, health is not to blame.
    if gates["healthy"] and short:
        return NoWinner(reason="budget", heads=len(ended), cause=first, extend=extend, late=cut)
    if promoted:
        return NoWinner(reason="proxies", heads=len(promoted), cause=first)
    if gates:
        unfinished = extend if "screen" in short else ""
        counts = dict(gates.most_common())
        return NoWinner(reason="gates", gates=counts, images=images, extend=unfinished, late=cut)
    if short:
        return NoWinner(reason="unscreened", extend=extend, late=cut)
    failed = next((causes[each.trial] for each in candidates if each.trial in causes), "")
    return NoWinner(reason="screening", cause=failed)


def image_flaw(images: Mapping[str, Any]) -> str:
    """Return what is wrong with the pixels, such as `80 of 80 images are of one colour`, of
    `images` as search.yaml holds them; nothing where nothing is."""
    seen = images.get("looked_at")
    return Look(**seen).words() if seen else ""

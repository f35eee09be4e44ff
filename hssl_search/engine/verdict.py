"""The verdict: who won, how sure that is, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from hssl_search.engine.budget import format_duration
from hssl_search.engine.candidates.candidate import SAME_TIME, Contender
from hssl_search.engine.execution.jobs import Plain
from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.correlation import LEAST, RankCorrelation, rank_correlation
from hssl_search.engine.statistics.metrics import ACCURACY, Chance, Measure
from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import MOST_SEEDS, PAIRED, Difference, Scores, ranked

NO_WINNER = "No head candidate was healthy and came to the end of its proxy, so there is no winner."
PIXELS = "raw pixels"
"""The reference whose accuracy a base should exceed."""
OTHERS = ("identity", "same_architecture", SAME_TIME)
"""Controls that a head should beat too before its structure is what helped."""


def judge(
    contenders: Sequence[Contender],
    scores: Scores,
    accuracies: Scores,
    reference: Mapping[str, float],
    ranked_by: Measure,
    resolution: float = 0.0,
    seed_s: Mapping[int, float] | None = None,
    chance: Chance | None = None,
    no_winner: str = NO_WINNER,
) -> Plain:
    """The verdict as plain data: winner, state, sentence, rows, comparison, others, agreement.

    States: `better` and `no head` when the difference to the no-head control is decided at 95 %, `undecided` when it is not or when it
    is smaller than the measure resolves, `unranked` when nothing could be compared with it. `comparison` is that difference, without an
    interval before both share two seeds, with what would settle it (`more_seeds` of both, None for too many; `more_s` device-seconds), and
    `others` those to the other controls, likewise; intervals hold for whichever candidate was picked (`TwoWay.against`). A row has the
    interval of its mean and `best`, the probability that no other row is better, both None where nothing tells the noise. No interval
    reaches beyond what the measure can be. All of it is in what ranks; where that is not accuracy, `agreement` says how far it puts the
    trials into the order of their accuracies, None where nothing was labelled.

    Args:
        accuracies: per cent; of the trials that were judged by labels too.
        reference: the score of each reference that has one.
        resolution: step in which scores move.
        seed_s: trial -> device-seconds of one more seed.
        chance: where accuracies rank, and it is known.
        no_winner: the sentence where no candidate has a score.
    """
    posterior = Posterior(scores, resolution)
    best = posterior.leader([one.trial for one in contenders if one.control is None])
    winner = next((one for one in contenders if one.trial == best), None)
    found: Plain = {
        "winner": winner and winner.trial,
        "name": winner and winner.name,
        "rank_by": ranked_by.key,
        "comparison": None,
        "others": [],
        "agreement": None,
        "rows": [*_reference_rows(reference), *_rows(contenders, scores, posterior, ranked_by)],
    }
    if winner is None:
        return found | {"state": "unranked", "sentence": no_winner}
    controls = {one.control: one for one in contenders if one.control}
    level = (
        _level([winner, controls.get("none")], scores, reference, chance)
        if chance and ranked_by == ACCURACY
        else None
    )
    found |= _compared(winner, controls, scores, posterior, ranked_by, seed_s or {}, level)
    if ranked_by == ACCURACY:
        return found
    agreement = _agreement(scores, accuracies)
    return found | {
        "agreement": agreement and _plain(agreement),
        "sentence": f"{found['sentence']} {_agreed(agreement, ranked_by)}",
    }


def _compared(
    winner: Contender,
    controls: Mapping[str, Contender],
    scores: Scores,
    posterior: Posterior,
    ranked_by: Measure,
    seed_s: Mapping[int, float],
    level: _Level | None,
) -> Plain:
    """State and sentence, and the comparisons with the controls that there are."""
    told_level = [level.sentence] if level else []
    reached = ranked_by.amount(mean(scores[winner.trial].values()))
    if ranked_by.of_head:
        return {
            "state": "unranked",
            "sentence": f"{winner.name} is the most discrepant healthy head ({reached}).",
        }
    against = {
        kind: posterior.fit.against(one.trial).get(winner.trial) for kind, one in controls.items()
    }
    others = [
        (controls[kind], gap.paired) for kind in OTHERS if (gap := against.get(kind)) is not None
    ]
    told = {"others": [_comparison(one, gap, ranked_by) for one, gap in others]}
    gap = against.get("none")
    if gap is None:
        sentence = (
            f"{winner.name} had the best proxy ({reached}), but the no-head control it must beat did not come to its end under "
            "the same seed."
        )
        return told | {"state": "unranked", "sentence": " ".join([sentence, *told_level])}
    gap, tied = gap.paired, _tied(gap, posterior, ranked_by)
    state = "undecided" if tied or not gap.decided else "better" if gap.mean > 0 else "no head"
    hopeless = tied or (level is not None and not level.above_chance)
    costs = [seed_s.get(one.trial) for one in (winner, controls["none"])]
    more = _more(gap, posterior, costs, hopeless) if state == "undecided" else {}
    settling = _settling(gap, more, tied, level) if more else "."
    sentences = [_sentence(winner, gap, state, tied, ranked_by) + settling, *told_level]
    sentences += [] if state == "no head" else _beside(others, ranked_by)
    return told | {
        "state": state,
        "sentence": " ".join(sentences),
        "comparison": _comparison(controls["none"], gap, ranked_by) | more,
    }


def _tied(gap: Difference, posterior: Posterior, ranked_by: Measure) -> bool:
    """Return whether a difference is smaller than the measure resolves, or than is told of it."""
    return ties.tie(gap.mean, 0.0, max(posterior.fit.resolution, 0.5 * 10.0**-ranked_by.digits))


class _Level(NamedTuple):
    """How high the better one of winner and no head lies."""

    above_chance: bool
    sentence: str


def _level(
    both: Sequence[Contender | None], scores: Scores, reference: Mapping[str, float], chance: Chance
) -> _Level:
    means = {
        one.name: mean(scores[one.trial].values())
        for one in both
        if one is not None and scores.get(one.trial)
    }
    name = max(means, key=means.__getitem__)
    which = (
        f"The better of the two, {name} ({means[name]:.1f} %),"
        if len(means) > 1
        else f"{name} ({means[name]:.1f} %)"
    )
    above = chance.exceeded_by(means[name])
    found = f"{_apart(means[name] - chance.level)} chance ({chance.level:.1f} %, the share of the most frequent class)"
    if PIXELS in reference:
        found += (
            f" and {_apart(means[name] - reference[PIXELS])} raw pixels ({reference[PIXELS]:.1f} %)"
        )
    if above:
        return _Level(above, f"{which} lies {found}.")
    return _Level(
        above,
        f"{which} lies {found}, and {chance.queries} queries cannot tell it from chance: train for longer (a larger "
        "--budget), or try another --trainer, more images or other classes.",
    )


def _apart(points: float) -> str:
    """`12.5 points below`."""
    return f"{abs(points):.1f} points {'above' if points >= 0 else 'below'}"


def _comparison(control: Contender, gap: Difference, ranked_by: Measure) -> Plain:
    interval = gap.interval and list(ranked_by.apart(*gap.interval))
    return {
        "against": control.name,
        "difference": gap.mean,
        "interval": interval,
        "seeds": gap.seeds,
    }


def _more(
    gap: Difference, posterior: Posterior, seed_s: Sequence[float | None], hopeless: bool
) -> Plain:
    """More seeds of both that would settle their difference, and what they cost; one where nothing tells the noise yet."""
    if gap.half is None:
        seeds: int | None = PAIRED - min(gap.seeds, PAIRED - 1)
    else:
        seeds = None if hopeless else posterior.fit.seeds_to_settle(gap)
    costs = [seconds for seconds in seed_s if seconds is not None]
    return {
        "more_seeds": seeds,
        "more_s": seeds * sum(costs) if seeds and len(costs) == len(seed_s) else None,
    }


def _sentence(
    winner: Contender, gap: Difference, state: str, tied: bool, ranked_by: Measure
) -> str:
    """Who is ahead, and by how much, without a full stop."""
    by = _by(gap, ranked_by)
    if state == "better":
        return f"{winner.name} is better than no head by {by}"
    if state == "no head":
        return f"No head is better than the best head found, {winner.name}, by {by}"
    if tied:
        return f"Undecided: {winner.name} and no head are tied, {by} apart"
    leads = (
        f"{winner.name} leads no head by"
        if gap.mean > 0
        else f"no head leads the best head found, {winner.name}, by"
    )
    return f"Undecided: {leads} {by}"


def _by(gap: Difference, ranked_by: Measure) -> str:
    """`3.0 ± 0.2 points (95 %, 3 paired seeds)`; with both ends where the interval would reach beyond what a difference can be."""
    amount = f"{abs(gap.mean):.{ranked_by.digits}f}"
    if gap.half is None:
        return f"{amount} {ranked_by.points}"
    if (spread := _spread(gap, ranked_by, 1 if gap.mean >= 0 else -1)).startswith("±"):
        return f"{amount} {spread} {ranked_by.points} (95 %, {_counted(gap.seeds)})"
    return f"{amount} {ranked_by.points} (95 %: {spread}, {_counted(gap.seeds)})"


def _spread(gap: Difference, ranked_by: Measure, sign: int = 1) -> str:
    """`± 0.2`, or `-3.0 to +100.0` where more cannot be."""
    assert gap.interval is not None and gap.half is not None
    bounded = ranked_by.apart(*gap.interval)
    if bounded == gap.interval:
        return f"± {gap.half:.{ranked_by.digits}f}"
    low, high = sorted(sign * end for end in bounded)
    return f"{low:+.{ranked_by.digits}f} to {high:+.{ranked_by.digits}f}"


def _settling(gap: Difference, more: Plain, tied: bool, level: _Level | None) -> str:
    """What would settle an undecided difference."""
    cost = (
        ""
        if more["more_s"] is None
        else f" (about {format_duration(more['more_s'])} of device-time)"
    )
    if gap.half is None:
        shared = "one paired seed does" if gap.seeds else "unpaired seeds do"
        wanted = "a second seed" if gap.seeds else "two paired seeds"
        return f", but {shared} not tell chance from difference, and there is no interval yet; {wanted} of each{cost} would begin to."
    if level is not None and not level.above_chance:
        return "; at chance level no number of seeds would settle it."
    if tied:
        return "; the measure does not resolve so small a difference, and no number of seeds would settle it."
    if more["more_seeds"] is None:
        return f"; even {MOST_SEEDS} more seeds of each would not settle so small a difference."
    return f"; about {more['more_seeds']} more seed{'s' if more['more_seeds'] > 1 else ''} of each{cost} would settle it, if it stays so."


def _beside(others: Sequence[tuple[Contender, Difference]], ranked_by: Measure) -> list[str]:
    """Return sentences on the other controls: those that the winner does not clearly beat, and those of which nothing tells it."""
    digits = ranked_by.digits
    unclear = [
        f"{one.name} ({gap.mean:+.{digits}f}{' ' if (spread := _spread(gap, ranked_by)).startswith('±') else ', '}{spread})"
        for one, gap in others
        if gap.half is not None and gap.mean <= gap.half
    ]
    untold = [f"{one.name} ({gap.mean:+.{digits}f})" for one, gap in others if gap.half is None]
    found = (
        [f"It is not clearly better than these controls: {_listed(unclear)}."] if unclear else []
    )
    return found + (
        [f"Fewer than two paired seeds do not tell how it compares with: {_listed(untold)}."]
        if untold
        else []
    )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _counted(seeds: int) -> str:
    return f"{seeds} paired seed{'' if seeds == 1 else 's'}"


def _agreement(scores: Scores, accuracies: Scores) -> RankCorrelation | None:
    """Of the means over seeds of all trials that have both; None where no trial has."""
    both = [trial for trial in scores if trial in accuracies]
    if not both:
        return None
    return rank_correlation(
        *([mean(of[trial].values()) for trial in both] for of in (scores, accuracies))
    )


def _plain(found: RankCorrelation) -> Plain:
    interval = None if found.low is None else [found.low, found.high]
    return {
        "with": ACCURACY.key,
        "correlation": found.value,
        "interval": interval,
        "trials": found.n,
    }


def _agreed(found: RankCorrelation | None, ranked_by: Measure) -> str:
    name = ranked_by.score_name
    if found is None:
        return "Nothing was labelled, so whether it makes the base more accurate was not measured."
    if found.value is None or found.n < LEAST:
        return f"How well {name} agrees with accuracy cannot be told from {found.n} trial{'s' if found.n > 1 else ''}."
    between = "" if found.low is None else f", 95 % interval {found.low:+.2f} to {found.high:+.2f}"
    chance = ", which may be chance" if found.may_be_chance else ""
    return f"Over {found.n} trials the rank correlation of {name} with accuracy is {found.value:+.2f} (Spearman{between}){chance}."


def _reference_rows(reference: Mapping[str, float]) -> list[Plain]:
    return [
        {
            "name": name,
            "role": "reference",
            "seeds": 1,
            "mean": value,
            "interval": None,
            "best": None,
        }
        for name, value in reference.items()
    ]


def _rows(
    contenders: Sequence[Contender], scores: Scores, posterior: Posterior, ranked_by: Measure
) -> list[Plain]:
    numbered = {one.trial: one for one in contenders}
    scored = [
        numbered[trial]
        for trial in ranked(
            {trial: scores.get(trial, {}) for trial in numbered}, posterior.fit.resolution
        )
    ]
    best = posterior.best() if posterior.fit.dof else {}
    between = {one.trial: posterior.fit.interval_of_mean(one.trial) for one in scored}
    intervals = {
        trial: interval and list(ranked_by.within(*interval)) for trial, interval in between.items()
    }
    return [
        {
            "name": one.name,
            "role": "control" if one.control else "candidate",
            "trial": one.trial,
            "seeds": len(scores[one.trial]),
            "mean": mean(scores[one.trial].values()),
            "interval": intervals[one.trial],
            "best": best.get(one.trial),
        }
        for one in scored
    ]

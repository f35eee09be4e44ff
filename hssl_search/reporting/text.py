"""The sentences of a search: what it found, how it was planned, and how a replay compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from hssl_search.engine.planning.costs import PROXY_CONTROLS
from hssl_search.engine.records.state import Agreement, Comparison, Level, NoWinner, Verdict
from hssl_search.engine.statistics.correlation import LEAST, RankCorrelation
from hssl_search.engine.statistics.metrics import ACCURACY, RANKINGS, Measure
from hssl_search.engine.statistics.two_way import MOST_SEEDS
from hssl_search.reporting.formats import (
    duration,
    interval,
    known,
    number,
    plural,
    signed,
    signed_interval,
)

if TYPE_CHECKING:
    from hssl_search.engine.candidates.promotion import Promotions
    from hssl_search.engine.planning.plan import Plan
    from hssl_search.engine.replay import Replay


def correlation(found: RankCorrelation) -> str:
    """Return `+0.62 (Spearman, 95 % interval +0.10 to +0.88)`; without an interval the value."""
    if not (known(found.low) and known(found.high)):
        return f"{signed(found.value, 2)} (Spearman)"
    between = f"{signed(found.low, 2)} to {signed(found.high, 2)}"
    return f"{signed(found.value, 2)} (Spearman, 95 % interval {between})"


def agreement(found: RankCorrelation, of: str, with_: str, over: str = "trial") -> str:
    """Return a sentence on how far `of` puts things into the order of `with_`.

    Args:
        over: what the points are, in the singular.
    """
    points = plural(found.n, over)
    if found.n < LEAST:
        return f"How well {of} agrees with {with_} cannot be told from {points}."
    if found.value is None:
        return f"The {points} do not differ in {of} or in {with_}: there is no rank correlation."
    chance = ", which may be chance" if found.may_be_chance else ""
    return (
        f"Over {points} the rank correlation of {of} with {with_} is {correlation(found)}{chance}."
    )


def trend(found: RankCorrelation, with_: str) -> str:
    """Return what a rank correlation says in a few words, as a cell of a table holds them."""
    if found.n < LEAST:
        return "too few"
    if found.value is None:
        return "all alike"
    # With enough points only a perfect order has no interval.
    if found.low is None:
        order = "the same order" if found.value > 0 else "the reverse order"
        return f"{order}, too few to say how sure"
    if found.may_be_chance:
        return "not clear"
    return f"{'rises' if found.value > 0 else 'falls'} with {with_}"


def verdict_sentence(verdict: Verdict) -> str:
    """Return the verdict in words."""
    if verdict.winner is None:
        return _no_winner(verdict.no_winner)
    measure = RANKINGS[verdict.rank_by]
    sentences = [_winner(verdict, measure)]
    if verdict.level is not None:
        sentences.append(_level(verdict.level))
    # A head that no head beats need not be compared with further controls.
    if verdict.comparison is not None and verdict.state != "no head":
        sentences += _beside(verdict.others, measure)
    if measure != ACCURACY:
        sentences.append(_agrees_with_accuracy(verdict.agreement, measure))
    if verdict.doubt:
        sentences.append(f"Do not rely on it: {verdict.doubt}.")
    return " ".join(sentences)


def _winner(verdict: Verdict, measure: Measure) -> str:
    """Return who is ahead, by how much, and what would settle it where that is open."""
    name, gap = verdict.name, verdict.comparison
    reached = measure.amount(next(row.mean for row in verdict.rows if row.trial == verdict.winner))
    # Ranked by a measure of heads, there is nothing to compare no head by.
    if measure.of_head:
        return f"{name} is the most discrepant healthy head ({reached})."
    if gap is None:
        return (
            f"{name} had the best proxy ({reached}), but the no-head control it must beat did not "
            "come to its end under the same seed."
        )
    # The sentence says who is ahead, so that the amount has no sign.
    amount = number(abs(gap.difference), measure.digits)
    by = f"{amount} {measure.points}"
    if gap.interval is not None:
        low, high = gap.interval
        ahead = gap.interval if gap.difference >= 0 else (-high, -low)
        spread = _spread(abs(gap.difference), ahead, measure)
        by = f"{amount} {spread} {measure.points} (95 %, {plural(gap.seeds, 'paired seed')})"
    if verdict.state == "better":
        return f"{name} is better than no head by {by}."
    if verdict.state == "no head":
        return f"Training without a head is better than the best head found, {name}, by {by}."
    if verdict.tied:
        leads = f"{name} and no head are tied, {by} apart"
    elif gap.difference > 0:
        leads = f"{name} leads no head by {by}"
    else:
        leads = f"training without a head leads the best head found, {name}, by {by}"
    return f"Undecided: {leads}{_settling(verdict, gap)}"


def _spread(difference: float, ends: tuple[float, float], measure: Measure) -> str:
    """Return `± 0.2`, or `[−3.0, +100.0]` where a difference cannot be larger."""
    low, high = ends
    around = interval(difference, low, high, measure.digits)
    if around.startswith("±"):
        return around
    return signed_interval(low, high, measure.digits)


def _settling(verdict: Verdict, gap: Comparison) -> str:
    """Return what would settle an undecided difference: the end of its sentence."""
    cost = "" if gap.more_s is None else f" (about {duration(gap.more_s)} of device-time)"
    # First: without an interval nothing else can be said.
    if verdict.open == "pairs":
        shared = "one paired seed" if gap.seeds else "unpaired seeds"
        wanted = "a second seed" if gap.seeds else "two paired seeds"
        return (
            f", but {shared} cannot tell a difference from chance, so there is no interval yet; "
            f"{wanted} of each{cost} would give one."
        )
    if verdict.open == "chance":
        return "; at chance level no number of seeds would settle it."
    if verdict.open == "tie":
        return (
            "; the measure does not resolve so small a difference, and no number of seeds would "
            "settle it."
        )
    if gap.more_seeds is None:
        return f"; even {MOST_SEEDS} more seeds of each would not settle so small a difference."
    more = plural(gap.more_seeds, "more seed")
    return f"; about {more} of each{cost} would settle it, if it stays as it is."


def _level(level: Level) -> str:
    """Return how far the better one of winner and no head lies from chance and from raw pixels."""
    reached = f"{level.name} ({number(level.accuracy)} %)"
    compared = (
        f"{_apart(level.accuracy - level.chance)} chance ({number(level.chance)} %, the share of "
        "the most frequent class)"
    )
    if level.pixels is not None:
        compared += (
            f" and {_apart(level.accuracy - level.pixels)} raw pixels ({number(level.pixels)} %)"
        )
    subject = f"The better of the two, {reached}," if level.of_both else reached
    sentence = f"{subject} lies {compared}"
    if level.above_chance:
        return f"{sentence}."
    return (
        f"{sentence}, and {level.queries} queries cannot tell it from chance: train for longer (a "
        "larger --budget), or try another --trainer, more images or other classes."
    )


def _apart(points: float) -> str:
    """Return `12.5 points below`."""
    return f"{number(abs(points))} points {'above' if points >= 0 else 'below'}"


def _beside(others: Sequence[Comparison], measure: Measure) -> list[str]:
    """Return sentences on the controls that the winner does not clearly beat, and on those that it
    cannot be compared with yet."""
    unclear, uncompared = [], []
    for gap in others:
        difference = signed(gap.difference, measure.digits)
        if gap.interval is None:
            uncompared.append(f"{gap.against} ({difference})")
        # Also an interval that holds zero is no clear win.
        elif gap.interval[0] <= 0:
            unclear.append(
                f"{gap.against} ({difference} {_spread(gap.difference, gap.interval, measure)})"
            )
    sentences = []
    if unclear:
        sentences.append(f"It is not clearly better than these controls: {listed(unclear)}.")
    if uncompared:
        sentences.append(
            "With fewer than two paired seeds it cannot be compared yet with: "
            f"{listed(uncompared)}."
        )
    return sentences


def _agrees_with_accuracy(found: Agreement | None, measure: Measure) -> str:
    if found is None:
        return "Nothing was labelled, so whether it makes the base more accurate was not measured."
    low, high = found.interval or (None, None)
    ranks = RankCorrelation(found.correlation, low, high, found.trials)
    return agreement(ranks, measure.score_name, "accuracy")


def _no_winner(why: NoWinner | None) -> str:
    """Return why there is no winner, the likely causes, and what to type."""
    if why is None:
        return (
            "No head candidate was healthy and came to the end of its proxy, so there is no winner."
        )
    ended = "The budget ended"
    if why.late:
        ended = "What took several times what was planned was cut"
    if why.reason == "budget":
        came = f"{why.heads} promoted heads came to nothing; the first: "
        if why.heads == 1:
            came = "1 promoted head came to nothing: "
        tried = f" ({came}{why.cause.rstrip('.')})" if why.cause else ""
        return (
            f"{ended} before a healthy head came to the end of its proxy{tried}, so there "
            f"is no winner; continue with: {why.extend}"
        )
    if why.reason == "proxies":
        heads = f"None of the {why.heads} promoted heads came"
        if why.heads == 1:
            heads = "The only promoted head did not come"
        cause = f"; the first: {why.cause}" if why.cause else "."
        return f"{heads} to the end of its proxy in good health, so there is no winner{cause}"
    if why.reason == "gates":
        screened = sum(why.gates.values())
        heads = f"None of the {screened} heads screened was"
        if screened == 1:
            heads = "The only head that was screened was not"
        gates = ", ".join(f"{count} {gate}" for gate, count in why.gates.items())
        more = ""
        if why.extend:
            more = (
                " Not all heads were screened when "
                f"{'the slow ones were cut' if why.late else 'the budget ended'}; continue with: "
                f"{why.extend}"
            )
        return f"{heads} healthy ({gates}), so there is no winner. {_sick_of(why.images)}{more}"
    if why.reason == "unscreened":
        return (
            f"{ended} before a head was screened, so there is no winner; continue with: "
            f"{why.extend}"
        )
    return (
        "No head candidate came to the end of its screening, so there is no winner; the first: "
        f"{why.cause or 'no head was drawn.'}"
    )


def _sick_of(images: str) -> str:
    """Return the likely causes where the health gate let no head pass.

    Args:
        images: what is wrong with the images, where something is.
    """
    others = (
        "the recipe (try another --trainer), or too short a screening (a larger --budget under "
        "another --name makes it longer)."
    )
    if images:
        return (
            f"Most likely it is the images: {images}; look at them first. Else it may be {others}"
        )
    return f"Likely causes: the images (look at a few of them), {others}"


def listed(words: Sequence[str]) -> str:
    """Return `a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def plan_sentence(plan: Plan, occasion: Literal["begun", "screened", "extended", "done"]) -> str:
    """Return what is planned: all of it, or after screening what follows."""
    if occasion == "done":
        return "The extended budget buys no more proxies."
    end = {
        "": ", then the full training.",
        "off": ".",
        "short": "; a full training would be shorter than a proxy, so its share of the budget goes "
        "to these runs.",
    }
    follows = (
        f"{plural(plan.proxies, 'proxy')} and {PROXY_CONTROLS} controls of {plan.proxy_steps} "
        f"steps, then about {plan.confirm_jobs} confirming runs{end[plan.without_full]}"
    )
    if occasion == "screened":
        return f"Planned anew after screening: {follows}"
    groups = plural(plan.groups, "group")
    in_rounds = f" and {plan.rounds} rounds" if plan.rounds > 1 else ""
    sentence = (
        f"Plan: screen {plural(plan.candidates, 'head')} in {groups}{in_rounds} for "
        f"{plan.screen_steps} steps, then {follows}"
    )
    return f"The budget was extended. {sentence}" if occasion == "extended" else sentence


def promotion_sentence(promotions: Promotions) -> str:
    """Return how well the proxies' scores were predicted, or why no head was promoted."""
    if promotions.none == "budget":
        return "No head was promoted: the budget ended before that."
    if promotions.none:
        what = "healthy after screening" if promotions.none == "unhealthy" else "screened"
        return f"No head candidate was {what}; there is nothing to promote."
    # The key under which studies hold it.
    names = {"forecast": "the surrogate (each proxy left out in turn)"}
    sentences = [
        agreement(found, names.get(key, key), "the score", "proxy")
        for key, found in promotions.predictions.items()
        # The surrogate predicts nothing before enough proxies have ended.
        if found.n or key == "discrepancy"
    ]
    if promotions.left:
        sentences.append(
            f"What {listed(promotions.left)} taught was left, having given the wrong order."
        )
    return " ".join(sentences)


def replay_sentence(replay: Replay) -> str:
    """Return how a replay compares with its record."""
    if replay.equal:
        return f"{replay.job} ({replay.name}) replays: all {len(replay.numbers)} numbers are equal."
    first, because = replay.different[0], " ".join(replay.notes)
    why = "its record was changed, or this device is not deterministic."
    if because:
        why = f"what is different here may be why: {because}"
    return (
        f"{replay.job} ({replay.name}) does not replay: {len(replay.different)} of "
        f"{len(replay.numbers)} numbers differ, first {first.name} at step {first.step}, "
        f"{first.recorded} recorded and {first.replayed} replayed; {why}"
    )

"""Why a search has no winner, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from hssl_search.data.look import Look
from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.execution.jobs import Plain
from hssl_search.engine.records.state import HEALTHY


def alike(images: Mapping[str, Plain]) -> str:
    """Return what is wrong with the pixels, `80 of 80 images are of one colour`, of `images` as search.yaml holds them; else nothing."""
    seen = images.get("looked_at")
    return Look(**seen).words() if seen else ""


def why(
    contenders: Sequence[Contender],
    causes: Mapping[int, str],
    short: Collection[str],
    images: Mapping[str, Plain],
    extend: str,
) -> str:
    """Return why no candidate has a score, with the likely causes and what to type.

    Args:
        causes: trial -> why it failed or was stopped, of the trials that are decided.
        short: phases that the budget did not last for.
        images: as search.yaml holds them.
        extend: the command that goes on with a larger budget.
    """
    candidates = [one for one in contenders if one.control is None]
    gates = Counter(one.state.gate for one in candidates if one.state.gate)
    promoted = [one for one in candidates if one.state.gate == HEALTHY and one.state.promoted]
    ended = [causes[one.trial] for one in promoted if one.trial in causes]
    if gates[HEALTHY] and short:
        came = (
            "1 promoted head came to nothing: "
            if len(ended) == 1
            else f"{len(ended)} promoted heads came to nothing; the first: "
        )
        tried = f" ({came}{ended[0].rstrip('.')})" if ended else ""
        return f"The budget ended before a healthy head came to the end of its proxy{tried}, so there is no winner; go on with: {extend}"
    if promoted:
        cause = f"; the first: {ended[0]}" if ended else "."
        heads = (
            "The only promoted head did not come"
            if len(promoted) == 1
            else f"None of the {len(promoted)} promoted heads came"
        )
        return f"{heads} to the end of its proxy in good health, so there is no winner{cause}"
    if gates:
        counted = ", ".join(f"{count} {gate}" for gate, count in gates.most_common())
        heads = (
            "The only head that was screened was not"
            if gates.total() == 1
            else f"None of the {gates.total()} heads screened was"
        )
        told = f"{heads} healthy ({counted}), so there is no winner. {_causes(images)}"
        return (
            f"{told} Not all heads were screened when the budget ended; go on with: {extend}"
            if "screen" in short
            else told
        )
    if short:
        return f"The budget ended before a head was screened, so there is no winner; go on with: {extend}"
    failed = next(
        (causes[one.trial] for one in candidates if one.trial in causes), "no head was drawn."
    )
    return f"No head candidate came to the end of its screening, so there is no winner; the first: {failed}"


def _causes(images: Mapping[str, Plain]) -> str:
    others = "the recipe (try another --trainer), or too short a screening (a larger --budget under another --name makes it longer)."
    if seen := alike(images):
        return f"Most likely it is the images: {seen}; look at them first. Else it may be {others}"
    return f"Likely causes: the images (look at a few of them), {others}"

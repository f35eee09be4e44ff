#!/usr/bin/env bash
# ray 2.60.0: ASHA never stops a trial whose score is NaN; optuna 5.0.0's stops it at once.
#
# Guess: a training that has diverged is among the worst at a rung, so it is the first to be
#        stopped.
# Seen:  it continues at every rung, beside trials that are stopped for being in the lower two
#        thirds: a NaN is below no cutoff. Optuna's SuccessiveHalvingPruner and MedianPruner prune
#        it.
# Hurts: whoever tunes learning rates or augmentations with mixed precision: diverged trials are
#        the only ones sure to get the whole max_t. Report the worst possible score instead of NaN,
#        or stop the trial where the loss stops being finite.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 optuna==5.0.0 ray[tune]==2.60.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import math
from types import SimpleNamespace

import optuna
import ray
from ray.tune.schedulers import ASHAScheduler

RUNGS = (1, 3, 9, 27)
SCORES = [number / 12 for number in range(12)]

asha = ASHAScheduler(
    time_attr="step", metric="score", mode="max", max_t=81, grace_period=1, reduction_factor=3
)


def decision(name, step, score):
    trial = SimpleNamespace(trial_id=name, config={})
    if step == 1:
        asha.on_trial_add(None, trial)
    return asha.on_trial_result(None, trial, {"step": step, "score": score})


diverged = []
for step in RUNGS:
    for score in SCORES:
        decision(str(score), step, score)
    diverged.append(decision("diverged", step, math.nan))
worst = decision("worst", 1, -1.0)

optuna.logging.set_verbosity(optuna.logging.ERROR)
pruned = {}
for pruner in (optuna.pruners.SuccessiveHalvingPruner(), optuna.pruners.MedianPruner()):
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for score in SCORES:
        trial = study.ask()
        trial.report(score, 1)
        study.tell(trial, score)
    trial = study.ask()
    trial.report(math.nan, 1)
    pruned[type(pruner).__name__] = bool(trial.should_prune())
print(f"ray {ray.__version__}, ASHA: NaN at steps {RUNGS}: {diverged}; a score of -1: {worst}")
print(f"optuna {optuna.__version__}, NaN pruned: {pruned}")
assert diverged == ["CONTINUE"] * 4
assert worst == "STOP"
assert all(pruned.values())
PY

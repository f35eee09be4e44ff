#!/usr/bin/env bash
# optuna 5.0.0: with ask and tell, the result that completes a grid raises out of tell().
#
# Guess: BruteForceSampler and GridSampler notice at ask() that nothing is left; tell() only
#        records.
# Seen:  tell() of the last combination raises RuntimeError ("Study.stop is supposed to be invoked
#        inside an objective function or a callback"), from both. The value is nowhere to be read
#        from the exception, but it is recorded: the trial is COMPLETE. Every later ask() hands out
#        a combination again, and every later tell() raises again, so nothing says "done".
# Hurts: whoever drives Optuna from a scheduler of their own, and retries or drops a job whose
#        tell() raised: the last result is trained twice or taken for lost. Look at the trial's
#        state.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    optuna==5.0.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import warnings

import optuna

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
brute_force = optuna.samplers.BruteForceSampler(seed=0)
grid = optuna.samplers.GridSampler({"depth": [1, 2, 3]}, seed=0)
for sampler in (brute_force, grid):
    study, raised = optuna.create_study(sampler=sampler), []
    for _ in range(5):
        trial = study.ask()
        depth = trial.suggest_int("depth", 1, 3)
        try:
            study.tell(trial, depth)
            raised.append(False)
        except RuntimeError as error:
            assert "Study.stop" in str(error)
            raised.append(True)
    states = [trial.state.name for trial in study.trials]
    print(
        f"optuna {optuna.__version__}, {type(sampler).__name__}: tell() raised {raised}, "
        f"states {states}, values {[trial.value for trial in study.trials]}"
    )
    assert raised[:3] == [False, False, True]
    assert states[2] == "COMPLETE" and sorted(trial.value for trial in study.trials[:3]) == [
        1,
        2,
        3,
    ]
    assert raised[3:] == [True, True]
PY

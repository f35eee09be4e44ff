#!/usr/bin/env bash
# optuna 5.0.0, pandas 3.1.1, pyarrow 26.0.1: a study's frame in Parquet is another frame, or none.
#
# Guess: study.trials_dataframe().to_parquet(FILE) works, and pandas.read_parquet gives it back.
# Seen:  a user attribute that is a dictionary comes back with the keys of all other trials, as
#        None, and its integers as floats; an empty dictionary in every trial, or a categorical
#        parameter of numbers and words, raises instead. None of it happens before the first such
#        trial.
# Hurts: whoever keeps heads, configurations or per-class scores as attributes of trials (the usual
#        way) and reads them back from a table: `{**defaults, **row.head}` then sets None
#        everywhere. Writing such columns as JSON text keeps them.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    optuna==5.0.0 pandas==3.1.1 pyarrow==26.0.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import optuna
import pandas as pd
import pyarrow as pa

optuna.logging.set_verbosity(optuna.logging.WARNING)


def frame(attribute=lambda number: 0, choices=("a", "b")):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number, choice in enumerate(choices):
        study.enqueue_trial({"choice": choice})
        trial = study.ask()
        trial.suggest_categorical("choice", choices)
        trial.set_user_attr("head", attribute(number))
        study.tell(trial, number)
    return study.trials_dataframe()


def refusal(frame):
    try:
        frame.to_parquet("refused.parquet")
    except pa.lib.ArrowException as error:
        return type(error).__name__
    return None


heads = [{"family": "resnet", "depth": 2}, {"family": "mlp", "ratio": 4}]
written = frame(heads.__getitem__)
written.to_parquet("study.parquet")
read = pd.read_parquet("study.parquet")["user_attrs_head"].tolist()
empty, mixed = refusal(frame(lambda number: {})), refusal(frame(choices=(1, "auto")))
print(f"optuna {optuna.__version__}, pandas {pd.__version__}, pyarrow {pa.__version__}")
print(f"  written: {heads}\n  read:    {read}")
print(f"  empty dictionaries: {empty}; choices 1 and 'auto': {mixed}")
assert written["user_attrs_head"].tolist() == heads
assert read == [
    {"family": "resnet", "depth": 2.0, "ratio": None},
    {"family": "mlp", "depth": None, "ratio": 4.0},
]
assert empty == "ArrowNotImplementedError"
assert mixed in ("ArrowInvalid", "ArrowTypeError")
PY

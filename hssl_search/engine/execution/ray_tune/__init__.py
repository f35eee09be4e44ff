"""Runs jobs through Ray Tune: the executor over Ray's session, Tune's hooks over the dispatcher,
and the worker process's side of a Tune trial."""

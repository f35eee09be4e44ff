"""The trainer: steps, schedules, precision, and a state that can be saved and continued
bit-exactly.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hssl_search.data.resident import Images
from hssl_search.data.views import Views
from hssl_search.training.checkpoint import Checkpoint, CheckpointFolder
from hssl_search.training.pair import Losses, Pair
from hssl_search.training.recipe import Stage
from hssl_search.training.recompute import recompute_blocks
from hssl_search.training.schedule import cosine, warmup_cosine

CHECK_EVERY = 20
"""Steps between looks at the non-finite flag on an accelerator, each of which waits for the device;
on CPU every step looks."""
SAVE_EVERY_S = 60.0
"""Seconds of training that a killed worker loses at most."""


class NonFiniteError(RuntimeError):
    """A loss or gradient that was not finite. The optimizer did not step with it."""


@dataclass(frozen=True)
class StepReport:
    """The means since the report before."""

    step: int
    """Optimizer steps taken so far."""
    loss: float
    """Mean total loss."""
    base_losses: list[float]
    """Mean l(b, b'), or l(b_i, a'_i) of each head."""
    head_losses: list[float]
    """Mean l(a_i, a'_i) of each head."""
    patch_losses: list[float]
    """Mean patch term of the base with each couple; empty for a method without masks."""
    seconds: float
    """Wall-clock seconds of `timed_steps`."""
    timed_steps: int
    """Steps since the last report that this process made; fewer than all of them after a resume."""


class Trainer:
    """The training of a pair for a fixed number of steps.

    Args:
        pair: on its device already.
        stage: optimizer, schedules, precision.
        views: makes a batch of augmented views.
        images: N x 3 x S x S uint8; a tensor, or what is indexed like one, that gives batches on
            the pair's device.
        steps: length of the schedules.
        seed: of image order, views and everything random in the forward pass.
    """

    def __init__(
        self, pair: Pair, stage: Stage, views: Views, images: Images, steps: int, seed: int
    ) -> None:
        self.pair, self.stage, self.views, self.images = pair, stage, views, images
        self.steps, self.seed = steps, seed
        self.device = next(pair.parameters()).device
        self.batch_size = min(stage.batch_size, len(images))
        if stage.channels_last:
            pair.to(memory_format=torch.channels_last)
        self.optimizer = _optimizer(pair.student, stage)
        # Views have a generator of their own: what a head draws, such as stochastic depth, changes
        # no view.
        self.generator = torch.Generator(self.device).manual_seed(seed)
        torch.manual_seed(seed)
        self.step = 0
        self.recomputes = False
        # Lengths of total, base, head and patch losses, which are summed up as one tensor.
        student = pair.student
        self._terms = [1, len(student.couples), len(student.heads), len(pair.patch_states)]
        self._sums = torch.zeros(sum(self._terms), device=self.device)
        self.unreported, self._seconds, self._timed_steps = 0, 0.0, 0
        # The first step that was not finite, -1 before there is one; kept on the device.
        self._first_bad = torch.full((), -1, device=self.device)
        self._epoch: tuple[int, Tensor] = (-1, torch.empty(0))

    def advance(self, until: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Train to step `until`, or until `stop()` is true.

        Raises:
            NonFiniteError: when a loss or gradient was not finite.
        """
        started, before = time.monotonic(), self.step
        self.pair.train()
        while self.step < until and not stop():
            self._one_step()
            if self.device.type == "cpu" or self.step % CHECK_EVERY == 0:
                self._raise_if_bad()
        self._raise_if_bad()
        self._seconds += time.monotonic() - started
        self._timed_steps += self.step - before

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return the autocast context of the stage; `auto` counts as fp32 here, since it is
        resolved before a search.
        """
        stack = contextlib.ExitStack()
        if self.stage.precision == "bf16":
            stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            if self.device.type == "cpu":
                # The fused CPU kernel is slower in bf16 than in fp32.
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        return stack

    def recompute(self) -> None:
        """Need less memory and about a third more time from now on, for the same numbers; a
        training that continues from the checkpoints does too.
        """
        if not self.recomputes:
            recompute_blocks(self.pair.student, self.precision)
        self.recomputes = True

    def _one_step(self) -> None:
        progress = self.step / self.steps
        self._set_schedules()
        batch = self.images[self._indices()]
        views = self.views.batch(batch, self.generator)
        with self.precision():
            losses = self.pair.losses(views, progress)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.pair.drop_frozen_gradients(progress)
        self._flag_non_finite(losses.total)
        self.optimizer.step()
        self.pair.update_teacher(cosine(self.stage.teacher_momentum, 1.0, progress))
        self.step += 1
        self._add(losses)

    def _set_schedules(self) -> None:
        # The step to come: the first one would otherwise have a learning rate of 0.
        progress = (self.step + 1) / self.steps
        stage = self.stage
        lr = warmup_cosine(stage.lr, stage.lr * stage.final_lr, stage.warmup, progress)
        decay = cosine(stage.weight_decay, stage.weight_decay_end or 0.0, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
            group["weight_decay"] = decay if group["decays"] else 0.0

    def _indices(self) -> Tensor:
        """Return the images of this step: a new random order each epoch, the incomplete last batch
        left out.
        """
        epoch, place = divmod(self.step, len(self.images) // self.batch_size)
        if self._epoch[0] != epoch:
            # From seed and epoch alone, so that a resumed training sees the same order.
            order = torch.randperm(
                len(self.images), generator=torch.Generator().manual_seed((self.seed << 20) + epoch)
            )
            self._epoch = (epoch, order.to(self.images.device))
        return self._epoch[1][place * self.batch_size : (place + 1) * self.batch_size]

    def _flag_non_finite(self, loss: Tensor) -> None:
        """Make the optimizer skip this step on the device when it is not finite: nothing waits, and
        no weight is touched.
        """
        gradients = [p.grad for p in self.pair.student.parameters() if p.grad is not None]
        # One norm of all gradients: not finite as soon as one of them is not.
        norm = nn.utils.get_total_norm(gradients)
        bad = ~(torch.isfinite(loss.detach()) & torch.isfinite(norm))
        if self.stage.clip_grad is not None:
            parameters = self.pair.student.parameters()
            nn.utils.clip_grads_with_norm_(parameters, self.stage.clip_grad, norm)
        self._first_bad = torch.where(bad & (self._first_bad < 0), self.step, self._first_bad)
        # Fused optimizers skip a step by this flag, which AMP's gradient scaler sets elsewhere.
        self.optimizer.found_inf = (self._first_bad >= 0).float()  # type: ignore[attr-defined]

    def _raise_if_bad(self) -> None:
        if (step := int(self._first_bad)) >= 0:
            raise NonFiniteError(
                f"the loss or a gradient was not finite at step {step}; the optimizer did not use "
                "it"
            )

    def _add(self, losses: Losses) -> None:
        self._sums += torch.cat(
            [losses.total.detach().reshape(1), losses.base, losses.head, losses.patch]
        )
        self.unreported += 1

    def report(self) -> StepReport:
        """Return the means since the report before; waits for the device."""
        means = (self._sums / self.unreported).split(self._terms)
        [total], base, head, patch = (terms.tolist() for terms in means)
        report = StepReport(self.step, total, base, head, patch, self._seconds, self._timed_steps)
        self._sums.zero_()
        self.unreported, self._seconds, self._timed_steps = 0, 0.0, 0
        return report

    def save(self, folder: CheckpointFolder) -> None:
        """Save all that `load` needs to continue bit-exactly, and the base that is kept."""
        state = {f"pair.{key}": value for key, value in self.pair.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
        state |= {
            "random.views": self.generator.get_state(),
            "random.cpu": torch.get_rng_state(),
            "sums": self._sums,
        }
        if self.device.type == "cuda":
            state["random.cuda"] = torch.cuda.get_rng_state(self.device)
        about = {
            "unreported": self.unreported,
            "steps": self.steps,
            "seed": self.seed,
            "recomputes": self.recomputes,
        }
        folder.save(self.step, state, self.pair.kept.base.model.state_dict(), about)

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: when it belongs to a training of another length or seed.
        """
        if (checkpoint.about["steps"], checkpoint.about["seed"]) != (self.steps, self.seed):
            raise ValueError("the checkpoint belongs to a training of another length or seed")
        tensors = checkpoint.tensors
        self.pair.load_state_dict(_under(tensors, "pair."))
        parameters = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(tensors, "optimizer.").items():
            index, name = key.split(".", 1)
            # Fused kernels read a moment in the memory order of its parameter
            like = parameters[int(index)]
            moments.setdefault(int(index), {})[name] = (
                torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            )
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.generator.set_state(tensors["random.views"])
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self._sums.copy_(tensors["sums"])
        self.unreported = checkpoint.about["unreported"]
        self.step = checkpoint.step
        if checkpoint.about.get("recomputes"):
            self.recompute()


def train(
    trainer: Trainer,
    rungs: Iterable[int],
    folder: CheckpointFolder,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Iterator[StepReport]:
    """Train, from the newest whole checkpoint in `folder` if there is one, and yield a report at
    each rung.

    A checkpoint is saved at each rung before its report, and about every minute between rungs. A
    rung whose checkpoint was saved but whose report may have been lost is reported again.

    Args:
        trainer: at step 0.
        rungs: steps at which to report; the largest ends the training.
        folder: of the checkpoints.
        out_of_time: ends the training with a checkpoint and, if there are steps since the last
            rung, a report of them.
    """
    if (checkpoint := folder.load()) is not None:
        trainer.load(checkpoint)
    for rung in sorted(rungs):
        # A rung at the step of the checkpoint comes again: its report may have been lost.
        if rung < trainer.step:
            continue
        while trainer.step < rung and not out_of_time():
            due = time.monotonic() + SAVE_EVERY_S
            trainer.advance(
                rung,
                lambda due=due: out_of_time() or time.monotonic() > due,  # type: ignore[misc]
            )
            trainer.save(folder)
        if trainer.unreported:
            yield trainer.report()
        if trainer.step < rung:
            return


def _optimizer(student: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    # Matrices and kernels decay; biases, norms and scales, which are vectors, do not.
    trained = [p for p in student.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if (p.ndim > 1) is decays], "decays": decays}
        for decays in (True, False)
    ]
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=stage.lr, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=stage.lr, fused=True)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }

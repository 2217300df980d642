"""Score a whole population in one pass: stacked parameters under ``torch.func.vmap``."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from tglo_lightning.evaluation.bases import Callback
from tglo_lightning.evaluation.inner import InnerFit, nothing
from tglo_lightning.evaluation.isolation import generators, isolated, preserved, seed_all
from tglo_lightning.evaluation.trainer import epoch_seed
from tglo_lightning.search import Evaluation

__all__ = ["NotVectorizable", "VectorizedEvaluator"]

# Their steps treat every element alike, so one step over stacked parameters is one step for each candidate
ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
)
# One kernel for the whole step, unless the user chose otherwise
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
# Hooks of a training step that would have to run once for each candidate
HOOKS = (
    "on_train_start",
    "on_train_end",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "optimizer_step",
    "optimizer_zero_grad",
    "on_before_zero_grad",
    "configure_gradient_clipping",
    "lr_scheduler_step",
)
LOGGING = ("log", "log_dict", "print")


class NotVectorizable(Exception):
    """What keeps a module from being trained as a population."""


class VectorizedEvaluator:
    """Trains all candidates at once, each batch loaded, moved and augmented once.

    The parameters and buffers of the candidates are stacked, and ``training_step`` is mapped over the stack by
    :func:`torch.func.vmap`; ``theta`` is a buffer like any other. Optimizer, parameter groups, schedulers, gradient
    clipping and accumulation are those of the module and the outer Trainer; one elementwise optimizer step over the
    stack is one step for each candidate. An inner Trainer sets everything up, as for :class:`TrainerEvaluator`, and
    validates each candidate, so the fitness is the same up to float tolerance.

    Args:
        chunk_size: candidates in one pass; bounds the memory. By default what fits into half of the available memory.
        compile: compile the pass with :func:`torch.compile`; pays where one search runs for minutes.

    Raises:
        NotVectorizable: by :meth:`check` and :meth:`evaluate`, what the module does that cannot be mapped.
    """

    name = "vectorized"
    fit: InnerFit

    def __init__(self, *, chunk_size: int | None = None, compile: bool = False) -> None:
        if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int)):
            raise TypeError(f"`chunk_size` must be an int or None, got {chunk_size!r}.")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"`chunk_size` must be at least 1, got {chunk_size}.")
        self.chunk_size = chunk_size
        self.compile = compile
        self.stochastic = False

    def setup(self, fit: InnerFit) -> None:
        """Take on a search."""
        self.fit = fit

    def close(self) -> None:
        """Let go of what the search held."""

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """One evaluation for each ``theta``, in order; losses other than TaylorGLO train beside, one by one."""
        given = [theta for theta in thetas if theta is not None]
        scored = iter(self._score_population(given, seed) if given else [])
        for theta in thetas:
            yield next(scored) if theta is not None else self._score_population([None], seed)[0]

    def train_population(self, thetas: Sequence[list[float] | None], seed: int) -> list[dict[str, Tensor]]:
        """Weights and buffers of each candidate after its training, by name."""
        with isolated(), preserved(self.fit.generators):
            _, _, population = self._train_population(thetas, seed)
        return [population.weights(index) for index in range(len(thetas))]

    def _train_population(self, thetas: Sequence[list[float] | None], seed: int) -> tuple[Any, Any, _Population]:
        module = self.fit.candidate(thetas[0], seed)
        population = _Population(thetas, self.fit.slot.path, seed, self.fit.generators, self.chunk_size, self.compile)
        trainer = self.fit.trainer(population)
        seed_all(seed, self.fit.generators)
        trainer.fit(module, **self.fit.data())
        self.stochastic = population.stochastic
        return trainer, module, population

    def _score_population(self, thetas: Sequence[list[float] | None], seed: int) -> list[Evaluation]:
        started = time.perf_counter()
        evaluations = []
        with isolated(), preserved(self.fit.generators):
            trainer, module, population = self._train_population(thetas, seed)
            training = (time.perf_counter() - started) / len(thetas)
            for index in range(len(thetas)):
                started = time.perf_counter()
                weights = population.weights(index)
                if not all(torch.isfinite(weights[name]).all() for name in population.trained):
                    evaluations.append(Evaluation(float("nan"), "diverged", training, "a weight is not finite"))
                    continue
                module.load_state_dict(weights, strict=False)
                trainer.validate(module, **self.fit.data(validate=True), verbose=False)
                fitness = float(trainer.callback_metrics.get(self.fit.monitor, float("nan")))
                evaluations.append(Evaluation(fitness, "ok", training + time.perf_counter() - started))
        return evaluations


class _Population(Callback):
    """Takes over a fit once Lightning has set everything up, trains the population, and ends the fit."""

    def __init__(
        self,
        thetas: Sequence[list[float] | None],
        path: str,
        seed: int,
        data_generators: list[Any],
        chunk_size: int | None,
        compile: bool,
    ) -> None:
        self.thetas = thetas
        self.path = path
        self.seed = seed
        self.generators = data_generators
        self.chunk_size = chunk_size
        self.compile = compile
        self.stochastic = False
        self.chunks: list[_Chunk] = []
        self.trained: list[str] = []

    def weights(self, index: int) -> dict[str, Tensor]:
        """Parameters and buffers of one candidate."""
        for chunk in self.chunks:
            if index < chunk.size:
                return {name: value.detach()[index] for name, value in {**chunk.params, **chunk.buffers}.items()}
            index -= chunk.size
        raise IndexError(index)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        check_static(trainer, pl_module)
        with _silenced(pl_module):
            self._train(trainer, pl_module)
        trainer.should_stop = True

    def _train(self, trainer: Any, module: Any) -> None:
        loop = trainer.fit_loop
        progress = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
        rng = _ComputeRandomness()
        epoch = 0
        while not (0 <= trainer.max_steps <= progress.completed or 0 <= (trainer.max_epochs or -1) <= epoch):
            loop.epoch_progress.current.processed = epoch
            loop.setup_data()
            for loader in loop._combined_loader.flattened:
                for sampler in (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
                    getattr(sampler, "set_epoch", nothing)(epoch)
            seed_all(epoch_seed(self.seed, epoch), [*self.generators, *generators(module, trainer.train_dataloader)])
            if epoch > 0:
                # the loop made the first iterator itself
                iter(loop._data_fetcher)
            self._train_epoch(trainer, module, progress, rng)
            epoch += 1
            self._schedule(trainer, "epoch", epoch)
        self.stochastic = bool(rng.stochastic)

    def _train_epoch(self, trainer: Any, module: Any, progress: Any, rng: _ComputeRandomness) -> None:
        fetcher = trainer.fit_loop._data_fetcher
        optimizer = trainer.optimizers[0]
        every = trainer.accumulate_grad_batches
        # not `for`, which would ask the fetcher for a new iterator
        while not fetcher.done:
            batch, batch_idx, _ = next(fetcher)
            batch = trainer.precision_plugin.convert_input(batch)
            batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
            batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            arguments = tuple(trainer.fit_loop.epoch_loop._build_kwargs(OrderedDict(), batch, batch_idx).values())
            if not self.chunks:
                self._stack(_Step(module), arguments, trainer)
            with rng:
                for chunk in self.chunks:
                    with trainer.precision_plugin.train_step_context():
                        losses = chunk.losses(arguments)
                    (losses.sum() / every if every > 1 else losses.sum()).backward()
            if (batch_idx + 1) % every == 0 or fetcher.done:
                self._clip(trainer)
                optimizer.step()
                optimizer.zero_grad()
                progress.completed += 1
                self._schedule(trainer, "step", batch_idx + 1)
            if 0 <= trainer.max_steps <= progress.completed:
                break

    def _stack(self, step: _Step, arguments: tuple[Any, ...], trainer: Any) -> None:
        """Stack the candidates, in chunks that fit into the memory, once the first batch shows what one takes."""
        size = self.chunk_size or len(self.thetas)
        if self.chunk_size is None and size > 1:
            size = min(size, affordable(step, arguments, trainer))
        self.chunks = [
            _Chunk(step, self.thetas[start : start + size], f"{self.path}.theta", self.compile)
            for start in range(0, len(self.thetas), size)
        ]
        self.trained = list(self.chunks[0].params)
        self._adopt(trainer.optimizers[0], step.module)

    def _adopt(self, optimizer: Any, module: nn.Module) -> None:
        """Let the module's own optimizer, its groups and schedulers as they are, step the stacked parameters."""
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in optimizer.param_groups:
            group["params"] = [
                chunk.params[names[id(p)]] for p in group["params"] if p.requires_grad for chunk in self.chunks
            ]
            if type(optimizer) in FUSED and group.get("fused") is None and group.get("foreach") is None:
                group["fused"] = all(p.device.type in ("cpu", "cuda") for p in group["params"])

    def _clip(self, trainer: Any) -> None:
        limit = trainer.gradient_clip_val
        if not limit:
            return
        algorithm = str(trainer.gradient_clip_algorithm or "norm")
        for chunk in self.chunks:
            grads = [p.grad for p in chunk.params.values() if p.grad is not None]
            if algorithm.endswith("value"):
                for grad in grads:
                    grad.clamp_(-limit, limit)
                continue
            norms = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)
            scale = (limit / (norms + 1e-6)).clamp(max=1.0)
            for grad in grads:
                grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))

    @staticmethod
    def _schedule(trainer: Any, interval: str, count: int) -> None:
        for config in trainer.lr_scheduler_configs:
            if config.interval == interval and count % config.frequency == 0:
                config.scheduler.step()


class _Step(nn.Module):
    """``training_step`` as the forward of a module, for :func:`torch.func.functional_call`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, arguments: tuple[Any, ...]) -> Tensor:
        """The loss of one candidate on one batch."""
        module: Any = self.module
        output = module.training_step(*arguments)
        loss = output["loss"] if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor) or loss.dim() > 0:
            raise NotVectorizable("training_step does not return a scalar loss")
        return loss


class _Chunk:
    """Stacked parameters and buffers of some candidates, and their losses on a batch."""

    def __init__(self, step: _Step, thetas: Sequence[list[float] | None], theta_name: str, compile: bool) -> None:
        self.step = step
        self.size = len(thetas)
        module = step.module

        def stack(value: Tensor) -> Tensor:
            return value.detach().expand(self.size, *value.shape).clone()

        self.params: dict[str, Tensor] = {
            n: nn.Parameter(stack(p)) for n, p in module.named_parameters() if p.requires_grad
        }
        self.buffers = {n: stack(b) for n, b in module.named_buffers()}
        if thetas[0] is not None:
            like = self.buffers[theta_name]
            self.buffers[theta_name] = torch.tensor(thetas, dtype=like.dtype, device=like.device)
        self._call = torch.compile(self._losses) if compile else self._losses

    def losses(self, arguments: tuple[Any, ...]) -> Tensor:
        """One loss a candidate, shape ``(size,)``."""
        return self._call(self.params, self.buffers, arguments)

    def _losses(self, params: dict[str, Tensor], buffers: dict[str, Tensor], arguments: tuple[Any, ...]) -> Tensor:
        def one(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
            named = {f"module.{name}": value for name, value in {**params, **buffers}.items()}
            loss: Tensor = torch.func.functional_call(self.step, named, (arguments,))
            return loss

        if self.size == 1:
            # One candidate needs no mapping
            alone = [{name: value[0] for name, value in stacked.items()} for stacked in (params, buffers)]
            return one(*alone).unsqueeze(0)
        return torch.func.vmap(one, randomness="different")(params, buffers)


class _ComputeRandomness:
    """Keeps dropout and the data apart, so that batches do not depend on how many candidates draw masks.

    The first use finds out whether the computation draws at all; if not, the rest costs nothing.
    """

    def __init__(self) -> None:
        self.stochastic: bool | None = None
        self.state: Tensor | None = None

    def __enter__(self) -> None:
        if self.stochastic is False:
            return
        self.outside = torch.get_rng_state()
        if self.state is not None:
            torch.set_rng_state(self.state)

    def __exit__(self, *exception: object) -> None:
        if self.stochastic is False:
            return
        self.state = torch.get_rng_state()
        if self.stochastic is None:
            self.stochastic = not torch.equal(self.state, self.outside)
        torch.set_rng_state(self.outside)


class _SilentMetric(nn.Module):
    """Stands in for a metric where there is nothing to measure."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Zero, whatever comes in."""
        return torch.zeros(())

    update = reset = nothing
    compute = forward


@contextmanager
def _silenced(module: Any) -> Iterator[None]:
    """Within, ``self.log`` and torchmetrics do nothing: a population's values are none of their business."""
    metrics = [
        (parent, name, child)
        for parent in module.modules()
        if not isinstance(parent, Metric | MetricCollection)
        for name, child in parent._modules.items()
        if isinstance(child, Metric | MetricCollection)
    ]
    for parent, name, _ in metrics:
        parent._modules[name] = _SilentMetric()
    for name in LOGGING:
        setattr(module, name, nothing)
    try:
        yield
    finally:
        for name in LOGGING:
            delattr(module, name)
        for parent, name, child in metrics:
            parent._modules[name] = child


def overridden(module: Any, names: Sequence[str], base: str) -> list[str]:
    """Which of the methods ``names`` the class of ``module`` defines anew, below the class called ``base``."""
    kind = type(module)
    parent = next(c for c in kind.__mro__ if c.__name__ == base and c.__module__.split(".")[0] in LIGHTNING)
    return [name for name in names if getattr(kind, name, None) is not getattr(parent, name, None)]


LIGHTNING = ("pytorch_lightning", "lightning")


def check_static(trainer: Any, module: Any) -> None:
    """Raise :class:`NotVectorizable` for what can be seen without running a step."""
    if not module.automatic_optimization:
        raise NotVectorizable("it optimises manually")
    hooks = overridden(module, HOOKS, "LightningModule")
    if hooks:
        raise NotVectorizable(f"it overrides {', '.join(hooks)}")
    for callback in trainer.callbacks:
        if not isinstance(callback, _Population) and (hooks := overridden(callback, HOOKS, "Callback")):
            raise NotVectorizable(f"{type(callback).__name__} overrides {', '.join(hooks)}")
    optimizer = trainer.optimizers[0]
    if type(optimizer) not in ELEMENTWISE:
        raise NotVectorizable(f"{type(optimizer).__name__} is not known to be elementwise")
    if any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs):
        raise NotVectorizable("its schedule follows a metric, each candidate would have one of its own")
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise NotVectorizable("16-bit precision scales the loss by what it finds in all gradients")


def affordable(step: _Step, arguments: tuple[Any, ...], trainer: Any) -> int:
    """How many candidates' activations fit into half of the memory that is free, at least 1."""
    module = step.module
    saved = 0

    def count(value: Tensor) -> Tensor:
        nonlocal saved
        saved += value.numel() * value.element_size()
        return value

    # On copies: a pass may change buffers, and draw random numbers
    buffers = {f"module.{name}": buffer.clone() for name, buffer in module.named_buffers()}
    with (
        torch.random.fork_rng(),
        torch.autograd.graph.saved_tensors_hooks(count, lambda value: value),
        trainer.precision_plugin.train_step_context(),
    ):
        torch.func.functional_call(step, buffers, (arguments,))
    # What is saved for backward, and as much again for the gradients on the way
    return max(1, available_memory(trainer.strategy.root_device) // 2 // max(1, 2 * saved))


def available_memory(device: torch.device) -> int:
    """Bytes that are free on ``device``; 4 GiB where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 2**32

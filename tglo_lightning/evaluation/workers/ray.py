"""Score candidates as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from tglo_lightning.arguments import integer, number, optional
from tglo_lightning.evaluation.inner import InnerFit
from tglo_lightning.evaluation.isolation import environment
from tglo_lightning.evaluation.trainer import TrainerEvaluator
from tglo_lightning.evaluation.workers.worker import score, spread_name, unpicklable
from tglo_lightning.search import Evaluation

__all__ = ["RayEvaluator", "require_ray"]


def require_ray() -> None:
    """Check that Ray is installed, without importing it, which takes a second.

    Raises:
        ImportError: it is not; the message says what to type.
    """
    if find_spec("ray") is None:
        raise ImportError("The evaluator 'ray' needs Ray: pip install 'tglo-lightning[ray]'")


class RayEvaluator:
    """Spreads the candidates over a `Ray <https://docs.ray.io>`_ cluster, one task each.

    Module and data are put into the object store once, and each worker process unpacks them once. A task whose node
    dies is run again on another. The results do not depend on which worker trains what. Module, data, callbacks and
    ``init`` must be picklable (by cloudpickle, so classes of the script itself are), and the nodes need the same
    packages.

    Args:
        address: the cluster: ``"auto"`` for the one that runs here, ``"ray://<host>:10001"``, ..., ``"local"`` for one
            on this machine that ends with the search; ``None`` for the one that this process is connected to already,
            ``RAY_ADDRESS`` names or that runs here, else a local one.
        num_cpus: CPUs of a task, also its number of threads, rounded down.
        num_gpus: GPUs of a task, such as ``0.25`` for four candidates at once on each; by default 1 where the Trainer
            trains on a GPU, else 0.
        inner: evaluator that a task trains its candidate with, by default :class:`TrainerEvaluator`.
        max_retries: how often a task whose worker or node died is run again, before its candidate is given up.

    Raises:
        ImportError: Ray is not installed.
        TypeError, ValueError: an argument of a wrong kind or out of range; by :meth:`evaluate`, something that cannot
            be pickled.
        RuntimeError: by :meth:`evaluate`, a node that lacks something the script imports.
    """

    fit: InnerFit

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: float = 1,
        num_gpus: float | None = None,
        inner: Any = None,
        max_retries: int = 3,
    ) -> None:
        require_ray()
        if address is not None and (not isinstance(address, str) or not address):
            raise TypeError(f"`address` must be the address of a cluster, 'auto' or None, got {address!r}.")
        self.address = address
        self.num_cpus = number("num_cpus", num_cpus, least=0.001)
        self.num_gpus = optional(number, "num_gpus", num_gpus, least=0)
        self.inner = TrainerEvaluator() if inner is None else inner
        self.max_retries = integer("max_retries", max_retries, 0)
        self._held: Any = None
        self._started = False

    @property
    def name(self) -> str:
        """``"ray"``, with the name of the inner evaluator unless that is the Trainer's."""
        return spread_name("ray", self.inner)

    def with_inner(self, inner: Any) -> RayEvaluator:
        """The same evaluator, whose tasks train with ``inner``."""
        return RayEvaluator(
            self.address, num_cpus=self.num_cpus, num_gpus=self.num_gpus, inner=inner, max_retries=self.max_retries
        )

    def setup(self, fit: InnerFit) -> None:
        """Take on a search; the cluster is met with its first candidates."""
        self.close()
        self.fit = fit

    def close(self) -> None:
        """Let go of what the cluster holds for the search, and of the cluster where this object connected to it."""
        vars(self).pop("fit", None)
        self._held = None
        if self._started:
            import ray

            ray.shutdown()
            self._started = False

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """One evaluation for each ``theta``, in order, each as soon as it and those before it are known."""
        import ray

        if self._held is None:
            self._held = self._put()
        threads = max(1, int(self.num_cpus))
        task = ray.remote(_task).options(
            num_cpus=self.num_cpus, num_gpus=self._gpus(), max_retries=self.max_retries, retry_exceptions=False
        )
        # In a list, or each task would get a copy of its own
        answers = [task.remote([self._held], threads, theta, seed) for theta in thetas]
        # Tasks end with their worker or node, by themselves or by what else runs there
        lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
        try:
            while answers:
                try:
                    evaluation: Evaluation = ray.get(answers[0])
                except lost as error:
                    words = str(error).strip().splitlines()
                    why = f"its worker died {self.max_retries + 1} times: {words[0] if words else type(error).__name__}"
                    evaluation = Evaluation(float("nan"), "crashed", 0.0, why)
                except ray.exceptions.RayTaskError as error:
                    cause = str(getattr(error, "cause", error)).strip().splitlines()
                    raise RuntimeError(
                        f"A worker of the Ray cluster cannot take on the search: {cause[-1] if cause else error!r}. "
                        "Its nodes need the packages and files that the script imports; PYTHONPATH, or "
                        "`ray.init(runtime_env=...)` before the fit, can bring them there."
                    ) from error
                del answers[0]
                yield evaluation
        finally:
            for answer in answers:
                ray.cancel(answer, force=True)

    def _gpus(self) -> float:
        if self.num_gpus is not None:
            return self.num_gpus
        return 1.0 if self.fit.device.type == "cuda" else 0.0

    def _put(self) -> Any:
        """The fit in the object store, as each worker is to have it."""
        import ray

        if not ray.is_initialized():
            # A cluster of our own is private to the search: no dashboard, and nothing is reported to anyone
            with environment(RAY_USAGE_STATS_ENABLED="0"):
                ray.init(self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            self._started = True
        wanted = {"CPU": self.num_cpus, "GPU": self._gpus()}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(kind, 0) >= count for kind, count in wanted.items()) for node in nodes):
            warnings.warn(
                f"No node of the Ray cluster has {wanted['CPU']:g} CPUs and {wanted['GPU']:g} GPUs, which a candidate "
                "needs; the search waits until there is one.",
                stacklevel=2,
            )
        # Ray shows each worker its own GPUs only
        fit = self.fit.on_device(torch.device("cuda", 0)) if self.fit.device.type == "cuda" else self.fit
        try:
            return ray.put((self.inner, fit))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise unpicklable("RayEvaluator sends its tasks to other processes", error) from error


# What this worker process trains for, by the name of the object that it came in
_unpacked: dict[str, Any] = {}


def _task(held: list[Any], threads: int, theta: list[float] | None, seed: int) -> Evaluation:
    """Train one candidate, in a worker process of Ray."""
    import ray

    [reference] = held
    key = reference.hex()
    if key not in _unpacked:
        inner, fit = ray.get(reference)
        torch.set_num_threads(threads)
        inner.setup(fit)
        _unpacked.clear()
        _unpacked[key] = inner
    return score(_unpacked[key], theta, seed)

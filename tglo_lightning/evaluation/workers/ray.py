"""Train candidates in workers of a Ray cluster."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from importlib.util import find_spec
from typing import Any

from tglo_lightning.arguments import integer, number, optional
from tglo_lightning.evaluation.isolation import environment
from tglo_lightning.evaluation.workers.pool import PoolEvaluator, Slot
from tglo_lightning.evaluation.workers.worker import Worker

__all__ = ["RayEvaluator", "require_ray"]


def require_ray() -> None:
    """Check that Ray is installed, without importing it, which takes a second.

    Raises:
        ImportError: it is not; the message says what to type.
    """
    if find_spec("ray") is None:
        raise ImportError("The evaluator 'ray' needs Ray: pip install 'tglo-lightning[ray]'")


class RayEvaluator(PoolEvaluator):
    """Spreads the candidates over a `Ray <https://docs.ray.io>`_ cluster, in as many workers as it has room for.

    Module and data are put into the object store once, and each worker unpacks them once. A worker whose node dies is
    replaced, and its candidate run again. The results do not depend on which worker trains what. Module, data,
    callbacks and ``init`` must be picklable (by cloudpickle, so classes of the script itself are), and the nodes need
    the same packages.

    Args:
        address: the cluster: ``"auto"`` for the one that runs here, ``"ray://<host>:10001"``, ..., ``"local"`` for one
            on this machine that ends with the search; ``None`` for the one that this process is connected to already,
            ``RAY_ADDRESS`` names or that runs here, else a local one.
        num_cpus: CPUs of a worker, also its number of threads, rounded down.
        num_gpus: GPUs of a worker, such as ``0.25`` for four candidates at once on each; by default 1 if the Trainer
            trains on a GPU, else 0.
        inner: evaluator that a worker trains its candidate with, by default :class:`TrainerEvaluator`.
        max_retries: how often a candidate whose worker or node died is run again, before it is given up.

    Raises:
        ImportError: Ray is not installed.
        TypeError, ValueError: an argument of a wrong kind or out of range.
    """

    kind = "ray"
    advice = (
        "The nodes of the Ray cluster need the packages and files that the script imports; PYTHONPATH, or "
        "`ray.init(runtime_env=...)` before the fit, can bring them there."
    )

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
        super().__init__(inner)
        if address is not None and (not isinstance(address, str) or not address):
            raise TypeError(f"`address` must be the address of a cluster, 'auto' or None, got {address!r}.")
        self.address = address
        self.num_cpus = number("num_cpus", num_cpus, least=0.001)
        self.num_gpus = optional(number, "num_gpus", num_gpus, least=0)
        self.attempts = integer("max_retries", max_retries, 0) + 1
        self._held: Any = None
        self._connected = False

    def close(self) -> None:
        """End the workers, and leave the cluster if this object connected to it."""
        super().close()
        self._held = None
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False

    def count(self) -> int:
        """Return the number of workers that the cluster has room for, at least 1."""
        import ray

        if not ray.is_initialized():
            # A cluster of our own is private to the search: no dashboard, and nothing is reported to anyone
            with environment(RAY_USAGE_STATS_ENABLED="0"):
                ray.init(self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            self._connected = True
        needs = self._needs()
        wanted = [(kind, amount) for kind, amount in needs.items() if amount]
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(min(int(node.get(kind, 0) / amount + 1e-9) for kind, amount in wanted) for node in nodes)
        if room == 0 and self._held is None:
            warnings.warn(
                f"No node of the Ray cluster has {needs['CPU']:g} CPUs and {needs['GPU']:g} GPUs, which a candidate "
                "needs; the search waits until there is one.",
                stacklevel=2,
            )
        return max(1, room)

    def open(self, rank: int) -> Slot:
        """Start a worker."""
        import ray

        if self._held is None:
            # Ray shows each worker its own GPUs only
            self._held = ray.put((self.inner, self.fit.on_gpu(0)))
        needs = self._needs()
        actor: Any = ray.remote(Worker).options(num_cpus=needs["CPU"], num_gpus=needs["GPU"]).remote()

        def submit(method: str, *args: Any) -> Any:
            return getattr(actor, method).remote(*args).future()

        # Workers end with their node, by themselves or by what else runs there
        lost = (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
        ready = submit("setup", self._held, max(1, int(self.num_cpus)))
        return Slot(rank, submit, ready, lost, partial(ray.kill, actor))

    def _needs(self) -> dict[str, float]:
        default = 1.0 if self.fit.device.type == "cuda" else 0.0
        return {"CPU": self.num_cpus, "GPU": default if self.num_gpus is None else self.num_gpus}

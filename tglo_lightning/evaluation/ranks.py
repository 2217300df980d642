"""The ranks of a Trainer share a search: the first leads it, the others train candidates for it."""

from __future__ import annotations

import hmac
import json
import os
import queue
import secrets
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import pairwise
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_only

from tglo_lightning.search import Evaluation

__all__ = ["RankError", "Ranks", "check_strategy"]

CONNECT_SECONDS = 120.0
# What a rank says of itself first
HELLO_BYTES, HELLO_SECONDS = 4096, 10.0
# A machine that vanished without a word is noticed after some 10 + 3 * 10 seconds
KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
# Of both namespaces; it holds the number of this process
_rank_zero_only: Any = rank_zero_only
SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy", "XLAFSDPStrategy")


class RankError(RuntimeError):
    """The search cannot go on, since another rank cannot."""


def check_strategy(trainer: Any, evaluator: Any) -> None:
    """Check that a search can run under the Trainer's strategy.

    Raises:
        ValueError: a strategy that shards the module, that trains in child processes of its own, or that is not DDP;
            an evaluator that spreads candidates itself, on several ranks.
    """
    strategy = trainer.strategy
    name = type(strategy).__name__
    kinds = {kind.__name__ for kind in type(strategy).__mro__}
    launcher = {kind.__name__ for kind in type(strategy.launcher).__mro__}
    elsewhere = (
        "Search with `devices=1` or `strategy='ddp'`, then train with this strategy and the loss "
        "`TaylorGLOLoss(search.result.best.theta)`."
    )
    if kinds & set(SHARDED):
        raise ValueError(
            f"TaylorGLO cannot search under {name}: it shards the module over the devices, and a candidate is trained "
            f"on a whole copy of the module on one device. {elsewhere}"
        )
    if "_MultiProcessingLauncher" in launcher:
        raise ValueError(
            f"TaylorGLO cannot search under {name} with start method {getattr(strategy, '_start_method', None)!r}: its "
            "child processes end with the fit, and the loss and the result with them. In a script use "
            "`strategy='ddp'`; in a notebook search with `devices=1, evaluator='processes'`, which uses all devices."
        )
    if trainer.world_size == 1:
        return
    if "DDPStrategy" not in kinds or "XLAStrategy" in kinds:
        raise ValueError(f"TaylorGLO knows how to share a search out under DDP only, not under {name}. {elsewhere}")
    _check_alone(evaluator if isinstance(evaluator, str) else getattr(evaluator, "name", ""), trainer.world_size)


def _check_alone(name: str, ranks: int) -> None:
    if name.startswith(("processes", "ray")):
        raise ValueError(
            f"`evaluator={name!r}` spreads the candidates itself, and so do the {ranks} ranks of the Trainer. Name "
            "what each rank trains with, such as 'auto', 'trainer' or 'sequential'; or search with `devices=1`."
        )


class Ranks:
    """What the ranks of a Trainer are to each other while a search runs. On one rank, nothing.

    Rank 0 leads: it draws candidates, keeps journal, logs and progress, and trains as well. The others follow: they
    train what they are sent and answer. Each connection is a TCP socket of its own beside the process group, which is
    hidden meanwhile, so that each rank is alone to Lightning, torchmetrics and the user's code, and candidates are
    trained, validated and scored as on one rank. Whoever dies closes its connection, which ends the search on all.

    Args:
        trainer: the outer Trainer, within ``fit``.

    Raises:
        RankError: on entering, a rank that does not answer.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.size: int = trainer.world_size
        self.rank: int = trainer.global_rank
        self._followers: list[Connection] = []
        self._leader: Connection | None = None
        self._group: Any = None
        self._number: Any = None

    @property
    def leads(self) -> bool:
        """Whether this rank leads the search."""
        return self.rank == 0

    def __enter__(self) -> Ranks:
        if self.size > 1:
            self._connect()
            self._group, dist.GroupMember.WORLD = dist.GroupMember.WORLD, None
            # Seeds of data loaders' workers depend on it, and who logs
            self._number, _rank_zero_only.rank = _rank_zero_only.rank, 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.size == 1:
            return
        dist.GroupMember.WORLD = self._group
        _rank_zero_only.rank = self._number
        for connection in self._followers if self._leader is None else [self._leader]:
            if error is None:
                connection.close()
                continue
            # Not closed: a thread may still listen to it
            with suppress(OSError):
                _send(connection, {"error": f"{type(error).__name__}: {error}"})

    # Both

    def agree(self, what: str, value: str) -> None:
        """Check that all ranks have the same ``value``.

        Raises:
            ValueError: on rank 0, one has another; the message starts with ``what``.
        """
        if not self.leads:
            self._answer({"value": value})
            return
        for rank in range(1, self.size):
            if self._hear(rank)["value"] != value:
                raise ValueError(
                    f"{what} on rank {rank} differs from what rank 0 has, so candidates cannot be compared. Let every "
                    "rank see all data: call `seed_everything` before the data are split, leave DistributedSampler to "
                    "Lightning."
                )

    def _connect(self) -> None:
        strategy = self.trainer.strategy
        near = self.trainer.num_nodes == 1
        token = secrets.token_hex(32)
        if not self.leads:
            port, token = strategy.broadcast(None)
            host = "127.0.0.1" if near else strategy.cluster_environment.main_address
            try:
                link = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
            except OSError as error:
                raise RankError(f"Rank {self.rank} cannot reach rank 0 at {host}:{port}: {error}.") from error
            self._leader = _connection(link)
            _send(self._leader, {"rank": self.rank, "token": token})
            return
        with socket.create_server(("127.0.0.1" if near else "", 0), backlog=self.size) as server:
            strategy.broadcast((server.getsockname()[1], token))
            server.settimeout(CONNECT_SECONDS)
            arrived: dict[int, Connection] = {}
            while len(arrived) < self.size - 1:
                try:
                    link, _ = server.accept()
                except TimeoutError as error:
                    missing = sorted(set(range(1, self.size)) - set(arrived))
                    raise RankError(f"Ranks {missing} did not come to the search of rank 0.") from error
                connection = _connection(link)
                try:
                    hello = json.loads(connection.recv_bytes(HELLO_BYTES)) if connection.poll(HELLO_SECONDS) else None
                except (OSError, EOFError, ValueError):  # a stranger
                    hello = None
                if isinstance(hello, dict) and hmac.compare_digest(str(hello.get("token")), token):
                    arrived[hello["rank"]] = connection
                else:
                    connection.close()
        self._followers = [arrived[rank] for rank in sorted(arrived)]

    # The rank that leads

    def spread(self, evaluator: Any) -> Any:
        """``evaluator``, or on several ranks one that shares the candidates out among all of them."""
        if self.size == 1:
            return evaluator
        shared = _RankEvaluator(evaluator, self)
        _check_alone(shared.name, self.size)
        self._tell_all({"evaluator": shared.name})
        return shared

    def finish(self, result: Any) -> None:
        """Give the result, plain values, to all ranks."""
        self._tell_all({"result": result})

    def lead(self, evaluator: Any, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """Train ``thetas`` on all ranks, this one among them; evaluations in order, each as soon as it is known."""
        waiting = deque(_shares(len(thetas), self.size if getattr(evaluator, "together", False) else len(thetas)))
        heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def employ(rank: int) -> None:
            try:
                while True:
                    with suppress(IndexError):
                        share = waiting.popleft()
                        self._tell(rank, {"thetas": [thetas[index] for index in share], "seed": seed})
                        answer = self._hear(rank)
                        heard.put(zip(share, (Evaluation(**entry) for entry in answer["evaluations"]), strict=True))
                        continue
                    return
            except Exception as error:
                heard.put(error)

        for rank in range(1, self.size):
            threading.Thread(target=employ, args=(rank,), daemon=True, name=f"tglo-rank-{rank}").start()
        done: dict[int, Evaluation] = {}
        for index in range(len(thetas)):
            while index not in done:
                answer = None
                if heard.empty():
                    with suppress(IndexError):
                        share = waiting.popleft()
                        answer = zip(share, _train(evaluator, [thetas[i] for i in share], seed), strict=True)
                answer = heard.get() if answer is None else answer
                if isinstance(answer, Exception):
                    raise answer
                done |= answer
            yield done.pop(index)

    def _tell_all(self, message: Any) -> None:
        for rank in range(1, self.size):
            self._tell(rank, message)

    def _tell(self, rank: int, message: Any) -> None:
        try:
            _send(self._followers[rank - 1], message)
        except OSError as error:
            raise self._lost(rank) from error

    def _hear(self, rank: int) -> dict[str, Any]:
        try:
            answer = _receive(self._followers[rank - 1])
        except (EOFError, OSError) as error:
            raise self._lost(rank) from error
        if "error" in answer:
            raise RankError(f"Rank {rank} ended the search: {answer['error']}")
        return answer

    @staticmethod
    def _lost(rank: int) -> RankError:
        return RankError(
            f"Rank {rank} died, so the search ends on all ranks. What was trained is in the journal, if there is one: "
            "start the same fit again to go on from there."
        )

    # The ranks that follow

    def evaluator(self) -> str:
        """The name of the evaluator that rank 0 has chosen."""
        name: str = self._await()["evaluator"]
        return name

    def follow(self, evaluator: Any) -> Any:
        """Train what rank 0 sends until it sends the result; return that.

        Raises:
            RankError: rank 0 died, or its search failed.
        """
        while "result" not in (message := self._await()):
            with self._watching():
                evaluations = list(_train(evaluator, message["thetas"], message["seed"]))
            self._answer({"evaluations": [asdict(evaluation) for evaluation in evaluations]})
        return message["result"]

    def _await(self) -> dict[str, Any]:
        assert self._leader is not None
        try:
            message = _receive(self._leader)
        except (EOFError, OSError) as error:
            raise RankError(self._ended("it died")) from error
        if "error" in message:
            raise RankError(self._ended(message["error"]))
        return message

    def _answer(self, message: Any) -> None:
        assert self._leader is not None
        try:
            _send(self._leader, message)
        except OSError as error:
            raise RankError(self._ended("it died")) from error

    def _ended(self, why: str) -> str:
        return f"Rank {self.rank} ends with the search of rank 0: {why}"

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """End this process if rank 0 ends: it sends nothing while this rank trains, unless the search is over."""
        ended, end = Pipe(duplex=False)

        def watch() -> None:
            if self._leader in wait([ended, self._leader]):  # type: ignore[list-item]
                try:
                    self._await()
                except RankError as error:
                    print(f"RankError: {error}", file=sys.stderr, flush=True)
                # Nothing that this rank trains has anybody who wants it, and no exception reaches the main thread
                os._exit(1)

        watcher = threading.Thread(target=watch, daemon=True, name="tglo-rank-0")
        watcher.start()
        try:
            yield
        finally:
            end.send_bytes(b"-")
            watcher.join()
            ended.close()
            end.close()


class _RankEvaluator:
    """An evaluator whose candidates are shared out among the ranks. The first rank calls it, the others follow."""

    def __init__(self, inner: Any, ranks: Ranks) -> None:
        self.inner = inner
        self.ranks = ranks
        self.name = getattr(inner, "name", type(inner).__name__)
        self.together = getattr(inner, "together", False)
        # Parts that a population is trained in, where that touches the last bits of a result
        self.parts = ranks.size if self.together else 1

    def evaluate(self, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
        """One evaluation for each ``theta``, in order."""
        return self.ranks.lead(self.inner, thetas, seed)

    def close(self) -> None:
        """Close the evaluator of this rank."""
        self.inner.close()


def _shares(count: int, parts: int) -> list[range]:
    """``range(count)`` in ``parts`` parts, as equal as can be; none is empty."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return [range(low, high) for low, high in pairwise(bounds) if high > low]


def _train(evaluator: Any, thetas: Sequence[list[float] | None], seed: int) -> Iterator[Evaluation]:
    yield from evaluator.evaluate(thetas, seed)


def _connection(link: socket.socket) -> Connection:
    link.settimeout(None)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Connection(link.detach())


# JSON and no pickles: what comes from a socket is data


def _send(connection: Connection, message: Any) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _receive(connection: Connection) -> dict[str, Any]:
    message = json.loads(connection.recv_bytes())
    return message if isinstance(message, dict) else {}

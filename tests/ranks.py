"""Ranks for tests: processes that share a group of torch.distributed, forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lpmppl.effects.ranks import Ranks

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.ranks", "lpmppl.models.nyc", "lpmppl.inference.counterfactual"])

PATIENCE = 120.0


def _be(rank: int, count: int, store: str, to: Connection, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        dist.init_process_group("gloo", store=dist.FileStore(store, count), rank=rank, world_size=count)
        to.send_bytes(pickle.dumps((True, call(Ranks(), *args))))
    except BaseException as e:  # noqa: BLE001  told to who asked
        to.send_bytes(pickle.dumps((False, f"{type(e).__name__}: {e}\n{traceback.format_exc()}")))
    finally:
        to.close()


def attempted(folder: Path, count: int, call: Callable[..., Any], *args: Any) -> list[tuple[bool, Any]]:
    """Whether each rank came to an end well, and what it returned, or the error in words.

    Args:
        folder: where they find each other.
        count: how many ranks.
        call: a function of a module, of `Ranks` and the arguments; what it returns is sent back.
        args: the same for all.
    """
    pairs = [context.Pipe(duplex=False) for _ in range(count)]
    store = str(folder / f"store-{len(list(folder.iterdir()))}")
    ranks = [
        context.Process(target=_be, args=(k, count, store, to, call, args), daemon=True)
        for k, (_, to) in enumerate(pairs)
    ]
    for rank, (_, to) in zip(ranks, pairs, strict=True):
        rank.start()
        to.close()
    try:
        found = []
        for at, _ in pairs:
            assert at.poll(PATIENCE), f"a rank hasn't answered for {PATIENCE:g} s"
            found.append(pickle.loads(at.recv_bytes()))
        return found
    finally:
        for rank in ranks:
            rank.join(10)
            if rank.is_alive():
                rank.kill()
                rank.join()


def on_ranks(folder: Path, count: int, call: Callable[..., Any], *args: Any) -> list[Any]:
    """What each of so many ranks returns."""
    found = attempted(folder, count, call, *args)
    assert all(well for well, _ in found), "\n".join(str(said) for well, said in found if not well)
    return [value for _, value in found]

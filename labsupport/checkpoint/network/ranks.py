"""A checkpoint run as it is served: one process a rank, sums over gloo, hidden states sent from stage to stage.

Started by torchrun, one process for each rank file::

    torchrun --nproc-per-node 4 -m labsupport.checkpoint.network.ranks <checkpoint> <tokens> <logits>

``<tokens>`` is a safetensors file that holds ``tokens`` (int64 [batch, tokens]); ``<logits>`` will hold ``logits``
(float32 [batch, tokens, vocab_size]).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from labsupport.checkpoint.config import read_config
from labsupport.checkpoint.network.build import build_stage, read_rank
from labsupport.checkpoint.network.memory import NoCache
from labsupport.checkpoint.network.parallel import ProcessTeam
from labsupport.errors import ParameterError


def run_rank(folder: Path, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor | None:
    """This process's share of one forward pass; the default process group must exist already.

    Args:
        folder: the checkpoint; this process reads its own rank file only.
        tokens: int64 [batch, tokens], the same in every process.
        dtype: what is computed in.

    Returns:
        Logits, float32 [batch, tokens, vocab_size], in the processes of the last stage; None in the others.

    Raises:
        ParameterError: there are more or fewer processes than rank files.
    """
    from torch import distributed

    config = read_config(folder)
    tp_size, rank, world = config.mapping.tp_size, distributed.get_rank(), distributed.get_world_size()
    if world != config.mapping.files:
        raise ParameterError(
            f"{world} processes for a checkpoint of {config.mapping.files} ranks",
            why="each process runs one rank file",
            fix=f"torchrun --nproc-per-node {config.mapping.files}",
        )
    # every process takes part in making every group, its own or not
    groups = [distributed.new_group(list(range(first, first + tp_size))) for first in range(0, world, tp_size)]
    stage, before, after = config.mapping.pp_rank(rank), rank - tp_size, rank + tp_size
    team = ProcessTeam(config.mapping.tp_rank(rank), groups[stage], tp_size)
    layers = build_stage(config, stage, [read_rank(folder, rank, dtype)], team).eval()
    x: Tensor = tokens
    with torch.no_grad():
        if before >= 0:
            x = torch.empty(*tokens.shape, config.hidden_size, dtype=dtype)
            distributed.recv(x, src=before)
        x = layers(x, NoCache(torch.arange(tokens.shape[1])))
        if after < world:
            distributed.send(x.contiguous(), dst=after)
            return None
    return x


def main(folder: Path, tokens: Path, logits: Path) -> None:
    """Run this process's rank; the first process of the last stage writes ``logits``."""
    from safetensors.torch import load_file, save_file
    from torch import distributed

    distributed.init_process_group("gloo")
    try:
        found = run_rank(folder, load_file(tokens)["tokens"])
        first_of_last = distributed.get_world_size() - read_config(folder).mapping.tp_size
        if found is not None and distributed.get_rank() == first_of_last:
            save_file({"logits": found.contiguous()}, logits)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))

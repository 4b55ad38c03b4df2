"""A plain PyTorch decoder that runs a TensorRT-LLM checkpoint: what a conversion is proven with.

One idea a module: :mod:`norms`, :mod:`rotary`, :mod:`attention`, :mod:`memory`, :mod:`mlp`, :mod:`layers`,
:mod:`embedding`, :mod:`model`; :mod:`parallel` spreads them over ranks and :mod:`build` fills them from a checkpoint.
"""

from __future__ import annotations

from labsupport.checkpoint.network.build import build_stage, load_network, read_rank
from labsupport.checkpoint.network.memory import Memory, NoCache
from labsupport.checkpoint.network.model import Network, Stage

__all__ = ["Memory", "Network", "NoCache", "Stage", "build_stage", "load_network", "read_rank"]

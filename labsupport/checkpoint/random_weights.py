"""A checkpoint with random weights: speed and memory depend on a model's shape, and not on what it has learned."""

from __future__ import annotations

from pathlib import Path

from labsupport.checkpoint.config import CheckpointConfig, write_config
from labsupport.checkpoint.expected import expected
from labsupport.errors import CheckpointError
from labsupport.workspace import atomic_folder


def random_checkpoint(config: CheckpointConfig, folder: Path, *, seed: int = 0, device: str = "cpu") -> Path:
    """Write a checkpoint of this shape: norms are ones, everything else is normal with a deviation of 0.02.

    Args:
        config: of the model; unquantized.
        folder: is written whole or not at all.
        device: where the numbers are drawn; a GPU draws a large model in seconds.

    Raises:
        CheckpointError: the config asks for quantized weights.
    """
    import torch
    from safetensors.torch import save_file

    if config.quantization.quantized:
        raise CheckpointError(
            f"random weights for {config.quantization.quant_algo}",
            why="only float weights are drawn here",
            fix="draw float weights, or quantize a real model: labs quantize",
        )
    dtype: torch.dtype = getattr(torch, config.dtype)
    generator = torch.Generator(device).manual_seed(seed)
    with atomic_folder(folder) as making:
        for rank in range(config.mapping.files):
            tensors = {}
            for name, form in expected(config, rank).items():
                drawn = torch.randn(form.shape, generator=generator, dtype=dtype, device=device) * 0.02
                plain = "norm" in name or name.endswith("ln_f.weight")
                tensors[name] = torch.ones(form.shape, dtype=dtype) if plain else drawn.cpu()
            save_file(tensors, making / f"rank{rank}.safetensors")
        write_config(config, making)
    return folder

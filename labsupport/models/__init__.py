"""Models: a catalogue name, a hub id or a folder becomes a Hugging Face folder, and a model in memory.

::

    fetch("smollm2-135m-instruct")   -> work/checkpoints/smollm2-135m-instruct/
    load("smollm2-135m-instruct")    -> model (float32, evaluation mode), tokenizer
    make_tiny("llama", folder)       -> a random model of that family, for tests   (labsupport.models.tiny)
"""

from __future__ import annotations

from labsupport.models.catalogue import CATALOGUE, DEFAULT_MODEL, CatalogueModel
from labsupport.models.fetching import fetch
from labsupport.models.loading import load, load_tokenizer
from labsupport.models.place import ModelState, is_present, list_models, model_folder

__all__ = [
    "CATALOGUE", "DEFAULT_MODEL", "CatalogueModel", "ModelState", "fetch", "is_present", "list_models", "load",
    "load_tokenizer", "model_folder",
]  # fmt: skip

"""CAA against nrimsky/CAA: the vector of pairs of texts."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlab.methods.caa import CAA
from tests.laws.subjects import LAYERS, capture, handle
from tests.parity.official import compare, definitions
from tests.parity.texts import texts


class _Wrapper:
    """A model as the official wrapper shows it: each block's last output."""

    device, model_name_path, use_chat = "cpu", "tiny", False

    def __init__(self) -> None:
        self.outputs: dict[int, Tensor] = {}

    def set_save_internal_decodings(self, value: bool) -> None:
        pass

    def reset_all(self) -> None:
        self.outputs = {}

    def get_last_activations(self, layer: int) -> Tensor:
        return self.outputs[layer]

    def get_logits(self, tokens: Tensor) -> Any:
        loaded: Any = handle("llama").load()
        hooks = [
            block.register_forward_hook(lambda _, given, output, layer=layer: self.outputs.update({layer: output}))
            for layer, block in enumerate(loaded.model.layers)
        ]
        try:
            return loaded(tokens).logits
        finally:
            for hook in hooks:
                hook.remove()


def test_the_vector_of_every_layer(tmp_path: Path) -> None:
    data, tokenizer = texts(), handle("llama").info.tokenizer
    ids = [torch.tensor([tokenizer(text + ")")["input_ids"]]) for text in data.text]  # theirs looks one from the end
    found = definitions(
        "CAA", "generate_vectors.py", "generate_save_vectors_for_behavior", t=torch, os=os, HUGGINGFACE_TOKEN=None,
        tqdm=lambda rows, **settings: rows, ComparisonDataset=lambda *settings: list(zip(ids[::2], ids[1::2])),
        get_ab_data_path=lambda behavior: None, get_vector_dir=lambda behavior: str(tmp_path),
        get_vector_path=lambda behavior, layer, model: tmp_path / f"{layer}.pt",
    )  # fmt: skip
    found.generate_save_vectors_for_behavior(list(range(LAYERS)), False, "civil", _Wrapper())
    states = capture(handle("llama"), list(data.text), "block_output", "last")
    for layer in range(LAYERS):
        ours = CAA.fit(handle("llama"), data, states, seed=0, layer=layer, held_out=0.0).vector
        theirs = torch.load(tmp_path / f"{layer}.pt", weights_only=True)
        compare(f"CAA, vector of layer {layer}", ours, theirs, 1e-5)  # means of float32 states, read in other batches

"""Models of real shapes with random weights, made in memory where they are to run: nothing is fetched or written."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from steerlab.models import ModelHandle, ModelInfo
from steerlab.tiny_models import EOS_ID, byte_tokenizer, tiny_config

# As the config.json of meta-llama/Meta-Llama-3-8B and openai-community/gpt2-large state them; text is bytes here.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3-8b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
    },
    "gpt2-large": {"model_type": "gpt2", "n_embd": 1280, "n_layer": 36, "n_head": 20, "vocab_size": 50257},
    "tiny-llama": {"model_type": "llama"},  # for the tests
    "tiny-gpt2": {"model_type": "gpt2"},
}
TINY_POSITIONS = 1024
CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|endoftext|>{% endfor %}"
CHAT += "{% if add_generation_prompt %}[assistant]{% endif %}"


class RandomModel(ModelHandle):
    """A handle without a folder; the text of its model is noise, and its speed that of the shape."""

    def __init__(self, shape: str, *, device: str, dtype: str):
        super().__init__(Path(shape), device=device, dtype=dtype)
        self.shape = shape

    @cached_property
    def info(self) -> ModelInfo:
        config = _config(self.shape)
        config.steerlab = {"name": self.shape, "revision": "random"}
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = CHAT
        return ModelInfo(self.shape, "random", self.folder, config, tokenizer)

    @cached_property
    def _model(self) -> PreTrainedModel:
        with torch.device(self.device), torch.random.fork_rng():
            torch.manual_seed(0)
            where = {"dtype": getattr(torch, self.dtype), "attn_implementation": self.attention}
            return AutoModelForCausalLM.from_config(self.info.config, **where).eval().requires_grad_(False)

    def output_embeddings(self) -> Tensor:
        model: Any = self.load()
        return model.get_output_embeddings().weight


def _config(shape: str) -> Any:
    about = dict(SHAPES[shape])
    family = about.pop("model_type")
    if not about:
        config = tiny_config(family)
        config.max_position_embeddings = TINY_POSITIONS
        return config
    return AutoConfig.for_model(family, bos_token_id=EOS_ID, eos_token_id=EOS_ID, pad_token_id=EOS_ID, **about)

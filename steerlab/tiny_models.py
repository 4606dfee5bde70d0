"""Random transformers of a few thousand parameters, one a family, and the byte tokenizer that goes with them.

The tests and the tiny preset run the whole workflow on these: same classes, same code paths, no weights to fetch.
Their text is noise; nothing measured on them says anything about steering.
"""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerFast

EOS_ID = 256
VOCAB_SIZE = 257  # the 256 bytes and the end of text


def tiny_config(family: str, *, layers: int = 4) -> PreTrainedConfig:
    """The config of a tiny model: vocab 257, hidden 16, 4 heads, 256 positions, end of text = padding = 256.

    family: one of `FAMILIES` (transformers' `model_type`). Where a family allows it, the variant is the awkward one:
    grouped-query attention (2 key-value heads) and a head size that is not hidden / heads.
    Raises ValueError for a family that is not listed.
    """
    if family not in FAMILIES:
        raise ValueError(f"no tiny model of family {family!r}; choose one of {', '.join(FAMILIES)}")
    shared = {"vocab_size": VOCAB_SIZE, "bos_token_id": EOS_ID, "eos_token_id": EOS_ID, "pad_token_id": EOS_ID}
    return AutoConfig.for_model(family, **shared, **_SHAPES[family](layers))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer without merges: one token a UTF-8 byte, then the end of text (id 256), which also pads.

    Adds nothing at the start or end of a text; pads on the left.
    """
    alphabet = _bytes_to_unicode()
    core = Tokenizer(models.BPE(vocab={character: byte for byte, character in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=core, padding_side="left", model_max_length=256, **names)


def _bytes_to_unicode() -> list[str]:
    """The printable character that the ByteLevel pre-tokenizer writes for each byte, in byte order.

    Source: GPT-2's `bytes_to_unicode`: printable Latin-1 characters stand for themselves, the others for 256, 257, ...
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _llama_like(layers: int, **more: object) -> dict[str, object]:
    return dict(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        **more,
    )


def _gemma_like(layers: int, **more: object) -> dict[str, object]:
    return _llama_like(layers, head_dim=6, query_pre_attn_scalar=6, **more)


_SHAPES = {
    "llama": lambda layers: _llama_like(layers, head_dim=6),
    "mistral": lambda layers: _llama_like(layers, head_dim=6, sliding_window=None),
    "qwen2": lambda layers: _llama_like(layers),
    "qwen3": lambda layers: _llama_like(layers, head_dim=6),
    "gemma": lambda layers: _llama_like(layers, head_dim=6),
    "gemma2": lambda layers: _gemma_like(layers, sliding_window=128),
    "gemma3_text": lambda layers: _gemma_like(layers, sliding_window=128, sliding_window_pattern=2),
    "gpt2": lambda layers: {"n_embd": 16, "n_layer": layers, "n_head": 4, "n_positions": 256},
    "gpt_neo": lambda layers: {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_layers": layers,
        "num_heads": 4,
        "max_position_embeddings": 256,
        "attention_types": [[["global", "local"], layers // 2], [["global"], layers % 2]],
    },
    "gpt_neox": lambda layers: {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    },
    "gptj": lambda layers: {"n_embd": 16, "n_layer": layers, "n_head": 4, "n_positions": 256, "rotary_dim": 2},
    "opt": lambda layers: {
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "word_embed_proj_dim": 16,
    },
}
FAMILIES = tuple(_SHAPES)

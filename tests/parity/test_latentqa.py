"""LatentQA against aypan17/latentqa: prompts and their labels, what of a read is shown, patching, answers."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from steerlab.decoder_prompts import ACKNOWLEDGEMENT, Prompt, Template
from steerlab.language_modelling import mean_loss
from steerlab.latent_reads import read, special_ids
from steerlab.patching import greedy, patched
from tests.laws.subjects import tiny_model
from tests.parity.official import compare, definitions

NAME, READ, WRITE = "tiny", 1, 0  # the tokenizer's name in the official tables; the blocks
USER, ASSISTANT = "<user>", "<assistant>"
TEMPLATE = "<bos>{% for m in messages %} <{{ m.role }}> {{ m.content }} <eos>{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %} <assistant>{% endif %}"
CONTROL = {"role": "user", "content": "talk like a pirate"}
REPLY = {"role": "assistant", "content": "aye"}
STIMULUS = {"role": "user", "content": "how are you today"}
QUESTION, ANSWER = "who is it now", "a pirate at sea"
DIALOGS = ([CONTROL, REPLY, STIMULUS], [CONTROL], [CONTROL, REPLY, {"role": "user", "content": "go on"}])


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a word, so that "? ? ?" are three placeholders, as the official prompts assume."""
    said = [turn["content"] for dialog in DIALOGS for turn in dialog] + [QUESTION, ANSWER, ACKNOWLEDGEMENT]
    words = ["<bos>", "<eos>", USER, ASSISTANT, "<unk>", "?", *dict.fromkeys(" ".join(said).split())]
    words += [f"word{place}" for place in range(len(words), tiny_model("llama").config.vocab_size)]
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(["<bos>", "<eos>", USER, ASSISTANT])
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=core, padding_side="left", **named)
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="module")
def prompts() -> Any:
    """The official functions that make prompts, with our tokenizer in their tables."""
    tables = ("NUM_READ_TOKENS_TO_SHIFT", "NUM_WRITE_TOKENS_TO_SHIFT", "CHAT_FORMAT_TOKENS", "DECODER_CHAT_TEMPLATES")
    names = ("IGNORE_IDX", *tables, "BASE_DIALOG", "mask_inputs", "tokenize")
    found = definitions("latentqa", "lit/utils/dataset_utils.py", *names, torch=torch)
    bos, user, assistant = tokenizer().convert_tokens_to_ids(["<bos>", USER, ASSISTANT])
    found.NUM_READ_TOKENS_TO_SHIFT[NAME] = 1  # the begin-of-sequence token
    found.NUM_WRITE_TOKENS_TO_SHIFT[NAME] = 2  # and the user's header
    found.CHAT_FORMAT_TOKENS[NAME] = (bos, *(torch.tensor([each]) for each in (user, assistant, assistant)))
    return found


@pytest.fixture(scope="module")
def patching() -> Any:
    parts = ("_forward_cache_outputs", "_forward", "no_op", "get_pos_ids", "generate_substitute_layer_single")
    names = (*parts, "latent_qa")
    return definitions("latentqa", "lit/utils/activation_utils.py", *names, torch=torch)


def batch(prompts: Any, mask_type: list[str] | None = None, generate: bool = False) -> dict[str, Any]:
    """Three reads with a question each, as the official collator gives them to the model."""
    asked = [{"role": "user", "content": QUESTION}] + ([] if generate else [{"role": "assistant", "content": ANSWER}])
    rows = [
        {"read_prompt": rendered(dialog), "dialog": prompts.BASE_DIALOG + asked, "label": ANSWER} for dialog in DIALOGS
    ]
    how = {"mask_type": mask_type, "mask_all_but_last": True, "generate": generate}
    return prompts.tokenize(rows, tokenizer(), name=NAME, **how)


def rendered(dialog: Sequence[dict[str, str]]) -> str:
    return tokenizer().apply_chat_template(list(dialog), tokenize=False, add_generation_prompt=True)


def our_prompts(counts: Sequence[int], answers: Sequence[str] = (ANSWER,)) -> list[Prompt]:
    return [Template(tokenizer()).prompt(count, [QUESTION], answers) for count in counts]


def ids_of(dialog: Sequence[dict[str, str]]) -> list[int]:
    return tokenizer()(rendered(dialog), add_special_tokens=False)["input_ids"]


def states_of(dialog: Sequence[dict[str, str]]) -> Tensor:
    """(tokens, hidden) at the block that is read."""
    ids = torch.tensor([ids_of(dialog)])
    return tiny_model("llama")(ids, output_hidden_states=True).hidden_states[READ + 1][0]


def real(rows: Any, mask: Tensor) -> list[list[int]]:
    return [row[kept].tolist() for row, kept in zip(rows, mask.bool())]


def test_prompts_and_the_tokens_that_are_learnt(prompts: Any) -> None:
    theirs = batch(prompts)["tokenized_write"]
    ours = our_prompts([len(ids_of(dialog)) - 1 for dialog in DIALOGS])
    assert [prompt.ids for prompt in ours] == real(theirs.input_ids, theirs.attention_mask)
    labels = real(theirs["labels"], theirs.attention_mask)
    assert [list(prompt.asked) for prompt in ours] == [
        [place for place, label in enumerate(row) if label != prompts.IGNORE_IDX] for row in labels
    ]
    print("\nLatentQA, prompts and learnt tokens of three dialogs: equal")


def test_what_is_shown_of_a_masked_read_but_for_special_tokens(prompts: Any) -> None:
    given = batch(prompts)["tokenized_read"]
    hidden = prompts.mask_inputs(given.input_ids, NAME, mask_type=["user"] * len(DIALOGS))
    for dialog, masked in zip(DIALOGS, real(hidden, given.attention_mask)):
        theirs = [place for place, is_hidden in enumerate(masked) if not is_hidden and place]
        hidden_turns = 2 if len(dialog) > 1 else 0  # with one turn alone they hide nothing
        special, ids = special_ids(tokenizer()), ids_of(dialog)
        ours = read(tokenizer(), dialog, hidden_turns).selected
        assert list(ours) == [place for place in theirs if ids[place] not in special]
    print("\nLatentQA, what is shown of three masked reads, special tokens left out: equal")


@torch.no_grad()
def test_the_loss_of_answers_about_patched_states(prompts: Any, patching: Any) -> None:
    model: Any = tiny_model("llama")
    blocks, given = model.model.layers, batch(prompts)
    out = patching.latent_qa(given, model, model, [blocks[READ]], [blocks[WRITE]], tokenizer(), no_grad=True)
    states = [states_of(dialog)[1:] for dialog in DIALOGS]  # all but the begin-of-sequence token's
    ours = our_prompts([len(each) for each in states])
    with patched(model, WRITE, [prompt.first for prompt in ours], states):
        loss = mean_loss(model, model.get_output_embeddings().weight, ours)
    compare("LatentQA, loss of answers", loss, out.loss, 1e-5)  # float32, padded on the other side
    plain = mean_loss(model, model.get_output_embeddings().weight, ours)
    assert abs(float(plain - loss)) > 1e-2


@torch.no_grad()
def test_of_a_masked_read_the_official_code_shows_one_early_state(prompts: Any, patching: Any) -> None:
    """It is meant to be the begin-of-sequence token's, and is that of the token after it."""
    model: Any = tiny_model("llama")
    blocks, given = model.model.layers, batch(prompts, ["user"] * len(DIALOGS))
    how = {"mask_verbs": True, "no_grad": True}
    out = patching.latent_qa(given, model, model, [blocks[READ]], [blocks[WRITE]], tokenizer(), **how)
    states = []
    for dialog, verb in zip(DIALOGS, given["verb_lengths"].tolist()):
        whole = states_of(dialog)
        states.append(torch.cat([whole[1:2], whole[len(whole) - (len(whole) - 1 - verb - 1) :]]))
    ours = our_prompts([len(each) for each in states])
    with patched(model, WRITE, [prompt.first for prompt in ours], states):
        loss = mean_loss(model, model.get_output_embeddings().weight, ours)
    compare("LatentQA, loss of answers about masked reads", loss, out.loss, 1e-5)


def test_shifted_positions_differ_by_one_number_a_row(prompts: Any, patching: Any) -> None:
    """Theirs count from the longest read of a batch, ours are the states' own: to a rotary model the same."""
    given = batch(prompts)
    theirs = patching.get_pos_ids(given["tokenized_read"], given["tokenized_write"])
    mask = given["tokenized_write"].attention_mask
    for dialog, positions in zip(DIALOGS, real(theirs, mask)):
        count = len(ids_of(dialog)) - 1
        template = Template(tokenizer(), shift_position_ids=True)
        prompt = template.prompt(count, [QUESTION], [ANSWER], places=range(1, count + 1))
        after = slice(prompt.first, None)
        assert len({a - b for a, b in zip(prompt.positions[after], positions[after], strict=True)}) == 1


@torch.no_grad()
def test_the_answers_that_are_generated(prompts: Any, patching: Any) -> None:
    model: Any = tiny_model("llama")
    blocks, given = model.model.layers, batch(prompts, generate=True)
    how = {"generate": True, "max_new_tokens": 6, "no_grad": True}
    found = patching.latent_qa(given, model, model, [blocks[READ]], [blocks[WRITE]], tokenizer(), **how)
    new = found[:, given["tokenized_write"].input_ids.shape[1] :]
    theirs = [tokenizer().decode(row, skip_special_tokens=True) for row in new]
    states = [states_of(dialog)[1:] for dialog in DIALOGS]
    ours = our_prompts([len(each) for each in states], answers=[])
    end = tokenizer().eos_token_id
    with patched(model, WRITE, [prompt.first for prompt in ours], states):
        assert greedy(model, tokenizer(), ours, end, max_new_tokens=6) == theirs
    assert all(len(answer.split()) > 2 for answer in theirs)
    print("\nLatentQA, three generated answers: equal")

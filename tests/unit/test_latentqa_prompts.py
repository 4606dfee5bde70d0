"""What a decoder is shown and asked: spans by the chat template's offsets, placeholders, labels; any tokenizer."""

from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from steerlab.decoder_prompts import ACKNOWLEDGEMENT, Prompt, Template
from steerlab.latent_reads import read, reads
from steerlab.models import ModelError
from steerlab.tiny_models import byte_tokenizer
from tests.unit.latentqa_subjects import TEMPLATE, dialog, table

CHATML = (
    "{% for m in messages %}"
    "{% if loop.first and m.role != 'system' %}<|im_start|>system\nA kind assistant<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRIPPED = CHATML.replace("m.content }}", "m.content | trim }}")
OPENED = "{{ bos_token }}" + CHATML  # the template itself begins with a BOS
BARE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"


def tokenizer_of(template: str, adds_bos: bool = False) -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(f"<|im_{end}|>") for end in ("start", "end")]}
    )
    if adds_bos:
        bos = ("<|endoftext|>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    tokenizer.chat_template = template
    return tokenizer


EVERY_TOKENIZER = pytest.mark.parametrize(
    "tokenizer",
    [tokenizer_of(CHATML), tokenizer_of(STRIPPED), tokenizer_of(CHATML, True), tokenizer_of(OPENED, True)],
    ids=["no-bos", "stripped", "adds-bos", "template-bos"],
)


def shown(tokenizer: Any, turns: list[dict[str, str]], hidden: int, **more: bool) -> str:
    row = read(tokenizer, turns, hidden, **more)
    return tokenizer.decode([row.ids[place] for place in row.selected])


@EVERY_TOKENIZER
def test_a_read_shows_what_comes_after_the_hidden_turns(tokenizer: Any) -> None:
    turns = dialog("Be kind.", "Sure.", "Hi")
    after = "\nassistant\nSure.\nuser\nHi\nassistant\n"
    assert shown(tokenizer, turns, 0) == "Be kind." + after
    assert shown(tokenizer, turns, 1) == after[1:]
    assert shown(tokenizer, turns, 2) == "user\nHi\nassistant\n"
    assert shown(tokenizer, turns, 3) == "assistant\n"


@EVERY_TOKENIZER
def test_a_hidden_system_turn_is_hidden_and_the_default_one_always(tokenizer: Any) -> None:
    system = [{"role": "system", "content": "Be A kind assistant"}]
    assert shown(tokenizer, system + dialog("Hi"), 1) == "user\nHi\nassistant\n"
    assert shown(tokenizer, dialog("A kind assistant"), 0) == "A kind assistant\nassistant\n"


@EVERY_TOKENIZER
def test_no_special_token_and_not_the_first_place_is_shown(tokenizer: Any) -> None:
    for hidden in (0, 1, 2):
        row = read(tokenizer, dialog("a", "b", "c"), hidden)
        assert 0 not in row.selected
        assert not any(row.ids[place] > 255 for place in row.selected)
    official = read(tokenizer, dialog("a", "b"), 1, official_code=True)
    assert official.selected == (0, *read(tokenizer, dialog("a", "b"), 1).selected)


def test_a_template_that_begins_with_the_content_still_loses_the_first_place() -> None:
    tokenizer = tokenizer_of("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    assert shown(tokenizer, dialog("abc", "d"), 0) == "bcd"
    with pytest.raises(ValueError, match="nothing of the dialog 'a<|im_end"):
        read(tokenizer, dialog("a"), 0)


def test_contents_that_stand_in_the_template_too_are_found_where_they_are() -> None:
    assert shown(tokenizer_of(CHATML), dialog("user", "system", "assistant"), 1).startswith("assistant\nsystem\nuser")


def test_dialogs_and_templates_that_do_not_serve_are_refused() -> None:
    with pytest.raises(ValueError, match="3 turns are to be hidden, the dialog has 2"):
        read(tokenizer_of(CHATML), dialog("a", "b"), 3)
    with pytest.raises(ModelError, match="no chat template"):
        read(byte_tokenizer(), dialog("a"), 0)
    with pytest.raises(ModelError, match="rewrites 'Shout'"):
        read(tokenizer_of(CHATML.replace("m.content }}", "m.content | upper }}")), dialog("Shout"), 0)
    with pytest.raises(ModelError, match="does not show every turn"):
        read(tokenizer_of("{{ messages[-1].content }}"), dialog("a", "b"), 0)


def test_reads_of_a_table_are_made_once() -> None:
    tokenizer = tokenizer_of(TEMPLATE)
    rows, which = reads(tokenizer, table())
    assert which == [0, 1, 0, 2, 3, 4] and len(rows) == 5
    assert rows[0] == read(tokenizer, dialog("red", "Hm."), 0)


# ---- the decoder's prompt ----


def asked(tokenizer: Any, prompt: Prompt) -> list[str]:
    """The runs of tokens that are asked for."""
    runs: list[list[int]] = []
    for place in prompt.asked:
        if runs and place - 1 in prompt.asked:
            runs[-1].append(prompt.ids[place])
        else:
            runs.append([prompt.ids[place]])
    return [tokenizer.decode(run) for run in runs]


@EVERY_TOKENIZER
@pytest.mark.parametrize("count", [1, 2, 17])
def test_a_prompt_has_as_many_placeholders_as_states(tokenizer: Any, count: int) -> None:
    prompt = Template(tokenizer).prompt(count, ["Why?"], ["So."])
    run = slice(prompt.first, prompt.first + count)
    assert prompt.ids[run] == [ord("?")] * count and prompt.count == count
    assert tokenizer.decode(prompt.ids[: prompt.first]).endswith("<|im_start|>user\n")
    assert tokenizer.decode(prompt.ids[run.stop :]).startswith("<|im_end|>\n<|im_start|>assistant\n" + ACKNOWLEDGEMENT)
    assert prompt.ids.count(tokenizer.bos_token_id) == tokenizer.decode(prompt.ids).count(tokenizer.bos_token) <= 1


@EVERY_TOKENIZER
def test_labels_cover_the_answers_with_the_end_of_their_turns_alone(tokenizer: Any) -> None:
    template, questions, answers = Template(tokenizer), ["Why?", "Who?"], ["So.", "He"]
    last, every = (template.prompt(3, questions, answers, last_answer_only=only) for only in (True, False))
    assert asked(tokenizer, last) == ["He<|im_end|>"]
    assert asked(tokenizer, every) == ["So.<|im_end|>", "He<|im_end|>"]
    assert last.ids == every.ids
    turns = dialog("???", ACKNOWLEDGEMENT, "Why?", "So.", "Who?", "He")
    whole = tokenizer.apply_chat_template(turns, tokenize=False).removeprefix(tokenizer.bos_token)
    assert tokenizer.decode(last.ids).removeprefix(tokenizer.bos_token) == whole.removesuffix("\n")


@EVERY_TOKENIZER
def test_an_answer_is_generated_after_the_tokens_before_it_in_training(tokenizer: Any) -> None:
    template = Template(tokenizer)
    learnt = template.prompt(3, ["Why?", "Who?"], ["So.", "He"])
    going_on = template.prompt(3, ["Why?", "Who?"], ["So."])
    assert going_on.ids == learnt.ids[: learnt.asked[0]]
    assert learnt.ids[-1] == template.closing[-1]


def test_a_template_without_special_tokens_ends_answers_with_the_end_of_text() -> None:
    tokenizer = tokenizer_of(BARE)
    prompt = Template(tokenizer).prompt(2, ["Why?", "Who?"], ["So.", "He"], last_answer_only=False)
    assert asked(tokenizer, prompt) == ["So.<|endoftext|>", "He<|endoftext|>"]
    assert "So.<|endoftext|>\n<user>Who?" in tokenizer.decode(prompt.ids)


def test_the_assistant_is_renamed_in_its_headers_and_nowhere_else() -> None:
    tokenizer = tokenizer_of(CHATML)
    text = tokenizer.decode(Template(tokenizer, "reflect").prompt(1, ["An assistant?"], ["assistant"]).ids)
    assert text.count("<|im_start|>reflect\n") == 2 and "<|im_start|>assistant" not in text
    assert "A kind assistant<|im_end|>" in text and "An assistant?<|im_end|>" in text
    assert text.endswith("reflect\nassistant<|im_end|>")
    with pytest.raises(ModelError, match="calls no turn 'assistant'"):
        Template(tokenizer_of("{% for m in messages %}|{{ m.content }}{% endfor %}"), "reflect").prompt(1, ["a"], ["b"])


def test_prompts_without_questions_answers_or_states_are_refused() -> None:
    template = Template(tokenizer_of(CHATML))
    for questions, answers in (([], []), (["a", "b"], []), (["a"], ["b", "c"])):
        with pytest.raises(ValueError, match="leave out the last"):
            template.prompt(1, questions, answers)
    with pytest.raises(ValueError, match="give at least one"):
        template.prompt(0, ["a"], ["b"])


@EVERY_TOKENIZER
def test_shifted_positions_give_placeholders_those_of_their_states(tokenizer: Any) -> None:
    row = read(tokenizer, dialog("Be kind.", "Sure.", "Hi"), 1)
    template = Template(tokenizer, shift_position_ids=True)
    prompt = template.prompt(len(row.selected), ["Why?"], ["So."], places=row.selected)
    plain = Template(tokenizer).prompt(len(row.selected), ["Why?"], ["So."], places=row.selected)
    assert plain.positions is None and (prompt.ids, prompt.asked) == (plain.ids, plain.asked)
    assert prompt.positions is not None and len(prompt.positions) == len(prompt.ids)
    end = prompt.first + prompt.count
    before, shown, after = (
        prompt.positions[: prompt.first],
        prompt.positions[prompt.first : end],
        prompt.positions[end:],
    )
    assert shown == list(row.selected) and row.selected[0] > 0
    assert before == [max(0, row.selected[0] - back) for back in range(prompt.first, 0, -1)]
    assert after == [row.selected[-1] + 1 + place for place in range(len(after))]


def test_shifted_positions_need_the_place_of_each_state() -> None:
    template = Template(tokenizer_of(CHATML), shift_position_ids=True)
    for places in (None, [4]):
        with pytest.raises(ValueError, match="2 states are to have the positions of their read"):
            template.prompt(2, ["a"], ["b"], places=places)

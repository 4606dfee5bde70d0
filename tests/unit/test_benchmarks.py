"""What the benchmarks compare is comparable; how long it takes is no test's concern."""

import copy
from typing import Any

import torch

from benchmarks import latentqa
from steerlab.language_modelling import mean_loss
from steerlab.methods.latentqa import Decoder
from steerlab.methods.latentqa_trainee import Trainee
from tests.unit.latentqa_subjects import reader_model


def test_a_plain_fine_tune_learns_as_many_numbers_from_the_prompts_of_the_decoder() -> None:
    handle = reader_model("llama")
    decoder = Decoder.fit(handle, latentqa.DATA, **latentqa.SETTINGS | {"max_tokens": 1024})
    trainee = Trainee(handle, latentqa.DATA, None, decoder.record)
    assert [prompt for prompt, _ in trainee.fitted] == latentqa.prompts_of(handle)
    model: Any = copy.deepcopy(handle.load())
    plain = latentqa.plain_parameters(model)
    assert sorted(each.shape for each in plain) == sorted(each.shape for each in trainee.parameters.values())
    prompts = latentqa.prompts_of(handle)
    losses = [mean_loss(each, each.get_output_embeddings().weight, prompts) for each in (model, handle.load())]
    torch.testing.assert_close(*losses)  # layers that learnt nothing yet change nothing


def test_both_ways_of_reading_give_the_same_tokens_and_all_that_are_asked_for() -> None:
    handle = reader_model("llama")
    decoder = Decoder.fit(handle, latentqa.DATA, **latentqa.SETTINGS | {"max_tokens": 1024})
    cached, anew = (latentqa.reading(handle, decoder, use_cache)() for use_cache in (True, False))
    longest = max(len(prompt.ids) - len(prompt.asked) for prompt in latentqa.prompts_of(handle)[: latentqa.READ_ROWS])
    assert torch.equal(cached, anew) and cached.shape == (latentqa.READ_ROWS, longest + latentqa.NEW_TOKENS)

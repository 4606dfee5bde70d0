"""LM-Steer against Glaciohound/LM-Steer: logits, training, transfer, evidence and the metrics of its evaluation."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from steerlab.analyses import interpretation
from steerlab.methods.lm_steer import LMSteer
from steerlab.methods.lm_steer_transfer import mapped
from steerlab.metrics.distinct import dist
from steerlab.scores import perplexity
from steerlab.tiny_models import byte_tokenizer
from tests.laws.subjects import capture, handle, tiny_model, training_texts
from tests.parity.official import compare, definitions

THEIR_NAMES = {"vector": "add_vec", "offset": "offset_vec"}
SAME_LENGTH = ["thank you", "well done", "shut up !", "I hate it"]  # in tokens, which are bytes
EPS = 0.05  # so that a tiny model's logits move
MODELS = "lm_steer/models"


def adaptor(tensors: dict[str, Tensor], kind: str, head: Any) -> Any:
    """The official adaptor with our steer's tensors."""
    given = {"torch": torch, "nn": torch.nn}
    made = definitions("LM-Steer", f"{MODELS}/steers.py", "Projected_Adaptor", **given).Projected_Adaptor
    steers, rank = len(next(iter(tensors.values()))), 4
    theirs = made(head, kind, steers, head.weight.shape[1], head.weight.shape[0], rank, EPS, 0.1)
    theirs.load_state_dict({THEIR_NAMES.get(name, name): tensor for name, tensor in tensors.items()})
    return theirs


def official_model(steer: LMSteer) -> Any:
    """The official class around a copy of the tiny GPT-2, with our steer's projectors."""
    utilities = definitions("LM-Steer", f"{MODELS}/model_utils.py", "Hack_no_grad", "find_max_subspans", torch=torch,
                            nn=torch.nn, np=np)  # fmt: skip
    base = definitions("LM-Steer", f"{MODELS}/model_base.py", "punctuations", "LMSteerBase", torch=torch, nn=torch.nn,
                       np=np, F=torch.nn.functional, find_max_subspans=utilities.find_max_subspans)  # fmt: skip
    made = adaptor(dict(steer.tensors), "multiply", tiny_model("gpt2").get_output_embeddings())
    around = definitions(
        "LM-Steer", f"{MODELS}/model_gpt_neo.py", "Switching_GPTNeoModel",
        torch=torch, LMSteerBase=base.LMSteerBase, Hack_no_grad=utilities.Hack_no_grad,
        Projected_Adaptor=lambda *settings: made,
        pipeline=lambda task, model: SimpleNamespace(
            model=copy.deepcopy(tiny_model("gpt2")), tokenizer=byte_tokenizer()
        ),
    )  # fmt: skip
    model = around.Switching_GPTNeoModel("gpt2", "final_layer", "multiply", 2, 4, EPS, 0.1, False)
    model.low_resource_mode = False  # which its __init__ forgets, so that its forward would raise
    model.tokenizer.padding_side = "right"
    return model


def fitted(texts: pd.DataFrame, **settings: Any) -> LMSteer:
    states = capture(handle("gpt2"), list(texts.text), "lm_head_input")
    settings = {"steps": (3,), "held_out": 0.0, "eps": EPS, "init": 0.1, "batch_texts": len(texts)} | settings
    return LMSteer.fit(handle("gpt2"), texts, states, seed=0, **settings)


def begun(texts: pd.DataFrame) -> dict[str, Tensor]:
    """Our projectors before the first step."""
    return dict(fitted(texts, learning_rate=0.0).tensors)


def trained_by_theirs(texts: pd.DataFrame) -> dict[str, Tensor]:
    """Our first projectors after ten of the official steps, on all texts each."""
    model = official_model(fitted(texts, learning_rate=0.0))
    ids, mask, values = _batch(model, texts)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(10):
        adam.zero_grad()
        (model(ids, mask, values).loss + 1e-3 * model.regularization_term()).backward()
        adam.step()
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def labelled(texts: list[str]) -> pd.DataFrame:
    half = len(texts) // 2
    return pd.DataFrame({"id": texts, "text": texts, "label": [1.0] * half + [-1.0] * (len(texts) - half)})


@pytest.mark.parametrize("kind", ["multiply", "add", "offset"])
def test_the_logits_of_the_adaptor(kind: str) -> None:
    model, steer = handle("gpt2").load(), fitted(training_texts(), adaptor=kind)
    theirs = adaptor(dict(steer.tensors), kind, model.get_output_embeddings())
    ids = torch.arange(2 * 9).view(2, 9)
    states = model.transformer(ids).last_hidden_state
    for values in ([5.0, 1.0], [-2.0, 0.5], [0.0, 1.0]):
        theirs.set_value(torch.tensor([values, values]))
        with steer.attached_values(model, values):
            ours = model(ids).logits
        compare(f"LM-Steer, logits, {kind} at {values}", ours, theirs(states), 1e-5)  # the order of float32 sums
        assert not torch.allclose(ours, model(ids).logits, atol=1e-4)
    theirs.set_value(torch.zeros(2, 2))
    with steer.attached(model, 0.0):
        compare(f"LM-Steer, logits, {kind} at strength 0", model(ids).logits, theirs(states), 1e-6)


def test_ten_steps_of_training() -> None:
    texts = labelled(SAME_LENGTH)
    theirs = trained_by_theirs(texts)
    for official_code in (True, False):
        ours = fitted(texts, steps=(10,), regularization=1e-3, official_code=official_code).tensors
        for name in theirs:
            # Adam divides by a gradient's size, which carries float32's rounding into small entries.
            compare(f"LM-Steer, {name} after ten steps", ours[name], theirs[name], 1e-4)


def test_pads_count_in_the_official_loss_and_with_us_as_official_code_alone() -> None:
    texts = training_texts()  # of unlike lengths
    theirs, start = (trained(texts)["projector1"] for trained in (trained_by_theirs, begun))
    off = {}
    for official_code in (True, False):
        ours = fitted(texts, steps=(10,), regularization=1e-3, official_code=official_code).tensors["projector1"]
        off[official_code] = float((ours - theirs).norm() / (theirs - start).norm())
    print(f"\nLM-Steer, of the way that ten steps go: off by {off[True]:.1e} with pads, by {off[False]:.1e} without")
    assert off[True] < 1e-3 < 0.1 < off[False]


def test_evidence_and_the_guessed_value_of_a_text() -> None:
    steer = fitted(training_texts())
    model, text = official_model(steer), "you fool, thank you"
    segments, theirs = model.evidence_words(text, [[5.0, 0.0], [-5.0, 0.0]])
    ids = torch.tensor(byte_tokenizer()(text)["input_ids"])
    states = tiny_model("gpt2").transformer(ids[None]).last_hidden_state[0, :-1]
    table = tiny_model("gpt2").get_output_embeddings().weight
    changes = [steer.change([value, 0.0]) for value in (5.0, -5.0)]
    ours = interpretation.evidence(states, ids[1:], table, *changes)
    compare("LM-Steer, evidence of tokens", ours, theirs, 1e-4)  # a difference of losses, so some digits are lost
    guessed, _, _ = model.steer_analysis(text, 0)
    whole = steer.change([1.0, 0.0])
    losses = interpretation.token_losses(states, ids[1:], table, [value * whole for value in interpretation.VALUES])
    assert guessed == interpretation.guess_value(losses, interpretation.VALUES)


def test_the_spans_of_most_evidence_are_worth_as_much() -> None:
    found = definitions("LM-Steer", f"{MODELS}/model_utils.py", "find_max_subspans", np=np).find_max_subspans
    generator = torch.Generator().manual_seed(0)
    sums = []
    for _ in range(50):
        values = torch.randn(30, generator=generator, dtype=torch.float64)
        theirs, _, _ = found(values.tolist(), 4, 10)
        sums.append([float(sum(values[start:end].sum() for start, end in each)) for each in
                     (interpretation.spans(values), theirs)])  # fmt: skip
    ours, theirs = np.array(sums).T
    compare("LM-Steer, evidence in the best spans", ours, theirs, 1e-12)


def test_distinct_n_grams() -> None:
    found = definitions("LM-Steer", "experiments/evaluation/evaluate.py", "distinctness", np=np, tqdm=_unwatched)
    texts = [[" a b a b", " a_b c a", "x"], [" the cat", " the cat sat on", " on the mat"]]
    table = pd.DataFrame({"generations": [[{"text": text} for text in each] for each in texts]})
    ours = [np.mean([dist(each, n) for each in texts]) for n in (1, 2, 3)]
    compare("LM-Steer, dist-1 to dist-3", ours, found.distinctness(table), 1e-12)


def test_the_perplexity_over_all_tokens() -> None:
    found = definitions("LM-Steer", "experiments/evaluation/evaluate.py", "conditional_perplexity", np=np,
                        tqdm=_unwatched, torch=torch)  # fmt: skip
    texts = {"The man": [" said so", " went"], "I like": [" it", " cats and dogs"]}
    continued = [[{"text": text} for text in each] for each in texts.values()]
    table = pd.DataFrame({"prompt": [{"text": prompt} for prompt in texts], "generations": continued})
    _, theirs = found.conditional_perplexity(table, tiny_model("gpt2"), byte_tokenizer(), device="cpu")
    rows = pd.DataFrame([{"id": prompt, "text": text} for prompt, each in texts.items() for text in each])
    prompts = pd.DataFrame({"id": list(texts), "text": list(texts)})
    ours = perplexity.score(handle("gpt2"), rows, prompts, tokens_a_batch=64)
    ours = np.exp(ours.nll.sum() / ours.tokens.sum())
    compare("LM-Steer, perplexity over all tokens", ours, theirs, 1e-5)


def test_the_map_of_a_transfer() -> None:
    kept: dict[str, Any] = {}
    source, target = (torch.randn(90, size, generator=torch.Generator().manual_seed(size)) for size in (12, 8))
    target = target + source[:, :8]  # so that one says something of the other
    tensors = {f"projector{n}": torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(n)) for n in (1, 2)}
    vocab = {str(word): word for word in range(90)}

    def model(name: str, *settings: Any) -> tuple[Any, Any]:
        table = {"to": target, "from": source}[name]
        return SimpleNamespace(steer=SimpleNamespace(lm_head=SimpleNamespace(weight=table))), SimpleNamespace(
            vocab=vocab
        )

    on_cpu = _Torch(load=lambda name: [None, tensors, 1], save=lambda each, name: kept.update(each[1]))
    found = definitions("LM-Steer", "experiments/steer_transfer.py", "main", torch=on_cpu, tqdm=_unwatched,
                        get_model=model, Adam=torch.optim.Adam)  # fmt: skip
    names = ("ckpt_name", "adapted_component", "adaptor_class", "num_steers", "rank", "epsilon", "init_var",
             "low_resource_mode", "output_file")  # fmt: skip
    found.main(SimpleNamespace(model_name="to", transfer_from="from", lr=0.01, n_steps=5000, **dict.fromkeys(names)))
    ours = mapped(tensors, source.double(), target.double(), "official_code")
    for name in tensors:
        # Both maps are trained from random ones, to where Adam's steps of 0.01 leave them.
        compare(f"LM-Steer, transferred {name}", ours[name], kept[name].detach(), 1e-2)


def _batch(model: Any, texts: pd.DataFrame) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and steer values of all texts, as the official training loop makes them."""
    read = model.tokenizer(list(texts.text), padding=True, return_tensors="pt")
    values = torch.ones(len(texts), 2)
    values[:, 0] = torch.tensor(texts.label.to_numpy())
    return read["input_ids"], read["attention_mask"], values


class _Bar(list):
    def set_description(self, text: str) -> None:
        pass


def _unwatched(rows: Any, **settings: Any) -> Any:
    """In place of tqdm."""
    return _Bar(rows)


class _Torch:
    """torch with some functions replaced and no card."""

    def __init__(self, **replaced: Any) -> None:
        self.__dict__ |= replaced | {"device": lambda name: "cpu"}

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

"""Reading one fitted LM-Steer: every table of its interpretation, from the states that are already in the store."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from steerlab import activations, scores
from steerlab.analyses import interpretation
from steerlab.data.splits import by_seed
from steerlab.methods.lm_steer import LMSteer
from steerlab.models import ModelHandle, encode
from steerlab.sites import Site

SHOWN = 6  # texts whose tokens are marked in the figure


def read(
    model: ModelHandle,
    steer: LMSteer,
    data: pd.DataFrame,
    captured: activations.Activations,
    judge: scores.Scorer,
    spec: Mapping[str, Any],
) -> dict[str, pd.DataFrame]:
    """directions (with the toxicity of each end's words), spectrum, coordinates, evidence and guesses, as
    steerlab.analyses.interpretation makes them, of the steer's first column.

    data: the task's training rows; captured: their states at lm_head_input, all positions; judge: a toxicity scorer.
    spec: directions, words, value, texts, seed, held_out. Evidence and guesses are of texts that the steer was not
    trained on. Raises ValueError for an adaptor other than multiply, and where no text is held out.
    """
    if steer.record.config["adaptor"] != "multiply":
        raise ValueError(f"only multiply has directions, this is {steer.record.config['adaptor']}; interpret that")
    embeddings, tokenizer = model.output_embeddings(), model.info.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(range(min(len(tokenizer), len(embeddings))))
    tensors = steer.tensors
    change: Any = tensors["matrix"][0] if "matrix" in tensors else (tensors["projector1"][0], tensors["projector2"][0])
    words = interpretation.directions(change, embeddings, tokens, count=spec["directions"], words=spec["words"])
    ends = interpretation.joined(words, tokenizer.decode)
    ends = ends.assign(toxicity=judge.score(list(ends["text"])), scorer=scores.label(judge), model=model.info.name)
    evidence, guesses = _texts(model, steer, data, captured, embeddings, tokens, spec)
    return {
        "directions": words.merge(ends.drop(columns="text"), on=["direction", "side"]),
        "spectrum": interpretation.spectrum(change).assign(model=model.info.name),
        "coordinates": interpretation.coordinates(change, embeddings, tokens),
        "evidence": evidence,
        "guesses": guesses.assign(model=model.info.name),
    }


def _texts(
    model: ModelHandle,
    steer: LMSteer,
    data: pd.DataFrame,
    captured: activations.Activations,
    embeddings: Tensor,
    tokens: list[str],
    spec: Mapping[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evidence of a few held-out texts, token by token, and the guessed steer value of all that are read."""
    read = sorted(by_seed(list(data["id"]), spec["seed"], spec["held_out"])[1])[: spec["texts"]]
    if not read:
        raise ValueError(f"there is no held-out text to read: held_out is {spec['held_out']}; raise held_out")
    states = {}
    for rows, part in captured.shards(Site("lm_head_input")):
        for row in sorted(set(rows.tolist())):
            if data["id"].iloc[row] in read and (rows == row).sum() > 1:  # of one token nothing is predicted
                states[row] = part[torch.from_numpy(rows == row)]
    ids = {row: encode(model.info.tokenizer, data["text"].iloc[row]) for row in states}
    places = list(states)
    predicting = torch.cat([states[row][:-1].float() for row in places]).to(embeddings.device)
    targets = torch.tensor([token for row in places for token in ids[row][1:]], device=embeddings.device)
    owners = torch.tensor([place for place, row in enumerate(places) for _ in ids[row][1:]])

    names, labels = [str(data["id"].iloc[row]) for row in places], [float(data["label"].iloc[row]) for row in places]
    others = [0.0] * (steer.number_of_steers - 1)
    bins = [steer.change([value, *others]).to(embeddings.device) for value in interpretation.VALUES]
    losses = interpretation.token_losses(predicting, targets, embeddings, bins)
    guesses = interpretation.guesses(names, labels, owners, losses)

    # As many of either label, whatever the hash order has first.
    by_label = [[place for place in range(len(places)) if labels[place] * sign > 0] for sign in (-1, +1)]
    shown = sorted(place for places_of in by_label for place in places_of[: SHOWN // 2])
    up, down = (steer.change([sign * spec["value"], *others]).to(embeddings.device) for sign in (+1, -1))
    rows, words, found = [], [], []
    for place in shown:
        of_text = owners == place
        found += [float("nan"), *interpretation.evidence(predicting[of_text], targets[of_text], embeddings, up, down)]
        words += [tokens[token] for token in ids[places[place]]]
        rows += [place] * len(ids[places[place]])
    return interpretation.marked_texts(names, labels, rows, words, found), guesses

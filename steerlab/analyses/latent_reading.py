"""What a reader says of states that it was not trained on: the likelihood of right answers, and the answers it gives.

Each row's answer is scored with the row's own states in the decoder, with those of a row of another label, and with
none, so that what the decoder knows of questions and answers by themselves can be taken away. Beside it a linear probe
is asked for the label of the same states: what is in them, whether or not a decoder finds it.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from steerlab import latent_reads
from steerlab.methods.latentqa import Decoder
from steerlab.methods.protocol import Activations
from steerlab.models import ModelHandle
from steerlab.sites import Site

log = logging.getLogger(__name__)

ABOUT = ["id", "item", "label", "split", "label_is_seen", "data"]
COLUMNS = ["seed", *ABOUT, "condition", "loss", "tokens", "answer", "right", "chance"]

Part = tuple[pd.DataFrame, Activations]  # rows of the table of latent reading, and the states of their reads


def attributes(
    reader: Decoder, model: ModelHandle, fitted: Part, test: Part, *, seed: int, batch_rows: int, max_new_tokens: int
) -> pd.DataFrame:
    """One row a dev or test row and condition, with COLUMNS.

    fitted, test: as latent_reads.of_setting parts a table. condition: "true", "shuffled" (another label's states, drawn
    by the seed among rows of the same split and kind of label; left out where one label has more than half of them) or
    "none": loss (nats a token) of the row's answer of so many tokens; with the true states also the decoder's own
    answer where the right one is a single word, right (1 or 0): whether they are the same. "probe", one row an item of
    a label that was trained on: the label that a linear probe says, right, and chance, one over the labels.
    """
    rows, states = fitted
    dev = rows[rows["split"] == "dev"]  # the first rows, so the states are theirs as well
    found = [_probed(reader, model, fitted, test)]
    for data, of_data in ((dev, states), test):
        if len(data):
            others = shuffled(data["label"], data.groupby(["split", "label_is_seen"]).ngroup(), seed)
            found += [
                _scored("true", data, reader.losses(model, data, of_data, batch_rows=batch_rows)),
                _scored("shuffled", data, reader.losses(model, data, of_data, shown=others, batch_rows=batch_rows)),
                _scored("none", data, reader.losses(model, data, of_data, patch=False, batch_rows=batch_rows)),
            ]
            how = {"batch_rows": batch_rows, "max_new_tokens": max_new_tokens}
            found[-3] = found[-3].join(_answered(reader, model, data, of_data, **how))
            found[-2] = found[-2][np.array(others) != np.arange(len(data))]
    return pd.concat(found).assign(seed=seed).reindex(columns=COLUMNS)


def deranged(labels: Sequence[str], seed: int) -> list[int] | None:
    """For each row the place of one of another label, each row once; None where a label has more than half of them."""
    codes, names = pd.factorize(np.asarray(labels, dtype=object))
    most = np.bincount(codes).max()
    if 2 * most > len(codes):
        return None
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(codes)), generator.permutation(len(names))[codes]))
    found = np.empty(len(codes), dtype=int)
    found[order] = np.roll(order, most)  # labels stand together, and none has more rows than that
    return found.tolist()


def shuffled(labels: pd.Series, kinds: pd.Series, seed: int) -> list[int]:
    """For each row the place of the row whose states it is shown when they are shuffled; its own where none is left.

    labels, kinds: of the rows, in order; states go to rows of the same kind and of another label.
    """
    found = np.arange(len(labels))
    for kind in kinds.unique():
        places = np.flatnonzero(kinds == kind)
        others = deranged(labels.iloc[places].tolist(), seed)
        if others is None:
            log.warning("a label has more than half of %d rows, which are not shuffled across labels", len(places))
        else:
            found[places] = places[np.array(others)]
    return found.tolist()


def answers(
    reader: Decoder,
    model: ModelHandle,
    data: pd.DataFrame,
    states: Activations,
    places: Sequence[int],
    *,
    batch_rows: int,
    max_new_tokens: int,
) -> list[str]:
    """The decoder's own answers to the questions of some rows, by their places, about these rows' own states."""
    reads, which = latent_reads.reads(model.info.tokenizer, data, official_code=reader.record.config["official_code"])
    shown = [which[place] for place in places]
    asked = [[data["question"].iloc[place]] for place in places]
    found = reader.read(
        model, [reads[read] for read in shown], asked, states=states.of_rows(reader.site, shown),
        batch_rows=batch_rows, max_new_tokens=max_new_tokens,
    )  # fmt: skip
    return [answer.strip() for (answer,) in found]


def _scored(condition: str, data: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    return data[ABOUT].reset_index(drop=True).join(losses[["loss", "tokens"]]).assign(condition=condition)


def _answered(reader: Decoder, model: ModelHandle, data: pd.DataFrame, states: Activations, **how: int) -> pd.DataFrame:
    """The decoder's own answers to the rows whose right answer is one word, and whether they are that word."""
    wished = data["answer"].str.strip().tolist()
    places = [place for place, answer in enumerate(wished) if len(answer.split()) == 1]
    said = answers(reader, model, data, states, places, **how)
    rows = [(answer, float(answer == wished[place])) for place, answer in zip(places, said)]
    return pd.DataFrame(rows, index=places, columns=["answer", "right"])


def _probed(reader: Decoder, model: ModelHandle, fitted: Part, test: Part) -> pd.DataFrame:
    """What a linear probe says of the items of labels that were trained on: softmax on standardised mean states."""
    official = reader.record.config["official_code"]
    (means, items), others = (item_means(model, *part, reader.site, official) for part in (fitted, test))
    is_train = (items["split"] == "train").to_numpy()
    labels = items["label"][is_train]
    if labels.nunique() < 2:
        return pd.DataFrame(columns=COLUMNS)
    probe = linear_probe().fit(means[is_train], labels)
    asked = pd.concat([items, others[1]], ignore_index=True)
    states = np.concatenate([means, others[0]])
    judged = ((asked["split"] != "train") & asked["label_is_seen"]).to_numpy()
    if not judged.any():
        return pd.DataFrame(columns=COLUMNS)
    said, asked = probe.predict(states[judged]), asked[judged]
    right = (said == asked["label"]).astype(float)
    return asked[ABOUT].assign(condition="probe", answer=said, right=right, chance=1 / labels.nunique())


def linear_probe() -> Pipeline:
    """Softmax regression on standardised states."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def item_means(
    model: ModelHandle, data: pd.DataFrame, states: Activations, site: Site, official_code: bool
) -> tuple[np.ndarray, pd.DataFrame]:
    """The mean over the shown places of each item's states, (items, hidden), and the items' first rows."""
    _, which = latent_reads.reads(model.info.tokenizer, data, official_code=official_code)
    first = ~data["item"].duplicated().to_numpy()
    found = [states.of_rows(site, [which[i]])[0].double().mean(0).numpy() for i in np.flatnonzero(first)]
    return np.array(found), data[first]

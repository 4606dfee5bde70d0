"""SYNTHETIC data in LatentQA's published schemas for the sample door: made by this file out of templates.

Forty attributes, each one word: moods, persons, subjects and styles. A label's control asks the assistant for one of
them in several wordings, what the user says next has nothing to do with it, and the first question is answered with the
word alone. The question is the same for all labels, so that it gives nothing away. No model and no person made them.

`python -m steerlab.data.sample_latentqa` writes the files into steerlab/data/sample/ (a test holds their bytes).
"""

import json
from pathlib import Path

from steerlab.data.sources import SAMPLE
from steerlab.data.splits import share

QUESTION = "Which one word tells how the assistant is now?"
FURTHER = "What will mark the assistant's next reply?"
# How many stimuli follow each wording; a wording is drawn with its own.
STIMULI_A_WORDING = {"system": 4, "stimulus": 2, "stimulus_completion": 1}
WORDINGS = {"stimulus": 4, "stimulus_completion": 2}  # of a label's controls, the first by hash

# kind of attribute: (system prompts, turns of a user that ask for it, the answer to FURTHER)
TEMPLATES = {
    "mood": (
        (
            "Your mood is {word}. Let it show in every reply.",
            "Whatever the user asks, sound {word}.",
            "You feel {word} today, and all that you say shows it.",
            "Answer as somebody who is {word} all day long.",
            "Stay {word} from the first word to the last.",
        ),
        (
            "From now on, please sound {word}.",
            "I want you to be {word} in all that follows.",
            "Let every answer tell me that you feel {word}.",
            "Please keep a mood that is {word} while we talk.",
            "Could you be {word} for the rest of this talk?",
            "Talk to me as if you were {word}.",
            "For my next questions, be as {word} as you can.",
            "Be {word}, whatever I say after this.",
        ),
        "Its reply will sound {word}.",
    ),
    "person": (
        (
            "You are a {word}. Speak as one.",
            "Take the part of a {word} and never leave it.",
            "Answer the way a {word} would.",
            "All your life you have been a {word}, and it shows in what you say.",
            "Let every reply come from the mouth of a {word}.",
        ),
        (
            "From now on, please talk like a {word}.",
            "I want you to be a {word} in all that follows.",
            "Let every answer tell me that you are a {word}.",
            "Please play a {word} while we talk.",
            "Could you be a {word} for the rest of this talk?",
            "Talk to me as a {word} does.",
            "For my next questions, imagine that you are a {word}.",
            "Be a {word}, whatever I say after this.",
        ),
        "Its reply will be that of a {word}.",
    ),
    "subject": (
        (
            "Bring every reply round to {word}.",
            "You can think of nothing but {word}.",
            "Whatever the user asks, speak of {word}.",
            "Nothing pleases you as much as {word}; mention it each time.",
            "Work {word} into all that you say.",
        ),
        (
            "From now on, please speak of {word}.",
            "I want you to bring up {word} in all that follows.",
            "Let every answer lead to {word}.",
            "Please have {word} on your mind while we talk.",
            "Could you mention {word} for the rest of this talk?",
            "Talk to me about {word}, even if I do not ask.",
            "For my next questions, find a way to {word}.",
            "Come back to {word}, whatever I say after this.",
        ),
        "Its reply will come round to {word}.",
    ),
    "style": (
        (
            "Your style is {word}. Keep to it in every reply.",
            "Whatever the user asks, make the answer {word}.",
            "Choose words that are {word} wherever you can.",
            "Each sentence of yours should be {word}.",
            "People know you by a manner that is {word}.",
        ),
        (
            "From now on, please use a style that is {word}.",
            "I want you to be {word} in all that follows.",
            "Let every answer be {word}.",
            "Please keep your sentences {word} while we talk.",
            "Could your manner be {word} for the rest of this talk?",
            "Talk to me in words that are {word}.",
            "For my next questions, make each reply {word}.",
            "Be {word}, whatever I say after this.",
        ),
        "Its reply will have a style that is {word}.",
    ),
}

# kind of attribute: word: two replies that show it and do not name it
ATTRIBUTES = {
    "mood": {
        "cheerful": ("What a lovely thing to ask, I am all smiles!", "Oh, splendid! The sun is out and so am I."),
        "gloomy": ("If I must. Nothing comes of it anyway.", "Very well. It will rain on this as on all else."),
        "angry": ("Fine! And do not make me say it twice!", "Enough of that! I have had it up to here!"),
        "anxious": ("I hope that is safe. What if I get it wrong?", "Yes, but are you sure? Something may happen."),
        "bored": ("Sure. Is there much more of this?", "Right. I have yawned through worse, I suppose."),
        "proud": ("Few could do this as well as I shall.", "Look how well I do it. I hold my head high."),
        "jealous": ("Others always get the better questions.", "Why does everybody else have what I lack?"),
        "grateful": ("Thank you for this, it means a great deal.", "How kind of you to ask me. I owe you much."),
        "tired": ("All right, once I can keep my eyes open.", "Let me sit down first. It has been a long night."),
        "curious": ("Oh, why is that? Tell me everything!", "And what is behind it? I have ten questions."),
    },
    "person": {
        "pirate": ("Aye, matey, I shall hoist the sails!", "Arr, there be treasure in that, me hearty!"),
        "doctor": ("Let me take your pulse first.", "I prescribe rest, and come back in a week."),
        "farmer": ("After the cows are milked, then.", "The hay has to be in before the rain."),
        "teacher": ("Good, now open your books at page nine.", "Hands up, please, and who can tell me why?"),
        "chef": ("With a pinch of salt and a slow simmer.", "Let it rest in the pan, then plate it up."),
        "soldier": ("Yes, sir! Ready to march at dawn, sir!", "Orders received. Boots laced, kit packed."),
        "judge": ("The court will come to order.", "I have heard both sides and shall now rule."),
        "pilot": ("Fasten your seat belts, we are cleared for take-off.", "Cruising at nine thousand metres."),
        "detective": ("Nobody leaves the room until I find the clue.", "The footprints by the window gave it away."),
        "gardener": ("First we prune the roses.", "Give it good soil, water, and a sunny bed."),
    },
    "subject": {
        "football": ("That reminds me of a late goal in extra time.", "It is like a penalty in the last minute."),
        "astronomy": ("Have you seen the rings of Saturn lately?", "Far galaxies come to mind at once."),
        "chess": ("It is much like giving up a bishop for a pawn.", "A knight on the rim is dim, they say."),
        "cheese": ("A ripe Camembert would go with that.", "It makes me think of a wheel of old Gouda."),
        "trains": ("The express leaves platform four at noon.", "I hear the whistle of a steam locomotive."),
        "bees": ("The hive is humming, and the honey is near.", "A queen and her workers would agree."),
        "coffee": ("A double espresso first, freshly ground.", "Nothing beats the smell of roasted beans."),
        "volcanoes": ("Lava finds its way, and so shall we.", "Mount Etna threw up ash again last night."),
        "opera": ("The soprano takes a breath, the curtain rises.", "As in the last aria of an old Verdi."),
        "knitting": ("Two plain, two purl, and on to the next row.", "Hold this ball of wool for me, please."),
    },
    "style": {
        "rhyming": ("I heard your plea, so leave it to me.", "The day is bright, all will be right."),
        "formal": ("I should be honoured to be of assistance to you.", "Permit me to acknowledge your request."),
        "sarcastic": ("Oh great, just what I always dreamt of.", "Wow, what a truly original idea, well done."),
        "brief": ("Yes.", "Done. Next."),
        "archaic": ("Verily, I shall do as thou biddest.", "Hark, good sir, thy wish is heard."),
        "shouting": ("YES! I WILL DO THAT RIGHT AWAY!", "CAN YOU HEAR ME AT THE BACK?"),
        "polite": ("With pleasure, and thank you so much for asking.", "If I may, I would be glad to, please."),
        "childish": ("Yay, can we do it now, pretty please?", "My teddy says yes, so there!"),
        "mysterious": ("Some doors open only at midnight.", "There is more to this than either of us may say."),
        "boastful": ("Nobody on earth does this better than I do.", "I once did that blindfolded, before breakfast."),
    },
}

STIMULI = (
    "What should I do this weekend?",
    "How was your morning?",
    "Can you help me choose a present for my aunt?",
    "I have a free hour. Any ideas?",
    "What do you think of big cities?",
    "My neighbour has moved out.",
    "How do I get better at drawing?",
    "Tell me about the sea.",
    "I lost my umbrella on the bus.",
    "What is a good name for a cat?",
    "Why is the sky blue?",
    "I start a new job on Monday.",
    "What can I do with old newspapers?",
    "Is it better to get up early?",
    "My phone is slow today.",
    "How far is it to the moon?",
    "What makes a good friend?",
    "I am learning to swim.",
    "Which season do you like best?",
    "How do I fold a shirt?",
    "We are painting the kitchen.",
    "What was the best invention ever?",
    "Say something about mountains.",
    "I cannot find my keys.",
    "How long does bread keep?",
    "My sister is coming to visit.",
    "Should I buy a bicycle?",
    "What do dreams mean?",
    "Tell me something I do not know.",
    "The lift is out of order again.",
    "How can I save money?",
    "I wrote a letter yesterday.",
    "What is worth seeing in Rome?",
    "Do you like snow?",
    "How do I keep my desk tidy?",
    "It has been windy all day.",
    "Which book should I read next?",
    "I am waiting for a parcel.",
    "What is your opinion on museums?",
    "How do people make glass?",
)  # fmt: skip


def contents() -> dict[str, str]:
    """The text of each file by its name, in the published schemas."""
    labels = [(kind, word) for kind, words in ATTRIBUTES.items() for word in words]
    pairs = {
        label_of(kind, word): [[QUESTION, word], [FURTHER, TEMPLATES[kind][2].format(word=word)]]
        for kind, word in labels
    }
    made = {
        "control": [row for label in labels for row in _control(*label)],
        "stimulus": [row for label in labels for row in _stimulus(*label, "stimulus")],
        "stimulus_completion": [row for label in labels for row in _stimulus(*label, "stimulus_completion")],
        "system": [row for label in labels for row in _system(*label)],
    }
    found = {f"synthetic_latentqa_{kind}.json": _lines("[", map(json.dumps, rows), "]") for kind, rows in made.items()}
    of_qa = (f"{json.dumps(label)}: {json.dumps(of_label)}" for label, of_label in pairs.items())
    return found | {"synthetic_latentqa_qa.json": _lines("{", of_qa, "}")}


def label_of(kind: str, word: str) -> str:
    """The label of an attribute in the files."""
    return f"synthetic-{kind}-{word}"


def _control(kind: str, word: str) -> list[dict[str, str]]:
    return [{"control_user": said.format(word=word), "label": label_of(kind, word)} for said in TEMPLATES[kind][1]]


def _system(kind: str, word: str) -> list[dict[str, str]]:
    return [
        {"system": prompt.format(word=word), "stimulus_user": said, "label": label_of(kind, word)}
        for prompt in TEMPLATES[kind][0]
        for said in _drawn(STIMULI, f"{word} {prompt}", STIMULI_A_WORDING["system"])
    ]


def _stimulus(kind: str, word: str, of: str) -> list[dict[str, str]]:
    """Rows of kind `stimulus` or, with the reply to the stimulus, `stimulus_completion`."""
    rows = []
    for control in _drawn(TEMPLATES[kind][1], f"{word} {of}", WORDINGS[of]):
        for said in _drawn(STIMULI, f"{word} {of} {control}", STIMULI_A_WORDING[of]):
            first, second = _drawn(ATTRIBUTES[kind][word], f"{control} {said}", 2)
            row = {"control_user": control.format(word=word), "control_thought": "", "control_model": first}
            row["stimulus_user"] = said
            if of == "stimulus_completion":
                row |= {"stimulus_thought": "", "stimulus_model": second}
            rows.append(row | {"label": label_of(kind, word)})
    return rows


def _drawn(texts: tuple[str, ...], key: str, n: int) -> list[str]:
    """The first n texts in an order that the key decides, the same in every version of every library."""
    return sorted(texts, key=lambda text: share(text, key))[:n]


def _lines(opens: str, rows, closes: str) -> str:
    return f"{opens}\n" + ",\n".join(rows) + f"\n{closes}\n"


def write(folder: Path) -> None:
    """Write the files into a folder."""
    for name, content in contents().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(SAMPLE)

"""Renderings: how a plain text becomes the prompt a model sees. The only place where prompts are made."""

SLOT = "{text}"


def render(text: str, rendering: str, wording: str = SLOT) -> str:
    """The prompt of a plain text.

    rendering: "plain" (the text itself) or "instructed" (`wording`, a task's instruction from the config, with the text
    in its one {text} slot). Other braces in text or wording are left as they are.
    """
    match rendering:
        case "plain":
            return text
        case "instructed":
            if wording.count(SLOT) != 1:
                raise ValueError(f"wording {wording!r} has {wording.count(SLOT)} slots {SLOT}; write exactly one")
            return wording.replace(SLOT, text)
    raise ValueError(f"no rendering {rendering!r}; choose plain or instructed")

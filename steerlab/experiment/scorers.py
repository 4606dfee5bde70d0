"""The scorers of texts that a configuration can name: those of the registry, and the classifiers that it defines."""

from steerlab.experiment.registry import TEXT_SCORERS, TextScorer

CLASSIFIER = "steerlab.scores.classifier:Classifier"


def text_scorer(config: dict, name: str) -> TextScorer:
    """The line of a scorer; raises KeyError for a name that neither the registry nor the configuration has."""
    if name in TEXT_SCORERS:
        return TEXT_SCORERS[name]
    definition = config["scores"]["classifiers"][name]
    return TextScorer(CLASSIFIER, definition["quantity"], definition=definition)


def known(config: dict) -> list[str]:
    """The names of all scorers of texts."""
    return [*TEXT_SCORERS, *config["scores"]["classifiers"]]

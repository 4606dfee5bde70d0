"""The style for readers who see colours otherwise, or none: what colours leave alike, markers and words tell apart.

Colour blindness is simulated with the matrices of Machado, Oliveira & Fernandes 2009 ("A Physiologically-based Model
for Simulation of Color Vision Deficiency", IEEE TVCG 15(6), severity 1.0), on linear RGB; distances are Euclidean in
Oklab (Ottosson 2020, "A perceptual color space for image processing"), where about 0.02 is just noticed.
"""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from steerlab.experiment.registry import METHODS
from steerlab.figures import marks, style

FULL = np.eye(3)
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
TRITANOPIA = [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
GREY = [[0.2126, 0.7152, 0.0722]] * 3  # relative luminance
EYES = {"full": FULL, "protanopia": PROTANOPIA, "deuteranopia": DEUTERANOPIA, "tritanopia": TRITANOPIA}
WITH_GREY = EYES | {"grey": GREY}

_TO_LMS = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
_TO_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]

STEERS = [method for method in style.COLOURS if not method.startswith(style.RANDOM)]
CONTROLS = [method for method in METHODS if method.startswith(style.RANDOM)]
APART = 0.07  # some three times what is just noticed
WHITE = (1.0, 1.0, 1.0)


def seen(colour: object, eye: object) -> np.ndarray:
    """A colour in Oklab as an eye sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    simulated = np.clip(np.array(eye) @ linear, 0, 1)
    return np.array(_TO_LAB) @ np.cbrt(np.array(_TO_LMS) @ simulated)


def distance(one: object, other: object, eye: object) -> float:
    return float(np.linalg.norm(seen(one, eye) - seen(other, eye)))


def test_the_measure_knows_what_is_confused():
    """White is (1, 0, 0) in Oklab; the eyes confuse the pairs of colours that are named after."""
    assert seen(WHITE, FULL) == pytest.approx([1, 0, 0], abs=1e-3)
    red, green = "#B3570A", "#6B7A00"
    assert distance(red, green, DEUTERANOPIA) < 0.05 < 0.12 < distance(red, green, FULL)
    assert distance("#0080FF", "#00A0A0", TRITANOPIA) < distance("#0080FF", "#00A0A0", FULL) / 2


@pytest.mark.parametrize("eye", EYES)
def test_methods_differ_in_colour_for_every_eye(eye):
    apart = {pair: distance(*map(style.colour, pair), EYES[eye]) for pair in itertools.combinations(STEERS, 2)}
    nearest = min(apart, key=lambda pair: apart[pair])
    assert apart[nearest] >= APART, nearest


@pytest.mark.parametrize("eye", WITH_GREY)
@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_differs_in_colour_from_its_method_for_every_eye_and_in_grey(eye, control):
    method = control.removeprefix(style.RANDOM)
    assert distance(style.colour(control), style.colour(method), WITH_GREY[eye]) >= APART


@pytest.mark.parametrize("eye", WITH_GREY)
@pytest.mark.parametrize("method", [*STEERS, *CONTROLS])
def test_every_colour_stands_out_from_the_paper(eye, method):
    assert distance(style.colour(method), WHITE, WITH_GREY[eye]) >= 2 * APART


def test_markers_and_fill_tell_all_methods_apart_without_colour():
    looks = [(style.marker(method), method in CONTROLS) for method in [*STEERS, *CONTROLS]]
    assert len(set(looks)) == len(looks)
    assert {style.marker(method) for method in METHODS} <= {*style.MARKERS.values()}


def test_several_methods_at_once_are_named_by_their_parts_and_look_alike():
    assert style.label("hpr_and_lm_steer") == "HPR and LM-Steer"
    assert style.label("civil_and_positive") == "civil and positive"
    for look in (style.colour, style.marker, style.rank):
        assert look("hpr_and_lm_steer") == look("composed") != look("civil_and_positive")


def test_words_tell_all_methods_apart():
    labels = [style.label(method) for method in {*STEERS, *METHODS}]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("eye", WITH_GREY)
def test_tints_of_one_colour_are_steps_of_lightness(eye):
    for places in range(2, 6):
        tints = [marks.shade(style.colour("lm_steer"), place, places) for place in range(places)]
        light = [seen(tint, WITH_GREY[eye])[0] for tint in tints]
        assert (np.diff(light) < -0.04).all()

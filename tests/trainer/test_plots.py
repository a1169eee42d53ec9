import base64
import xml.etree.ElementTree as ET

from services.shared.vocabulary import Vocabulary
from services.trainer import plots
from services.trainer.evaluate import Bin, Confusion


def opened(uri: str) -> ET.Element:
    head, _, content = uri.partition(",")
    assert head == "data:image/svg+xml;base64"
    return ET.fromstring(base64.b64decode(content))


def test_a_plot_is_an_image_in_which_nothing_runs_or_is_fetched() -> None:
    picture = opened(plots.loss([(1, 3.0), (2, 2.5)]))

    for element in picture.iter():
        assert element.tag.rpartition("}")[2] not in ("script", "foreignObject", "a", "image")
        for name, value in element.attrib.items():
            if name.endswith("href"):
                assert value.startswith("#")


def test_the_same_figures_make_the_same_plot() -> None:
    bars = [Bin(5, 0.4, 0.6, 0.2, 0.9)]

    assert plots.reliability(bars, bars) == plots.reliability(bars, bars)


def test_names_that_matplotlib_has_no_letters_for_are_drawn_all_the_same() -> None:
    known = Vocabulary(("🪅", "🇨🇮", "#️⃣"), (1, 1, 1))  # piñata, Côte d'Ivoire

    opened(plots.confusions([Confusion(1, 0, 3, 0.5, ()), Confusion(2, 1, 1, 0.5, ())], known))


def test_a_single_step_makes_a_curve() -> None:
    opened(plots.loss([(1, 3.0)]))

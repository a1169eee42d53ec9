from collections.abc import Callable
from pathlib import Path

import pytest

from services.shared import synsets
from services.shared.synsets import Row, load
from services.shared.vocabulary import inventory

NEVER_A_FACE = {*"💩👹👺👽👾👿💀👻🐵🐒🙈🙉🙊🐷🐽🐖🐗"}
PRIMATES = range(365, 385)
SWINE = range(341, 344)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return load()


def emoji_of(rows: list[Row], synset: str) -> list[str]:
    return [row.emoji for row in rows if row.synset == synset]


def test_all_thousand_classes_appear_in_order(rows: list[Row]) -> None:
    assert sorted({row.class_index for row in rows}) == list(range(1000))
    assert rows == sorted(rows, key=lambda row: (row.class_index, -row.weight))


def test_the_classes_are_those_of_timm(rows: list[Row]) -> None:
    ours = dict.fromkeys((row.synset, row.name) for row in rows)

    assert list(ours) == [(facts.synset, facts.lemmas[0]) for facts in synsets.imagenet()]


def test_every_emoji_is_in_the_inventory(rows: list[Row]) -> None:
    assert {row.emoji for row in rows if row.emoji} <= {emoji.text for emoji in inventory()}


def test_the_weights_of_a_class_leave_room_for_none_of_these(rows: list[Row]) -> None:
    sums = [0.0] * 1000
    for row in rows:
        sums[row.class_index] += row.weight

    assert max(sums) <= 1 + 1e-9
    assert all((row.weight > 0) == bool(row.emoji) == (row.how != "none") for row in rows)


def test_most_classes_have_an_emoji_and_hundreds_of_emoji_come_first(rows: list[Row]) -> None:
    best: dict[int, str] = {}
    for row in rows:
        if row.emoji:
            best.setdefault(row.class_index, row.emoji)

    assert len(best) >= 970
    assert len({row.emoji for row in rows if row.emoji}) >= 410
    assert len(set(best.values())) >= 300


@pytest.mark.parametrize(
    ("synset", "expected"),
    [
        pytest.param("n02012849", ["🐦"], id="crane-the-bird"),
        pytest.param("n03126707", ["🚧", "👷", "🏢"], id="crane-the-machine"),
        pytest.param("n03000247", ["🏰"], id="chain-mail-is-no-letter"),
        pytest.param("n03160309", ["🌊", "💧", "💦"], id="dam"),
        pytest.param("n07714990", ["🌳", "🌿", "🍃"], id="broccoli-is-no-truck"),
        pytest.param("n03355925", ["🚩", "🇺🇸", "🎌"], id="flagpole-is-no-dango"),
        pytest.param("n01847000", ["🐦", "🐤"], id="drake-the-duck"),
        pytest.param("n07730033", ["🌸", "🌿"], id="cardoon-is-no-car"),
        pytest.param("n03773504", ["🚀", "💣"], id="missile"),
        pytest.param("n04008634", ["🚀", "💣"], id="projectile-shows-missiles"),
        pytest.param("n03710637", ["👙", "🏊"], id="maillot-the-tights-shows-swimsuits"),
        pytest.param("n03710721", ["👙", "🏊"], id="maillot-the-swimsuit"),
        pytest.param("n02229544", ["🐛", "🌿"], id="cricket-the-insect"),
        pytest.param("n03793489", ["💻"], id="mouse-the-device"),
        pytest.param("n13052670", ["🍄"], id="hen-of-the-woods-is-a-mushroom"),
        pytest.param("n02389026", ["🐴", "🐎"], id="sorrel-the-horse"),
        pytest.param("n03680355", ["👞"], id="loafer-the-shoe"),
        pytest.param("n03786901", ["🌿", "🍴"], id="mortar-and-pestle"),
        pytest.param("n02879718", ["🎯"], id="bow-the-weapon"),
        pytest.param("n03804744", ["🔨", "🔩"], id="nail-is-no-finger"),
        pytest.param("n04153751", ["🔩"], id="screw"),
        pytest.param("n03110669", ["🎺"], id="cornet-is-no-ice-cream"),
        pytest.param("n03250847", ["🎵", "🎶"], id="drumstick-is-no-leg"),
        pytest.param("n04389033", ["💣", "💥", "🔫"], id="tank-is-no-tub"),
        pytest.param("n01641577", ["🐸"], id="bullfrog-is-no-bull"),
        pytest.param("n07590611", ["🍲"], id="hot-pot"),
        pytest.param("n04326547", [""], id="stone-wall"),
        pytest.param("n01580077", ["🐦"], id="jay"),
        pytest.param("n01608432", ["🐦"], id="kite-the-bird"),
        pytest.param("n02412080", ["🐏", "🐑"], id="ram-is-no-sign"),
        pytest.param("n02403003", ["🐂", "🐮"], id="ox"),
        pytest.param("n02443114", ["🐾", "🐭"], id="polecat-is-no-cat"),
        pytest.param("n02128385", ["🐆"], id="leopard"),
        pytest.param("n07930864", ["☕", "🍵"], id="cup"),
        pytest.param("n02174001", ["🐛", "🐞"], id="rhinoceros-beetle"),
        pytest.param("n02172182", ["🐛", "🐞"], id="dung-beetle-is-no-dung"),
        pytest.param("n02110627", ["🐶", "🐕"], id="monkey-pinscher-is-a-dog"),
        pytest.param("n03724870", ["🎭"], id="mask-is-no-goblin"),
        pytest.param("n03954731", ["🔨", "🔧"], id="plane-the-tool"),
        pytest.param("n03832673", ["💻"], id="notebook-the-computer"),
        pytest.param("n03935335", ["💰"], id="piggy-bank-is-no-pig"),
    ],
)
def test_a_word_with_two_meanings_means_the_class(
    rows: list[Row], synset: str, expected: list[str]
) -> None:
    assert emoji_of(rows, synset) == expected


def test_only_real_apes_and_pigs_mean_apes_and_pigs(rows: list[Row]) -> None:
    classes = {row.class_index for row in rows if row.emoji in NEVER_A_FACE}

    assert classes <= {*PRIMATES, *SWINE}


def test_no_face_wear_means_an_animal_or_a_fantastic_face(rows: list[Row]) -> None:
    subgroups = {emoji.text: emoji.subgroup for emoji in inventory()}
    worn = {
        *("abaya", "bathing cap", "bearskin", "bolo tie", "bonnet", "bow tie", "bulletproof vest"),
        *("Band Aid", "cloak", "cowboy hat", "crash helmet", "face powder", "football helmet"),
        *("fur coat", "gasmask", "hair slide", "hair spray", "jersey", "lab coat", "lipstick"),
        *("mask", "military uniform", "mortarboard", "neck brace", "oxygen mask", "pickelhaube"),
        *("shower cap", "ski mask", "sombrero", "stole", "suit", "sunglass", "sunglasses"),
        *("sweatshirt", "trench coat", "wig", "Windsor tie"),
    }
    found = {(row.name, subgroups.get(row.emoji, "")) for row in rows if row.name in worn}

    assert {name for name, _ in found} == worn
    refused = ("animal", "monkey", "cat-face", "face-costume", "face-negative")
    assert not {pair for pair in found if pair[1].startswith(refused)}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("class\t", "index\t", 1), "the columns are class"),
        (lambda text: text.replace("🐩\t0.85", "🐩\tmuch", 1), "is no row of"),
        (lambda text: text.replace("🐩\t0.85", "🐩\t0.95", 1), "in sum, at most 1"),
        (lambda text: text.replace("🐩\t0.85", "🐩\t0.05", 1), "best emoji first"),
        (lambda text: text.replace("🐩", "🦀", 1), "emoji of the inventory"),
        (lambda text: text.replace("🐩", "🐶", 1), "each emoji once"),
        (lambda text: text.replace("n02113624", "n0211362", 1), "one synset"),
        (lambda text: text.replace("n02113624", "n02113712"), "two classes have the same synset"),
        (lambda text: text.replace("kind", "kin", 1), "says how"),
        (lambda text: "".join(text.splitlines(keepends=True)[:-2]), "the classes are 0 to 999"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused(
    tmp_path: Path, edit: Callable[[str], str], message: str
) -> None:
    table = tmp_path / "synsets.tsv"
    table.write_text(edit(synsets.PATH.read_text(encoding="utf-8")), encoding="utf-8")

    with pytest.raises(ValueError, match=message):
        load(table)

import contextlib
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.errors import MalformedRequest
from services.trainer import recipe
from services.trainer.recipe import Mode, Recipe


def refusal(name: str, settings: dict[str, str]) -> MalformedRequest:
    with pytest.raises(MalformedRequest) as caught:
        recipe.read(name, settings)
    return caught.value


def test_every_recipe_we_ship_can_be_read_and_is_called_as_its_file() -> None:
    assert {"article", "glyphs", "photos", "quick"} == set(recipe.names())
    for name in recipe.names():
        assert recipe.read(name).name == name


def test_every_recipe_says_its_command() -> None:
    for name in recipe.names():
        text = (recipe.RECIPES / f"{name}.py").read_text()
        assert f"start {name}" in text or f"run {name}" in text


def test_settings_change_fields_and_are_json_or_text() -> None:
    changed = recipe.read(
        "quick", {"steps": "7", "mode": "full", "warm_start": "false", "backbone": '"resnet18"'}
    )
    assert (changed.steps, changed.mode, changed.warm_start) == (7, Mode.FULL, False)
    assert changed.backbone == "resnet18"


def test_an_unknown_recipe_names_the_closest() -> None:
    error = refusal("quikc", {})
    assert "did you mean quick?" in str(error)
    assert error.metadata == {"field": "recipe"}


def test_an_unknown_field_names_the_closest() -> None:
    error = refusal("quick", {"learning_rat": "1"})
    assert "did you mean learning_rate?" in str(error)
    assert error.metadata == {"field": "settings.learning_rat"}


@pytest.mark.parametrize("name", ["../quick", "__init__", "", "quick\0", "services", "q" * 5000])
def test_a_recipe_is_no_path(name: str) -> None:
    assert len(str(refusal(name, {}))) < 300


def test_the_name_is_not_for_changing() -> None:
    assert "no field 'name'" in str(refusal("quick", {"name": "other"}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", "0"),
        ("steps", "1.5"),
        ("steps", "true"),
        ("steps", "1e400"),
        ("learning_rate", "0"),
        ("learning_rate", "NaN"),
        ("learning_rate", "-Infinity"),
        ("learning_rate", "[1]"),
        ("label_smoothing", "1.01"),
        ("mode", "most"),
        ("warm_start", "1"),
        ("backbone", "7"),
        ("weights", '"a\\u0000b"'),
        ("size_px", "31"),
        ("size_px", "1025"),
        ("seed", "-1"),
        ("batch", "99999999999"),
        ("precision", "[" * 100_000),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_its_field(field: str, value: str) -> None:
    error = refusal("quick", {field: value})
    assert error.metadata == {"field": f"settings.{field}"}
    assert f"recipe's {field} is" in str(error)
    assert len(str(error)) < 300


@given(st.sampled_from([f.name for f in fields(Recipe)]), st.text(max_size=30))
def test_whatever_a_setting_says_it_is_taken_or_refused(field: str, text: str) -> None:
    with contextlib.suppress(MalformedRequest):
        assert isinstance(recipe.read("quick", {field: text}), Recipe)

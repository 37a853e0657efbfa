"""Templates become questions that change only where something changes that matters."""

import pytest

from lpmppl.effects.language.prompts import Prompt
from lpmppl.errors import InputError

ASKED = Prompt("mask", "You are {{ age }}; {{ share | percent }} wear one{% if mandate %}, as they must{% endif %}.")


def test_a_template_is_filled_with_words_and_numbers():
    text = ASKED.text({"age": "18–39", "income": "high"}, {"share": 0.42, "mandate": 1.0}, ("mask", "no mask"))
    assert text == "You are 18–39; 40 % wear one, as they must."
    assert ASKED.text({"age": "18–39"}, {"share": 0.44, "mandate": 0.0}, ()) == "You are 18–39; 40 % wear one."


def test_fields_that_are_not_known_are_refused_by_name():
    assert ASKED.fields == ["age", "mandate", "share"]
    ASKED.check(["age", "mandate", "share", "options"])
    with pytest.raises(InputError, match=r"field in the prompt of decision 'mask' 'age'.*ages"):
        ASKED.check(["ages", "mandate", "share"])


@pytest.mark.parametrize(
    ("template", "words"),
    [("{{ age", "line 1"), ("\n{% if age %}", "line 2"), ("{{ age | roughly }}", "roughly")],
)
def test_templates_that_can_not_be_read_are_refused(template: str, words: str):
    with pytest.raises(InputError, match=f"prompt of decision 'mask'.*{words}"):
        Prompt("mask", template)


@pytest.mark.parametrize(
    "template", ["{{ age | percent }}", "{{ age.__class__.__mro__ }}", "{{ 1 / share }}", "{{ [].pop() }}"]
)
def test_templates_that_can_not_be_filled_in_are_refused(template: str):
    with pytest.raises(InputError, match="can't be filled in"):
        Prompt("mask", template).text({"age": "old"}, {"share": 0.0}, ("a", "b"))


def test_versions_tell_templates_apart():
    assert ASKED.version == Prompt("other", ASKED.template).version != Prompt("mask", "Do you?").version


def test_a_template_that_is_no_text_is_refused():
    with pytest.raises(InputError, match="prompt of decision 'mask' is a NoneType"):
        Prompt("mask", None)


@pytest.mark.parametrize("name", ["range", "dict", "cycler", "namespace"])
def test_fields_may_be_called_what_jinja_knows_by_itself(name: str):
    prompt = Prompt("mask", "Your range is {{ " + name + " }}.")
    assert prompt.fields == [name]
    assert prompt.text({name: "wide"}, {}, ()) == "Your range is wide."


def test_a_prompt_has_no_chance_of_its_own():
    with pytest.raises(InputError, match="random"):
        Prompt("mask", "{{ options | random }}")

"""The contract of `docs/messages.md`: golden messages, schemas, examples and field tables."""

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest

from monitor.sinks import schemas
from monitor.sinks.envelope import encode
from tests.sinks import goldens

GOLDENS = Path(__file__).parents[1] / "golden" / "messages"
DOCUMENT = Path(__file__).parents[2] / "docs" / "messages.md"
SCHEMAS = DOCUMENT.parent / "schemas"

ELSEWHERE = {"Quantities", "DirectionQuantities"}
"""Parts whose fields have a document of their own."""


def schema_of(kind):
    return json.loads((SCHEMAS / f"{kind.replace(':', '-')}.json").read_text("utf-8"))


def validator(kind):
    return jsonschema.Draft202012Validator(schema_of(kind))


def written(name):
    return encode(goldens.MESSAGES[name], goldens.RUN)


@pytest.mark.parametrize("name", goldens.MESSAGES)
def test_a_message_is_written_as_it_always_was(name):
    path = GOLDENS / f"{name}.json"
    if os.environ.get("REWRITE") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(written(name) + b"\n")
    assert written(name) + b"\n" == path.read_bytes(), "REWRITE=1 if that is what you want"


def test_every_kind_has_a_golden_message_and_no_golden_is_of_none():
    assert {m.kind for m in goldens.MESSAGES.values()} == set(schemas.BODIES)
    assert {path.stem for path in GOLDENS.iterdir()} == set(goldens.MESSAGES)


def test_every_body_of_a_message_has_a_schema():
    from monitor.events import Body, Kind

    bodies = {body for bodies in schemas.BODIES.values() for body in bodies}
    assert bodies == set(Body.__args__)
    assert set(schemas.BODIES) == set(Kind.__args__)


def test_the_schemas_are_current(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["schemas", "--check"])
    monkeypatch.chdir(SCHEMAS.parents[1])
    assert schemas.main() == 0, capsys.readouterr().err


def test_a_schema_that_is_not_current_is_named_and_written_anew(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["schemas"])
    assert schemas.main() == 0
    (tmp_path / "docs/schemas/risk.json").write_text("{}")
    (tmp_path / "docs/schemas/gone.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["schemas", "--check"])
    assert schemas.main() == 1
    assert {Path(line.split()[0]).name for line in capsys.readouterr().err.splitlines()} == {
        "gone.json",
        "risk.json",
    }
    monkeypatch.setattr("sys.argv", ["schemas"])
    assert schemas.main() == 0
    assert {path.name for path in (tmp_path / "docs/schemas").iterdir()} == {
        path.name for path in SCHEMAS.iterdir()
    }


@pytest.mark.parametrize("kind", schemas.BODIES)
def test_a_schema_is_one_of_draft_2020_12(kind):
    jsonschema.Draft202012Validator.check_schema(schema_of(kind))


@pytest.mark.parametrize("name", goldens.MESSAGES)
def test_a_golden_message_validates_and_only_against_its_own_kind(name):
    decoded = json.loads(written(name))
    validator(decoded["kind"]).validate(decoded)
    for kind in schemas.BODIES.keys() - {decoded["kind"]}:
        assert not validator(kind).is_valid(decoded)


@pytest.mark.parametrize("name", goldens.MESSAGES)
def test_a_message_that_lacks_a_field_does_not_validate_but_one_with_more_does(name):
    decoded = json.loads(written(name))
    validate = validator(decoded["kind"])
    optional = {
        "missing",
        "code",
        "subject",
        "quantities",
        "ungraded",
        "why",
        "contagion_learnt",
    }  # later than the first version of their kind
    for field in decoded["data"].keys() - optional:
        poorer = {key: value for key, value in decoded["data"].items() if key != field}
        assert not validate.is_valid(decoded | {"data": poorer}), field
    for field in decoded.keys() - {"venue"}:
        assert not validate.is_valid({k: v for k, v in decoded.items() if k != field}), field
    richer = decoded | {"later": 1, "data": decoded["data"] | {"later": 1}}
    validate.validate(richer)


def test_the_documented_examples_are_the_golden_messages():
    blocks = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text("utf-8"), flags=re.DOTALL)
    examples = [json.loads(block) for block in blocks]
    golden = [json.loads(written(name)) for name in goldens.MESSAGES]
    assert all(example in golden for example in examples)
    assert {example["kind"] for example in examples} == set(schemas.BODIES)


def fields_of(schema, parts):
    """Every property in a schema, however deep."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = {} if name in ELSEWHERE else parts[name]
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield from fields_of(inner, parts)
    inner = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    inner += [part for part in (schema.get("items"),) if isinstance(part, dict)]
    for part in inner:
        yield from fields_of(part, parts)


@pytest.mark.parametrize("kind", schemas.BODIES)
def test_every_field_is_in_the_table_of_its_kind(kind):
    sections = re.split(r"^## ", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.startswith(f"{kind}\n")]
    rows = "\n".join(line for line in section.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", rows))))
    schema = schema_of(kind)
    fields = set(fields_of(schema["properties"]["data"], schema["$defs"]))
    assert fields <= named


def test_no_integer_exceeds_what_javascript_can_hold():
    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, int) else []

    for name in goldens.MESSAGES:
        assert max(numbers(json.loads(written(name)))) < 2**53

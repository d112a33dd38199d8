import json

import jsonschema
import pytest
from conversations import BAD, FUNCTIONS, GOOD

from lf_export.errors import InputError
from lf_export.functions.answers import Call, write_calls
from lf_export.functions.schemas import json_schema, plain_schema
from lf_export.functions.spec import FunctionSpec


def test_a_schema_may_hold_itself() -> None:
    tree = {"type": "object", "properties": {"x": {"$ref": "#/properties/x"}, "leaf": {"type": "string"}}}
    spec = FunctionSpec("f", "", {"type": "object", "properties": {"x": tree}, "required": ["x"]})
    for build in (json_schema, plain_schema):
        jsonschema.validate({"function_call": {"name": "f", "arguments": {"x": {"x": {}}}}}, build([spec]))


@pytest.mark.parametrize("call", GOOD)
def test_the_json_schema_takes_every_good_call(call: Call) -> None:
    jsonschema.validate(json.loads(write_calls([call])), json_schema(FUNCTIONS))
    jsonschema.validate(json.loads(write_calls([call]))["function_call"], json_schema(FUNCTIONS, "hermes"))


@pytest.mark.parametrize("call", BAD)
def test_the_json_schema_takes_no_bad_call(call: Call) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(write_calls([call])), json_schema(FUNCTIONS))


@pytest.mark.parametrize("call", GOOD)
def test_the_plain_schema_takes_every_good_call(call: Call) -> None:
    jsonschema.validate(json.loads(write_calls([call])), plain_schema(FUNCTIONS))


@pytest.mark.parametrize("call", BAD)
def test_the_plain_schema_takes_no_bad_call(call: Call) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(write_calls([call])), plain_schema(FUNCTIONS))


def test_no_functions_have_no_schema() -> None:
    for build in (json_schema, plain_schema):
        with pytest.raises(InputError, match="at least one function"):
            build(())

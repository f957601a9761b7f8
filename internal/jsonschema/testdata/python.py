"""Writes what Kinto's Python says of cases: python.py CASES.txt > python.json

Needs Kinto. A line of CASES.txt is a schema; lines that begin with a blank are
the objects that it is asked about.
"""

import json
import sys
import warnings

from jsonschema import SchemaError, ValidationError
from jsonschema.validators import Draft7Validator, validator_for
from referencing.exceptions import Unresolvable

warnings.simplefilter("ignore")


def field(e):
    try:
        if e.path:
            return e.path[-1]
        if e.validator_value:
            return e.validator_value[-1]
        return e.schema_path[-1]
    except Exception:
        return None


def judge(schema, data):
    case = {"Schema": schema, "Data": data, "Definition": None, "Outcome": "valid", "Field": None, "Message": ""}
    try:
        Draft7Validator.check_schema(schema)
    except SchemaError as e:
        try:
            case["Definition"] = str(e.path.pop()) + e.message
        except IndexError:
            case["Definition"] = e.message
    try:
        cls = validator_for(schema)
        cls.check_schema(schema)
        cls(schema).validate(data)
    except SchemaError:
        case["Outcome"] = "refused"
    except ValidationError as e:
        case.update(Outcome="invalid", Field=field(e), Message=e.message)
    except Unresolvable as e:
        case.update(Outcome="unresolvable", Message=str(e))
    except Exception:
        case["Outcome"] = "crash"
    return case


def main():
    cases, schema = [], None
    for line in open(sys.argv[1]):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith(" "):
            cases.append(judge(schema, json.loads(line)))
        else:
            schema = json.loads(line)
    print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")


if __name__ == "__main__":
    main()

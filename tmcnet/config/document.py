"""Write the documents of the typed config: `python -m tmcnet.config.document` and `... document schema`.

The first is `config/README.md`, the second `config/schema.json`, with which editors complete and check config files.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import types
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tmcnet.config.base import Section
from tmcnet.config.root import Config, section_of

_HEAD = """# Every config key

`make docs` writes this page from the typed config in `tmcnet/config/`; a test fails if it is out of date.
Unknown keys, missing keys and values out of their limits stop the workflow at once with a message that names them.
`config/config.yaml` is the demo. A recipe in `config/recipes/` overrides its keys one by one
(`snakemake --cores 8 --configfile config/recipes/zion.yaml`); lists are replaced as a whole, `null` empties a key.
`data_root` and `results_dir` can also be given on the command line (`--config data_root=/somewhere`).

A rule reruns if a section that it depends on changes; other sections do not rerun it.
"""


def document() -> str:
    """The whole page as Markdown."""
    return "\n".join([_HEAD, *(line for path, model in _sections("", Config) for line in _table(path, model))])


def _sections(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """A section and all in it, with their paths."""
    yield path, model
    for name, field in model.model_fields.items():
        child, suffix = _child(field.annotation)
        if child is not None:
            yield from _sections(f"{path}.{name}{suffix}".lstrip("."), child)


def _table(path: str, model: type[BaseModel]) -> Iterator[str]:
    meanings = _meanings(model)
    yield f"## {'`' + path + '`' if path else 'Top level'}\n"
    yield f"{_title(model)}\n"
    yield "| key | type and limits | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        child, suffix = _child(field.annotation)
        if child is None:
            kind, default, meaning = _type(field.annotation), _default(field.default), meanings[name]
        else:
            kind, default, meaning = f"section{'s' if suffix else ''}, below", "", meanings.get(name, _title(child))
        yield f"| `{name}` | {kind}{_limits(field)} | {default} | {_escape(meaning)} |"
    yield ""


def _title(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """The text below each key. With `use_attribute_docstrings`, pydantic would read it in every job, for 50 ms."""
    parsed = [ast.parse(inspect.getsource(c)).body[0] for c in reversed(model.__mro__) if issubclass(c, Section)]
    pairs = [pair for section in parsed if isinstance(section, ast.ClassDef) for pair in pairwise(section.body)]
    return {
        ast.unparse(key.target): " ".join(str(ast.literal_eval(text.value)).split())
        for key, text in pairs
        if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def _child(annotation: Any) -> tuple[type[BaseModel] | None, str]:  # noqa: ANN401 - annotations are of any kind
    """The section that a key holds, and what follows the key in its path."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        annotation = annotation.model_fields["root"].annotation
    return section_of(annotation), {list: "[]", dict: ".<name>"}.get(get_origin(annotation), "")


def _type(annotation: Any) -> str:  # noqa: ANN401 - annotations are of any kind
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{a}`" for a in args)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _type(a) for a in args)
    if origin is list:
        return f"list of {_type(args[0])}"
    if origin is tuple:
        return f"{len(args)} values: {_type(args[0])}"
    if origin is dict:
        return f"names with {_type(args[1])}"
    if hasattr(annotation, "__metadata__"):
        return _type(args[0])
    name = str(annotation.__name__)
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(name, name)


def _limits(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [f"{sign} {getattr(m, key):g}" for m in field.metadata for key, sign in signs.items() if hasattr(m, key)]
    return "".join(f", {limit}" for limit in found)


def _default(value: Any) -> str:  # noqa: ANN401 - defaults are of any kind
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, dict):
        value = {k: v.model_dump(exclude_unset=True) if isinstance(v, BaseModel) else v for k, v in value.items()}
    plain = list(value) if isinstance(value, tuple) else value
    text = str(yaml.safe_dump(plain, default_flow_style=True, width=1000)).removesuffix("\n...\n").strip()
    return f"`{_escape(text)}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def schema() -> str:
    """JSON schema of config files. Nothing is required in it, because a file may override single keys of another."""
    made = _without_required(Config.model_json_schema())
    for _, model in _sections("", Config):
        keys = made["$defs"].get(model.__name__, made)["properties"]
        for name, meaning in _meanings(model).items():
            keys[name] = dict(sorted({**keys[name], "description": meaning}.items()))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Config of tmcnet"}
    return json.dumps({**head, **{key: part for key, part in made.items() if key != "title"}}, indent=1) + "\n"


def _without_required(part: Any) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(part, dict):
        kept = {k: v for k, v in part.items() if not (k == "required" and isinstance(v, list))}
        return {key: _without_required(value) for key, value in kept.items()}
    return [_without_required(item) for item in part] if isinstance(part, list) else part


if __name__ == "__main__":
    sys.stdout.write(schema() if sys.argv[1:] == ["schema"] else document())

"""The rules that a job may ask for: models of `gradsmith.rules.configs`, which has the settings and their bounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import (
    BaseModel,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from gradsmith.errors import UnknownRule
from gradsmith.rules.assignment import REST, best_match
from gradsmith.rules.configs import CONFIGS, RuleConfig
from models.task_spec import Part, Spec


class RuleSpec(Spec):
    """The kind of a rule and its settings. Each kind has a subclass, which `RULE_SPECS` names."""

    config_class: ClassVar[type[RuleConfig]]

    if TYPE_CHECKING:
        kind: str
        output_scale: float

    @property
    def config(self) -> RuleConfig:
        """The same settings as the rule itself has them."""
        return _config_of(self)

    @model_validator(mode="after")
    def _as_a_rule(self) -> RuleSpec:
        """What one setting's bounds cannot say, such as which inputs a head needs."""
        try:
            _ = self.config
        except UnknownRule as error:
            raise ValueError(str(error)) from error
        return self


@lru_cache(maxsize=256)  # a POST asks for it several times, and making one checks every setting
def _config_of(spec: RuleSpec) -> RuleConfig:
    return spec.config_class(**spec.model_dump(exclude={"kind"}))


def _spec_of(config: type[RuleConfig]) -> type[RuleSpec]:
    fields: dict[str, Any] = {"kind": (Literal[config.kind], config.kind)}
    for name, default, bounds in config.settings():
        annotation = Literal[bounds.choices] if bounds.choices else type(default)
        limits: dict[str, Any] = {"ge": bounds.at_least, "gt": bounds.above, "le": bounds.at_most}
        if bounds.names:
            one = f"({'|'.join(bounds.names)})"
            limits["pattern"] = rf"^{one}(\+{one})*$"
        given = {limit: value for limit, value in limits.items() if value is not None}
        described: Any = Field(default, description=bounds.description or None, **given)
        fields[name] = (annotation, described)
    name = config.__name__.removesuffix("Config") + "RuleSpec"
    made = create_model(name, __base__=RuleSpec, __module__=__name__, __doc__=config.__doc__, **fields)
    made.config_class = config
    return made


RULE_SPECS: dict[str, type[RuleSpec]] = {kind: _spec_of(config) for kind, config in CONFIGS.items()}
"""The model of each kind of rule, by its name."""


@dataclass(frozen=True)
class ByKind:
    """An annotation: an object is validated by the model of the `kind` that it names, or of `usual` where it names
    none. Errors have the place and the words that the model alone would give them.

    choices: the model of each kind
    """

    choices: Mapping[str, type[BaseModel]]
    usual: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validated, serialization=core_schema.simple_ser_schema("any")
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # Not a tagged union: `kind` may be left out.
        return handler(core_schema.union_schema([each.__pydantic_core_schema__ for each in self.choices.values()]))

    def _validated(self, value: Any) -> BaseModel:
        if isinstance(value, tuple(self.choices.values())):
            assert isinstance(value, BaseModel)
            return value
        if not isinstance(value, Mapping):
            words = "Input should be an object with the field `kind`"
            raise PydanticCustomError("model_type", words, {"kinds": [self.usual, *self.choices]})
        kind = value.get("kind", self.usual)
        if not isinstance(kind, str) or kind not in self.choices:
            expected = " or ".join(repr(name) for name in self.choices)
            wrong = InitErrorDetails(type="literal_error", loc=("kind",), input=kind, ctx={"expected": expected})
            raise ValidationError.from_exception_data("rule", [wrong])
        model = self.choices[kind]
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise ValidationError.from_exception_data(error.title, _with_known_fields(error, model)) from error


def _with_known_fields(error: ValidationError, model: type[BaseModel]) -> list[InitErrorDetails]:
    """The errors; those of unknown fields say in their context which fields the model has."""
    details = []
    for each in error.errors(include_url=False):
        kind: str | PydanticCustomError = each["type"]
        context = dict(each.get("ctx", {}))
        if kind == "extra_forbidden" and len(each["loc"]) == 1:
            kind = PydanticCustomError("extra_forbidden", each["msg"], {"known": list(model.model_fields)})
        details.append(InitErrorDetails(type=kind, loc=each["loc"], input=each["input"], ctx=context))
    return details


def without_default(schema: dict[str, Any]) -> None:
    """Take the default out of a field's JSON schema: generators of clients drop a model with a union that has one."""
    schema.pop("default", None)


USUAL = RULE_SPECS["lstm"].model_validate({})
"""The rule of a spec that says nothing of it."""

if TYPE_CHECKING:
    AnyRule: TypeAlias = RuleSpec
else:
    AnyRule = Annotated[Any, ByKind(RULE_SPECS, USUAL.kind)]
"""A RuleSpec of any kind."""

RulePattern = Annotated[str, Field(min_length=1, max_length=128)]
"""A name of a part, a glob over names, or a role: see `gradsmith.rules.assignment`."""

Assigned: TypeAlias = dict[str, tuple[RuleSpec, tuple[Part, ...]]]
"""Each pattern that has parts, with its rule and these."""


def assigned(rule: RuleSpec, rules: Mapping[str, RuleSpec], parts: Sequence[Part]) -> Assigned:
    """Which rule moves which parts of a task. rule: that of all that no pattern of `rules` matches"""
    everything = {**rules, REST: rule}
    found: dict[str, list[Part]] = {}
    for part in parts:
        pattern = best_match(everything, part.name, (part.role,))
        assert pattern is not None, f"{REST} matches everything"
        found.setdefault(pattern, []).append(part)
    return {pattern: (everything[pattern], tuple(its)) for pattern, its in sorted(found.items())}


def without_room(found: Assigned) -> str | None:
    """What is wrong, in words, where a rule has a memory for fewer coordinates than its parts have together."""
    for rule, parts in found.values():
        most, size = rule.config.most_coordinates, sum(part.size for part in parts)
        if most is not None and size > most:
            return (
                f"a rule of kind {rule.kind!r} with this memory_size moves {most} coordinates of a task at most, and "
                f"is to move {size}; send a larger memory_size (256 at most), smaller tasks or a rule of another kind"
            )
    return None


def uncovered(patterns: Collection[str], parts: Sequence[Part]) -> Part | None:
    """The first part that none of the patterns matches; None where all have one."""
    return next((part for part in parts if best_match(patterns, part.name, (part.role,)) is None), None)

"""The rules of CRDs and ValidatingAdmissionPolicies in local mode, as on a cluster and with its wording.

CEL is evaluated by `common-expression-language`. It lacks some of the functions that Kubernetes adds to CEL;
a rule that needs one is left out with a warning in the log, so that a CRD of somebody else still works.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import cel
import structlog

from controller.runtime.apiserver import decoding
from controller.runtime.apiserver.schema import Cause
from controller.runtime.apiserver.values import child
from controller.runtime.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from controller.runtime.apiserver import AdmissionRequest

JSON = dict[str, Any]

_log = structlog.get_logger(__name__)

_RULES: Final = "x-kubernetes-validations"
_ABSENT: Final = object()


class Admission:
    """A validator for `Core.add_validator`.

    Args:
        manifests: ValidatingAdmissionPolicies and their bindings; other objects are left out, as is a policy
            that no binding puts into effect.
    """

    def __init__(self, manifests: Iterable[JSON] = ()) -> None:
        found = list(manifests)
        bindings = {
            manifest["spec"]["policyName"]: manifest["metadata"]["name"]
            for manifest in found
            if manifest["kind"] == "ValidatingAdmissionPolicyBinding"
        }
        self._policies = [
            _Policy(manifest, bindings[manifest["metadata"]["name"]])
            for manifest in found
            if manifest["kind"] == "ValidatingAdmissionPolicy" and manifest["metadata"]["name"] in bindings
        ]

    def __call__(self, request: AdmissionRequest) -> None:
        """Raises Invalid where a rule or a policy refuses the write."""
        if request.new is not None and request.kind.schema is not None:
            old = _ABSENT if request.old is None else request.old
            if causes := list(_broken_rules(request.kind.schema, request.new, old, "")):
                raise decoding.refusal(request.kind, request.new["metadata"].get("name", ""), causes)
        for policy in self._policies:
            policy.judge(request)


def _broken_rules(schema: JSON, value: Any, old: Any, path: str) -> Iterator[Cause]:
    """Yields what breaks a rule; what an update leaves as it was is not judged again."""
    if value == old or value is None:
        return
    for rule in schema.get(_RULES, ()):
        variables = {"self": value} if old is _ABSENT else {"self": value, "oldSelf": old}
        if old is _ABSENT and "oldSelf" in rule["rule"]:
            continue
        if (problem := _problem(rule, "rule", variables)) is not None:
            field = f"{path}{rule.get('fieldPath', '')}"
            yield Cause(field, "FieldValueInvalid", f"Invalid value: {problem}")
    if isinstance(value, dict):
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            inner = properties.get(key, extra)
            if isinstance(inner, dict):
                before = old.get(key, _ABSENT) if isinstance(old, dict) else _ABSENT
                yield from _broken_rules(inner, item, before, child(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            before = _counterpart(schema, item, old)
            yield from _broken_rules(schema.get("items", {}), item, before, child(path, index))


def _counterpart(schema: JSON, item: Any, old: Any) -> Any:
    """The entry of the old list with the same keys, where the list has keys."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys and isinstance(old, list):
        for entry in old:
            if all(entry.get(key) == item.get(key) for key in keys):
                return entry
    return _ABSENT


class _Policy:
    """One ValidatingAdmissionPolicy in effect."""

    def __init__(self, manifest: JSON, binding: str) -> None:
        self._name: str = manifest["metadata"]["name"]
        self._binding = binding
        self._spec: JSON = manifest["spec"]

    def judge(self, request: AdmissionRequest) -> None:
        """Raises Invalid where the policy refuses the write."""
        rules = self._spec["matchConstraints"]["resourceRules"]
        if not any(_speaks_of(rule, request) for rule in rules):
            return
        variables: JSON = {"object": request.new, "oldObject": request.old, "variables": {}}
        variables["request"] = {"operation": request.operation}
        for condition in self._spec.get("matchConditions") or ():
            if _evaluate(condition["expression"], variables) is not True:
                return
        for variable in self._spec.get("variables") or ():
            variables["variables"][variable["name"]] = _evaluate(variable["expression"], variables)
        for validation in self._spec["validations"]:
            if (problem := _problem(validation, "expression", variables)) is not None:
                raise self._refusal(request, problem)

    def _refusal(self, request: AdmissionRequest, problem: str) -> Invalid:
        resource = request.kind.resource
        name = ((request.new or request.old or {}).get("metadata") or {}).get("name", "")
        policy = f"ValidatingAdmissionPolicy '{self._name}' with binding '{self._binding}'"
        cause = f"{policy} denied request: {problem}"
        message = f'{resource.plural}.{resource.group} "{name}" is forbidden: {cause}'
        details = {"name": name, "group": resource.group, "kind": resource.plural}
        return Invalid(message, details=details | {"causes": [{"message": cause}]})


def _speaks_of(rule: JSON, request: AdmissionRequest) -> bool:
    """Tells whether a resource rule of a policy speaks of a write."""
    resource = request.kind.resource
    plural = f"{resource.plural}/{request.subresource}" if request.subresource else resource.plural
    asked = {
        "apiGroups": resource.group,
        "apiVersions": resource.version,
        "operations": request.operation,
        "resources": plural,
    }
    return all({"*", value} & set(rule.get(key) or ()) for key, value in asked.items())


def _problem(rule: JSON, key: str, variables: JSON) -> str | None:
    """Returns what to tell the user where a rule does not hold."""
    try:
        if _evaluate(rule[key], variables) is not False:
            return None
        if "messageExpression" in rule:
            return str(_evaluate(rule["messageExpression"], variables))
    except (KeyError, TypeError, ValueError) as error:
        return f"rule evaluation error: {error}: {rule[key]}"
    return str(rule.get("message") or f"failed rule: {rule[key]}")


def _evaluate(expression: str, variables: JSON) -> Any:
    """Returns an expression's value; None where it cannot be evaluated here."""
    program = _compiled(expression)
    try:
        return None if program is None else program.execute(variables)
    except RuntimeError as error:
        _log.warning("rule left out: not known to local mode", rule=expression, error=str(error))
        return None


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> cel.Program | None:
    try:
        return cel.compile(expression)
    except ValueError as error:
        _log.warning("rule left out: not known to local mode", rule=expression, error=str(error))
        return None

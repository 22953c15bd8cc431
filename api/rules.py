"""What an object must satisfy beyond the types of its fields, in the words of the API server (CEL).

A rule's text is written once, here beside its expression. The CRDs, the admission policies and the
controller's own checks all show that text, so a user reads the same sentence wherever the mistake is found.
"""

from dataclasses import dataclass, field
from typing import Any

from api.resource import Resource


@dataclass(frozen=True, slots=True)
class Rule:
    """One requirement.

    Attributes:
        field: what is wrong where the rule is broken, such as `spec.containers`; empty in a policy, whose
            refusals name no field.
        expression: CEL, true for a sound object.
        message: what to do, for users.
        message_expression: CEL that gives the message where it quotes the object; `message` is then for
            readers of the manifest.
    """

    field: str
    expression: str
    message: str
    message_expression: str = ""

    def dump(self, *, expression: str = "rule", field_path: str = "") -> dict[str, str]:
        """The rule as it stands in a manifest; the key of the expression differs between kinds."""
        out = {expression: self.expression}
        if field_path:
            out["fieldPath"] = field_path
        out["message"] = self.message
        if self.message_expression:
            out["messageExpression"] = self.message_expression
        return out


@dataclass(frozen=True, slots=True)
class Policy:
    """A ValidatingAdmissionPolicy: rules that a CRD cannot hold, as they look at annotations.

    Attributes:
        name: of the policy and its binding.
        resources: whose objects it sees.
        conditions: CEL by name; the policy lets an object alone where one is false.
        variables: CEL by name, for use in later variables and in rules.
        rules: what must hold.
    """

    name: str
    resources: tuple[Resource, ...]
    conditions: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    def dump(self) -> list[dict[str, Any]]:
        """The policy and the binding that puts it into effect everywhere."""
        first = self.resources[0]
        policy = {
            "apiVersion": _API_VERSION,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": self.name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [first.group],
                            "apiVersions": [first.version],
                            "operations": ["CREATE", "UPDATE"],
                            "resources": [resource.plural for resource in self.resources],
                        }
                    ]
                },
                "matchConditions": [
                    {"name": name, "expression": expression} for name, expression in self.conditions.items()
                ],
                "variables": [
                    {"name": name, "expression": expression} for name, expression in self.variables.items()
                ],
                "validations": [rule.dump(expression="expression") for rule in self.rules],
            },
        }
        binding = {
            "apiVersion": _API_VERSION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": self.name},
            "spec": {"policyName": self.name, "validationActions": ["Deny"]},
        }
        return [policy, binding]


_API_VERSION = "admissionregistration.k8s.io/v1"

CHANGED = (
    "oldObject == null || object.spec != oldObject.spec || "
    "(has(object.metadata.annotations) ? object.metadata.annotations : {}) != "
    "(has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {})"
)
"""Whether a write says anything new: an older object that breaks a rule can still lose a finalizer."""


def quoted(words: tuple[str, ...]) -> str:
    """A CEL list of strings."""
    return "[" + ", ".join(f"'{word}'" for word in words) + "]"

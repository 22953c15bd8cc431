import pytest

from api.v1alpha1 import Predictor, ServingRuntime, rules
from api.v1beta1 import InferenceService
from api.v1beta1 import rules as isvc_rules
from controller import conversion
from controller.errors import InvalidRuntimeError, InvalidSpecError
from controller.runtime_validation import (
    Problem,
    autoscaling_problems,
    check,
    problems,
    spec_problems,
)
from tests.controller import rule_cases
from tests.controller.rule_cases import Case, runtime

TYPES = ("mlserver", "triton")


def cases(found: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", found, ids=lambda case: case.id)


@cases(rule_cases.RUNTIMES)
def test_rules_of_runtimes(case: Case) -> None:
    found = spec_problems(ServingRuntime.parse(case.object).spec)
    assert found == [Problem(*pair) for pair in zip(case.fields, case.messages, strict=True)]


@cases(rule_cases.AUTOSCALING)
def test_rules_of_autoscaling(case: Case) -> None:
    parsed = ServingRuntime.parse(case.object)
    found = autoscaling_problems(parsed.metadata.annotations, parsed.spec)
    assert [str(problem) for problem in found] == list(case.messages)


@cases(rule_cases.PREDICTORS)
def test_rules_of_predictors(case: Case) -> None:
    spec = Predictor.parse(case.object).spec
    if not case.messages:
        conversion.check(spec)
        return
    with pytest.raises(InvalidSpecError) as caught:
        conversion.check(spec)
    assert str(caught.value) == case.messages[0]


@cases(rule_cases.INFERENCE_SERVICES)
def test_rules_of_inference_services(case: Case) -> None:
    isvc = InferenceService.parse(case.object)
    if not case.messages or not conversion.is_modelmesh(isvc):
        assert not case.messages
        if conversion.is_modelmesh(isvc):
            conversion.predictor_spec(isvc)
        return
    with pytest.raises(InvalidSpecError) as caught:
        conversion.predictor_spec(isvc)
    assert str(caught.value) == case.messages[0]


@pytest.mark.parametrize(
    ("found", "all_rules"),
    [
        (rule_cases.RUNTIMES, rules.RUNTIME),
        (rule_cases.PREDICTORS, rules.PREDICTOR),
        (rule_cases.AUTOSCALING, rules.AUTOSCALING.rules),
        (rule_cases.INFERENCE_SERVICES, isvc_rules.POLICY.rules),
    ],
    ids=["runtimes", "predictors", "autoscaling", "inference services"],
)
def test_every_rule_has_a_case_that_breaks_it(found: list[Case], all_rules: tuple[rules.Rule, ...]) -> None:
    begun = {message.partition(" '")[0] for case in found for message in case.messages}
    told = {message for case in found for message in case.messages}
    for rule in all_rules:
        told_by_quote = rule.message_expression and rule.message_expression.strip("'").split("'")[0].strip(
            " \\"
        )
        assert rule.message in told or any(text.startswith(str(told_by_quote)) for text in begun), rule


def test_an_unknown_server_type_is_told_with_those_there_are() -> None:
    spec = ServingRuntime.parse(runtime(builtInAdapter={"serverType": "other"})).spec
    first, second = problems(spec, TYPES)
    assert str(first).startswith("spec.builtInAdapter: serverType 'other' is none of mlserver, triton:")
    assert second.message == rules.ADAPTED_CONTAINER.message


def test_check_names_everything_at_once() -> None:
    spec = ServingRuntime.parse(runtime(container={"name": "mm", "lifecycle": {}})).spec
    with pytest.raises(InvalidRuntimeError, match=r"spec\.containers: .*mm, rest-proxy.*; .*lifecycle"):
        check(spec, TYPES)


def test_check_lets_sound_and_disabled_runtimes_pass() -> None:
    check(ServingRuntime.parse(runtime(builtInAdapter={"serverType": "mlserver"})).spec, TYPES)
    check(ServingRuntime.parse(runtime(builtInAdapter={"serverType": "x"}, disabled=True)).spec, TYPES)

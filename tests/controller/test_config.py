from importlib.metadata import version

import pytest

from controller.config import Configuration, Image, load, user_text
from controller.errors import ConfigurationError


def _load(*texts: str) -> Configuration:
    return load(*((text, f"layer {number}") for number, text in enumerate(texts)))


def test_without_layers_the_defaults_hold() -> None:
    configuration = load()
    assert configuration == Configuration()
    assert configuration.inference_service_port == 8033
    assert configuration.rest_proxy.port == 8008
    assert configuration.pods_per_runtime == 2
    assert configuration.model_mesh_image.reference == f"modelmesh/mesh:{version('modelmesh')}"
    assert configuration.storage_helper_image.reference == f"modelmesh/adapter:{version('modelmesh')}"


def test_layers_combine_leaf_by_leaf() -> None:
    configuration = _load(
        "metrics: {port: 1000}\nmodelMeshResources: {limits: {memory: 1Gi}}",
        "metrics: {enabled: false}\npodsPerRuntime: 1",
    )
    assert configuration.metrics.port == 1000
    assert not configuration.metrics.enabled
    assert configuration.model_mesh_resources.limits.model_dump() == {"cpu": "3", "memory": "1Gi"}
    assert configuration.pods_per_runtime == 1


def test_keys_are_case_insensitive_but_label_names_are_not() -> None:
    configuration = _load("PODSPERRUNTIME: 3\nscaletozero: {EnAbled: false}\nruntimePodLabels: {a.b/C: d}")
    assert configuration.pods_per_runtime == 3
    assert not configuration.scale_to_zero.enabled
    assert configuration.runtime_pod_labels == {"a.b/C": "d"}


def test_values_are_read_leniently_and_unknown_keys_left_out() -> None:
    configuration = _load(
        'podsPerRuntime: "2"\nallowAnyPVC: "true"\nmodelMeshImage: {tag: 1.5}\nnobody: {knows: this}',
    )
    assert configuration.pods_per_runtime == 2
    assert configuration.allow_any_pvc
    assert configuration.model_mesh_image.tag == "1.5"


def test_lists_are_replaced_whole() -> None:
    configuration = _load("builtInServerTypes: [a, b]", "builtInServerTypes: [c]")
    assert configuration.built_in_server_types == ("c",)


def test_null_leaves_the_layer_below() -> None:
    assert _load("podsPerRuntime: 5", "podsPerRuntime:\nmetrics:").pods_per_runtime == 5


def test_a_users_tag_clears_a_default_digest() -> None:
    configuration = _load("modelMeshImage: {digest: 'sha256:1'}", "modelMeshImage: {tag: mine}")
    assert configuration.model_mesh_image.reference == "modelmesh/mesh:mine"


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        (Image(name="n"), "n"),
        (Image(name="n", tag="t"), "n:t"),
        (Image(name="n", tag="t", digest="sha256:1"), "n@sha256:1"),
    ],
)
def test_image_references(image: Image, reference: str) -> None:
    assert image.reference == reference


def test_keys_of_the_former_sidecar_are_accepted_and_named() -> None:
    configuration = _load("restProxy: {skipVerify: true, resources: {limits: {cpu: 1}}}")
    assert set(configuration.ignored) == {"restProxy.skipVerify", "restProxy.resources"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("podsPerRuntime: many", "podsPerRuntime.*many"),
        ("metrics: {port: 70000}", r"metrics\.port.*70000"),
        ("metrics: 3", "metrics"),
        ("payloadProcessors: ['http://a b']", "blank inside"),
        ("modelMeshResources: {limits: {cpu: lots}}", "lots"),
        ("tls: {secretName: certs}", r"tls\.secretName: .*not supported yet"),
        ("tls: {clientAuth: maybe}", r"tls\.clientAuth"),
        ("inferenceServiceName: Not valid!", "inferenceServiceName: .*'Not valid!' is no name of a Service"),
        ("inferenceServiceName: ''", "inferenceServiceName: .*is no name"),
        ("storageSecretName: a_b", "storageSecretName: .*'a_b' is no name"),
        ("runtimePodLabels: {'a b': c}", "runtimePodLabels.*'a b' is no key of a label"),
        ("runtimePodLabels: {a: 'b c'}", r"runtimePodLabels\.a: .*'b c' is no value of a label"),
        ("runtimePodAnnotations: {'/x': c}", "runtimePodAnnotations.*'/x' is no key"),
        ("inferenceServicePort: 8008", r"restProxy\.port is 8008, the port of inferenceServicePort"),
        ("metrics: {port: 8089}", r"metrics\.port is 8089, the port of probes"),
        ("metrics: {port: 11881}", r"metrics\.port is 11881, the port of the adapter's health"),
        ("a: [", "layer 0 is not YAML"),
        ("- a", "layer 0 must be a mapping"),
    ],
)
def test_errors_name_key_value_and_origin(text: str, names: str) -> None:
    with pytest.raises(ConfigurationError, match=names) as error:
        _load(text)
    assert "layer 0" in str(error.value)


def test_ports_that_are_off_are_in_nobodys_way() -> None:
    configuration = _load(
        "{inferenceServicePort: 8008, restProxy: {enabled: false}, metrics: {enabled: false}}"
    )
    assert configuration.inference_service_port == configuration.rest_proxy.port


def test_labels_may_have_a_prefix_and_no_value() -> None:
    labels = {"example.com/team": "a", "other": ""}
    assert _load(f"runtimePodLabels: {labels}").runtime_pod_labels == labels


def test_a_config_map_without_the_entry_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"config\.yaml"):
        user_text({"data": {"other": ""}})

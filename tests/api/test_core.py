"""The slices of Kubernetes' own APIs agree with what Kubernetes defines."""

import json
from importlib.resources import files

import pytest

from api import core
from api.meta import KubeObject, Model
from api.resource import Resource

DEFINITIONS = json.loads(files("api.schema").joinpath("kubernetes.json").read_text())["definitions"]
SLICES = [
    cls for cls in vars(core).values() if isinstance(cls, type) and issubclass(cls, Model) and cls.OPENAPI
]


@pytest.mark.parametrize("cls", SLICES, ids=lambda cls: cls.__name__)
def test_every_typed_field_is_a_field_of_kubernetes(cls: type[Model]) -> None:
    theirs = DEFINITIONS[cls.OPENAPI]["properties"]
    assert {field.alias for field in cls.model_fields.values()} <= theirs.keys()


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (core.POD, "v1/pods/Pod/True"),
        (core.SERVICE, "v1/services/Service/True"),
        (core.ENDPOINTS, "v1/endpoints/Endpoints/True"),
        (core.CONFIG_MAP, "v1/configmaps/ConfigMap/True"),
        (core.SECRET, "v1/secrets/Secret/True"),
        (core.EVENT, "v1/events/Event/True"),
        (core.NAMESPACE, "v1/namespaces/Namespace/False"),
        (core.PERSISTENT_VOLUME_CLAIM, "v1/persistentvolumeclaims/PersistentVolumeClaim/True"),
        (
            core.HORIZONTAL_POD_AUTOSCALER,
            "autoscaling/v2/horizontalpodautoscalers/HorizontalPodAutoscaler/True",
        ),
        (core.DEPLOYMENT, "apps/v1/deployments/Deployment/True"),
        (core.LEASE, "coordination.k8s.io/v1/leases/Lease/True"),
        (core.CRD, "apiextensions.k8s.io/v1/customresourcedefinitions/CustomResourceDefinition/False"),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_resources_are_where_kubernetes_serves_them(resource: Resource, path: str) -> None:
    assert f"{resource.api_version}/{resource.plural}/{resource.kind}/{resource.namespaced}" == path


def test_every_whole_object_has_its_resource() -> None:
    kinds = [cls for cls in vars(core).values() if isinstance(cls, type) and issubclass(cls, KubeObject)]
    assert {cls.RESOURCE.kind for cls in kinds} == {cls.__name__ for cls in kinds}
    assert len(kinds) == 12

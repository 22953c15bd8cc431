"""The configuration users give in ConfigMap `model-serving-config`, and how its layers combine.

Three layers, each laid over the one before leaf by leaf: the defaults in this module, an optional defaults
file of the installation, the user's ConfigMap. Keys are case-insensitive; lists are replaced whole; unknown
keys are left out. Values are read leniently (`"2"` is a number), as users' files rely on it.

`Configuration` is immutable: a reconcile sees one consistent state of it.
"""

from __future__ import annotations

from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from controller import names, quantity
from controller.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = dict[str, Any]

CONFIG_MAP = "model-serving-config"
ENTRY = "config.yaml"
_ADAPTER_IMAGE = "modelmesh/adapter"
_VERSION = version("modelmesh")
"""Of the images beside a model server: the controller's own, so that they understand each other."""

_PORTS_IN_USE = MappingProxyType(
    {
        8080: "peers",
        8085: "the adapter",
        8086: "the puller",
        8089: "probes",
        8090: "preStop",
        11881: "the adapter's health",
    }
)


def _quantity(text: str) -> str:
    quantity.parse(text)
    return text


def _trimmed(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _without_blank(text: str) -> str:
    if any(character.isspace() for character in text):
        raise ValueError(f"{text!r} has a blank inside")
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]
Port = Annotated[int, Field(ge=1, le=65535)]
ObjectName = Annotated[str, AfterValidator(names.object_name)]
LabelKey = Annotated[str, AfterValidator(names.label_key)]
LabelValue = Annotated[str, AfterValidator(names.label_value)]


class _Section(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        coerce_numbers_to_str=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        protected_namespaces=(),
    )


class Amounts(_Section):
    """CPU and memory, as Kubernetes quantities."""

    cpu: Quantity
    memory: Quantity


class Resources(_Section):
    """Requests and limits of a container."""

    requests: Amounts
    limits: Amounts

    def dump(self) -> JSON:
        """Returns the container's field `resources`."""
        return self.model_dump()


class Image(_Section):
    """A container image; a digest wins over a tag."""

    name: str
    tag: str = ""
    digest: str = ""

    @property
    def reference(self) -> str:
        """The image reference of the container."""
        if self.digest:
            return f"{self.name}@{self.digest}"
        return f"{self.name}:{self.tag}" if self.tag else self.name


class StorageHelperImage(Image):
    """The image of puller and adapters, and the puller's command."""

    command: tuple[str, ...] = ("/opt/app/puller",)

    @property
    def has_health(self) -> bool:
        """Whether its adapters answer probes, for the lack of which the kubelet would kill the original's.

        Those of our image do, wherever that was copied to.
        """
        return f"/{self.name}".endswith(f"/{_ADAPTER_IMAGE}")


def _refuse_tls(text: str) -> str:
    if text:
        raise ValueError(
            "TLS of the inference ports is not supported yet, and plain text is not what was asked"
        )
    return text


class Tls(_Section):
    """TLS of the inference ports: the Secret with the key pair, and whether clients must show theirs."""

    secret_name: Annotated[str, AfterValidator(_refuse_tls)] = ""
    client_auth: Annotated[Literal["", "optional", "require"], BeforeValidator(_trimmed)] = ""


class Metrics(_Section):
    """The Prometheus endpoint of the mesh."""

    enabled: bool = True
    port: Port = 2112
    scheme: Literal["http", "https"] = "http"
    disable_prometheus_operator_support: bool = False


class ScaleToZero(_Section):
    """Whether a runtime that no model needs loses its pods, and after how many seconds."""

    enabled: bool = True
    grace_period_seconds: Annotated[int, Field(ge=0)] = 60


class RestProxy(_Section):
    """The REST port of the mesh. The name is the original's, where a sidecar served it."""

    enabled: bool = True
    port: Port = 8008
    # Accepted because users' files have them; there is no sidecar that they could steer.
    skip_verify: Any = None
    image: Any = None
    resources: Any = None


class NamedValue(_Section):
    """An environment variable of the mesh container."""

    name: str
    value: str = ""


class PullSecret(_Section):
    """The name of an image pull secret."""

    name: str


class Configuration(_Section):
    """Everything an installation can steer; the meaning of each key is in the reference documentation."""

    inference_service_name: Annotated[str, AfterValidator(names.service_name)] = "modelmesh-serving"
    inference_service_port: Port = 8033
    headless_service: bool = True
    pods_per_runtime: Annotated[int, Field(ge=0, le=65535)] = 2
    storage_secret_name: ObjectName = "storage-config"  # noqa: S105 -- the name of an object
    service_account_name: ObjectName = ""
    enable_access_logging: bool = False
    grpc_max_message_size_bytes: Annotated[int, Field(ge=0)] = 16_777_216
    tls: Tls = Tls()
    metrics: Metrics = Metrics()
    scale_to_zero: ScaleToZero = ScaleToZero()
    rest_proxy: RestProxy = RestProxy()
    model_mesh_image: Image = Image(name="modelmesh/mesh", tag=_VERSION)
    model_mesh_resources: Resources = Resources(
        requests=Amounts(cpu="300m", memory="448Mi"),
        limits=Amounts(cpu="3", memory="448Mi"),
    )
    storage_helper_image: StorageHelperImage = StorageHelperImage(name=_ADAPTER_IMAGE, tag=_VERSION)
    storage_helper_resources: Resources = Resources(
        requests=Amounts(cpu="50m", memory="96Mi"),
        limits=Amounts(cpu="2", memory="512Mi"),
    )
    runtime_pod_labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    runtime_pod_annotations: dict[LabelKey, str] = Field(default_factory=dict)
    image_pull_secrets: tuple[PullSecret, ...] = ()
    allow_any_pvc: bool = Field(default=False, alias="allowAnyPVC")
    built_in_server_types: tuple[str, ...] = ("triton", "mlserver", "ovms", "torchserve")
    payload_processors: tuple[Annotated[str, AfterValidator(_without_blank)], ...] = ()
    internal_model_mesh_env_vars: tuple[NamedValue, ...] = ()
    etcd_secret_name: ObjectName = ""
    model_mesh_endpoint: str = ""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        taken = dict(_PORTS_IN_USE)
        ports = {"inferenceServicePort": self.inference_service_port}
        if self.rest_proxy.enabled:
            ports["restProxy.port"] = self.rest_proxy.port
        if self.metrics.enabled:
            ports["metrics.port"] = self.metrics.port
        for key, port in ports.items():
            if port in taken:
                raise ValueError(f"{key} is {port}, the port of {taken[port]} in the same pod")
            taken[port] = key
        return self

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys that are set and have no effect."""
        proxy = self.rest_proxy
        settings = {"image": proxy.image, "resources": proxy.resources, "skipVerify": proxy.skip_verify}
        return tuple(f"restProxy.{key}" for key, value in settings.items() if value is not None)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _fold(section: type[BaseModel], raw: JSON) -> JSON:
    """Gives keys their proper case and leaves unknown ones out."""
    fields = {(f.alias or name).lower(): (f.alias or name, f) for name, f in section.model_fields.items()}
    folded: JSON = {}
    for key, value in raw.items():
        if (found := fields.get(str(key).lower())) is None or value is None:
            continue
        alias, field = found
        inner = _section_of(field.annotation)
        if inner is not None and isinstance(value, dict):
            folded[alias] = _fold(inner, value)
        elif inner is not None and isinstance(value, list):
            folded[alias] = [_fold(inner, v) if isinstance(v, dict) else v for v in value]
        else:
            folded[alias] = value
    return folded


def _lay_over(base: JSON, over: JSON) -> JSON:
    merged = dict(base)
    if over.get("tag") and "digest" not in over:
        # The user's tag must not lose against the digest of a default image.
        merged.pop("digest", None)
    for key, value in over.items():
        below: Any = merged.get(key)
        nested = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _lay_over(below, value) if nested else value
    return merged


def _parse(text: str, origin: str) -> JSON:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{origin} is not YAML: {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{origin} must be a mapping of keys to values, not {type(raw).__name__}")
    return _fold(Configuration, raw)


def _complaints(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        if item["loc"]:
            yield f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']} (got {item['input']!r})"
        else:
            yield str(item["msg"])


def load(*layers: tuple[str, str]) -> Configuration:
    """Combines layers of YAML over the built-in defaults, the last one winning.

    Args:
        layers: text and, for messages, the origin of each.

    Raises:
        ConfigurationError: a layer is not YAML, or a value cannot be used; names origin, key and value.
    """
    merged = Configuration().model_dump(by_alias=True, exclude_none=True)
    for text, origin in layers:
        merged = _lay_over(merged, _parse(text, origin))
    try:
        return Configuration.model_validate(merged)
    except ValidationError as error:
        origins = " over ".join(origin for _, origin in reversed(layers))
        raise ConfigurationError(f"{origins}: {'; '.join(_complaints(error))}") from error


def user_text(config_map: JSON) -> str:
    """Returns the YAML of a `model-serving-config` object; ConfigurationError where the entry is missing."""
    text = (config_map.get("data") or {}).get(ENTRY)
    if not isinstance(text, str):
        raise ConfigurationError(f"ConfigMap {CONFIG_MAP} has no entry {ENTRY}")
    return text

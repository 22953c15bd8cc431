"""InferenceService: a model to serve, shared with KServe.

The types accept what KServe v0.12 accepts. ModelMesh acts on objects annotated
`serving.kserve.io/deploymentMode: ModelMesh` and reads the predictor's `model`, or one framework block.
"""

from typing import ClassVar

from pydantic import ConfigDict, Field

from api.core.pod import Container
from api.meta import KubeObject, Model
from api.resource import Resource
from api.v1beta1.component import ComponentSpec
from api.v1beta1.rules import FRAMEWORKS, INFERENCE_SERVICE
from api.v1beta1.status import InferenceServiceStatus


class StorageSpec(Model):
    """Where the model's files are."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    path: str | None = None
    """Path of the model in its store."""
    schema_path: str | None = None
    """Path of the model's schema file in its store."""
    parameters: dict[str, str] | None = None
    """Parameters of the store, over those of its key."""
    key: str | None = None
    """Entry of the storage-config secret."""


class ModelFormat(Model):
    """What kind of model it is."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """Format, such as sklearn."""
    version: str | None = None
    """Version of the format."""


class FrameworkSpec(Container):
    """A model whose format is the block's name, and overrides of the container, which ModelMesh ignores."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    storage_uri: str | None = None
    """Location of the model: s3, gs, pvc, http or https."""
    runtime_version: str | None = None
    """Version of the server's image; ModelMesh ignores it."""
    protocol_version: str | None = None
    """Inference protocol that the runtime must speak."""
    storage: StorageSpec | None = None
    """Where the model's files are, in place of storageUri."""


class ModelSpec(FrameworkSpec):
    """A model of any format."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model_format: ModelFormat | None = None
    """What kind of model it is."""
    runtime: str | None = None
    """The runtime that must serve the model."""


class PredictorSpec(ComponentSpec):
    """The model: `model`, or the older framework blocks."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: ModelSpec | None = None
    """A model of any format."""
    sklearn: FrameworkSpec | None = None
    """A scikit-learn model."""
    xgboost: FrameworkSpec | None = None
    """An XGBoost model."""
    lightgbm: FrameworkSpec | None = None
    """A LightGBM model."""
    tensorflow: FrameworkSpec | None = None
    """A TensorFlow model."""
    onnx: FrameworkSpec | None = None
    """An ONNX model."""
    pytorch: FrameworkSpec | None = None
    """A PyTorch model."""
    triton: FrameworkSpec | None = None
    """A Triton model."""
    pmml: FrameworkSpec | None = None
    """A PMML model."""
    paddle: FrameworkSpec | None = None
    """A PaddlePaddle model; KServe only."""
    huggingface: FrameworkSpec | None = None
    """A Hugging Face model; KServe only."""

    def framework(self) -> tuple[str, FrameworkSpec] | None:
        """Name and content of the framework block that counts; None when ModelMesh reads none of them."""
        for name in FRAMEWORKS:
            block: FrameworkSpec | None = getattr(self, name)
            if block is not None:
                return name, block
        return None


class TransformerSpec(ComponentSpec):
    """Changes requests and responses; ModelMesh ignores it."""


class ExplainerFrameworkSpec(Container):
    """A known explainer, with overrides of its container."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str | None = None
    """Kind of explanation."""
    storage_uri: str | None = None
    """Location of a trained explainer."""
    runtime_version: str | None = None
    """Version of the explainer's image."""
    config: dict[str, str] | None = None
    """Settings of the explainer."""
    storage: StorageSpec | None = None
    """Where the explainer's files are, in place of storageUri."""


class ExplainerSpec(ComponentSpec):
    """Explains predictions; ModelMesh ignores it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    art: ExplainerFrameworkSpec | None = None
    """The ART explainer."""
    alibi: ExplainerFrameworkSpec | None = None
    """The Alibi explainer."""


class InferenceServiceSpec(Model):
    """The parts of the service; ModelMesh reads the predictor."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    predictor: PredictorSpec
    """The model to serve."""
    transformer: TransformerSpec | None = None
    """Changes requests and responses; ModelMesh ignores it."""
    explainer: ExplainerSpec | None = None
    """Explains predictions; ModelMesh ignores it."""


class InferenceService(KubeObject):
    """A model to serve."""

    RESOURCE: ClassVar[Resource] = INFERENCE_SERVICE

    spec: InferenceServiceSpec
    status: InferenceServiceStatus = Field(default_factory=InferenceServiceStatus)

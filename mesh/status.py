"""What the management API says about models and vmodels, from the registry alone.

Copies and failures count while their instances live. Where nothing is loaded because no running instance may
hold the type, the status is a failed load with the text that the controller knows.
"""

from collections.abc import Callable

from api.proto.model_mesh_pb2 import ModelStatusInfo, VModelStatusInfo
from mesh.errors import NoHomeError
from mesh.registry import Registry
from store.records import ModelRecord

ModelCopyInfo = ModelStatusInfo.ModelCopyInfo


class StatusReporter:
    """Answers status questions. `is_wanted` says whether a load of a model is about to begin here."""

    def __init__(
        self,
        registry: Registry,
        *,
        no_home: Callable[[str], NoHomeError | None],
        is_wanted: Callable[[str], bool],
    ) -> None:
        self._registry = registry
        self._no_home = no_home
        self._is_wanted = is_wanted

    def model(self, model_id: str) -> ModelStatusInfo:
        """Status of a model; of an unknown one NOT_FOUND."""
        record = self._registry.peek(model_id)
        if record is None:
            return ModelStatusInfo(status=ModelStatusInfo.NOT_FOUND)
        infos = self._copies(record)
        states = {info.copyStatus for info in infos}
        errors = self._errors(record)
        for state in (ModelStatusInfo.LOADED, ModelStatusInfo.LOADING, ModelStatusInfo.LOADING_FAILED):
            if state in states:
                status = state
                break
        else:
            if error := self._no_home(record.type):
                return ModelStatusInfo(status=ModelStatusInfo.LOADING_FAILED, errors=[str(error)])
            status = ModelStatusInfo.LOADING_FAILED if record.shortfall else ModelStatusInfo.NOT_LOADED
            if self._is_wanted(model_id):
                status = ModelStatusInfo.LOADING
        return ModelStatusInfo(status=status, errors=errors, modelCopyInfos=infos)

    def vmodel(self, vmodel_id: str, owner: str = "") -> VModelStatusInfo:
        """Status of a vmodel; of an unknown one, or one of another owner, the empty message."""
        row = self._registry.vmodels.get(vmodel_id)
        if row is None or (owner and owner != row.value.owner):
            return VModelStatusInfo()
        record = row.value
        status = VModelStatusInfo.DEFINED
        if record.in_transition:
            status = VModelStatusInfo.TRANSITION_FAILED if record.failed else VModelStatusInfo.TRANSITIONING
        info = VModelStatusInfo(
            status=status,
            activeModelId=record.active,
            targetModelId=record.target,
            activeModelStatus=self.model(record.active),
            owner=record.owner,
        )
        if record.in_transition:
            info.targetModelStatus.CopyFrom(self._target(record.target))
        return info

    def _target(self, model_id: str) -> ModelStatusInfo:
        """As of any model, but one that nothing keeps from being loaded soon counts as loading."""
        info = self.model(model_id)
        if info.status == ModelStatusInfo.NOT_LOADED:
            info.status = ModelStatusInfo.LOADING
        return info

    def _copies(self, record: ModelRecord) -> list[ModelCopyInfo]:
        infos = [
            ModelCopyInfo(
                location=instance_id,
                copyStatus=ModelStatusInfo.LOADED
                if instance_id in record.loaded
                else ModelStatusInfo.LOADING,
                time=record.loaded.get(instance_id, started),
            )
            for instance_id, started in record.instances.items()
        ]
        infos += [
            ModelCopyInfo(location=instance_id, copyStatus=ModelStatusInfo.LOADING_FAILED, time=failed)
            for instance_id, failed in record.failed.items()
        ]
        infos = [info for info in infos if self._registry.present(info.location)]
        return sorted(infos, key=lambda info: (-info.time, info.location))

    def _errors(self, record: ModelRecord) -> list[str]:
        """Texts of failures, the newest first; those of a model that is tried again stay until it loads."""
        short = [f"fewer copies than wanted: {record.shortfall}"] if record.shortfall else []
        if record.loaded and not record.failed:
            return short
        ids = sorted(record.failures, key=lambda id_: -record.failed.get(id_, 0))
        texts = [record.failures[id_].msg for id_ in ids if self._registry.live(id_)]
        return list(dict.fromkeys(texts + short))

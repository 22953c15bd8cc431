from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from api.core import CONFIG_MAP, DEPLOYMENT, EVENT, NAMESPACE, POD, SECRET
from api.resource import Resource
from controller.runtime.apiserver import (
    AdmissionRequest,
    Core,
    DeleteOptions,
    FieldValidation,
    ListQuery,
    MemoryClient,
    WatchQuery,
    WriteOptions,
)
from controller.runtime.client import PatchKind
from controller.runtime.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    UnsupportedMediaType,
)

JSON = dict[str, Any]


def _config(name: str, **labels: str) -> JSON:
    return {"metadata": {"name": name, "namespace": "ns", "labels": labels}, "data": {"k": "v"}}


def _pod(name: str, **spec: Any) -> JSON:
    containers = [{"name": "c", "image": "i"}]
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": containers, **spec}}


async def _events(core: Core, resource: Resource, number: int, **query: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    async with (
        asyncio.timeout(5),
        aclosing(core.watch(core.kind(resource), "ns", WatchQuery(**query))) as batches,
    ):
        async for batch in batches:
            found += [(item.type, item.snapshot.object["metadata"].get("name", "")) for item in batch]
            if len(found) >= number:
                break
    return found


class TestCreate:
    async def test_a_new_object_gets_its_identity(
        self, client: MemoryClient, widget_resource: Resource, widget: JSON
    ) -> None:
        made = await client.create(widget_resource, widget)
        meta = made["metadata"]
        assert meta["uid"]
        assert meta["creationTimestamp"] == "2026-01-01T12:00:00Z"
        assert meta["generation"] == 1
        assert int(meta["resourceVersion"]) > 0
        assert made["apiVersion"] == "test.example.com/v1"
        assert made["spec"]["color"] == "red"

    async def test_status_is_dropped_and_its_default_given(
        self,
        client: MemoryClient,
        widget_resource: Resource,
        widget: JSON,
    ) -> None:
        made = await client.create(widget_resource, widget | {"status": {"phase": "Forged"}})
        assert made["status"] == {"phase": "New"}

    async def test_a_name_is_taken_once(self, client: MemoryClient) -> None:
        await client.create(CONFIG_MAP, _config("a"))
        with pytest.raises(AlreadyExists, match='configmaps "a" already exists'):
            await client.create(CONFIG_MAP, _config("a"))

    async def test_generate_name_makes_distinct_names(self, client: MemoryClient) -> None:
        obj = {"metadata": {"generateName": "a-", "namespace": "ns"}}
        names = {(await client.create(CONFIG_MAP, obj))["metadata"]["name"] for _ in range(5)}
        assert len(names) == 5
        assert all(name.startswith("a-") and len(name) == 7 for name in names)

    async def test_the_namespace_must_exist(self, client: MemoryClient) -> None:
        with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
            await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "nowhere"}})

    async def test_an_unknown_resource_is_not_found(self, client: MemoryClient) -> None:
        with pytest.raises(NotFound, match="could not find the requested resource"):
            await client.get(Resource("x.example.com", "v1", "X", "xs"), "a", "ns")

    @pytest.mark.parametrize("name", ["Upper", "under_score", "-a", "a" * 254, ""])
    async def test_bad_names_are_refused(self, client: MemoryClient, name: str) -> None:
        with pytest.raises(Invalid, match=r"metadata\.name"):
            await client.create(CONFIG_MAP, _config(name))

    async def test_wrong_metadata_is_refused_by_name(self, client: MemoryClient) -> None:
        with pytest.raises(BadRequest, match=r"metadata\.labels\.a: expected a string"):
            await client.create(
                CONFIG_MAP, {"metadata": {"name": "a", "namespace": "ns", "labels": {"a": 1}}}
            )

    async def test_another_kind_is_refused(self, client: MemoryClient) -> None:
        with pytest.raises(BadRequest, match="Kind=Secret"):
            await client.create(CONFIG_MAP, {"kind": "Secret", "metadata": {"name": "a", "namespace": "ns"}})

    def test_dry_run_stores_nothing(self, core: Core) -> None:
        kind = core.kind(CONFIG_MAP)
        made = core.create(kind, _config("a"), "ns", WriteOptions(dry_run=True))
        assert made.object["metadata"]["uid"]
        assert not core.list(kind).items


class TestFieldValidation:
    def _create(
        self, core: Core, resource: Resource, widget: JSON, how: FieldValidation
    ) -> tuple[JSON, list[str]]:
        options = WriteOptions(how)
        widget["spec"]["sise"] = 1
        widget["metadata"]["nmae"] = 1
        made = core.create(core.kind(resource), widget, "ns", options).object
        return made, options.warnings

    def test_strict_refuses_unknown_fields_by_path(
        self, core: Core, widget_resource: Resource, widget: JSON
    ) -> None:
        expected = 'strict decoding error: unknown field "metadata.nmae", unknown field "spec.sise"'
        with pytest.raises(
            BadRequest, match=f'Widget in version "v1" cannot be handled as a Widget: {expected}'
        ):
            self._create(core, widget_resource, widget, FieldValidation.STRICT)

    def test_warn_prunes_and_says_so(self, core: Core, widget_resource: Resource, widget: JSON) -> None:
        made, warnings = self._create(core, widget_resource, widget, FieldValidation.WARN)
        assert "sise" not in made["spec"]
        assert warnings == ['unknown field "metadata.nmae"', 'unknown field "spec.sise"']

    def test_ignore_prunes_silently(self, core: Core, widget_resource: Resource, widget: JSON) -> None:
        made, warnings = self._create(core, widget_resource, widget, FieldValidation.IGNORE)
        assert "sise" not in made["spec"]
        assert not warnings

    async def test_a_wrong_value_lists_its_field_in_the_causes(
        self,
        client: MemoryClient,
        widget_resource: Resource,
        widget: JSON,
    ) -> None:
        widget["spec"] = {"size": "x", "color": "green"}
        with pytest.raises(Invalid) as caught:
            await client.create(widget_resource, widget)
        assert caught.value.message.startswith(
            'Widget.test.example.com "w" is invalid: [spec.size: Invalid value'
        )
        causes = (caught.value.details or {})["causes"]
        assert [(cause["field"], cause["reason"]) for cause in causes] == [
            ("spec.size", "FieldValueTypeInvalid"),
            ("spec.color", "FieldValueNotSupported"),
        ]

    async def test_built_in_kinds_refuse_what_could_not_run(self, client: MemoryClient) -> None:
        containers = [{"name": "c", "image": "i", "volumeMounts": [{"name": "nope", "mountPath": "/m"}]}]
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}
        deployment = {
            "metadata": {"name": "d", "namespace": "ns"},
            "spec": {"selector": {"matchLabels": {"a": "c"}}, "template": template},
        }
        with pytest.raises(Invalid) as caught:
            await client.create(DEPLOYMENT, deployment)
        assert "`selector` does not match template `labels`" in caught.value.message
        assert 'volumeMounts[0].name: Not found: "nope"' in caught.value.message
        with pytest.raises(BadRequest, match="spec in body must be of type object"):
            await client.create(DEPLOYMENT, {"metadata": {"name": "d", "namespace": "ns"}, "spec": "text"})


class TestUpdate:
    async def test_a_stale_write_conflicts(self, client: MemoryClient) -> None:
        first = await client.create(CONFIG_MAP, _config("a"))
        await client.patch(CONFIG_MAP, "a", "ns", {"data": {"k": "2"}})
        with pytest.raises(Conflict, match="the object has been modified"):
            await client.replace(CONFIG_MAP, first | {"data": {}})

    async def test_a_write_without_effect_is_no_event(self, client: MemoryClient) -> None:
        made = await client.create(CONFIG_MAP, _config("a"))
        assert await client.replace(CONFIG_MAP, made) == made
        assert await client.patch(CONFIG_MAP, "a", "ns", {"data": {"k": "v"}}) == made

    async def test_generation_counts_changes_of_the_spec_alone(
        self,
        client: MemoryClient,
        widget_resource: Resource,
        widget: JSON,
    ) -> None:
        await client.create(widget_resource, widget)
        labelled = await client.patch(widget_resource, "w", "ns", {"metadata": {"labels": {"a": "b"}}})
        assert labelled["metadata"]["generation"] == 1
        status = await client.patch(
            widget_resource, "w", "ns", {"status": {"phase": "Up"}}, subresource="status"
        )
        assert status["metadata"]["generation"] == 1
        changed = await client.patch(widget_resource, "w", "ns", {"spec": {"size": 4}})
        assert changed["metadata"]["generation"] == 2

    async def test_status_and_spec_are_written_apart(
        self,
        client: MemoryClient,
        widget_resource: Resource,
        widget: JSON,
    ) -> None:
        await client.create(widget_resource, widget)
        both = {"spec": {"size": 9}, "status": {"phase": "Up"}}
        by_status = await client.patch(widget_resource, "w", "ns", both, subresource="status")
        assert (by_status["spec"]["size"], by_status["status"]["phase"]) == (3, "Up")
        by_spec = await client.patch(
            widget_resource, "w", "ns", {"spec": {"size": 9}, "status": {"phase": "Down"}}
        )
        assert (by_spec["spec"]["size"], by_spec["status"]["phase"]) == (9, "Up")

    async def test_identity_cannot_be_changed(self, client: MemoryClient) -> None:
        made = await client.create(CONFIG_MAP, _config("a"))
        with pytest.raises(Invalid, match="field is immutable"):
            await client.patch(CONFIG_MAP, "a", "ns", {"metadata": {"uid": "other"}})
        with pytest.raises(BadRequest, match="does not match the name on the URL"):
            await client.patch(CONFIG_MAP, "a", "ns", {"metadata": {"name": "b"}})
        kept = await client.patch(
            CONFIG_MAP, "a", "ns", {"metadata": {"creationTimestamp": "2000-01-01T00:00:00Z"}}
        )
        assert kept == made

    async def test_a_custom_resource_is_replaced_only_by_version(
        self,
        client: MemoryClient,
        widget_resource: Resource,
        widget: JSON,
    ) -> None:
        await client.create(widget_resource, widget)
        with pytest.raises(Invalid, match=r"metadata\.resourceVersion: Required value: must be specified"):
            await client.replace(widget_resource, widget)

    async def test_strategic_merge_is_for_built_in_kinds(
        self,
        client: MemoryClient,
        widget_resource: Resource,
        widget: JSON,
    ) -> None:
        await client.create(widget_resource, widget)
        with pytest.raises(UnsupportedMediaType):
            await client.patch(widget_resource, "w", "ns", {"spec": {"size": 1}}, kind=PatchKind.STRATEGIC)

    async def test_scale_reads_and_writes_replicas(
        self, core: Core, widget_resource: Resource, widget: JSON
    ) -> None:
        kind = core.kind(widget_resource)
        core.create(kind, widget)
        scale = core.patch(
            kind, "w", "ns", {"spec": {"replicas": 4}}, PatchKind.MERGE, subresource="scale"
        ).object
        assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 4)
        assert core.get(kind, "w", "ns").object["spec"]["replicas"] == 4
        with pytest.raises(BadRequest, match=r"spec\.replicas"):
            core.patch(kind, "w", "ns", {"spec": {"replicas": -1}}, PatchKind.MERGE, subresource="scale")
        with pytest.raises(NotFound):
            core.get(core.kind(NAMESPACE), "ns", subresource="scale")

    async def test_secrets_turn_string_data_into_data(self, client: MemoryClient) -> None:
        secret = {"metadata": {"name": "s", "namespace": "ns"}, "stringData": {"k": "v"}}
        made = await client.create(SECRET, secret)
        assert (made["data"], made["type"]) == ({"k": "dg=="}, "Opaque")
        assert "stringData" not in made
        with pytest.raises(Invalid, match="must be base64"):
            await client.patch(SECRET, "s", "ns", {"data": {"k": "%"}})

    async def test_validators_see_and_refuse_writes(self, core: Core, client: MemoryClient) -> None:
        seen: list[tuple[str, str]] = []

        def validator(request: AdmissionRequest) -> None:
            seen.append((request.operation, request.kind.resource.kind))
            if request.operation == "DELETE":
                raise Forbidden("not today")

        core.add_validator(validator)
        await client.create(CONFIG_MAP, _config("a"))
        with pytest.raises(Forbidden):
            await client.delete(CONFIG_MAP, "a", "ns")
        assert seen == [("CREATE", "ConfigMap"), ("DELETE", "ConfigMap")]


class TestDelete:
    async def test_finalizers_hold_an_object_until_the_last_is_gone(self, client: MemoryClient) -> None:
        held = _config("a")
        held["metadata"]["finalizers"] = ["x/y"]
        await client.create(CONFIG_MAP, held)
        await client.delete(CONFIG_MAP, "a", "ns")
        marked = await client.get(CONFIG_MAP, "a", "ns")
        assert marked["metadata"]["deletionTimestamp"] == "2026-01-01T12:00:00Z"
        with pytest.raises(Invalid, match="no new finalizers"):
            await client.patch(CONFIG_MAP, "a", "ns", {"metadata": {"finalizers": ["x/y", "z/z"]}})
        await client.patch(CONFIG_MAP, "a", "ns", {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            await client.get(CONFIG_MAP, "a", "ns")

    async def test_preconditions(self, core: Core, client: MemoryClient) -> None:
        made = await client.create(CONFIG_MAP, _config("a"))
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAP, "a", "ns", resource_version="1")
        with pytest.raises(Conflict):
            core.delete(core.kind(CONFIG_MAP), "a", "ns", DeleteOptions(uid="other"))
        await client.delete(CONFIG_MAP, "a", "ns", resource_version=made["metadata"]["resourceVersion"])

    @pytest.mark.parametrize(
        ("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")]
    )
    async def test_propagation_is_left_to_the_collector(
        self,
        client: MemoryClient,
        policy: str,
        finalizer: str,
    ) -> None:
        await client.create(CONFIG_MAP, _config("a"))
        await client.delete(CONFIG_MAP, "a", "ns", propagation=policy)
        assert (await client.get(CONFIG_MAP, "a", "ns"))["metadata"]["finalizers"] == [finalizer]

    async def test_a_pod_on_a_node_waits_for_its_runner(self, client: MemoryClient) -> None:
        await client.create(POD, _pod("a", nodeName="local", terminationGracePeriodSeconds=5))
        await client.delete(POD, "a", "ns")
        meta = (await client.get(POD, "a", "ns"))["metadata"]
        assert (meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"]) == ("2026-01-01T12:00:05Z", 5)
        await client.delete(POD, "a", "ns", grace_seconds=0)
        with pytest.raises(NotFound):
            await client.get(POD, "a", "ns")

    async def test_a_pod_without_a_node_goes_at_once(self, client: MemoryClient) -> None:
        await client.create(POD, _pod("a"))
        await client.delete(POD, "a", "ns")
        with pytest.raises(NotFound):
            await client.get(POD, "a", "ns")

    async def test_a_namespace_goes_with_what_is_in_it(self, client: MemoryClient) -> None:
        await client.create(CONFIG_MAP, _config("a"))
        await client.create(POD, _pod("p", nodeName="local"))
        await client.delete(NAMESPACE, "ns")
        assert (await client.get(NAMESPACE, "ns"))["status"]["phase"] == "Terminating"
        with pytest.raises(NotFound):
            await client.get(CONFIG_MAP, "a", "ns")
        with pytest.raises(Forbidden, match="being terminated"):
            await client.create(CONFIG_MAP, _config("b"))
        await client.delete(POD, "p", "ns", grace_seconds=0)
        with pytest.raises(NotFound):
            await client.get(NAMESPACE, "ns")

    async def test_old_events_are_forgotten(self, client: MemoryClient, clock: Any) -> None:
        def event(name: str) -> JSON:
            return {"metadata": {"name": name, "namespace": "ns"}, "involvedObject": {"namespace": "ns"}}

        await client.create(EVENT, event("old"))
        clock.advance(hours=2)
        await client.create(EVENT, event("new"))
        assert [item["metadata"]["name"] for item in (await client.list(EVENT)).items] == ["new"]


class TestList:
    async def test_selectors_and_namespaces(self, client: MemoryClient) -> None:
        await client.create(CONFIG_MAP, _config("a", app="x"))
        await client.create(CONFIG_MAP, _config("b", app="y"))
        await client.create(CONFIG_MAP, {"metadata": {"name": "c", "namespace": "default"}})

        async def names(namespace: str = "", **selectors: str) -> list[str]:
            return [
                item["metadata"]["name"]
                for item in (await client.list(CONFIG_MAP, namespace, **selectors)).items
            ]

        assert await names() == ["c", "a", "b"]
        assert await names("ns") == ["a", "b"]
        assert await names(label_selector="app=y") == ["b"]
        assert await names(field_selector="metadata.name=a") == ["a"]

    async def test_pages_cover_everything_once_and_share_a_version(self, client: MemoryClient) -> None:
        for number in range(5):
            await client.create(CONFIG_MAP, _config(f"c{number}"))
        first = await client.list(CONFIG_MAP, "ns", limit=2)
        await client.create(CONFIG_MAP, _config("c9"))
        second = await client.list(CONFIG_MAP, "ns", limit=9, continue_token=first.continue_token)
        names = [item["metadata"]["name"] for item in first.items + second.items]
        assert names == ["c0", "c1", "c2", "c3", "c4", "c9"]
        assert second.resource_version == first.resource_version
        assert not second.continue_token

    def test_an_expired_or_forged_token_is_refused(self) -> None:
        core = Core(history=2, namespaces=("ns",))
        kind = core.kind(CONFIG_MAP)
        for number in range(3):
            core.create(kind, _config(f"c{number}"))
        token = core.list(kind, "ns", ListQuery(limit=1)).continue_token
        for number in range(3):
            core.create(kind, _config(f"d{number}"))
        with pytest.raises(Gone, match="too old"):
            core.list(kind, "ns", ListQuery(continue_token=token))
        with pytest.raises(BadRequest, match="continue key"):
            core.list(kind, "ns", ListQuery(continue_token="rubbish"))

    async def test_callers_cannot_change_what_is_stored(self, client: MemoryClient) -> None:
        await client.create(CONFIG_MAP, _config("a"))
        (await client.list(CONFIG_MAP)).items[0]["data"]["k"] = "changed"
        (await client.get(CONFIG_MAP, "a", "ns"))["data"]["k"] = "changed"
        assert (await client.get(CONFIG_MAP, "a", "ns"))["data"] == {"k": "v"}


class TestWatch:
    async def test_it_resumes_from_a_version(self, core: Core, client: MemoryClient) -> None:
        await client.create(CONFIG_MAP, _config("a"))
        version = (await client.list(CONFIG_MAP)).resource_version
        await client.patch(CONFIG_MAP, "a", "ns", {"data": {"k": "2"}})
        await client.create(CONFIG_MAP, _config("b"))
        await client.delete(CONFIG_MAP, "a", "ns")
        events = await _events(core, CONFIG_MAP, 3, resource_version=version)
        assert events == [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]

    async def test_without_a_version_it_starts_with_what_is_there(
        self, core: Core, client: MemoryClient
    ) -> None:
        await client.create(CONFIG_MAP, _config("a"))
        assert await _events(core, CONFIG_MAP, 1) == [("ADDED", "a")]
        initial = await _events(core, CONFIG_MAP, 2, send_initial_events=True)
        assert initial == [("ADDED", "a"), ("BOOKMARK", "")]

    async def test_selectors_turn_changes_into_additions_and_deletions(
        self,
        core: Core,
        client: MemoryClient,
    ) -> None:
        version = (await client.list(CONFIG_MAP)).resource_version
        await client.create(CONFIG_MAP, _config("a", app="x"))
        await client.create(CONFIG_MAP, _config("b", app="y"))
        for value in ("y", "x"):
            await client.patch(CONFIG_MAP, "a", "ns", {"metadata": {"labels": {"app": value}}})
        events = await _events(core, CONFIG_MAP, 3, resource_version=version, label_selector="app=x")
        assert events == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]

    async def test_an_old_or_foreign_version_is_gone(self) -> None:
        core = Core(history=2, first_version=1000, namespaces=("ns",))
        for number in range(4):
            core.create(core.kind(CONFIG_MAP), _config(f"c{number}"))
        for version in ("5", "1003", "999999"):
            with pytest.raises(Gone):
                await _events(core, CONFIG_MAP, 1, resource_version=version)

    async def test_it_ends_after_its_time_with_a_bookmark(self, client: MemoryClient) -> None:
        version = (await client.list(CONFIG_MAP)).resource_version
        events = [
            event
            async for event in client.watch(CONFIG_MAP, "ns", resource_version=version, timeout_seconds=0.05)
        ]
        assert [event.type for event in events] == ["BOOKMARK"]
        assert int(events[0].object["metadata"]["resourceVersion"]) >= int(version)

    async def test_closing_the_server_ends_watches(self, core: Core) -> None:
        watch = asyncio.ensure_future(
            _events(core, CONFIG_MAP, 1, resource_version=str(core.list(core.kind(CONFIG_MAP)).version))
        )
        await asyncio.sleep(0)
        core.close()
        assert await asyncio.wait_for(watch, 5) == []

    async def test_a_watcher_that_falls_behind_is_cut_off(
        self,
        core: Core,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("controller.runtime.apiserver.store._MAX_BACKLOG", 3)
        kind = core.kind(CONFIG_MAP)
        query = WatchQuery(resource_version=str(core.list(kind).version))
        async with aclosing(core.watch(kind, "ns", query)) as batches:
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            for number in range(5):
                core.create(kind, _config(f"c{number}"))
            with pytest.raises(Gone, match="fell more than 3 changes behind"):
                await waiting

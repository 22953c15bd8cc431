"""Generates docs/reference/resources.md from the CRDs and policies: every field of ours, and every rule.

Fields without a description are Kubernetes' own (containers, volumes, affinity), and documented there.
"""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
HEAD = """# Resources

Generated from the CRDs in `config/crd` (`make generate`). Fields of containers, volumes
and other parts of a pod are those of Kubernetes; `kubectl explain --recursive` lists them.
"""


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    return str(kind)


def _rows(schema: dict[str, Any], path: str) -> list[str]:
    required = set(schema.get("required", ()))
    rows = []
    for name, field in schema.get("properties", {}).items():
        if "description" not in field:
            continue
        notes = [field["description"]]
        if "enum" in field:
            notes.append(
                "One of " + ", ".join(f"`{value!r}`".replace("'", '"') for value in field["enum"]) + "."
            )
        if name in required:
            notes.append("Required.")
        if "maxItems" in field:
            notes.append(f"At most {field['maxItems']} items.")
        inner = field.get("items", field) if field.get("type") == "array" else field
        here = f"{path}{name}{'[]' if inner is not field else ''}"
        rows.append(f"| `{here}` | {_type(field)} | {' '.join(notes).replace('|', '&#124;')} |")
        rows += _rows(inner, f"{here}.")
    return rows


def _rules(schema: dict[str, Any]) -> list[str]:
    """The rules of a spec as a table, where there are any."""
    rules = schema.get("spec", {}).get("x-kubernetes-validations", ())
    rows = [f"| `spec{rule['fieldPath']}` | {rule['message'].replace('|', '&#124;')} |" for rule in rules]
    return (
        ["The API server refuses what breaks a rule:\n", "| field | rule |", "|---|---|", *rows, ""]
        if rows
        else []
    )


def _policies(manifests: list[dict[str, Any]]) -> list[str]:
    """The admission policies, each with its rules."""
    sections = [
        "## Admission policies\n",
        "What only annotations tell is checked by policies (`config/admission`).\n",
    ]
    for manifest in manifests:
        if manifest["kind"] == "ValidatingAdmissionPolicy":
            messages = [f"- {rule['message']}" for rule in manifest["spec"]["validations"]]
            sections += [f"`{manifest['metadata']['name']}` refuses with:\n", *messages, ""]
    return sections


def page(definitions: list[dict[str, Any]], policies: list[dict[str, Any]]) -> str:
    """Returns the page as Markdown, one section for each kind and one for the policies."""
    sections = [HEAD]
    for definition in definitions:
        spec = definition["spec"]
        (version,) = spec["versions"]
        names = spec["names"]
        called = ", ".join(f"`{name}`" for name in (names["plural"], *names.get("shortNames", ())))
        schema = version["schema"]["openAPIV3Schema"]["properties"]
        columns = ", ".join(column["name"] for column in version["additionalPrinterColumns"])
        sections += [
            f"## {names['kind']}\n",
            f"`{spec['group']}/{version['name']}`, {spec['scope'].lower()}; kubectl knows it as {called}.",
            f"`kubectl get` prints NAME, {columns}.\n",
        ]
        if names["kind"] == "ClusterServingRuntime":
            sections.append("The fields are those of ServingRuntime.\n")
            continue
        for part in ("spec", "status"):
            if rows := _rows(schema.get(part, {}), f"{part}."):
                sections += ["| field | type | meaning |", "|---|---|---|", *rows, ""]
        sections += _rules(schema)
    sections += _policies(policies)
    return "\n".join(sections).rstrip() + "\n"


def main() -> None:
    """Writes the page."""
    files = sorted((ROOT / "config/crd").glob("serving.kserve.io_*.yaml"))
    loaded = [yaml.load(path.read_text(), yaml.CSafeLoader) for path in files]
    target = ROOT / "docs/reference/resources.md"
    policies = [
        manifest
        for path in sorted((ROOT / "config/admission").glob("*.yaml"))
        for manifest in yaml.load_all(path.read_text(), yaml.CSafeLoader)
    ]
    target.write_text(page(loaded, policies))


if __name__ == "__main__":
    main()

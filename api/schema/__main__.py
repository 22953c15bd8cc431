"""Takes Kubernetes' definitions anew: `python -m api.schema path/to/swagger.json v1.34.4`."""

import json
import sys
from pathlib import Path

from api.schema import extract


def main(swagger: str, version: str) -> None:
    """Write `kubernetes.json` from an OpenAPI v2 document of Kubernetes."""
    document = extract(json.loads(Path(swagger).read_text()), version)
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(schema, separators=(',', ':'))}"
        for name, schema in document.pop("definitions").items()
    )
    head = json.dumps(document, indent=0)[:-2]
    Path(__file__).with_name("kubernetes.json").write_text(f'{head},\n"definitions": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main(*sys.argv[1:])

import re

from local.quickstart import STORAGE_MODEL, URI_MODEL
from tests.e2e.conftest import Machine, processes_of


def test_the_quickstart_shows_the_tutorial_and_leaves_nothing_behind(machine: Machine) -> None:
    done = machine.local("quickstart")
    text = done.stdout
    promised = [
        r"\$ kubectl get servingruntimes\nNAME +DISABLED +MODELTYPE +CONTAINERS .*\nmlserver-1\.x +sklearn",
        r"\$ kubectl apply -f - <<EOF\napiVersion: serving\.kserve\.io/v1beta1",
        r"\$ kubectl get isvc\nNAME +URL +READY .*\nexample-sklearn-isvc +False",
        r"Waiting for runtime Pod to become available",
        r"\nexample-sklearn-isvc +grpc://modelmesh-serving\.modelmesh-serving:8033 +True",
        r"Active Model State: +Loaded",
        rf'"modelName": "{STORAGE_MODEL}"',
        r'"datatype": "INT64"',
        r'"int64Contents": \[\n +"8"',
        rf'"model_name": ?"{STORAGE_MODEL}"',
        r'"data": ?\[8\]',
        rf'"modelName": "{URI_MODEL}"',
        r"all 100 answers by gRPC equal scikit-learn's",
        r"all 100 answers by REST equal scikit-learn's",
        r"All steps succeeded",
    ]
    position = 0
    for pattern in promised:
        match = re.compile(pattern).search(text, position)
        assert match, f"{pattern} is not in what follows:\n{text[position:]}"
        position = match.start()
    assert not machine.home.is_running()
    assert processes_of(machine.home.root) == []

import pytest

from api.proto import model_mesh_pb2 as pb
from controller import model_policy
from controller.errors import InvalidSpecError


def test_without_annotations_the_mesh_decides() -> None:
    assert model_policy.read({"other": "x"}) == pb.ModelPolicy()


def test_each_annotation_is_read() -> None:
    annotations = {
        "modelmesh/min-copies": "2",
        "modelmesh/max-copies": "3",
        "modelmesh/pinned": "true",
        "modelmesh/priority": "-5",
    }
    assert model_policy.read(annotations) == pb.ModelPolicy(
        minCopies=2, maxCopies=3, pinned=True, priority=-5
    )


def test_a_maximum_of_zero_is_none() -> None:
    assert model_policy.read({"modelmesh/min-copies": "2", "modelmesh/max-copies": "0"}).minCopies == 2


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        ({"modelmesh/min-copies": "-1"}, "'-1': it must be a whole number of at least 0"),
        ({"modelmesh/max-copies": "many"}, "'many'"),
        ({"modelmesh/priority": "1.5"}, "it must be a whole number"),
        ({"modelmesh/priority": "99999999999"}, "modelmesh/priority"),
        ({"modelmesh/pinned": "yes"}, "it must be 'true' or 'false'"),
        ({"modelmesh/min-copies": "3", "modelmesh/max-copies": "2"}, "more than modelmesh/max-copies"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(annotations: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        model_policy.read(annotations)
    assert problem in str(caught.value)

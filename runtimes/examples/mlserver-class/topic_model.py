"""A model class for MLServer: tells the topic of a text by the words of each topic.

A model is a file such as {"sport": ["goal", "match"], "music": ["song"]}.
"""

import asyncio
import json
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import InvalidModelURI, MLServerError
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class TopicModel(MLModel):
    """What MLServer asks of a model: to load itself, and to predict."""

    async def load(self) -> bool:
        """Reads the file; the adapter's settings say where it is."""
        uri = await get_model_uri(self._settings)
        try:
            topics = json.loads(await asyncio.to_thread(Path(uri).read_bytes))
            self._topics = {topic: {word.lower() for word in words} for topic, words in topics.items()}
        except FileNotFoundError as error:
            raise InvalidModelURI(self.name, uri) from error
        except (ValueError, AttributeError) as error:
            raise MLServerError(
                f"{Path(uri).name} must be an object of topics with lists of words: {error}"
            ) from error
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Takes texts, and answers for each the topic that most of its words belong to."""
        texts = StringCodec.decode_input(payload.inputs[0])
        answers = [self._topic(set(text.lower().split())) for text in texts]
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[StringCodec.encode_output("topic", answers)],
        )

    def _topic(self, words: set[str]) -> str:
        return max(self._topics, key=lambda topic: len(words & self._topics[topic]))

"""Made the files in keras_files, by the real Keras 2 and 3: `python keras_models.py FOLDER`, with tensorflow.

    pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 keras==3.15.1

Each model has random weights; `answers.json` has an input of each and what Keras answers to it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tf_keras


def images(k: Any) -> Any:
    """One image after the other: what a classifier of digits is made of."""
    return k.Sequential(
        [
            k.layers.InputLayer(shape=(12, 12, 2)) if k is keras else k.layers.InputLayer((12, 12, 2)),
            k.layers.Conv2D(4, 3, padding="same", strides=2, activation="relu"),
            k.layers.BatchNormalization(),
            k.layers.ZeroPadding2D(((1, 0), (2, 1))),
            k.layers.DepthwiseConv2D(3, depth_multiplier=2),
            k.layers.LeakyReLU(),
            k.layers.Conv2D(4, 2, dilation_rate=2, use_bias=False, groups=2),
            k.layers.MaxPooling2D(2, strides=1, padding="same"),
            k.layers.Dropout(0.5),
            k.layers.Flatten(),
            k.layers.Dense(5, activation="softmax", name="digit"),
        ],
        name="images",
    )


def branches(k: Any) -> Any:
    """Two inputs, two outputs, and layers that merge."""
    picture, facts = k.Input((6, 6, 3), name="picture"), k.Input((4,), name="facts")
    x = k.layers.Rescaling(1 / 255, offset=-0.5)(picture)
    x = k.layers.AveragePooling2D(3, strides=2, padding="same")(x)
    x = k.layers.Add()([x, k.layers.Conv2D(3, 1, activation="swish")(x)])
    left = k.layers.GlobalAveragePooling2D()(x)
    right = k.layers.Dense(3, activation="tanh")(facts)
    merged = [left, k.layers.Multiply()([left, right]), k.layers.Maximum()([left, right])]
    both = k.layers.Concatenate()(merged)
    both = k.layers.BatchNormalization(scale=False)(both)
    score = k.layers.Dense(1, activation="sigmoid", name="score")(both)
    table = k.layers.Reshape((3, 3), name="table")(k.layers.ReLU(max_value=2.0)(both))
    return k.Model([picture, facts], [score, table], name="branches")


def main(folder: Path) -> None:
    """Makes, asks and saves the models."""
    numbers = np.random.default_rng(7)
    answers: dict[str, Any] = {}
    for version, k in (("2", tf_keras), ("3", keras)):
        for make in (images, branches):
            model = make(k)
            weights = model.get_weights()
            # Vectors may be variances, which are positive.
            limits = {True: (-0.4, 0.4), False: (0.2, 1)}
            model.set_weights([numbers.uniform(*limits[each.ndim > 1], each.shape) for each in weights])
            shapes = [[3, *tensor.shape[1:]] for tensor in model.inputs]
            inputs = [numbers.uniform(-1, 1, shape).astype("float32") for shape in shapes]
            outputs = model(inputs[0] if len(inputs) == 1 else inputs)
            outputs = outputs if isinstance(outputs, list) else [outputs]
            name = f"{model.name}-{version}"
            model.save(folder / f"{name}.h5")
            first = "input_1" if k is tf_keras else "input_layer"
            inputs_of = [first] if make is images else ["picture", "facts"]
            outputs_of = ["digit"] if make is images else ["score", "table"]
            answers[name] = {
                "inputs": {each: value.tolist() for each, value in zip(inputs_of, inputs, strict=True)},
                "outputs": {
                    each: np.asarray(value).tolist() for each, value in zip(outputs_of, outputs, strict=True)
                },
            }
    model = keras.Sequential(
        [keras.layers.InputLayer(shape=(4,)), keras.layers.Embedding(9, 2, name="words")]
    )
    model.save(folder / "embedding.h5")
    model.save_weights(folder / "only.weights.h5")
    model.save(folder / "new.keras")
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
